"""Apache Airflow provider for RedBrick AI.

Imports nothing: Airflow imports this package in each of its processes.
"""

__version__ = "1.0.0"
