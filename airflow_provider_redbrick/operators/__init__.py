"""Operators for RedBrick tasks.

Airflow imports these modules whenever it parses a DAG. Imports that only a run needs are therefore in ``execute``.
"""
