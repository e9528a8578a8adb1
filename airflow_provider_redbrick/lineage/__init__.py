"""OpenLineage lineage of operators: source and target stages."""
