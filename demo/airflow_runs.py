"""Run the example DAGs with Airflow in this process, and redirect its output."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pendulum

from demo.console import say
from demo.places import AIRFLOW_LOG, DAGS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Runs:
    """The loaded example DAGs, which run one at a time."""

    def __init__(self) -> None:
        with _output_to_log():
            # Not at module level: Airflow reads its environment when it is imported.
            from airflow.dag_processing.dagbag import DagBag
            from airflow.utils.db import initdb

            initdb()
            # Airflow's own processes do the same for a DAG folder.
            sys.path.insert(0, str(DAGS))
            self._bag: Any = DagBag(str(DAGS))
        if self._bag.import_errors:
            raise SystemExit(f"The example DAGs cannot be parsed: {self._bag.import_errors}")

    def run(
        self, dag_id: str, *, logical_date: pendulum.DateTime | None = None, folder: Path | None = None
    ) -> list[dict[str, Any]]:
        """Run a DAG and return the manifests of its tasks.

        :param dag_id: the example DAG.
        :param logical_date: the logical date of the run; now by default.
        :param folder: the run's parameter `folder`.
        :raises SystemExit: if the run failed, with the end of Airflow's log.
        """
        say(f"    Airflow runs {dag_id} ...")
        started = time.monotonic()
        with _output_to_log():
            conf = {"folder": str(folder)} if folder else None
            run = self._bag.dags[dag_id].test(logical_date=logical_date or pendulum.now("UTC"), run_conf=conf)
            instances = run.get_task_instances()
            results = [
                instance.xcom_pull(task_ids=instance.task_id, map_indexes=instance.map_index) for instance in instances
            ]
        say(f"    ... {run.state}: {len(instances)} Airflow tasks, {time.monotonic() - started:.0f} s")
        if run.state != "success":
            tail = AIRFLOW_LOG.read_text(errors="replace").splitlines()[-40:]
            raise SystemExit("\n".join([*tail, f"{dag_id} failed. The complete log is in {AIRFLOW_LOG}."]))
        return [result for result in results if isinstance(result, dict) and "counts" in result]


@contextmanager
def _output_to_log() -> Iterator[None]:
    """Redirect standard output and error to the log, including child processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with AIRFLOW_LOG.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
