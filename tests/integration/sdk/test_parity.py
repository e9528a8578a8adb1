"""Compare the provider's conversion of stored labels with the public redbrick-sdk's export, field by field.

Both read the same tasks of one sandbox: the SDK with `export_tasks` in its own environment, the provider with
`read_tasks` and `with_series_labels`. Each difference must be in the table `KNOWN`, and each row must occur.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from sandbox_process import SandboxProcess
from sdk import label_corpus
from sdk.parity import ABSENT, PUT_LABELS, _create, _differences, _read_ours, _without_ids

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.transport.endpoint import graphql_url
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.sessions import Credential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sdk.label_corpus import CorpusTask

    from airflow_provider_redbrick.client.models.task import Task

SDK_PYTHON = os.environ.get("REDBRICK_SDK_PYTHON")
DRIVER = Path(label_corpus.__file__).with_name("export_with_sdk.py")

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(
        not SDK_PYTHON,
        reason="REDBRICK_SDK_PYTHON is not set: it names the Python of an environment with redbrick-sdk",
    ),
]

TASKS = 375  # every kind of label first in a task, five times with every division into series
SEED = 20240601


# ---------------------------------------------------------------- known differences and their reasons


@dataclass(frozen=True)
class Known:
    """An intended difference.

    `at` matches its location. `holds` tests the SDK's value, the provider's value and the task.
    """

    at: str
    holds: Callable[[Any, Any, Task], bool]
    why: str


def _same_file(theirs: Any, ours: Any, _: Task) -> bool:
    parts = urlsplit(theirs)
    return parts.scheme == "http" and "signature=" in parts.query and unquote(parts.path) == f"/storage/{ours}"


def _kept_aside(theirs: Any, ours: Any, task: Task) -> bool:
    return theirs is ABSENT and ours != [] and all(label in (task.labels or ()) for label in ours)


def _only_theirs(theirs: Any, ours: Any, _: Task) -> bool:
    return theirs is not ABSENT and ours is ABSENT


SERIES = r"series\.\d+"
KNOWN = {
    "address of a mask": Known(
        rf"{SERIES}\.(segmentations|segmentMap\.\d+\.mask)",
        _same_file,
        "the SDK replaces the path in the label storage by a signed, short-lived URL",
    ),
    "no labels": Known(
        rf"{SERIES}\.(items|metaData|imageHeaders)",
        _only_theirs,
        "the provider has these in Task.items and Task.series_info",
    ),
    "header without a value": Known(
        rf"{SERIES}\.imageHeaders\.\w+",
        lambda theirs, ours, _: theirs is None and ours is ABSENT,
        "the SDK lists all headers, even those that are not stored",
    ),
    "kept aside": Known(
        rf"{SERIES}\.unknown",
        _kept_aside,
        "the SDK drops unknown and overwritten labels; the provider returns them in stored form",
    ),
    "measure of 0": Known(
        rf"{SERIES}\.measurements\.\d+\.(length|angle)",
        lambda theirs, ours, _: theirs is ABSENT and ours == 0,
        "the SDK reads 0 as 'not computed'; the distance of equal points is 0",
    ),
    "no position": Known(
        rf"{SERIES}\.(landmarks3d|cuboids)",
        lambda theirs, ours, _: ours is ABSENT and all(each.keys() <= {"id", "category"} for each in theirs),
        "the SDK lists a landmark or cuboid without a position; the provider sets it aside",
    ),
    "no number": Known(
        rf"{SERIES}\.boundingBoxes",
        lambda theirs, ours, _: ours is ABSENT and theirs[0]["hNorm"] is None,
        "the SDK returns null where the format requires a number; the provider sets the label aside",
    ),
    "index below 0": Known(
        rf"{SERIES}\.(landmarks|instanceClassifications)",
        _only_theirs,
        "the SDK counts from the end and returns another series or file; the provider sets the label aside",
    ),
    "more series than any has": Known(
        SERIES,
        lambda theirs, ours, _: ours is ABSENT and theirs.keys() <= {"landmarks"},
        "the SDK creates a series for each index up to an invalid one; the provider stops at 1000 series",
    ),
    "segment of a series told of later": Known(
        rf"{SERIES}\.(segmentMap|binaryMask|semanticMask|pngMask)",
        lambda theirs, ours, _: theirs is ABSENT,
        "the SDK adds a segment of all series to those with earlier labels only, the provider to all",
    ),
    "two masks of one series": Known(
        rf"{SERIES}\.(segmentations|segmentMap\.\d+\.mask)",
        lambda theirs, ours, _: ours is ABSENT or len(ours) == 2,
        "the SDK returns the last mask; the provider returns both, without the mask of each segment",
    ),
}
# Differences that any task may have. All others occur only in the corner case made for them.
ANYWHERE = {"header without a value", "address of a mask", "no labels"}


# ---------------------------------------------------------------- both sides


@dataclass(frozen=True)
class Both:
    """The corpus by task id, as exported by the SDK and as read by the provider."""

    corpus: dict[str, CorpusTask]
    theirs: dict[str, dict[str, Any]]
    ours: dict[str, Task]
    sdk: str
    errors: dict[str, str | None]
    by_ids: tuple[dict[str, Any], Task]


def _export(sandbox: SandboxProcess, files: Path, task_ids: list[str]) -> dict[str, Any]:
    # The SDK writes to the home directory of the user, or to the active virtual environment.
    kept = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        [str(SDK_PYTHON), str(DRIVER), json.dumps(sandbox.ready), str(files), *task_ids],
        capture_output=True,
        text=True,
        timeout=120,
        env={**kept, "HOME": str(files), "NO_PROXY": "localhost", "no_proxy": "localhost"},
        cwd=files,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads((files / "exported.json").read_text(encoding="utf-8")))


def _round_trip(sandbox: SandboxProcess, project: RedBrickProject, tasks: list[Task]) -> dict[str, Task]:
    """Send series back unchanged, let the sandbox convert and store them, and read them again."""
    bodies = [{"taskId": task.task_id, "name": task.name, "series": _with_items(task)} for task in tasks]
    for body, task in zip(bodies, tasks, strict=True):
        if task.classification is not None:
            body["classification"] = task.classification
    for stored in project.client.convert_labels(bodies):
        changed = {"t": stored["taskId"], "labels": json.dumps(stored["labels"]), "map": stored["labelsMap"]}
        sandbox.graphql(PUT_LABELS, {"o": sandbox.org_id, "p": sandbox.project_id, **changed})
    return _read_ours(project, [task.task_id for task in tasks])


def _with_items(task: Task) -> list[dict[str, Any]]:
    """Add the items to each series. The conversion counts them to find the item of a label."""
    infos = task.series_info or ({},)
    divided = all(info.get("itemsIndices") for info in infos)
    return [
        {
            **series,
            "items": [task.items[place] for place in infos[index]["itemsIndices"]]
            if divided
            else list(task.items if index == 0 else ["none"]),
        }
        for index, series in enumerate(task.series)
    ]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess() as running:
        yield running


@pytest.fixture(scope="module")
def project(sandbox: SandboxProcess) -> Iterator[RedBrickProject]:
    client = RedBrickClient(Transport(graphql_url(sandbox.url), Credential(sandbox.api_key)))
    yield RedBrickProject(client, sandbox.org_id, sandbox.project_id)
    client.close()


@pytest.fixture(scope="module")
def both(sandbox: SandboxProcess, project: RedBrickProject, tmp_path_factory: pytest.TempPathFactory) -> Both:
    tasks = [*label_corpus.sound_tasks(TASKS, SEED), *label_corpus.corners()]
    corpus = {_create(sandbox, task, ground_truth=True): task for task in tasks}
    breaking = {_create(sandbox, task, ground_truth=False): task for task in label_corpus.breakers()}
    by_ids = _create(sandbox, label_corpus.by_ids(), ground_truth=True)
    exported = _export(sandbox, tmp_path_factory.mktemp("files"), list(breaking))
    theirs = {task["taskId"]: task for task in exported["tasks"]}
    ours = _read_ours(project, [*corpus, *breaking, by_ids])
    return Both(
        corpus={**corpus, **breaking},
        by_ids=(theirs.pop(by_ids), ours.pop(by_ids)),
        theirs=theirs,
        ours=ours,
        sdk=exported["sdk"],
        errors=exported["errors"],
    )


@pytest.fixture(scope="module")
def again(sandbox: SandboxProcess, project: RedBrickProject, both: Both) -> dict[str, Task]:
    tasks = [both.ours[task_id] for task_id, task in both.corpus.items() if _can_be_sent_back(task)]
    return _round_trip(sandbox, project, tasks)


def _can_be_sent_back(task: CorpusTask) -> bool:
    # The series format identifies items by their rank in a series, and assumes that series follow one another.
    return not task.name.startswith(("corner", "interleaved"))


# ---------------------------------------------------------------- comparing


def _differing(both: Both, task_id: str) -> list[tuple[str, Any, Any]]:
    return _between(both.theirs[task_id], both.ours[task_id])


def _between(theirs: dict[str, Any], ours: Task) -> list[tuple[str, Any, Any]]:
    series = _differences(theirs["series"], list(ours.series), "series")
    classification = ABSENT if ours.classification is None else ours.classification
    return [*series, *_differences(theirs.get("classification", ABSENT), classification, "classification")]


def _explained(both: Both, task_id: str) -> tuple[set[str], list[str]]:
    """Return the known differences that occur in a task, and the descriptions of all others."""
    allowed = {name: KNOWN[name] for name in ANYWHERE | both.corpus[task_id].differs}
    task = both.ours[task_id]
    rows, rest = set(), []
    for at, theirs, ours in _differing(both, task_id):
        found = [name for name, row in allowed.items() if re.fullmatch(row.at, at) and row.holds(theirs, ours, task)]
        rows.update(found)
        if not found:
            rest.append(f"{task.name}: {at}: the SDK has {theirs!r}, we have {ours!r}")
    return rows, rest


def test_sdk_version_is_the_reference_version(both):
    assert both.sdk == "v2.35.4"


def test_both_sides_have_all_tasks(both):
    assert len(both.theirs) >= 300
    assert both.theirs.keys() | both.errors.keys() == both.ours.keys() == both.corpus.keys()


def test_fields_are_equal_except_known_differences(both):
    unexplained = []
    for task_id in both.theirs:
        unexplained += _explained(both, task_id)[1]
    assert unexplained == [], "\n".join([f"{len(unexplained)} differences", *unexplained[:20]])


def test_known_differences_occur(both):
    met = {both.corpus[task_id].name: _explained(both, task_id)[0] for task_id in both.theirs}
    expected = {both.corpus[task_id].name: both.corpus[task_id].differs for task_id in both.theirs}
    assert {name: rows - ANYWHERE for name, rows in met.items()} == expected
    assert set().union(*met.values()) == KNOWN.keys()


def test_valid_labels_are_not_set_aside(both):
    for task_id, task in both.corpus.items():
        if not task.name.startswith("corner"):
            assert not any("unknown" in series for series in both.ours[task_id].series), task.name


def test_tasks_that_break_the_sdk_export_are_read(both):
    assert both.errors
    for task_id, error in both.errors.items():
        task = both.ours[task_id]
        assert error is not None, task.name
        shown = sum(len(value) for series in task.series for value in series.values() if isinstance(value, list))
        assert shown == len(both.corpus[task_id].labels), task.name


def test_labels_file_with_ids_only(both):
    found = [at for at, _, _ in _between(*both.by_ids) if not at.endswith(".items")]
    assert found == []


def test_series_round_trip_is_equal(both, again):
    assert len(again) >= 200
    changed = []
    for task_id, task in again.items():
        before = both.ours[task_id]
        found = _differences(_without_ids(before), _without_ids(task), "")
        changed += [f"{task.name}{at}: was {old!r}, is {new!r}" for at, old, new in found]
    print(f"\n{len(again)} tasks sent back and read again")
    assert changed == [], "\n".join([f"{len(changed)} changes", *changed[:20]])


def test_all_label_kinds_are_compared(both):
    """Run with -s to print the counts."""
    kinds: Counter[str] = Counter()
    traits: Counter[str] = Counter()
    sound = [both.corpus[task_id] for task_id in both.theirs if not both.corpus[task_id].name.startswith("corner")]
    for task in sound:
        kinds.update(label_corpus.kind_of(label) for label in task.labels)
        traits.update(trait for label in task.labels for trait in label_corpus.traits_of(label))
    masks = sum(bool(entry) for task in sound for entry in task.labels_map)
    words = [
        f"{len(both.theirs)} tasks compared, {len(both.theirs) - len(sound)} of them odd",
        f"{sum(kinds.values())} labels and {masks} masks in the {len(sound)} sound tasks:",
        *(f"  {count:6} {kind}" for kind, count in sorted(kinds.items())),
        "of them with:",
        *(f"  {count:6} {trait}" for trait, count in sorted(traits.items())),
    ]
    print("\n" + "\n".join(words))
    assert kinds.keys() == label_corpus.KINDS.keys()
    assert min(kinds.values()) >= 25, kinds
    assert masks >= 25
    assert set(traits) == set(label_corpus.TRAITS)
    assert min(traits.values()) >= 25, traits
