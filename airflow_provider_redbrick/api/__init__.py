"""RedBrick API client: transport, GraphQL documents, models and operations."""
