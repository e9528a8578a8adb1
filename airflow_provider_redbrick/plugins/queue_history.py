"""Queue history and recent runs, from Airflow's own database.

Runs are found by the links and manifests that this provider's operators store as XComs. Design note on queue history:

1. Neither RedBrick nor Airflow records queue lengths. The API server samples them, and stores one Variable per project:
   all API servers share it, and it survives restarts.
2. Samples are thinned out with age, and dropped after ``days``. At most ``MAX_SAMPLES`` samples per stage are stored.
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


log = logging.getLogger(__name__)

# Days of runs that the page shows.
RUN_DAYS = 7
_MAX_INSTANCES = 200
_MAX_CONNECTIONS = 50
# XCom keys: the returned value, and the manifest of a failed task.
_MANIFEST_KEYS = ("return_value", "manifest")

# Minimum seconds between two stored samples.
MIN_STEP_S = 10
# Resolution of the drawn line. The minimum distance of samples is their age divided by this.
CHART_STEPS = 100
# Maximum number of stored samples per stage.
MAX_SAMPLES = 1_000
# Minimum seconds between two writes when a queue has changed. Without a change it is 20 times as long.
WRITE_INTERVAL_S = 30
_UNCHANGED_FACTOR = 20

History = Mapping[str, Sequence[Sample]]
"""Samples by public stage name, oldest first."""


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
        .where(link.timestamp >= pendulum.now("UTC") - timedelta(days=RUN_DAYS))
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


def update_history(project_id: str, counts: Mapping[str, int], *, days: float) -> History:
    """Return a project's queue history including the given counts, and store it.

    :param project_id: the project's UUID.
    :param counts: the current number of tasks by public stage name.
    :param days: days of history to keep.
    """
    now = int(time.time())
    name = f"redbrick_queues_{project_id}"
    with create_session() as session:
        variable = session.scalar(select(Variable).where(Variable.key == name))
        stored = parse_history(variable.get_val() if variable is not None else None)
        history = add_sample(stored, counts, now=now, days=days)
        if is_due(stored, counts, now=now):
            if variable is None:
                description = "Queue history for the RedBrick page."
                variable = Variable(key=name, description=description)  # type: ignore[no-untyped-call]
                session.add(variable)
            variable.set_val(serialize_history(history))
    return history


def filter_by_dags(activity: Iterable[TaskActivity], dag_ids: set[str]) -> list[TaskActivity]:
    """Return the activity of DAGs that a user may see.

    :param activity: the activity of all DAGs.
    :param dag_ids: the ids of the DAGs that the user may see.
    """
    return [entry for entry in activity if entry.dag_id in dag_ids]


def add_sample(history: History, counts: Mapping[str, int], *, now: int, days: float) -> dict[str, list[Sample]]:
    """Return the history with the given counts added, thinned out.

    :param history: the history by public stage name.
    :param counts: the current number of tasks by public stage name.
    :param now: the current time in epoch seconds.
    :param days: older samples are dropped.
    """
    oldest = now - days * 86_400
    return {
        name: _thin_out([*(sample for sample in history.get(name, ()) if oldest <= sample[0] < now), (now, count)])
        for name, count in counts.items()
    }


def _thin_out(samples: Sequence[Sample]) -> list[Sample]:
    """Thin out samples: the older they are, the fewer are kept.

    The first and the last sample are kept. Of a period with a constant queue, only the ends are kept.
    """
    now = samples[-1][0]
    kept = [samples[0]]
    for at, count in samples[1:]:
        if len(kept) >= 2 and kept[-2][1] == kept[-1][1] == count:
            kept[-1] = (at, count)
        elif at == now or at - kept[-1][0] >= max(MIN_STEP_S, (now - at) / CHART_STEPS):
            kept.append((at, count))
    return kept[-MAX_SAMPLES:]


def is_due(history: History, counts: Mapping[str, int], *, now: int) -> bool:
    """Return whether the given counts should be written.

    :param history: the stored history by public stage name.
    :param counts: the current number of tasks by public stage name.
    :param now: the current time in epoch seconds.
    """
    if history.keys() != counts.keys():
        return True
    return any(
        now - history[name][-1][0] >= WRITE_INTERVAL_S * (_UNCHANGED_FACTOR if history[name][-1][1] == count else 1)
        for name, count in counts.items()
    )


def serialize_history(history: History) -> str:
    """Serialize the history."""
    return json.dumps({"version": 1, "stages": history}, separators=(",", ":"))


def parse_history(text: str | None) -> dict[str, list[Sample]]:
    """Parse a serialized history; empty if the text is invalid."""
    try:
        stages: Any = json.loads(text or "{}").get("stages", {})
        history = {
            str(name): sorted((int(at), int(count)) for at, count in samples) for name, samples in stages.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
    return {name: samples for name, samples in history.items() if samples}


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
        self._stopped = Event()
        self._last_errors: dict[Choice, str] = {}

    def start(self) -> None:
        """Start the thread."""
        Thread(target=self._run, name="redbrick-sampling", daemon=True).start()

    def stop(self) -> None:
        """Stop before the next count."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self.sample_all()

    def sample_all(self) -> None:
        """Count all queues once. A repeated error is logged only once."""
        for choice in self._choices:
            try:
                self._sample(choice)
            except Exception as error:  # noqa: BLE001 - the next count may succeed
                message = f"{type(error).__name__}: {error}"
                if self._last_errors.get(choice) != message:
                    log.info("The queues of connection %r could not be counted: %s", choice.connection_id, message)
                self._last_errors[choice] = message
            else:
                self._last_errors.pop(choice, None)

    def _sample(self, choice: Choice) -> None:
        with closing(PageHook(choice.connection_id)) as hook:
            project = hook.project(choice.project_id)
            counts = project.queues()
        update_history(project.project_id, counts, days=self._days)
