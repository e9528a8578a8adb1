"""Annotations: pure functions over plain data."""
