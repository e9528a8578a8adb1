"""RedBrick over GraphQL: transport, documents, value objects and one method per operation. Knows nothing of Airflow."""
