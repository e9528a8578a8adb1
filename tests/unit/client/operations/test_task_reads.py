"""Tests for reading tasks by id, several per request."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.task import Detail
from airflow_provider_redbrick.client.operations.project import RedBrickProject

ORG, PROJECT = "0a9c6e10-5b1d-4c8e-9f00-00000000000a", "0a9c6e10-5b1d-4c8e-9f00-00000000000b"
ID, OTHER = "0a9c6e10-5b1d-4c8e-9f00-000000000001", "0a9c6e10-5b1d-4c8e-9f00-000000000002"


def project(*ids):
    """A project whose server answers with these tasks, whatever was requested."""
    data = {f"t{i}": {"taskId": task_id, "currentStageName": "Label"} for i, task_id in enumerate(ids)}
    answer = SimpleNamespace(data=data, issues=())
    transport = SimpleNamespace(execute_partial=lambda *_, **__: answer)
    return RedBrickProject(SimpleNamespace(transport=transport), ORG, PROJECT)


@pytest.mark.parametrize("detail", list(Detail))
def test_answer_about_another_task_is_rejected(detail):
    """One patient's labels would be taken for another's."""
    found = project(OTHER, OTHER).read_tasks([ID, OTHER], detail=detail)
    assert isinstance(found[ID], err.RedBrickAnswerError)
    assert f"it is about task {OTHER}" in str(found[ID])
    assert found[ID].task_ids == (ID,)
    assert found[OTHER].task_id == OTHER


@pytest.mark.parametrize("read", [partial(RedBrickProject.are_labeled, by="API:k"), RedBrickProject.output_events])
def test_result_of_another_task_is_not_used(read):
    found = read(project(OTHER), [ID])
    assert "it is about task" in str(found[ID])


def test_task_id_is_compared_case_insensitively():
    assert project(ID.upper()).read_tasks([ID])[ID].task_id == ID
    assert project(ID).read_tasks([ID.upper()])[ID.upper()].task_id == ID
