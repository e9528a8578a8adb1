"""Resolvers of the root fields.

Each module has a table QUERIES, MUTATIONS or both.
"""
