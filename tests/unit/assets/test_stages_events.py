"""Tests of registering asset events, in Airflow's own database."""

from __future__ import annotations

import uuid

import pytest

from airflow_provider_redbrick.assets.stages import register_stage_events, stage_asset
from airflow_provider_redbrick.exceptions import RedBrickInputError


@pytest.fixture(scope="session")
def database():
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def session(database):
    from airflow.utils.session import create_session

    with create_session() as opened:
        yield opened
        opened.rollback()


@pytest.fixture
def stage():
    return {"org_id": str(uuid.uuid4()), "project_id": str(uuid.uuid4()), "stage_name": "Label"}


def add_asset(session, asset, *, active=True):
    """Add an asset to Airflow's database, as the DAG processor does."""
    from airflow.models.asset import AssetActive, AssetModel

    session.add(AssetModel(name=asset.name, uri=asset.uri, group="asset"))
    if active:
        session.flush()
        session.add(AssetActive(name=asset.name, uri=asset.uri))
    session.flush()


def events(session, asset):
    from airflow.models.asset import AssetEvent
    from sqlalchemy import select

    found = session.scalars(select(AssetEvent)).all()
    return [event.extra for event in found if event.uri == asset.uri]


@pytest.mark.parametrize("name", [None, "another name"])
def test_event_is_registered_for_the_assets_of_the_stage(session, stage, name):
    asset, other = stage_asset(**stage, name=name), stage_asset(**{**stage, "stage_name": "Review_1"})
    add_asset(session, asset)
    add_asset(session, other)
    written = {**stage, "org_id": stage["org_id"].upper()}
    assert register_stage_events(**written, extra={"count": 3}, session=session) == 1
    assert events(session, asset) == [{"from_webhook": True, "payload": {"count": 3}}]
    assert events(session, other) == []


def test_inactive_asset_gets_no_event(session, stage):
    assert register_stage_events(**stage, extra={}, session=session) == 0
    add_asset(session, stage_asset(**stage), active=False)
    assert register_stage_events(**stage, extra={}, session=session) == 0


def test_register_leaves_the_commit_to_the_caller(session, stage, database):
    from airflow.utils.session import create_session

    add_asset(session, stage_asset(**stage))
    assert register_stage_events(**stage, extra={}, session=session) == 1
    session.rollback()
    with create_session() as another:
        assert events(another, stage_asset(**stage)) == []


@pytest.mark.parametrize("bad", [{"org_id": "x"}, {"project_id": ""}, {"stage_name": " "}])
def test_invalid_ids_are_refused_before_the_session_is_used(stage, bad):
    with pytest.raises(RedBrickInputError):
        register_stage_events(**{**stage, **bad}, extra={}, session=None)
