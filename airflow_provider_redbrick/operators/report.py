"""The full report: JSON Lines, one line per task."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_redbrick.exceptions import RedBrickInputError, truncate_message
from airflow_provider_redbrick.hooks.local_files import find_write_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.batch.outcome import Outcome


class Report:
    """Write outcomes to a report file, or discard them without one.

    :param uri: URI of the report; None without one.
    :param file: the report, open for text; None without one.
    """

    def __init__(self, uri: str | None, file: Any) -> None:
        self.uri = uri
        self._file = file

    def add(self, outcome: Outcome) -> None:
        """Write the row of one task."""
        if self._file is not None:
            self._file.write(json.dumps(outcome.to_row()) + "\n")


@contextmanager
def open_report(path: str | None, context: Context) -> Iterator[Report]:
    """Open the report, before the first change is sent.

    :param path: a local path or URI; None for no report.
    :param context: the Airflow task's context. A mapped task's report has its map index in the name.
    :raises RedBrickInputError: if the report cannot be written.
    """
    if path is None:
        yield Report(None, None)
        return
    try:
        uri, file = _open_report(path, getattr(context.get("ti"), "map_index", -1))
    except Exception as error:  # noqa: BLE001 - clients of object stores raise what they like
        reason = truncate_message(find_write_problem(path) or str(error) or type(error).__name__)
        raise RedBrickInputError(f"report_path {path!r} cannot be written: {reason}") from None
    with file:
        yield Report(uri, file)


def _open_report(path: str, map_index: object) -> tuple[str, Any]:
    """Return the report's URI and its open file."""
    place = ObjectStoragePath(path)
    if isinstance(map_index, int) and map_index >= 0:
        # All mapped tasks have the same path, so each writes its own report beside it.
        place = place.parent / f"{place.stem}.{map_index}{place.suffix}"
        path = str(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    return path, place.open("w")  # type: ignore[no-untyped-call]
