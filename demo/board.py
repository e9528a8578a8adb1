"""Draw the board as plain text."""

from __future__ import annotations

from typing import Any

_WIDTH = 30


def draw(stages: list[dict[str, Any]]) -> str:
    """Return one line per stage: a bar, the count, and assigned tasks per person."""
    shown = [stage for stage in stages if stage["count"] or stage["kind"] not in {"labelset-input", "feedback"}]
    most = max([1, *(stage["count"] for stage in shown)])
    lines = []
    for stage in shown:
        bar = "█" * round(_WIDTH * stage["count"] / most)
        holders = ", ".join(f"{name.split('@')[0]} {n}" for name, n in sorted(stage.get("by_person", {}).items()) if n)
        held = f"   ({holders})" if holders and stage["kind"] != "labelset-output" else ""
        lines.append(f"    {stage['title']:<13}{bar:<{_WIDTH}} {stage['count']:>3}{held}")
    return "\n".join(lines)


def counts(manifests: list[dict[str, Any]]) -> str:
    """Return the sums of the counts of several manifests."""
    total: dict[str, int] = {}
    for manifest in manifests:
        for status, number in manifest["counts"].items():
            total[status] = total.get(status, 0) + number
    return (
        ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in total.items() if number)
        or "nothing to do"
    )
