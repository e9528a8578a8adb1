"""Links from an Airflow task to what it is about in RedBrick's web app."""
