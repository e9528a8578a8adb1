"""Apache Airflow provider for RedBrick AI.

Nothing is imported here: Airflow imports this package in every one of its processes.
"""

__version__ = "1.0.0"
