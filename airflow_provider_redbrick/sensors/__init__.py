"""Sensors that wait for a queue's length or for tasks to move."""
