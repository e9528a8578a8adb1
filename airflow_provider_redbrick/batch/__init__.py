"""Doing one thing to many tasks, exactly once."""
