"""Triggers of the deferrable sensors and of asset watchers."""
