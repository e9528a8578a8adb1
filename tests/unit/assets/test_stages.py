"""One stage has one URI."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from airflow.sdk import Asset

from airflow_provider_redbrick.assets.events import add_to_outlet_events
from airflow_provider_redbrick.assets.stages import create_asset, normalize_uri, stage_asset, stage_uri
from airflow_provider_redbrick.exceptions import RedBrickInputError

ORG, PROJECT = "8f9d1f3e-0000-4000-8000-00000000000a", "8f9d1f3e-0000-4000-8000-00000000000b"
AT = {"org_id": ORG, "project_id": PROJECT}
BASE = f"redbrick://{ORG}/{PROJECT}"


@pytest.mark.parametrize("name", ["Label", "Review 1", "a/b?c#d%20e", "Prüfung", "..", " Label"])
def test_a_uri_says_which_stage_it_is_whatever_it_is_called(name):
    uri = stage_uri(**AT, stage_name=name)
    assert Asset(uri).uri == uri
    assert unquote(urlsplit(uri).path.rpartition("/")[2]) == name


@pytest.mark.parametrize("name", ["Ground Truth", "Output", "END", "ground truth"])
def test_ground_truth_by_any_of_its_names_is_one_asset(name):
    assert stage_asset(**AT, stage_name=name).uri == f"{BASE}/Ground%20Truth"
    assert Asset(f"{BASE}/{name.replace(' ', '%20')}").uri == f"{BASE}/Ground%20Truth"


@pytest.mark.parametrize(
    "written",
    [
        f"redbrick://{ORG.upper()}/{PROJECT.upper()}/Review%201",
        f"REDBRICK://{ORG}/{PROJECT}/Review%201/",
        f"redbrick://{ORG.replace('-', '')}/{PROJECT}/Review 1",
    ],
)
def test_airflow_writes_a_uri_in_its_one_form(written):
    assert Asset(written).uri == f"{BASE}/Review%201"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (BASE, "redbrick://<org_id>/<project_id>/<stage>"),
        (f"{BASE}/Label/more", "redbrick://<org_id>/<project_id>/<stage>"),
        (f"{BASE}/Label?a=b", "redbrick://<org_id>/<project_id>/<stage>"),
        (f"redbrick://{ORG}/project/Label", "project_id must be a UUID"),
        (f"redbrick://org/{PROJECT}/Label", "org_id must be a UUID"),
        (f"{BASE}/%20", "stage_name must be"),
        ("redbrick:///Label", "redbrick://<org_id>/<project_id>/<stage>"),
    ],
)
def test_what_is_no_stage_is_refused_when_the_dag_is_read(written, words):
    with pytest.raises(ValueError, match=words):
        Asset(written)


@pytest.mark.parametrize("written", [f"{BASE}/Label#x", f"redbrick://key@{ORG}/{PROJECT}/Label"])
def test_what_some_airflows_drop_is_refused_by_the_others(written):
    with pytest.raises(RedBrickInputError):
        normalize_uri(urlsplit(written))


@pytest.mark.parametrize(
    "bad", [{"org_id": ""}, {"project_id": None}, {"stage_name": " "}, {"stage_name": None}, {"stage_name": "a\0"}]
)
def test_an_asset_of_nothing_is_refused(bad):
    with pytest.raises(RedBrickInputError):
        stage_asset(**{**AT, "stage_name": "Label", **bad})


def test_an_asset_is_called_like_its_uri_unless_it_has_a_name():
    assert stage_asset(**AT, stage_name="Label").name == f"{BASE}/Label"
    assert stage_asset(**AT, stage_name="Label", name="labels").name == "labels"


@pytest.mark.filterwarnings("ignore:ProvidersManager.asset_factories is deprecated")
def test_airflow_makes_assets_by_the_factory():
    from airflow.providers_manager import ProvidersManager

    factory = ProvidersManager().asset_factories["redbrick"]
    assert factory(**AT, stage_name="Label", extra={"a": 1}) == create_asset(**AT, stage_name="Label", extra={"a": 1})


# ------------------------------------------------------------------ outlets

MANIFEST = {
    "schema_version": 1,
    "operation": "prelabel",
    **AT,
    "stage_name": "Label",
    "counts": {"done": 3, "failed": 1},
    "failed": [{"task_id": "x", "name": "Doe, Jane", "reason": "?"}],
    "task_ids": ["a", "b", "c"],
    "report": None,
}


class Events(dict):
    """As Airflow gives them to a task: by asset, made when they are asked for."""

    def __getitem__(self, asset):
        return self.setdefault(asset.uri, SimpleNamespace(extra={}))


def test_outlets_of_ours_are_told_the_sums_and_others_nothing():
    ours, other = stage_asset(**AT, stage_name="Review_1"), Asset("s3://bucket/key")
    events = Events()
    add_to_outlet_events({"outlet_events": events}, [ours, other], MANIFEST)
    assert {uri: found.extra for uri, found in events.items()} == {
        ours.uri: {
            "schema_version": 1,
            "operation": "prelabel",
            **AT,
            "stage_name": "Label",
            "counts": {"done": 3, "failed": 1},
        }
    }


def test_what_a_dag_has_put_there_stays():
    ours = stage_asset(**AT, stage_name="Review_1")
    events = Events()
    events[ours].extra.update(operation="mine")
    add_to_outlet_events({"outlet_events": events}, [ours], MANIFEST)
    assert events[ours].extra["operation"] == "mine"
    assert events[ours].extra["counts"] == {"done": 3, "failed": 1}


def test_no_outlets_and_no_context_are_no_trouble():
    add_to_outlet_events({}, [stage_asset(**AT, stage_name="Label")], MANIFEST)
    add_to_outlet_events({"outlet_events": Events()}, [], MANIFEST)


class Named:
    """An outlet that names an asset, as ``Asset.ref(name=...)`` does: where that is, Airflow looks up."""

    name = "finished"


@pytest.mark.parametrize("known", [True, False])
def test_an_outlet_may_name_its_asset(known, caplog):
    ours = stage_asset(**AT, stage_name="Review_1")
    event = SimpleNamespace(extra={}, key=SimpleNamespace(name="finished", uri=ours.uri))

    class ByName(dict):
        def __getitem__(self, asset):
            if not known:
                raise LookupError("no such asset")
            return event

    add_to_outlet_events({"outlet_events": ByName()}, [Named()], MANIFEST)
    assert event.extra.get("counts") == (MANIFEST["counts"] if known else None)
    assert ("no such asset" in caplog.text) is not known


@pytest.mark.parametrize("watchers", [None, "watcher", [object()], object()])
def test_watchers_are_watchers(watchers):
    with pytest.raises(RedBrickInputError, match="must be a list of AssetWatcher"):
        stage_asset(**AT, stage_name="Label", watchers=watchers)
