"""Triggers: polls off the event loop, with ids and the connection's id; what event triggers remember, Airflow keeps."""
