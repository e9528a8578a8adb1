"""Find the window of an incremental export in the state of earlier runs.

1. A new export starts at the latest watermark of earlier runs; each mapped task has its own. Watermarks of the run
   itself and of later runs are ignored, also when the run is cleared: it still has its own XCom until the task that
   wrote it runs again, so that value is removed from what is pulled.
2. Airflow releases differ in what ``xcom_pull(include_prior_dates=True)`` returns: all values, or the latest one. Where
   it is only the current run's, the pull is repeated for the previous run.
3. Windows overlap (see ``engine/overlap.py``). What an export contains of the overlap is an XCom of its own, beside the
   watermark: both are removed together, and downstream tasks that pull the manifest do not load it.
4. The key of that XCom names the watermark. A watermark can thus travel through other Airflow tasks, and a round that
   was not used is exported again completely. If there is no such XCom, the overlap is exported twice.
5. A run that exports again uses the window of its first export: the same start and the same watermark. It reads them
   from the manifest in the export folder, since Airflow deletes the XComs of a cleared task.
6. A task of the first export that has changed since is exported as it is now: RedBrick does not keep the older version.
   The next run exports the new version too, since whether the first or the second export was used is not known. A task
   that a stale read does not show again is left to the next run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.engine.overlap import Overlap, get_version
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
    :param known: the versions after the start that earlier exports contain.
    :param first: the versions after the end that this run's first export contains; None if this is the first.
    :param directory: the folder with the list of the first export's tasks, if there is one.
    :param index: file name of that list.
    """

    after: pendulum.DateTime | None
    until: pendulum.DateTime | None = None
    export: Mapping[str, Any] | None = None
    known: Overlap = field(default_factory=Overlap)
    first: Overlap | None = None
    directory: StagedDirectory | None = None
    index: str = ""
    _exported: Overlap = field(default_factory=Overlap, init=False)

    def end(self, listed: pendulum.DateTime) -> pendulum.DateTime:
        """Return the watermark of this export.

        The server's clock is known to about a second, so that a listing may seem to precede the one before. A watermark
        never moves back: the next export would start at the one before, and not know what this export contains.

        :param listed: the watermark of the listing.
        """
        if self.until is not None:
            return self.until
        return listed if self.export is None or self.after is None else max(listed, self.after)

    def tasks(self, changed: Iterable[StoredTask]) -> Iterator[StoredTask]:
        """Yield the tasks that are in the window.

        :param changed: the tasks changed since its start.
        """
        return (stored for stored in changed if self._includes(stored.task.task_id, get_version(stored.task)))

    def _includes(self, task_id: str, version: pendulum.DateTime | None) -> bool:
        if not self.known.is_new(task_id, version):
            return False
        return self.until is None or version is None or version < self.until or task_id in self._first_ids

    def add(self, task_id: str, version: pendulum.DateTime | None, watermark: pendulum.DateTime) -> None:
        """Record an exported task, if the next export may list it again.

        :param task_id: the task.
        :param version: its version; None if the server does not say.
        :param watermark: the watermark of the listing, for a window without an end.
        """
        # Only those: a first export may contain 100,000 tasks.
        if version is not None and version >= (self.until or watermark):
            self._exported.add(task_id, version)

    def overlap(self, watermark: pendulum.DateTime) -> Overlap:
        """Return the versions that the next export leaves out.

        :param watermark: the end of this window.
        """
        contained = self.known.union(self._exported).since(watermark)
        return contained if self.first is None else self.first.within(contained)

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
        after = get_last_watermark(context, task_id)
        return Window(after, export=export, known=_pull_overlap(context, after))
    after = validation.time(f"updated_after in {MANIFEST}", earlier.get("updated_after"))
    window = Window(
        after,
        validation.time(f"watermark in {MANIFEST}", earlier.get("watermark")),
        export=export,
        known=_pull_overlap(context, after),
        first=Overlap.from_json(earlier.get("overlap")),
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


MOST_REMEMBERED = 5_000
"""Versions that an XCom holds: 400 kB, and more than changes within a minute or two."""


def push_overlap(context: Context, watermark: pendulum.DateTime, overlap: Overlap) -> None:
    """Keep the versions after a watermark for the export that starts there.

    :param context: the Airflow task's context.
    :param watermark: the end of this export's window.
    :param overlap: the versions that the next export leaves out.
    """
    kept = overlap.newest(MOST_REMEMBERED)
    if len(kept) < len(overlap):
        log.warning(
            "%d tasks changed shortly before the export. The next one exports %d of them again.",
            len(overlap),
            len(overlap) - len(kept),
        )
    context["ti"].xcom_push(key=_overlap_key(watermark), value=kept.to_json())


def _pull_overlap(context: Context, watermark: pendulum.DateTime | None) -> Overlap:
    """Return what earlier runs of this Airflow task exported after a watermark."""
    if watermark is None:
        return Overlap()
    ti: Any = context["ti"]
    value = ti.xcom_pull(
        task_ids=ti.task_id, key=_overlap_key(watermark), map_indexes=ti.map_index, include_prior_dates=True
    )
    if not isinstance(value, Mapping):
        log.info("What was exported shortly after %s is unknown. It is exported again.", watermark)
    return Overlap.from_json(value)


def _overlap_key(watermark: pendulum.DateTime) -> str:
    return f"overlap_{round(watermark.timestamp() * 1e6)}"


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
