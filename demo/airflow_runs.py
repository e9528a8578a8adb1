"""Airflow itself runs the example DAGs, in this process, its own output kept apart."""

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
    """Example DAGs, ready to run one after the other."""

    def __init__(self) -> None:
        with _output_to_log():
            # Only now: Airflow reads its environment when it is imported.
            from airflow.dag_processing.dagbag import DagBag
            from airflow.utils.db import initdb

            initdb()
            # As Airflow's own processes do for a folder of DAGs.
            sys.path.insert(0, str(DAGS))
            self._bag: Any = DagBag(str(DAGS))
        if self._bag.import_errors:
            raise SystemExit(f"The example DAGs cannot be read: {self._bag.import_errors}")

    def run(
        self, dag_id: str, *, logical_date: pendulum.DateTime | None = None, folder: Path | None = None
    ) -> list[dict[str, Any]]:
        """Run a DAG to its end and return the manifests its tasks returned.

        :param folder: the run's parameter of this name.
        :raises SystemExit: when the run failed, with the end of Airflow's log.
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
            raise SystemExit("\n".join([*tail, f"{dag_id} failed; the whole log is in {AIRFLOW_LOG}."]))
        return [result for result in results if isinstance(result, dict) and "counts" in result]


@contextmanager
def _output_to_log() -> Iterator[None]:
    """Send everything that is written to standard output and error to the log, whoever writes it."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with AIRFLOW_LOG.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])
