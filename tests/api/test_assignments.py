"""What is made of the answer to an assignment."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.api.project import RedBrickProject

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
def test_tasks_that_changed_hands_are_named_with_their_stage(answer, named):
    assert project(answer).claim([ID]) == named


def test_a_task_that_was_not_asked_about_is_not_told():
    answer = [{"taskId": OTHER, "stageName": "Label"}, {"taskId": ID, "stageName": "Label"}]
    assert project(answer).release([ID]) == {ID: "Label"}


@pytest.mark.parametrize(
    "answer", [[{"taskId": None, "stageName": "Label"}], [{}], [7], 7, [{"taskId": ID, "stageName": 7}]]
)
def test_an_answer_that_cannot_be_read_leaves_open_whether_it_was_applied(answer):
    """Taken for a refusal, the tasks would stay with whoever was given them, and nobody would look."""
    with pytest.raises(err.RedBrickAnswerError) as caught:
        project(answer).assign([ID], "ada@example.com")
    assert caught.value.maybe_applied
    assert caught.value.task_ids == (ID,)
