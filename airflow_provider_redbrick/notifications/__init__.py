"""Messages about RedBrick for Airflow's callbacks and deadlines."""
