"""Links with an object storage XCom backend. The UI reads links from Airflow's database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fixtures
import pytest
from airflow_versions import BEFORE_3_1

DAG_FILE = """
import json, os, sqlite3
from pathlib import Path
import pendulum
from airflow.sdk import dag, task
from airflow_provider_redbrick.links import RedBrickProjectLink, RedBrickTaskLink
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

HOME = Path(os.environ["AIRFLOW_HOME"])


def links(name):
    keys = RedBrickProjectLink().xcom_key, RedBrickTaskLink().xcom_key
    with sqlite3.connect(HOME / "airflow.db") as database:
        rows = database.execute("select task_id, map_index, key, value from xcom where key in (?, ?)", keys).fetchall()
    (HOME / name).write_text(json.dumps(rows))


class Looking(RedBrickListTasksOperator):
    def execute(self, context):
        links("at-work.json")
        return super().execute(context)


class Waiting(RedBrickTasksSensor):
    def execute(self, context):
        links("waiting.json")
        return True


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"))
def linked():
    @task
    def look():
        links("afterwards.json")

    ids = [[os.environ["TASK_ID"]]]
    waiting = Waiting.partial(task_id="wait", left_stage="Output").expand(task_ids=ids)
    Looking(task_id="list", stage_name="Label") >> waiting >> look()


linked()
"""

RUN = """
import sys
from pathlib import Path
from airflow.utils.db import initdb
initdb()
from airflow_versions import dag_bag, run
bag = dag_bag(Path(sys.argv[1]), "linked")
assert not bag.import_errors, bag.import_errors
assert str(run(bag.dags["linked"]).state) == "success"
"""


@pytest.mark.skipif(BEFORE_3_1, reason="this Airflow's DAG.test does not run tasks as its workers do")
def test_links_are_stored_in_the_database_with_custom_xcom_backend(sandbox, tmp_path):
    home, dags, values = tmp_path / "home", tmp_path / "dags", tmp_path / "values"
    for folder in (home, dags, values):
        folder.mkdir()
    (dags / "linked.py").write_text(DAG_FILE)
    (task_id,) = sandbox.seed_tasks(1)
    kind = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": "linked", "classpath": kind, "kwargs": {"path": str(dags)}}]
    mine = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": values.as_uri(),
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW_CONN_REDBRICK_DEFAULT": sandbox.airflow_conn_uri,
        "TASK_ID": task_id,
        "PYTHONPATH": os.pathsep.join([str(Path(fixtures.__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(dags)],
        env={**os.environ, **mine},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(path.is_file() for path in values.rglob("*"))
    project = f"{sandbox.url}/?project={sandbox.project_id}"
    for name in ("at-work.json", "waiting.json", "afterwards.json"):
        found = [(task, key, json.loads(value)) for task, _, key, value in json.loads((home / name).read_text())]
        assert ("list", project) in {(task, value) for task, _, value in found}, name
        assert {value for *_, value in found} <= {project, f"{project}&taskId={task_id}", ""}, name
    assert ("wait", f"{project}&taskId={task_id}") in {(task, value) for task, _, value in found}
