"""Format results as text tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.works import WORKS

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORDS = {work.name: work.words for work in WORKS}
_HEAD = ("work", "tasks", "ours s", "SDK s", "faster", "limit s", "of limit", "requests", "SDK's", "MB", "SDK's")


def comparison(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison's rows as a table."""
    return table(_HEAD, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    ours, sdk, limit = row["ours_s"], row["sdk_s"], row["limit_s"]
    return [
        _WORDS[row["work"]],
        f"{row['n']:,}",
        f"{ours:.2f}",
        _number(sdk, ".2f"),
        _number(sdk and sdk / ours, ".1f", "x"),
        f"{limit:.2f}",
        f"{ours / limit:.1f}x",
        f"{row['ours_requests']:,}",
        _number(row["sdk_requests"], ","),
        f"{row['ours_peak_mb']:.1f}",
        _number(row["sdk_peak_mb"], ".1f"),
    ]


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, the first to the left and all others to the right.

    :param head: the column titles.
    :param rows: the cells.
    """
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
