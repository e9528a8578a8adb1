"""Run a labeling project from start to end with Airflow, on real medical images."""

from __future__ import annotations

import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

import pendulum

from demo.board import counts, draw
from demo.console import say
from demo.places import HOME, airflow_environment
from demo.sandbox import Sandbox
from demo.studies import put_into_folder

if TYPE_CHECKING:
    from demo.airflow_runs import Runs

TASKS = 24
NEW_STUDIES = 12


def main() -> None:
    """Start the sandbox and run all steps."""
    started = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    with Sandbox(tasks=TASKS) as sandbox:
        os.environ.update(airflow_environment(sandbox.ready["airflow_conn_uri"]))
        say(f"A RedBrick sandbox runs at {sandbox.url} (open it to watch the board).")
        say("Starting Airflow ...")
        # Not at module level: Airflow reads its environment when it is imported.
        from demo.airflow_runs import Runs

        run_steps(sandbox, Runs())
        say(f"\nDone in {time.monotonic() - started:.0f} s. The same board in a browser, and the Airflow UI: make ui")


def run_steps(sandbox: Sandbox, airflow: Runs) -> None:
    """Alternate between DAG runs and simulated people, and show the board each time.

    :param sandbox: the running sandbox.
    :param airflow: runs the example DAGs.
    """
    step(sandbox, f"{TASKS} new studies (real DICOM and NIfTI images) wait in Label.")

    manifests = airflow.run("prelabel_new_tasks")
    step(sandbox, f"1. A threshold model saved boxes as drafts: {counts(manifests)}.")

    manifests = airflow.run("share_the_queue")
    step(sandbox, f"2. The queue is shared among three people: {counts(manifests)}.")

    say("\n3. People label, while a sensor waits for ten tasks in review; then rules review them ...")
    with people_at_work(sandbox, "Label"):
        manifests = airflow.run("auto_review_when_long")
    step(sandbox, f"   Rules reviewed the waiting tasks: {counts(manifests)}.")

    sandbox.people("Label", limit=TASKS)
    settle()
    sandbox.people("Review_1", limit=TASKS, accept_ratio=1.0)
    settle()
    step(sandbox, "4. People finished the rest.")

    # A manual run uses the last complete interval before its date. With the coming midnight, that is today.
    tonight = pendulum.tomorrow("UTC")
    manifests = airflow.run("correct_ground_truth", logical_date=tonight)
    step(sandbox, f"5. Ground truth with boxes that are too large was reopened: {counts(manifests)}.")

    sandbox.people("Label", limit=TASKS)
    settle()
    sandbox.people("Review_1", limit=TASKS, accept_ratio=1.0)
    settle()
    manifests = airflow.run("correct_ground_truth", logical_date=tonight)
    step(sandbox, f"6. People corrected it. The same check finds: {counts(manifests)}.")

    folder = put_into_folder(NEW_STUDIES)
    manifests = airflow.run("new_studies", folder=folder)
    step(sandbox, f"7. {NEW_STUDIES} files arrived in {folder.name}/ and became tasks: {counts(manifests)}.")

    manifests = airflow.run("new_studies", folder=folder)
    say(f"   A second run creates no duplicates: {counts(manifests)}.")

    manifests = airflow.run("prelabel_in_parallel")
    step(sandbox, f"8. Mapped tasks prelabeled them: {counts(manifests)}.")

    manifests = airflow.run("export_ground_truth", folder=HOME / "ground-truth")
    say(f"\n9. Ground truth, as JSON Lines for a training job: {counts(manifests)}, in {manifests[0]['uri']}")


def step(sandbox: Sandbox, message: str) -> None:
    """Print a message and the board.

    :param sandbox: the sandbox whose board is shown.
    :param message: the result of the step.
    """
    settle()
    say(f"\n{message}\n{draw(sandbox.board())}")


def settle() -> None:
    """Wait until no task is between two stages."""
    time.sleep(1.0)


class people_at_work:  # noqa: N801 - a context manager, used like a function
    """Let simulated people submit tasks every two seconds while the context is open.

    :param sandbox: the sandbox whose people work.
    :param stage: the stage in which they work.
    """

    def __init__(self, sandbox: Sandbox, stage: str) -> None:
        self._sandbox, self._stage = sandbox, stage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while not self._stop.wait(2.0):
            self._sandbox.people(self._stage, limit=3)
            say(f"    ... {self._sandbox.count('Review_1')} tasks wait for review")


if __name__ == "__main__":
    main()
