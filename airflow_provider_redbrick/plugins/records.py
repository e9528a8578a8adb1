"""Records of a project in Airflow's own database: queue history, recent runs, connections.

Design note:

1. Neither RedBrick nor Airflow records queue lengths by itself. A DAG does, as events of the project's asset:
   ``extra["queues"]`` has the number of tasks by public stage name. ``example_dags/record_queues.py`` is such a DAG.
2. Events of stage assets are no history. They are sent when a queue grows, so a line through them would hide that it
   shrank. Nor can a schedule record queues as their events: each one would start the DAGs that wait for the stage.
3. Any DAG may send events, so their content is untrusted.
4. Runs are found by the links and manifests that this provider's operators store as XComs.
5. Everything is limited in time and number, because the page is read often.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pendulum
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.connection import Connection
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select
from sqlalchemy.orm import aliased

from airflow_provider_redbrick.assets.stages import project_uri
from airflow_provider_redbrick.links import RedBrickProjectLink
from airflow_provider_redbrick.plugins.project_view import Sample, TaskActivity, read_manifest

# The page shows history and runs of these last days.
DAYS = 7
# One event every 5 minutes for the whole period.
_MAX_EVENTS = DAYS * 288
_MAX_INSTANCES = 200
_MAX_CONNECTIONS = 50
# XCom keys: the returned value, and the manifest of a failed task.
_MANIFEST_KEYS = ("return_value", "manifest")


def list_samples(org_id: str, project_id: str) -> dict[str, list[Sample]]:
    """Return a project's recorded queue lengths by public stage name, oldest first.

    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    """
    query = (
        select(AssetEvent.timestamp, AssetEvent.extra)
        .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        .where(AssetModel.uri == project_uri(org_id=org_id, project_id=project_id))
        .where(AssetEvent.timestamp >= _oldest())
        .order_by(AssetEvent.timestamp.desc())
        .limit(_MAX_EVENTS)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    history: dict[str, list[Sample]] = {}
    for at, extra in reversed(rows):
        for stage_name, count in read_queues(extra).items():
            history.setdefault(stage_name, []).append((int(at.timestamp()), count))
    return history


def read_queues(extra: object) -> dict[str, int]:
    """Return the queue lengths in an event's extra; empty for other events."""
    queues = extra.get("queues") if isinstance(extra, Mapping) else None
    if not isinstance(queues, Mapping):
        return {}
    return {
        str(stage_name): count
        for stage_name, count in queues.items()
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0
    }


def _oldest() -> pendulum.DateTime:
    return pendulum.now("UTC") - timedelta(days=DAYS)


def list_activity(project_id: str) -> list[TaskActivity]:
    """Return the recent activity of Airflow tasks in a project, the latest first.

    The tasks are found by the link that all operators of this provider store, because XCom keys are indexed.
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
        .where(link.timestamp >= _oldest())
        .where(manifest.key.in_(_MANIFEST_KEYS))
        .where(manifest.value["project_id"].as_string() == project_id)
        .order_by(link.timestamp.desc())
        .limit(_MAX_INSTANCES)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    return [activity for row in rows if (activity := _activity(row)) is not None]


def _activity(row: Any) -> TaskActivity | None:
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
        return [str(conn_id) for conn_id in session.scalars(query.limit(_MAX_CONNECTIONS))]
