"""Take screenshots of Airflow's pages for the documentation: ``make screenshots``.

A sandbox whose people work for two minutes, and the example DAGs in a running Airflow.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from airflow_processes import AirflowProcesses
from browser import Window, started
from sandbox_process import SandboxProcess

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "images"
TURNS = 10
LOOK_SECONDS = 10.0
"""The poll interval of the page."""


def main() -> None:
    """Take all screenshots."""
    with tempfile.TemporaryDirectory() as folder:
        home, profile = Path(folder) / "airflow", Path(folder) / "browser"
        home.mkdir()
        profile.mkdir()
        with SandboxProcess(demo_tasks=48) as sandbox, started(profile) as driver:
            airflow = AirflowProcesses(home, sandbox, ROOT / "example_dags")
            airflow.environment["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "True"
            with airflow:
                airflow.wait_until_ready()
                window = Window(driver, airflow.url)
                take_connection_form(window)
                take_plugin_page(window, airflow, sandbox)


def take_plugin_page(window: Window, airflow: AirflowProcesses, sandbox: SandboxProcess) -> None:
    """Let people and DAGs work while the page is open."""
    window.driver.set_window_size(1280, 960)
    window.open("/plugin/redbrick")
    _run(airflow, "prelabel_new_tasks")
    _run(airflow, "record_queues")
    for turn in range(TURNS):
        airflow.trigger("record_queues")
        sandbox.humans("Label", 1 + turn % 4)
        sandbox.humans("Review_1", 3 * (turn % 2), accept_ratio=0.6)
        time.sleep(LOOK_SECONDS)
    _run(airflow, "share_the_queue")
    time.sleep(2 * LOOK_SECONDS)
    window.into_the_page()
    window.find(".stage .course")
    window.driver.switch_to.default_content()
    path = PICTURES / "plugin-page.png"
    window.driver.save_screenshot(str(path))
    sys.stdout.write(f"{path}\n")


def _run(airflow: AirflowProcesses, dag: str) -> None:
    """Wait for the run of a scheduled DAG."""
    path = f"dags/{dag}"
    airflow.wait(f"known: {dag}", lambda: airflow.ask(path) is not None)
    airflow.http.patch(f"{airflow.url}/api/v2/{path}", json={"is_paused": False}, timeout=20).raise_for_status()

    def is_over() -> bool:
        runs = (airflow.ask(f"{path}/dagRuns") or {}).get("dag_runs", [])
        return bool(runs) and all(run["state"] == "success" for run in runs)

    airflow.wait(f"over: {dag}", is_over, seconds=120)


def take_connection_form(window: Window) -> None:
    """Open the connection form."""
    window.open_connection_form("redbrick")
    window.find("input[name=connection_id]").send_keys("redbrick_default")
    window.named("Extra Fields", "button").click()
    window.until("our fields", lambda: "Organization ID" in window.text())
    window.driver.set_window_size(1280, 2000)
    time.sleep(1)
    path = PICTURES / "connection-form.png"
    window.find("[role=dialog]").screenshot(str(path))
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
