"""Lineage: which stage's tasks an Airflow task took, and where they went, as OpenLineage tells it."""
