"""Typed values read from answers."""
