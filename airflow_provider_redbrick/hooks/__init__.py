"""The seam between Airflow and the rest."""
