"""A local RedBrick server for demos and tests."""

__version__ = "1.0.0"
