"""The labels that are put on each task: the same for both."""

from __future__ import annotations

from typing import Any

BOXES = 3


def labelled(task_id: str) -> dict[str, Any]:
    """Return a task with its labels."""
    box = {
        "pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2},
        "wNorm": 0.3,
        "hNorm": 0.4,
        "category": "finding",
        "attributes": {"confirmed": True, "side": "left"},
    }
    return {"taskId": task_id, "series": [{"boundingBoxes": [dict(box) for _ in range(BOXES)]}]}
