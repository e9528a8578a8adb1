"""A labelling project's whole life, driven by Airflow, on real medical images."""

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
    """Tell the story, step by step."""
    started = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    with Sandbox(tasks=TASKS) as sandbox:
        os.environ.update(airflow_environment(sandbox.ready["airflow_conn_uri"]))
        say(f"A RedBrick sandbox runs at {sandbox.url} (open it to watch the board move).")
        say("Starting Airflow ...")
        # Only now: Airflow reads its environment when it is imported.
        from demo.airflow_runs import Runs

        story(sandbox, Runs())
        say(f"\nDone in {time.monotonic() - started:.0f} s. The same board in a browser, and the Airflow UI: make ui")


def story(sandbox: Sandbox, airflow: Runs) -> None:
    """Let Airflow and the people work in turn, and show the board after each step."""
    step(sandbox, f"{TASKS} new studies (real DICOM and NIfTI images) wait in Label.")

    made = airflow.run("prelabel_new_tasks")
    step(sandbox, f"1. A threshold model has put boxes on them, as drafts for people: {counts(made)}.")

    made = airflow.run("share_the_queue")
    step(sandbox, f"2. The queue is shared among three people: {counts(made)}.")

    say("\n3. People label, while a sensor waits for ten tasks in review; then rules review them ...")
    with people_at_work(sandbox, "Label"):
        made = airflow.run("auto_review_when_long")
    step(sandbox, f"   Rules have reviewed what was there: {counts(made)}.")

    sandbox.people("Label", limit=TASKS)
    settle()
    sandbox.people("Review_1", limit=TASKS, accept_ratio=1.0)
    settle()
    step(sandbox, "4. People have finished the rest, by hand.")

    # A run by hand has the last interval that is over by its date: at midnight to come, that is today.
    tonight = pendulum.tomorrow("UTC")
    made = airflow.run("correct_ground_truth", logical_date=tonight)
    step(sandbox, f"5. Ground truth with boxes that are too large is sent back: {counts(made)}.")

    sandbox.people("Label", limit=TASKS)
    settle()
    sandbox.people("Review_1", limit=TASKS, accept_ratio=1.0)
    settle()
    made = airflow.run("correct_ground_truth", logical_date=tonight)
    step(sandbox, f"6. People have corrected it; the same check, run again, finds {counts(made)}.")

    folder = put_into_folder(NEW_STUDIES)
    made = airflow.run("new_studies", folder=folder)
    step(sandbox, f"7. {NEW_STUDIES} files have arrived in {folder.name}/ and become tasks: {counts(made)}.")

    made = airflow.run("new_studies", folder=folder)
    say(f"   Run again, it makes none of them twice: {counts(made)}.")

    made = airflow.run("prelabel_in_parallel")
    step(sandbox, f"8. They were prelabelled by mapped tasks: {counts(made)}.")

    made = airflow.run("export_ground_truth", folder=HOME / "ground-truth")
    say(f"\n9. Ground truth, as JSON Lines for a training job: {counts(made)}, in {made[0]['uri']}")


def step(sandbox: Sandbox, words: str) -> None:
    """Say what has happened and show the board."""
    settle()
    say(f"\n{words}\n{draw(sandbox.board())}")


def settle() -> None:
    """Wait until no task is on its way between two stages."""
    time.sleep(1.0)


class people_at_work:  # noqa: N801 - reads as what it is
    """Let the people submit a few tasks every second until left."""

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
