"""The full report: one JSON object a line, one line a task."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.exceptions import RedBrickInputError, readable
from airflow_provider_redbrick.hooks.local_files import trouble_at

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
    """Open the report before the first change: one that cannot be written is known before it matters.

    :raises RedBrickInputError: then.
    """
    if path is None:
        yield Report(None, None)
        return
    try:
        uri, file = _opened(path, getattr(context.get("ti"), "map_index", -1))
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        words = readable(trouble_at(path) or str(error) or type(error).__name__)
        raise RedBrickInputError(f"report_path {path!r} cannot be written: {words}") from None
    with file:
        yield Report(uri, file)


def _opened(path: str, map_index: object) -> tuple[str, Any]:
    """Return the report's URI and its open file."""
    place = ObjectStoragePath(path)
    if isinstance(map_index, int) and map_index >= 0:
        # Mapped tasks are given one path: each has a report of its own beside it.
        place = place.parent / f"{place.stem}.{map_index}{place.suffix}"
        path = str(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    return path, place.open("w")  # type: ignore[no-untyped-call]
