"""Find the window of an incremental export in the state of earlier runs.

1. A new export starts at the latest watermark of earlier runs; each mapped task has its own. Watermarks of the run
   itself and of later runs are ignored, also when the run is cleared: it still has its own XCom until the task that
   wrote it runs again, so that value is removed from what is pulled.
2. Airflow releases differ in what ``xcom_pull(include_prior_dates=True)`` returns: all values, or the latest one. Where
   it is only the current run's, the pull is repeated for the previous run.
3. A run that exports again uses the window of its first export: the same start and the same watermark. It reads them
   from the manifest in the export folder, since Airflow deletes the XComs of a cleared task.
4. A task of the first export that has changed since is exported as it is now: RedBrick does not keep the older version.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks import validation

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pendulum
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.client.operations.task_reads import StoredTask
    from airflow_provider_redbrick.operators.staged_directory import StagedDirectory


log = logging.getLogger(__name__)


def get_last_watermark(context: Context, task_id: str) -> pendulum.DateTime | None:
    """Return the latest ``watermark`` that an Airflow task left in earlier runs.

    The value of the current run does not count.

    :param context: the context of the Airflow task that runs.
    :param task_id: the Airflow task of this DAG whose XComs are read.
    :return: the watermark; None if there is none.
    :raises RedBrickInputError: if a ``watermark`` is not a time.
    """
    ti: Any = context["ti"]
    of_task = {"task_ids": task_id, **({} if ti.map_index < 0 else {"map_indexes": ti.map_index})}
    own = _values(ti.xcom_pull(**of_task))
    # Airflow's "prior dates" include the current run and exclude later ones.
    earlier = _without(_values(ti.xcom_pull(**of_task, include_prior_dates=True)), own)
    if own and not earlier:
        # Some Airflow releases, and mapped tasks, return only the latest value, which is the current run's here.
        earlier = _up_to_previous_run(ti, of_task)
    name = f"The watermark of Airflow task {task_id!r}"
    watermarks = [validation.time(name, value["watermark"]) for value in earlier if "watermark" in value]
    return max((watermark for watermark in watermarks if watermark is not None), default=None)


def _up_to_previous_run(ti: Any, of_task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the values up to the previous run; none if that run is unknown."""
    find = getattr(ti, "get_previous_dagrun", None)
    previous = None if find is None else find()
    if previous is None:
        return []
    return _values(ti.xcom_pull(**of_task, run_id=previous.run_id, include_prior_dates=True))


def _values(found: Any) -> list[Mapping[str, Any]]:
    """Return the objects among the pulled values: one value or several."""
    values = [found] if isinstance(found, Mapping) or not isinstance(found, Iterable) else found
    return [value for value in values if isinstance(value, Mapping)]


def _without(values: list[Mapping[str, Any]], others: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return ``values`` without ``others``, each removed once."""
    left = list(values)
    for other in others:
        if other in left:
            left.remove(other)
    return left


MANIFEST = "manifest.json"
"""Name of the manifest that an export with ``watermark_from`` writes to its folder. It identifies the run."""


@dataclass
class Window:
    """The time window of an export.

    :param after: start, inclusive; None for no start.
    :param until: end, exclusive; None if this run exports for the first time.
    :param export: identity of the export, for the manifest in its folder; None if it writes none.
    :param directory: the folder with the list of the first export's tasks, if there is one.
    :param index: file name of that list.
    """

    after: pendulum.DateTime | None
    until: pendulum.DateTime | None = None
    export: Mapping[str, Any] | None = None
    directory: StagedDirectory | None = None
    index: str = ""

    def tasks(self, changed: Iterable[StoredTask]) -> Iterator[StoredTask]:
        """Yield the tasks that are in the window.

        :param changed: the tasks changed since its start.
        """
        return (stored for stored in changed if self._includes(stored))

    def _includes(self, stored: StoredTask) -> bool:
        changed_at = stored.task.updated_at
        if self.until is None or changed_at is None or changed_at < self.until:
            return True
        return stored.task.task_id in self._first_ids

    @cached_property
    def _first_ids(self) -> frozenset[str]:
        """The ids of the tasks in the first export."""
        try:
            file = None if self.directory is None else self.directory.published(self.index)
            if file is None:
                return frozenset()
            with file:
                return frozenset(str(json.loads(line)["taskId"]) for line in file)
        except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
            log.warning(
                "%s of the first export cannot be read (%s). Tasks that changed since are left out.", self.index, error
            )
            return frozenset()


def get_window(
    context: Context, task_id: str, *, export: Mapping[str, Any], directory: StagedDirectory, index: str
) -> Window:
    """Return the window of this run's previous export, or a new one.

    :param context: the Airflow task's context.
    :param task_id: the Airflow task whose watermark a new window starts at.
    :param export: identity of the export, from :func:`get_export_identity`.
    :param directory: the export folder.
    :param index: file name of the list of tasks.
    :raises RedBrickInputError: if a watermark is not a time.
    """
    earlier = _manifest(directory)
    if earlier.get("export") != export:
        return Window(get_last_watermark(context, task_id), export=export)
    window = Window(
        validation.time(f"updated_after in {MANIFEST}", earlier.get("updated_after")),
        validation.time(f"watermark in {MANIFEST}", earlier.get("watermark")),
        export=export,
        directory=directory,
        index=index,
    )
    log.info(
        "This run has already exported to the folder. It exports the same window again, from %s to %s. To start a new "
        "window, remove %s.",
        window.after or "the beginning",
        window.until,
        MANIFEST,
    )
    return window


def get_export_identity(context: Context, **about: str | None) -> dict[str, Any]:
    """Return what identifies an export among those that share a folder.

    :param context: the Airflow task's context.
    :param about: further values that identify it, such as the project.
    """
    ti: Any = context["ti"]
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index, **about}


def _manifest(directory: StagedDirectory) -> Mapping[str, Any]:
    """Return the manifest in a folder; an empty one if there is none."""
    try:
        file = directory.published(MANIFEST)
        if file is None:
            return {}
        with file:
            found = json.load(file)
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        log.warning(
            "%s of an earlier export cannot be read (%s). The watermarks of earlier runs are used.", MANIFEST, error
        )
        return {}
    return found if isinstance(found, dict) else {}
