"""Run the Airflow UI with the example DAGs and the sandbox until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from demo.console import say
from demo.places import HOME, ROOT, airflow_environment
from demo.sandbox import Sandbox

AIRFLOW_PORT = "8080"


def main() -> None:
    """Start the sandbox and Airflow, and wait."""
    HOME.mkdir(parents=True, exist_ok=True)
    # A shell's background job ignores Ctrl-C, and its children inherit that. Restore the default for both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Sandbox(tasks=24) as sandbox:
        environment = {
            **os.environ,
            **airflow_environment(sandbox.ready["airflow_conn_uri"]),
            # No login, because it listens on this machine only.
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": AIRFLOW_PORT,
            "AIRFLOW__API__BASE_URL": f"http://localhost:{AIRFLOW_PORT}",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        }
        airflow = str(ROOT / ".venv" / "bin" / "airflow")
        say(f"The board: {sandbox.url}\nAirflow:   http://localhost:{AIRFLOW_PORT} (in about half a minute)")
        say("Ctrl-C stops both.")
        with (HOME / "airflow-ui.log").open("a") as log:
            process = subprocess.Popen(
                [airflow, "standalone"],
                env=environment,
                stdout=log,
                stderr=log,
            )
            try:
                sys.exit(process.wait())
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=60)


if __name__ == "__main__":
    main()
