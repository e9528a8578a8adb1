"""A local RedBrick server for demos and tests."""
