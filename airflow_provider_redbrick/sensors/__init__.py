"""Sensors: wait until a queue or tasks are where they should be."""
