"""Waking a stage's assets, in Airflow's own database."""

from __future__ import annotations

import uuid

import pytest

from airflow_provider_redbrick.assets.events import wake
from airflow_provider_redbrick.assets.stages import stage_asset
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


def known(session, asset, *, active=True):
    """Make an asset known to Airflow, as the DAG processor does."""
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


@pytest.mark.parametrize("name", [None, "called otherwise"])
def test_a_stages_asset_has_an_event_whatever_it_is_called(session, stage, name):
    asset, other = stage_asset(**stage, name=name), stage_asset(**{**stage, "stage_name": "Review_1"})
    known(session, asset)
    known(session, other)
    written = {**stage, "org_id": stage["org_id"].upper()}
    assert wake(**written, extra={"count": 3}, session=session) == 1
    assert events(session, asset) == [{"from_webhook": True, "payload": {"count": 3}}]
    assert events(session, other) == []


def test_an_asset_that_no_dag_knows_is_not_woken(session, stage):
    assert wake(**stage, extra={}, session=session) == 0
    known(session, stage_asset(**stage), active=False)
    assert wake(**stage, extra={}, session=session) == 0


def test_nothing_is_committed(session, stage, database):
    from airflow.utils.session import create_session

    known(session, stage_asset(**stage))
    assert wake(**stage, extra={}, session=session) == 1
    session.rollback()
    with create_session() as another:
        assert events(another, stage_asset(**stage)) == []


@pytest.mark.parametrize("bad", [{"org_id": "x"}, {"project_id": ""}, {"stage_name": " "}])
def test_nonsense_is_refused_before_the_session_is_touched(stage, bad):
    with pytest.raises(RedBrickInputError):
        wake(**{**stage, **bad}, extra={}, session=None)
