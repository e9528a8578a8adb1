"""Tests for answers to assignments."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.operations.project import RedBrickProject

ORG, PROJECT = "0a9c6e10-5b1d-4c8e-9f00-00000000000a", "0a9c6e10-5b1d-4c8e-9f00-00000000000b"
ID, OTHER = "0a9c6e10-5b1d-4c8e-9f00-000000000001", "0a9c6e10-5b1d-4c8e-9f00-000000000002"


def project(answer):
    """A project whose server answers every operation with one value."""
    transport = SimpleNamespace(execute=lambda *_, **__: {"assignTasksMultipleUsers": answer})
    return RedBrickProject(SimpleNamespace(transport=transport), ORG, PROJECT)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ([{"taskId": ID, "stageName": "Label"}], {ID: "Label"}),
        ([{"taskId": ID.upper(), "stageName": "END"}], {ID: "Ground Truth"}),
        ([{"taskId": ID}], {ID: ""}),
        ([], {}),
        (None, {}),
    ],
)
def test_assignment_returns_changed_tasks_with_their_stage(answer, named):
    assert project(answer).claim([ID]) == named


def test_assignment_ignores_tasks_that_were_not_requested():
    answer = [{"taskId": OTHER, "stageName": "Label"}, {"taskId": ID, "stageName": "Label"}]
    assert project(answer).release([ID]) == {ID: "Label"}


@pytest.mark.parametrize(
    "answer", [[{"taskId": None, "stageName": "Label"}], [{}], [7], 7, [{"taskId": ID, "stageName": 7}]]
)
def test_malformed_assignment_answer_may_have_been_applied(answer):
    """If it counted as a refusal, the tasks would stay assigned and would not be checked."""
    with pytest.raises(err.RedBrickAnswerError) as caught:
        project(answer).assign([ID], "ada@example.com")
    assert caught.value.maybe_applied
    assert caught.value.task_ids == (ID,)
