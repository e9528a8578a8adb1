"""Tests of stage assets, their URIs and their outlet events."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from airflow.sdk import Asset

from airflow_provider_redbrick.assets.stages import (
    add_to_outlet_events,
    create_asset,
    normalize_uri,
    project_asset,
    stage_asset,
    stage_uri,
)
from airflow_provider_redbrick.exceptions import RedBrickInputError

ORG, PROJECT = "8f9d1f3e-0000-4000-8000-00000000000a", "8f9d1f3e-0000-4000-8000-00000000000b"
AT = {"org_id": ORG, "project_id": PROJECT}
BASE = f"redbrick://{ORG}/{PROJECT}"


@pytest.mark.parametrize("name", ["Label", "Review 1", "a/b?c#d%20e", "Prüfung", "..", " Label"])
def test_stage_uri_encodes_the_stage_name(name):
    uri = stage_uri(**AT, stage_name=name)
    assert Asset(uri).uri == uri
    assert unquote(urlsplit(uri).path.rpartition("/")[2]) == name


@pytest.mark.parametrize("name", ["Ground Truth", "Output", "END", "ground truth"])
def test_all_names_of_ground_truth_give_one_asset(name):
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
def test_airflow_normalizes_the_uri(written):
    assert Asset(written).uri == f"{BASE}/Review%201"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (f"redbrick://{ORG}", "redbrick://<org_id>/<project_id>"),
        (f"redbrick://{ORG}/Label", "project_id must be a UUID"),
        (f"{BASE}?a=b", "redbrick://<org_id>/<project_id>"),
        (f"{BASE}/Label/more", "redbrick://<org_id>/<project_id>/<stage>"),
        (f"{BASE}/Label?a=b", "redbrick://<org_id>/<project_id>/<stage>"),
        (f"redbrick://{ORG}/project/Label", "project_id must be a UUID"),
        (f"redbrick://org/{PROJECT}/Label", "org_id must be a UUID"),
        (f"{BASE}/%20", "stage_name must be"),
        ("redbrick:///Label", "org_id must be a UUID"),
    ],
)
def test_invalid_uri_is_refused_when_the_dag_is_parsed(written, words):
    with pytest.raises(ValueError, match=words):
        Asset(written)


@pytest.mark.parametrize("written", [f"{BASE}/Label#x", f"redbrick://key@{ORG}/{PROJECT}/Label"])
def test_uri_with_fragment_or_user_is_refused(written):
    with pytest.raises(RedBrickInputError):
        normalize_uri(urlsplit(written))


@pytest.mark.parametrize(
    "bad", [{"org_id": ""}, {"project_id": None}, {"stage_name": " "}, {"stage_name": None}, {"stage_name": "a\0"}]
)
def test_stage_asset_refuses_invalid_parts(bad):
    with pytest.raises(RedBrickInputError):
        stage_asset(**{**AT, "stage_name": "Label", **bad})


def test_project_asset_has_one_uri():
    asset = project_asset(org_id=ORG.upper(), project_id=PROJECT)
    assert (asset.name, asset.uri) == (BASE, BASE)
    assert Asset(f"{BASE.upper()}/").uri == BASE
    assert project_asset(**AT, name="queues").name == "queues"


@pytest.mark.parametrize("bad", [{"org_id": ""}, {"project_id": None}, {"project_id": "{{ params.project }}"}])
def test_project_asset_refuses_invalid_ids(bad):
    with pytest.raises(RedBrickInputError):
        project_asset(**{**AT, **bad})


def test_stage_asset_name_defaults_to_the_uri():
    assert stage_asset(**AT, stage_name="Label").name == f"{BASE}/Label"
    assert stage_asset(**AT, stage_name="Label", name="labels").name == "labels"


@pytest.mark.filterwarnings("ignore:ProvidersManager.asset_factories is deprecated")
def test_asset_factory_is_registered():
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
    """Outlet events by asset, created on first access as in Airflow."""

    def __getitem__(self, asset):
        return self.setdefault(asset.uri, SimpleNamespace(extra={}))


def test_only_redbrick_outlets_get_the_summary():
    asset, other = stage_asset(**AT, stage_name="Review_1"), Asset("s3://bucket/key")
    events = Events()
    add_to_outlet_events({"outlet_events": events}, [asset, other], MANIFEST)
    assert {uri: found.extra for uri, found in events.items()} == {
        asset.uri: {
            "schema_version": 1,
            "operation": "prelabel",
            **AT,
            "stage_name": "Label",
            "counts": {"done": 3, "failed": 1},
        }
    }


def test_values_from_the_dag_are_kept():
    asset = stage_asset(**AT, stage_name="Review_1")
    events = Events()
    events[asset].extra.update(operation="mine")
    add_to_outlet_events({"outlet_events": events}, [asset], MANIFEST)
    assert events[asset].extra["operation"] == "mine"
    assert events[asset].extra["counts"] == {"done": 3, "failed": 1}


def test_missing_outlets_or_context_are_ignored():
    add_to_outlet_events({}, [stage_asset(**AT, stage_name="Label")], MANIFEST)
    add_to_outlet_events({"outlet_events": Events()}, [], MANIFEST)


class Named:
    """An outlet like ``Asset.ref(name=...)``, which Airflow resolves by name."""

    name = "finished"


@pytest.mark.parametrize("known", [True, False])
def test_outlet_by_asset_name_is_resolved(known, caplog):
    asset = stage_asset(**AT, stage_name="Review_1")
    event = SimpleNamespace(extra={}, key=SimpleNamespace(name="finished", uri=asset.uri))

    class ByName(dict):
        def __getitem__(self, asset):
            if not known:
                raise LookupError("no such asset")
            return event

    add_to_outlet_events({"outlet_events": ByName()}, [Named()], MANIFEST)
    assert event.extra.get("counts") == (MANIFEST["counts"] if known else None)
    assert ("no such asset" in caplog.text) is not known


@pytest.mark.parametrize("watchers", [None, "watcher", [object()], object()])
def test_invalid_watchers_are_refused(watchers):
    with pytest.raises(RedBrickInputError, match="must be a list of AssetWatcher"):
        stage_asset(**AT, stage_name="Label", watchers=watchers)
