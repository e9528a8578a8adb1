"""The demo: `make demo` runs it, and `make ui` starts the sandbox and Airflow."""
