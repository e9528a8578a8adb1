"""RedBrick over GraphQL. Imports nothing of Airflow."""
