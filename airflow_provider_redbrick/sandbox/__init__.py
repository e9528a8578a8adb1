"""A local RedBrick AI: GraphQL API, workflow, storage and people, on one machine, for demos and tests."""
