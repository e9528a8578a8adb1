"""Triggers: polls off the event loop, with ids and the connection's id and nothing else to remember."""
