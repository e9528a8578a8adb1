"""How long queues were: what the API server has seen itself, kept in an Airflow Variable.

Neither RedBrick nor Airflow records it. A Variable is there for all API servers and after each of their restarts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_redbrick.plugins.board import Sample

LEAST_STEP = 10
"""Seconds between two samples that are kept at least."""
PARTS = 100
"""What is drawn has so many steps: samples of a week ago may be far apart, those of a minute ago not."""
MOST = 1_000
"""So many samples of a stage are kept at most."""
WRITTEN_AFTER = 30
"""Seconds between two writes when queues have changed; without a change they are twenty times as many."""

Courses = Mapping[str, Sequence[Sample]]


def add(courses: Courses, counts: Mapping[str, int], *, now: int, days: float) -> dict[str, list[Sample]]:
    """Return courses with what was counted now, thinned out, and without what is too old."""
    oldest = now - days * 86_400
    return {
        name: _thinned([*(sample for sample in courses.get(name, ()) if oldest <= sample[0] < now), (now, count)])
        for name, count in counts.items()
    }


def _thinned(samples: Sequence[Sample]) -> list[Sample]:
    """Return the first and the last of all samples, and others the closer together the newer they are.

    Of a queue that stays as long as it is, only the ends are kept.
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
    """Whether what was counted now is to be written down: something has changed, or it is time."""
    if courses.keys() != counts.keys():
        return True
    return any(
        now - courses[name][-1][0] >= WRITTEN_AFTER * (20 if courses[name][-1][1] == count else 1)
        for name, count in counts.items()
    )


def written(courses: Courses) -> str:
    """Return courses as text."""
    return json.dumps({"version": 1, "stages": courses}, separators=(",", ":"))


def read(text: str | None) -> dict[str, list[Sample]]:
    """Return courses from text; none from what somebody else has written."""
    try:
        stages: Any = json.loads(text or "{}").get("stages", {})
        courses = {
            str(name): sorted((int(at), int(count)) for at, count in samples) for name, samples in stages.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
    return {name: samples for name, samples in courses.items() if samples}
