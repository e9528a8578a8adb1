"""What the documents promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROWS = [
    (line, cells[-1])
    for line in (DOCS / "older-sdks.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and (cells := re.split(r"(?<!\\)\|", line)[1:-1])[0].strip() not in {"then", "---"}
]


def test_there_are_rows():
    assert len(ROWS) >= 39


@pytest.mark.parametrize(("line", "cell"), ROWS, ids=[line[2:60].split("|")[0].strip() for line, _ in ROWS])
def test_every_call_of_the_older_sdks_has_a_test_that_runs(line, cell):
    found = re.fullmatch(r"\s*\[`(test_\w+)`\]\((\S+)\)\s*", cell)
    assert found, f"this row names no test: {line}"
    text = (DOCS / found[2]).read_text(encoding="utf-8")
    assert re.search(rf"^\s*def {found[1]}\(", text, re.MULTILINE), f"{found[2]} has no {found[1]}"
