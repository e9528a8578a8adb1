"""Queue history and recent runs, in Airflow's own database.

Design note on queue history:

1. Neither RedBrick nor Airflow records queue lengths. The API server samples them, and stores one Variable per project:
   all API servers share it, and it survives restarts.
2. Samples are thinned out with age, and dropped after ``days``. At most ``MOST`` samples per stage are stored.
3. A background thread samples the projects of ``boards``. Others are sampled only while their page is open.
4. A Variable with invalid content is treated as empty.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.models.connection import Connection
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select
from sqlalchemy.orm import aliased

from airflow_provider_redbrick.links.redbrick import RedBrickProjectLink
from airflow_provider_redbrick.plugins import samples
from airflow_provider_redbrick.plugins.board import TaskActivity, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DAYS = 7
"""Days of runs that the page shows."""
_MOST_INSTANCES = 200
_MOST_CONNECTIONS = 50
# XCom keys: the returned value, and the manifest of a failed task.
_MANIFESTS = ("return_value", "manifest")


def list_activity(project_id: str) -> list[TaskActivity]:
    """Return what Airflow tasks recently did in a project, the latest first.

    They are found by the link that all operators of this provider store, because XCom keys are indexed.
    """
    link, manifest = aliased(XComModel), aliased(XComModel)
    same_task = (
        manifest.dag_run_id == link.dag_run_id,
        manifest.task_id == link.task_id,
        manifest.map_index == link.map_index,
    )
    instance = (
        TaskInstance.dag_id == link.dag_id,
        TaskInstance.run_id == link.run_id,
        TaskInstance.task_id == link.task_id,
        TaskInstance.map_index == link.map_index,
    )
    query = (
        select(link.dag_id, link.run_id, link.task_id, link.map_index, manifest.timestamp, manifest.value)
        .add_columns(TaskInstance.state)
        .join(manifest, and_(*same_task))
        .join(TaskInstance, and_(*instance))
        .where(link.key == RedBrickProjectLink().xcom_key)
        .where(link.timestamp >= pendulum.now("UTC") - timedelta(days=DAYS))
        .where(manifest.key.in_(_MANIFESTS))
        .where(manifest.value["project_id"].as_string() == project_id)
        .order_by(link.timestamp.desc())
        .limit(_MOST_INSTANCES)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    return [activity for row in rows if (activity := _moved(row)) is not None]


def _moved(row: Any) -> TaskActivity | None:
    manifest = read_manifest(row.value)
    if manifest is None:
        return None
    operation, stage_name, counts = manifest
    state = str(getattr(row.state, "value", row.state) or "")
    mapped = row.map_index >= 0
    return TaskActivity(
        row.dag_id, row.run_id, row.task_id, mapped, row.timestamp, state, operation, stage_name, counts
    )


def redbrick_connections() -> list[str]:
    """Return the ids of the RedBrick connections in Airflow's database."""
    query = select(Connection.conn_id).where(Connection.conn_type == "redbrick").order_by(Connection.conn_id)
    with create_session() as session:
        return [str(conn_id) for conn_id in session.scalars(query.limit(_MOST_CONNECTIONS))]


def update_history(project_id: str, counts: Mapping[str, int], *, days: float) -> samples.Courses:
    """Return a project's queue history including the given counts, and store it.

    :param project_id: the project's UUID.
    :param counts: the current number of tasks by public stage name.
    :param days: days of history to keep.
    """
    now = int(time.time())
    name = f"redbrick_queues_{project_id}"
    with create_session() as session:
        kept = session.scalar(select(Variable).where(Variable.key == name))
        known = samples.read(kept.get_val() if kept is not None else None)
        courses = samples.add(known, counts, now=now, days=days)
        if samples.is_due(known, counts, now=now):
            if kept is None:
                description = "Queue history for the RedBrick page."
                kept = Variable(key=name, description=description)  # type: ignore[no-untyped-call]
                session.add(kept)
            kept.set_val(samples.written(courses))
    return courses


def filter_by_dags(moved: Iterable[TaskActivity], dag_ids: set[str]) -> list[TaskActivity]:
    """Return the activity of DAGs that a user may see.

    :param moved: the activity of all DAGs.
    :param dag_ids: the ids of the DAGs that the user may see.
    """
    return [activity for activity in moved if activity.dag_id in dag_ids]
