"""Draw the comparison as bars on a logarithmic scale of seconds."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from benchmarks.works import WORKS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Twice the display size, so that it is sharp on every screen.
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 1600, 430, 130, 130, 70
_BAR, _BETWEEN, _GROUP = 20, 4, 26
_OURS, _SDK, _LIMIT, _INK, _FAINT = "#0f766e", "#cbd5e1", "#dc2626", "#0f172a", "#e2e8f0"
_SECONDS = {"ours_s": _OURS, "sdk_s": _SDK}


class _Canvas:
    """Draws rows below one another.

    :param powers: where the scale begins and ends, as powers of ten.
    """

    def __init__(self, rows: int, powers: tuple[float, float]) -> None:
        self.powers = powers
        self.height = _TOP + rows * (2 * _BAR + _BETWEEN + _GROUP) + _BOTTOM
        self.image = Image.new("RGB", (_WIDTH, self.height), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.fonts = {size: ImageFont.load_default(size) for size in (22, 24, 30)}

    def x(self, seconds: float) -> float:
        """Return the horizontal position of a time."""
        first, last = self.powers
        place = (log10(seconds) - first) / (last - first)
        return _LEFT + min(1.0, max(0.0, place)) * (_WIDTH - _LEFT - _RIGHT)

    def text(self, x: float, y: float, words: str, *, size: int = 22, anchor: str = "lm", fill: str = _INK) -> None:
        """Write text."""
        self.pen.text((x, y), words, font=self.fonts[size], anchor=anchor, fill=fill)

    def scale(self) -> None:
        """Draw the lines of the scale."""
        bottom = self.height - _BOTTOM
        for power in range(ceil(self.powers[0]), floor(self.powers[1]) + 1):
            x = self.x(10.0**power)
            self.pen.line((x, _TOP - 10, x, bottom), fill=_FAINT, width=2)
            self.text(x, bottom + 26, f"{10.0**power:g} s", anchor="mm")

    def legend(self, title: str) -> None:
        """Write the title, and what the colors mean."""
        self.text(_LEFT, 36, title, size=30)
        for i, (fill, words) in enumerate(
            ((_OURS, "this provider"), (_SDK, "public SDK"), (_LIMIT, "its arithmetic limit"))
        ):
            x = _LEFT + i * 260
            self.pen.rectangle((x, 78, x + 22, 98), fill=fill)
            self.text(x + 34, 88, words, size=24)

    def row(self, i: int, row: dict[str, Any], words: str) -> None:
        """Draw the bars of one row, and its limit."""
        y = _TOP + i * (2 * _BAR + _BETWEEN + _GROUP)
        self.text(_LEFT - 20, y + _BAR + _BETWEEN / 2, f"{words}, {row['n']:,}", anchor="rm", size=24)
        top = y
        for name, fill in _SECONDS.items():
            if row[name] is not None:
                self.pen.rectangle((_LEFT, y, self.x(row[name]), y + _BAR), fill=fill)
                self.text(self.x(row[name]) + 10, y + _BAR / 2, f"{row[name]:.2f}")
            else:
                self.text(_LEFT + 10, y + _BAR / 2, "not measured")
            y += _BAR + _BETWEEN
        x = self.x(row["limit_s"])
        self.pen.line((x, top - 3, x, top + _BAR + 2), fill=_LIMIT, width=4)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw all rows and save the picture.

    :param rows: the rows of ``results.json``.
    :param path: the PNG file to write.
    """
    words = {work.name: work.words for work in WORKS}
    times = [row[name] for row in rows for name in (*_SECONDS, "limit_s") if row[name]]
    canvas = _Canvas(len(rows), (log10(min(times)) - 0.25, ceil(log10(max(times)))))
    canvas.legend("Seconds for a number of tasks, 50 ms latency (shorter is better)")
    canvas.scale()
    for i, row in enumerate(rows):
        canvas.row(i, row, words[row["work"]])
    canvas.image.save(path, optimize=True)
