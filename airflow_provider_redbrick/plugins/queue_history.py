"""Queue history and recent runs, in Airflow's own database.

Design note on queue history:

1. Neither RedBrick nor Airflow records queue lengths. The API server samples them, and stores one Variable per project:
   all API servers share it, and it survives restarts.
2. Samples are thinned out with age, and dropped after ``days``. At most ``MOST`` samples per stage are stored.
3. A background thread samples the projects of ``boards``. Others are sampled only while their page is open.
4. A Variable with invalid content is treated as empty.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.models.connection import Connection
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select
from sqlalchemy.orm import aliased

from airflow_provider_redbrick.links import RedBrickProjectLink
from airflow_provider_redbrick.plugins.project_view import PageHook, Sample, TaskActivity, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_redbrick.plugins.access import Choice


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


def update_history(project_id: str, counts: Mapping[str, int], *, days: float) -> Courses:
    """Return a project's queue history including the given counts, and store it.

    :param project_id: the project's UUID.
    :param counts: the current number of tasks by public stage name.
    :param days: days of history to keep.
    """
    now = int(time.time())
    name = f"redbrick_queues_{project_id}"
    with create_session() as session:
        kept = session.scalar(select(Variable).where(Variable.key == name))
        known = read(kept.get_val() if kept is not None else None)
        courses = add(known, counts, now=now, days=days)
        if is_due(known, counts, now=now):
            if kept is None:
                description = "Queue history for the RedBrick page."
                kept = Variable(key=name, description=description)  # type: ignore[no-untyped-call]
                session.add(kept)
            kept.set_val(written(courses))
    return courses


def filter_by_dags(moved: Iterable[TaskActivity], dag_ids: set[str]) -> list[TaskActivity]:
    """Return the activity of DAGs that a user may see.

    :param moved: the activity of all DAGs.
    :param dag_ids: the ids of the DAGs that the user may see.
    """
    return [activity for activity in moved if activity.dag_id in dag_ids]


LEAST_STEP = 10
"""Minimum seconds between two kept samples."""
PARTS = 100
"""Resolution of the drawn line. The minimum distance of samples is their age divided by this."""
MOST = 1_000
"""Maximum number of kept samples per stage."""
WRITTEN_AFTER = 30
"""Minimum seconds between two writes when queues have changed; 20 times as many without a change."""

Courses = Mapping[str, Sequence[Sample]]


def add(courses: Courses, counts: Mapping[str, int], *, now: int, days: float) -> dict[str, list[Sample]]:
    """Return the history with the given counts added, thinned out.

    :param courses: the history by public stage name.
    :param counts: the current number of tasks by public stage name.
    :param now: the current time in epoch seconds.
    :param days: older samples are dropped.
    """
    oldest = now - days * 86_400
    return {
        name: _thinned([*(sample for sample in courses.get(name, ()) if oldest <= sample[0] < now), (now, count)])
        for name, count in counts.items()
    }


def _thinned(samples: Sequence[Sample]) -> list[Sample]:
    """Return the first and last samples, and others more densely the newer they are.

    Of a stretch with a constant length, only the ends are kept.
    """
    now = samples[-1][0]
    kept = [samples[0]]
    for at, count in samples[1:]:
        if len(kept) >= 2 and kept[-2][1] == kept[-1][1] == count:
            kept[-1] = (at, count)
        elif at == now or at - kept[-1][0] >= max(LEAST_STEP, (now - at) / PARTS):
            kept.append((at, count))
    return kept[-MOST:]


def is_due(courses: Courses, counts: Mapping[str, int], *, now: int) -> bool:
    """Return whether the given counts should be written.

    :param courses: the stored history by public stage name.
    :param counts: the current number of tasks by public stage name.
    :param now: the current time in epoch seconds.
    """
    if courses.keys() != counts.keys():
        return True
    return any(
        now - courses[name][-1][0] >= WRITTEN_AFTER * (20 if courses[name][-1][1] == count else 1)
        for name, count in counts.items()
    )


def written(courses: Courses) -> str:
    """Serialize the history."""
    return json.dumps({"version": 1, "stages": courses}, separators=(",", ":"))


def read(text: str | None) -> dict[str, list[Sample]]:
    """Parse a serialized history. Invalid text gives an empty one."""
    try:
        stages: Any = json.loads(text or "{}").get("stages", {})
        courses = {
            str(name): sorted((int(at), int(count)) for at, count in samples) for name, samples in stages.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
    return {name: samples for name, samples in courses.items() if samples}


log = logging.getLogger(__name__)


class QueueSampler:
    """Count the queues of some projects periodically, in a daemon thread.

    :param choices: the projects. Others are counted only while their page is open.
    :param minutes: minutes between counts, and before the first one: a starting server is busy.
    :param days: days of history to keep.
    """

    def __init__(self, choices: Sequence[Choice], *, minutes: float, days: float) -> None:
        self._choices = choices
        self._seconds = minutes * 60
        self._days = days
        self._over = Event()
        self._troubles: dict[Choice, str] = {}

    def start(self) -> None:
        """Start the thread."""
        Thread(target=self._run, name="redbrick-sampling", daemon=True).start()

    def stop(self) -> None:
        """Stop before the next count."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self.look()

    def look(self) -> None:
        """Count all queues once. A repeated error is logged only once."""
        for choice in self._choices:
            try:
                self._sample(choice)
            except Exception as error:  # noqa: BLE001 - the next count may succeed
                trouble = f"{type(error).__name__}: {error}"
                if self._troubles.get(choice) != trouble:
                    log.info("The queues of connection %r could not be counted: %s", choice.connection_id, trouble)
                self._troubles[choice] = trouble
            else:
                self._troubles.pop(choice, None)

    def _sample(self, choice: Choice) -> None:
        with closing(PageHook(choice.connection_id)) as hook:
            project = hook.project(choice.project_id)
            counts = project.queues()
        update_history(project.project_id, counts, days=self._days)
