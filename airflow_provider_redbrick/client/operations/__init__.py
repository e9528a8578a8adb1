"""One function per API operation, and the GraphQL documents."""
