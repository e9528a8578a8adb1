"""Tests of the operator links."""

from __future__ import annotations

import importlib
import inspect
import json

import pytest
from airflow.providers.common.compat.sdk import BaseOperator, Connection

from airflow_provider_redbrick.get_provider_info import get_provider_info
from airflow_provider_redbrick.hooks.connection import read_settings
from airflow_provider_redbrick.links import RedBrickProjectLink, RedBrickTaskLink, project_address, task_address
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.sensors.tasks import RedBrickTasksSensor

KEY = "canary-0123456789-abcdefghijklmnopqrstuvwxy"
ORG = "22222222-2222-2222-2222-222222222222"
PROJECT = "33333333-3333-3333-3333-333333333333"
TASK = "44444444-4444-4444-4444-444444444444"
OTHER = "55555555-5555-5555-5555-555555555555"
INFO = get_provider_info()


def settings(host=None, **extra):
    return read_settings(
        Connection(conn_id="rb", conn_type="redbrick", host=host, password=KEY, extra=json.dumps(extra))
    )


@pytest.mark.parametrize(
    ("host", "extra", "address"),
    [
        (None, {}, f"https://app.redbrickai.com/{ORG}/projects/{PROJECT}"),
        ("https://api.redbrickai.com/", {}, f"https://app.redbrickai.com/{ORG}/projects/{PROJECT}"),
        ("http://localhost:8585", {}, f"http://localhost:8585/?project={PROJECT}"),
        ("http://[::1]:8585", {}, f"http://[::1]:8585/?project={PROJECT}"),
        ("labels.hospital.example", {}, f"https://labels.hospital.example/{ORG}/projects/{PROJECT}"),
        (
            "https://labels.hospital.example:8443/x",
            {},
            f"https://labels.hospital.example:8443/{ORG}/projects/{PROJECT}",
        ),
        ("https://abc.execute-api.us-east-1.amazonaws.com/prod", {}, ""),
        (
            "https://abc.execute-api.us-east-1.amazonaws.com/prod",
            {"web_url": "https://label.example.com/app/"},
            f"https://label.example.com/app/{ORG}/projects/{PROJECT}",
        ),
        (
            "http://localhost:8585",
            {"web_url": "http://localhost:3000"},
            f"http://localhost:3000/{ORG}/projects/{PROJECT}",
        ),
    ],
)
def test_project_address_follows_the_api_host(host, extra, address):
    assert project_address(settings(host, **extra), ORG, PROJECT) == address


def test_task_address_adds_the_task_to_the_project():
    assert task_address(settings(), ORG, PROJECT, TASK) == (
        f"https://app.redbrickai.com/{ORG}/projects/{PROJECT}?taskId={TASK}"
    )
    assert task_address(settings("http://localhost:1"), ORG, PROJECT, TASK) == (
        f"http://localhost:1/?project={PROJECT}&taskId={TASK}"
    )
    assert task_address(settings("https://x.amazonaws.com"), ORG, PROJECT, TASK) == ""


# ---------------------------------------------------------------------------------------- on operators


