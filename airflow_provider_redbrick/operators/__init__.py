"""Operators: each says what is to happen to which tasks; how is the batch room's business.

Airflow imports these modules whenever it parses a DAG, which is often: what only running needs is imported where it
runs.
"""
