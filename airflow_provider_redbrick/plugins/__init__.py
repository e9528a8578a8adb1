"""What this provider adds to Airflow's own server: a page that shows projects, and a door for RedBrick's webhook."""
