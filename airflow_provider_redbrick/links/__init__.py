"""Operator links to RedBrick's web app."""
