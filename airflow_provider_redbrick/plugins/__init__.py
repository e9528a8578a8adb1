"""Airflow plugin: the RedBrick page and the webhook endpoint."""
