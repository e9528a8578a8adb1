"""Queue history as samples: merge, thin out, serialize."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_redbrick.plugins.board import Sample

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
