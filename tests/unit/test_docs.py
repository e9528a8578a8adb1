"""The documents: links resolve, snippets run, and table rows name tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pendulum
import pytest
from airflow.sdk import DAG
from airflow_versions import BEFORE_3_3

from airflow_provider_redbrick.get_provider_info import get_provider_info
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CONNECTION = re.compile(r"^export AIRFLOW_CONN_REDBRICK_DEFAULT='([^']*)'$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- links -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings on a code host."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name)
def test_every_page_is_in_an_index(page):
    indexes = "\n".join(index.read_text(encoding="utf-8") for index in DOCS.rglob("index.md"))
    assert page.parent != DOCS or page.stem == "index" or re.search(rf"^{re.escape(page.stem)}$", indexes, re.MULTILINE)


# -- snippets --------------------------------------------------------------------------------------


# Names that snippets use without a definition, such as the user's model. They import everything else.
SNIPPET_NAMES = {
    "ids": ["6f1c1f34-3b4d-4a52-9d2f-6a0e5f0c0001"],
    "my_model": lambda *_arguments: {},
    "plausible": lambda _task: True,
    "looks_wrong": lambda _task: True,
    "predict": lambda _task: None,
}
SNIPPETS = [
    pytest.param(text, id=f"{name(page)}-{place}")
    for page in PAGES
    for place, text in enumerate(SNIPPET.findall(page.read_text(encoding="utf-8")), 1)
]


@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets_run(text):
    """Detect renamed classes and parameters, missing imports, and snippets that are invalid in a DAG."""
    if BEFORE_3_3 and "RedBrickRetryPolicy" in text:
        pytest.skip("this Airflow has no retry policies")
    with DAG("snippet", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), schedule=None):
        exec(compile(text, "snippet", "exec"), dict(SNIPPET_NAMES))


CONNECTIONS = [
    pytest.param(text, id=f"{name(page)}-{place}")
    for page in (ROOT / "README.md", DOCS / "connection.md")
    for place, text in enumerate(CONNECTION.findall(page.read_text(encoding="utf-8")), 1)
]
ORG, PROJECT = "6f1c1f34-3b4d-4a52-9d2f-6a0e5f0c0002", "6f1c1f34-3b4d-4a52-9d2f-6a0e5f0c0003"


def read(text: str):
    """Return the hook's settings for a connection in an environment variable."""
    text = text.replace("ORG_ID", ORG).replace("PROJECT_ID", PROJECT).replace("API_KEY", "a" * 43)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", text)
        return RedBrickHook().settings


@pytest.mark.parametrize("text", CONNECTIONS)
def test_connections_can_be_read(text, caplog):
    settings = read(text)
    assert (settings.org_id, settings.project_id) == (ORG, PROJECT)
    assert "Ignoring unknown extras" not in caplog.text


def test_documented_connections_with_every_field_are_equal_and_complete():
    (uri, as_json) = (one.values[0] for one in CONNECTIONS if "page_size" in one.values[0])
    assert read(uri) == read(as_json)
    (connection,) = get_provider_info()["connection-types"]
    assert set(connection["conn-fields"]) == set(json.loads(as_json)["extra"])


EXAMPLES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "example_dags").glob("*.py"))


@pytest.mark.parametrize("kind", ["operators", "sensors", "triggers"])
def test_every_class_has_an_example(kind):
    modules = [module for entry in get_provider_info()[kind] for module in entry["python-modules"]]
    missing = [module for module in modules if f"from {module} import" not in EXAMPLES]
    assert not missing


def test_every_example_is_documented():
    shown = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [path.name for path in (ROOT / "example_dags").glob("*.py") if path.name not in shown]
    assert not missing


# -- tables ----------------------------------------------------------------------------------------

ROWS = [
    (line, cells[-1])
    for line in (DOCS / "older-sdks.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and (cells := re.split(r"(?<!\\)\|", line)[1:-1])[0].strip() not in {"then", "---"}
]


def test_older_sdks_table_has_all_rows():
    assert len(ROWS) >= 39


@pytest.mark.parametrize(("line", "cell"), ROWS, ids=[line[2:60].split("|")[0].strip() for line, _ in ROWS])
def test_every_call_of_the_older_sdks_has_a_test_that_runs(line, cell):
    test = re.fullmatch(r"\s*\[`(test_\w+)`\]\((\S+)\)\s*", cell)
    assert test, f"The row names no test: {line}"
    text = (DOCS / test[2]).read_text(encoding="utf-8")
    assert re.search(rf"^\s*def {test[1]}\(", text, re.MULTILINE), f"{test[2]} has no {test[1]}"