@pytest.fixture
def connection(monkeypatch):
    def put(**extra):
        uri = {"conn_type": "redbrick", "password": KEY, "extra": {"org_id": ORG, "project_id": PROJECT, **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_REDBRICK_DEFAULT", json.dumps(uri))

    put()
    return put


def links(operator):
    return [link.get_link(operator, ti_key=None) for link in operator.operator_extra_links]


def test_link_uses_ids_of_operator_or_connection(connection):
    here = f"https://app.redbrickai.com/{ORG}/projects/{PROJECT}"
    assert links(RedBrickListTasksOperator(task_id="a")) == [here, ""]
    elsewhere = RedBrickListTasksOperator(task_id="b", org_id=OTHER, project_id=TASK)
    assert links(elsewhere) == [f"https://app.redbrickai.com/{OTHER}/projects/{TASK}", ""]


@pytest.mark.parametrize(
    ("operator", "is_linked"),
    [
        (lambda: RedBrickPrelabelOperator(task_id="a", labeler=print, task_ids=[TASK], write="anywhere"), True),
        (lambda: RedBrickPrelabelOperator(task_id="a", labeler=print, task_ids=[TASK, OTHER], stage_name="L"), False),
        (lambda: RedBrickPrelabelOperator(task_id="a", labeler=print, stage_name="L"), False),
        (lambda: RedBrickPutLabelsOperator(task_id="a", stage_name="L", tasks=[{"taskId": TASK, "series": []}]), True),
        (lambda: RedBrickPutLabelsOperator(task_id="a", stage_name="L", tasks=[{"name": "x", "series": []}]), False),
        (lambda: RedBrickPutLabelsOperator(task_id="a", stage_name="L", tasks=[TASK], existing_labels=True), True),
        (lambda: RedBrickTasksSensor(task_id="a", task_ids=[TASK], left_stage="L"), True),
        (lambda: RedBrickTasksSensor(task_id="a", task_ids="{{ params.ids }}", left_stage="L"), False),
        (lambda: RedBrickTasksSensor(task_id="a", task_ids=["{{ params.id }}"], left_stage="L"), False),
    ],
)
def test_task_link_needs_exactly_one_task(connection, operator, is_linked):
    project, task = links(operator())
    assert project
    assert task == (f"{project}?taskId={TASK}" if is_linked else "")


@pytest.mark.parametrize("given", [{"project_id": "{{ params.project }}"}, {"project_id": " "}, {"org_id": "x"}])
def test_invalid_ids_give_no_link(connection, given):
    assert links(RedBrickListTasksOperator(task_id="a", **given)) == ["", ""]


def test_missing_connection_gives_no_link(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_REDBRICK_DEFAULT", raising=False)
    assert links(RedBrickListTasksOperator(task_id="a", redbrick_conn_id="not_there")) == ["", ""]


class Instance:
    """A task instance with the methods that links use."""

    def __init__(self, fails=False):
        self.xcoms = {}
        self.fails = fails

    def xcom_push(self, key, value):
        if self.fails:
            raise RuntimeError("no database")
        self.xcoms[key] = value


def test_pre_execute_publishes_the_links(connection):
    instance = Instance()
    RedBrickListTasksOperator(task_id="a").pre_execute({"ti": instance})
    assert instance.xcoms == {RedBrickProjectLink().xcom_key: f"https://app.redbrickai.com/{ORG}/projects/{PROJECT}"}


def test_second_run_reads_the_connection_again(connection):
    operator, instance = RedBrickListTasksOperator(task_id="a"), Instance()
    operator.pre_execute({"ti": instance})
    connection(project_id=OTHER)
    operator.pre_execute({"ti": instance})
    assert instance.xcoms == {RedBrickProjectLink().xcom_key: f"https://app.redbrickai.com/{ORG}/projects/{OTHER}"}


def test_link_errors_do_not_fail_the_task(connection):
    RedBrickListTasksOperator(task_id="a").pre_execute({"ti": Instance(fails=True)})
    RedBrickListTasksOperator(task_id="a").pre_execute({})
    connection(web_url="javascript:alert(1)")
    RedBrickListTasksOperator(task_id="a").pre_execute({"ti": Instance()})


def test_every_operator_and_sensor_has_the_links():
    seen = 0
    for kind in ("operators", "sensors"):
        for module in (name for entry in INFO[kind] for name in entry["python-modules"]):
            for name, found in vars(importlib.import_module(module)).items():
                if inspect.isclass(found) and found.__module__ == module and issubclass(found, BaseOperator):
                    kinds = [type(link) for link in found.operator_extra_links]
                    assert kinds == [RedBrickProjectLink, RedBrickTaskLink], name
                    seen += 1
    assert seen >= 10


def test_links_are_registered():
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in (RedBrickProjectLink, RedBrickTaskLink)}
    assert set(INFO["extra-links"]) == names
