"""Stages as Airflow assets: DAG schedules and operator outlets."""
