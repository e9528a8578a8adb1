"""Tests for reading tasks by id, several per request."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.models.task import Detail, Task
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.transport.graphql import Answer, GraphQLIssue

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


class Server:
    """Answers each read of tasks with a function of the requested ids."""

    def __init__(self, answer):
        self.requested = []
        self._answer = answer

    def read(self, ids):
        def execute_partial(_document, variables, *, task_ids):
            assert [variables[f"id{i}"] for i in range(len(task_ids))] == list(task_ids)
            self.requested.append(list(task_ids))
            return self._answer(task_ids)

        transport = SimpleNamespace(execute_partial=execute_partial)
        return RedBrickProject(SimpleNamespace(transport=transport), ORG, PROJECT).read_tasks(ids)


def answer(task_ids, *, unreadable, path):
    data = {
        f"t{i}": None if task_id == unreadable else {"taskId": task_id, "currentStageName": "Label"}
        for i, task_id in enumerate(task_ids)
    }
    issues = [
        GraphQLIssue("it is damaged", f"t{i}" if path else None)
        for i, task_id in enumerate(task_ids)
        if task_id == unreadable
    ]
    return Answer(data, tuple(issues))


@pytest.mark.parametrize("path", [True, False], ids=["with a path", "without a path"])
def test_unreadable_task_does_not_fail_its_neighbors(path):
    ids = [f"0a9c6e10-5b1d-4c8e-9f00-{i:012}" for i in range(50)]
    server = Server(partial(answer, unreadable=ids[7], path=path))
    found = server.read(ids)
    assert isinstance(found[ids[7]], err.RedBrickRefusedError)
    assert "it is damaged" in str(found[ids[7]])
    assert sum(isinstance(task, Task) for task in found.values()) == 49
    assert len(server.requested) <= 4


def test_error_without_a_path_is_not_ignored_if_all_tasks_have_data():
    """It may be about a part of any of them, such as the labels."""
    server = Server(lambda ids: Answer(answer(ids, unreadable="", path=True).data, (GraphQLIssue("no labels", None),)))
    with pytest.raises(err.RedBrickRefusedError, match="no labels"):
        server.read([ID, OTHER])
