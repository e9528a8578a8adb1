"""What the documents promise is there: their links lead somewhere, their snippets run, their rows name tests."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pendulum
import pytest
from airflow.sdk import DAG, AssetWatcher, dag, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_redbrick.assets.stages import stage_asset
from airflow_provider_redbrick.get_provider_info import get_provider_info

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- links -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, where it is read on a code host."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = unquote(link).partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name)
def test_every_page_can_be_found(page):
    indexes = "\n".join(index.read_text(encoding="utf-8") for index in DOCS.rglob("index.md"))
    assert page.parent != DOCS or page.stem == "index" or re.search(rf"^{re.escape(page.stem)}$", indexes, re.MULTILINE)


# -- snippets --------------------------------------------------------------------------------------


def public() -> dict[str, object]:
    """All classes that users write into DAG files, by name."""
    info = get_provider_info()
    modules = {
        m for kind in ("operators", "sensors", "hooks", "triggers") for e in info[kind] for m in e["python-modules"]
    }
    modules |= {"airflow_provider_redbrick.notifications.queue", "airflow_provider_redbrick.assets.stages"}
    modules |= {"airflow_provider_redbrick.retry_policy", "airflow.providers.smtp.notifications.smtp"}
    found: dict[str, object] = {"stage_asset": stage_asset}
    for module in sorted(modules):
        found |= {key: value for key, value in vars(__import__(module, fromlist=["*"])).items() if key[0].isupper()}
    return found


# What snippets take for granted: somebody's model, rules, ids.
GIVEN = {
    "ids": ["6f1c1f34-3b4d-4a52-9d2f-6a0e5f0c0001"],
    "my_model": lambda *_given: {},
    "plausible": lambda _task: True,
    "looks_wrong": lambda _task: True,
    "predict": lambda _task: None,
    "START": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "dag": dag,
    "task": task,
    "AssetWatcher": AssetWatcher,
    "CronDataIntervalTimetable": CronDataIntervalTimetable,
}
SNIPPETS = [
    pytest.param(text, id=f"{name(page)}-{place}")
    for page in PAGES
    for place, text in enumerate(SNIPPET.findall(page.read_text(encoding="utf-8")), 1)
]


@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets_run(text):
    """A renamed class or parameter, and a snippet that no DAG could hold, is found here."""
    with DAG("snippet", start_date=GIVEN["START"], schedule=None):
        exec(compile(text, "snippet", "exec"), {**public(), **GIVEN})


# -- tables ----------------------------------------------------------------------------------------

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
