"""The window of an incremental export: which changes it is about.

1. A new export goes on from the last mark that an earlier run has left. The run's own marks, and those of later runs,
   are never earlier ones, also when the run is cleared and runs again.
2. An export that runs again for the same run has the window of the first one, which the manifest in its folder says:
   from the same moment up to the same mark. Airflow keeps no XCom of a task that it has cleared.
3. What was in the first export and has changed since is exported as it is now: its older version is not there any more.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.operators.marks import last_mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pendulum
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.exports import StoredTask
    from airflow_provider_redbrick.operators.publishing import Publication

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""The manifest in the folder of an export with ``mark_from``, with the run that it is of."""


@dataclass
class Window:
    """The changes that an export is about.

    :param after: the first moment that counts; None for all.
    :param until: the first moment that no longer counts; None for an export that runs for the first time.
    :param export: which export this is, for the manifest in its folder; None for one that has none.
    :param publication: where the first export's tasks are listed, if there was one.
    :param index: the name of that list.
    """

    after: pendulum.DateTime | None
    until: pendulum.DateTime | None = None
    export: Mapping[str, Any] | None = None
    publication: Publication | None = None
    index: str = ""

    def tasks(self, changed: Iterable[StoredTask]) -> Iterator[StoredTask]:
        """Yield the tasks that are in the window, of those that were changed since it began."""
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
            file = None if self.publication is None else self.publication.published(self.index)
            if file is None:
                return frozenset()
            with file:
                return frozenset(str(json.loads(line)["taskId"]) for line in file)
        except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
            log.warning(
                "%s of the first export cannot be read (%s); what has changed since is left out.", self.index, error
            )
            return frozenset()


def new_or_same_window(
    context: Context, task_id: str, *, export: Mapping[str, Any], publication: Publication, index: str
) -> Window:
    """Return the window of an earlier export of this run, else one that goes on from an Airflow task's last mark.

    :param task_id: the Airflow task whose marks count.
    :param export: which export this is, as :func:`this_export` says it.
    :param publication: the folder that it is written into.
    :param index: the name of the list of tasks in it.
    :raises RedBrickInputError: if a mark is no time.
    """
    earlier = _manifest(publication)
    if earlier.get("export") != export:
        return Window(last_mark(context, task_id), export=export)
    window = Window(
        check.time(f"updated_after in {MANIFEST}", earlier.get("updated_after")),
        check.time(f"mark in {MANIFEST}", earlier.get("mark")),
        export=export,
        publication=publication,
        index=index,
    )
    log.info(
        "This run has exported into the folder before. The same window is exported again: from %s up to %s. Remove %s "
        "for a new one.",
        window.after or "the beginning",
        window.until,
        MANIFEST,
    )
    return window


def this_export(context: Context, **about: str | None) -> dict[str, Any]:
    """Return what tells an export from those of other runs, Airflow tasks and projects in the same folder."""
    ti: Any = context["ti"]
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index, **about}


def _manifest(publication: Publication) -> Mapping[str, Any]:
    """Return the manifest that is in a folder, an empty one if there is none."""
    try:
        file = publication.published(MANIFEST)
        if file is None:
            return {}
        with file:
            found = json.load(file)
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        log.warning("%s of an earlier export cannot be read (%s); the marks of earlier runs count.", MANIFEST, error)
        return {}
    return found if isinstance(found, dict) else {}
