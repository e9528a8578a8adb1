"""Hooks: from an Airflow connection to a RedBrick client, and input validation."""
