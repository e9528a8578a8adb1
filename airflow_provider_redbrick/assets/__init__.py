"""Stages of projects as Airflow's assets: what DAGs are scheduled on, and what operators say they have changed."""
