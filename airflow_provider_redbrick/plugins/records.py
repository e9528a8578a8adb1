"""What the page reads from Airflow's own database, and the samples it keeps there."""

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
from airflow_provider_redbrick.plugins.board import Moved, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DAYS = 7
"""How long ago a run may be to be shown."""
_MOST_INSTANCES = 200
_MOST_CONNECTIONS = 50
# The value that was returned, or what is left of a task that failed.
_MANIFESTS = ("return_value", "manifest")


def moved_in(project_id: str) -> list[Moved]:
    """Return what Airflow tasks did in a project lately, the latest first.

    They are found by the link that all operators of this provider leave, for there is an index of XComs' keys.
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
    return [one for row in rows if (one := _moved(row)) is not None]


def _moved(row: Any) -> Moved | None:
    found = read_manifest(row.value)
    if found is None:
        return None
    operation, stage_name, counts = found
    state = str(getattr(row.state, "value", row.state) or "")
    mapped = row.map_index >= 0
    return Moved(row.dag_id, row.run_id, row.task_id, mapped, row.timestamp, state, operation, stage_name, counts)


def redbrick_connections() -> list[str]:
    """Return the ids of the RedBrick connections that are kept in Airflow's database."""
    query = select(Connection.conn_id).where(Connection.conn_type == "redbrick").order_by(Connection.conn_id)
    with create_session() as session:
        return [str(found) for found in session.scalars(query.limit(_MOST_CONNECTIONS))]


def courses_of(project_id: str, counts: Mapping[str, int], *, days: float) -> samples.Courses:
    """Return how long a project's queues were in the last days, with what was counted now; keep that.

    :param counts: by the public name of each stage.
    """
    now = int(time.time())
    name = f"redbrick_queues_{project_id}"
    with create_session() as session:
        kept = session.scalar(select(Variable).where(Variable.key == name))
        known = samples.read(kept.get_val() if kept is not None else None)
        courses = samples.add(known, counts, now=now, days=days)
        if samples.is_due(known, counts, now=now):
            if kept is None:
                words = "How long RedBrick queues were, for the page RedBrick."
                kept = Variable(key=name, description=words)  # type: ignore[no-untyped-call]
                session.add(kept)
            kept.set_val(samples.written(courses))
    return courses


def only_of(moved: Iterable[Moved], dag_ids: set[str]) -> list[Moved]:
    """Return what DAGs that somebody may see have done."""
    return [one for one in moved if one.dag_id in dag_ids]
