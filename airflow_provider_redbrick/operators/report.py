"""The full report: one JSON object a line, one line a task."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.batch.outcome import Outcome


class Report:
    """Takes outcomes as they come; without a file it takes them and forgets them.

    :param uri: where the report is, None without one.
    """

    def __init__(self, uri: str | None, file: Any) -> None:
        self.uri = uri
        self._file = file

    def add(self, outcome: Outcome) -> None:
        """Write one task's row."""
        if self._file is not None:
            self._file.write(json.dumps(outcome.to_row()) + "\n")


@contextmanager
def report_at(path: str | None, context: Context) -> Iterator[Report]:
    """Open the report before the first change: one that cannot be written is known before it matters."""
    if path is None:
        yield Report(None, None)
        return
    place = ObjectStoragePath(path)
    index = getattr(context.get("ti"), "map_index", -1)
    if isinstance(index, int) and index >= 0:
        # Mapped tasks are given one path: each has a report of its own beside it.
        place = place.parent / f"{place.stem}.{index}{place.suffix}"
        path = str(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as file:  # type: ignore[no-untyped-call]
        yield Report(path, file)
