"""What the operators do, one module per operation. Imports nothing of Airflow."""
