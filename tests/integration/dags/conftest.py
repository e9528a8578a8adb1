"""Airflow itself: a database of its own, DAG files in folders, and DAG runs in this process."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import airflow_versions
import pendulum
import pytest
from fixtures import holders, running_sandbox, sandbox

__all__ = ["holders", "running_sandbox", "sandbox"]

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = Path(tempfile.mkdtemp(prefix="quickstart-"))
atexit.register(shutil.rmtree, QUICKSTART, ignore_errors=True)
FOLDERS = {"scenarios": Path(__file__).parent / "bag", "examples": ROOT / "example_dags", "quickstart": QUICKSTART}


@pytest.fixture(scope="session")
def airflow():
    """Make the database once, and tell Airflow where the DAG files are; the quickstart's is in the document."""
    page = (ROOT / "docs" / "quickstart.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (QUICKSTART / "first_dag.py").write_text(snippet)
    kind = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": name, "classpath": kind, "kwargs": {"path": str(path)}} for name, path in FOLDERS.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))
        from airflow.utils.db import initdb

        initdb()
        yield


@pytest.fixture(scope="session")
def bags(airflow):
    """The DAG files of each folder, parsed as Airflow parses them."""
    return {name: airflow_versions.dag_bag(path, name) for name, path in FOLDERS.items()}


class Ran:
    """A DAG run that has ended."""

    def __init__(self, run: Any) -> None:
        self.dag_id, self.run_id = run.dag_id, run.run_id
        self.state = str(run.state)
        self.instances = {(ti.task_id, ti.map_index): ti for ti in run.get_task_instances()}
        self.data_interval = run.data_interval_start, run.data_interval_end

    def task(self, task_id: str, map_index: int = -1) -> Any:
        return self.instances[task_id, map_index]

    def mapped(self, task_id: str) -> list[Any]:
        return [ti for (name, index), ti in sorted(self.instances.items()) if name == task_id and index >= 0]

    def returned(self, task_id: str, map_index: int = -1) -> Any:
        return self.task(task_id, map_index).xcom_pull(task_ids=task_id, map_indexes=map_index)

    def states(self) -> dict[str, str]:
        return {name: str(ti.state) for (name, _), ti in self.instances.items()}


@pytest.fixture
def run_dag(bags, sandbox):
    """Let Airflow run a DAG to its end: ``run_dag("share_the_queue").returned("share")``."""
    start = pendulum.datetime(2026, 2, 1)
    moments = iter(start.add(minutes=minute) for minute in range(100_000))

    def run(dag_id: str, *, at: pendulum.DateTime | None = None, conf: dict[str, Any] | None = None, **how: Any) -> Ran:
        (dag,) = (bag.dags[dag_id] for bag in bags.values() if dag_id in bag.dags)
        return Ran(airflow_versions.run(dag, **{"logical_date": at or next(moments), "run_conf": conf, **how}))

    return run


@pytest.fixture
def run_without_date(run_dag, monkeypatch):
    """Let Airflow run a DAG as an event or a person starts it; ``DAG.test`` would remove the last such run."""

    def made(*, dag: Any, **how: Any) -> Any:
        return dag.create_dagrun(**how, run_type="manual", state="running")

    def run(dag_id: str, **how: Any) -> Ran:
        with monkeypatch.context() as patch:
            patch.setattr("airflow.models.dagrun.get_or_create_dagrun", made)
            return run_dag(dag_id, logical_date=None, **how)

    return run


@pytest.fixture
def run_again(run_dag, monkeypatch):
    """Clear all tasks of a run, or some, and let it run again: ``run_again(ran, "export")``."""

    def again(ran: Ran, *task_ids: str) -> Ran:
        from airflow.models import dagrun
        from airflow.models.taskinstance import clear_task_instances

        def cleared(*, dag: Any, session: Any, **_: Any) -> Any:
            (run,) = session.query(dagrun.DagRun).filter_by(dag_id=ran.dag_id, run_id=ran.run_id)
            instances = run.get_task_instances(session=session)
            clear_task_instances([ti for ti in instances if not task_ids or ti.task_id in task_ids], session)
            run.dag, run.state = dag, "running"
            session.commit()
            return run

        with monkeypatch.context() as patch:
            patch.setattr(dagrun, "get_or_create_dagrun", cleared)
            return run_dag(ran.dag_id)

    return again
