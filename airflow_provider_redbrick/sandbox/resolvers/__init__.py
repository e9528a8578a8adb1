"""The root fields of the schema, by subject: each module has a QUERIES and a MUTATIONS table."""
