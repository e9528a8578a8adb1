"""Tests for models: missing values are accepted, malformed ones are an error."""

from __future__ import annotations

import dataclasses
import json

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.client.models.parsing import reading
from airflow_provider_redbrick.client.models.task import Member, Task, User, output_events
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickNotReadError

ID = "11111111-1111-1111-1111-111111111111"

FULL = {
    "taskId": ID,
    "currentStageName": "Label",
    "createdAt": "2023-10-20T14:31:38.610645+00:00",
    "updatedAt": "2023-10-21T14:31:38+02:00",
    "priority": 0.5,
    "datapoint": {
        "dpId": "d",
        "name": "study-1",
        "metaData": '{"modality": "CT"}',
        "items": ["a.dcm", "b.dcm"],
        "itemsPresigned": ["https://a", "https://b"],
        "seriesInfo": [{"name": "s"}],
    },
    "currentStageSubTask": {
        "state": "STAGED",
        "assignedTo": {"userId": "u", "email": "ada@example.com"},
        "assignedAt": "2023-10-20T15:00:00+00:00",
        "progressSavedAt": "2023-10-20T16:00:00+00:00",
    },
    "latestTaskData": {
        "tdId": "v1",
        "createdAt": "2023-10-20T16:00:00+00:00",
        "createdByEntity": {"userId": "API:k", "email": ""},
        "labelsData": '[{"category": [["object", "x"]]}]',
        "labelsDataPath": None,
        "labelsMap": [None, {"labelName": "m", "imageIndex": 0}],
    },
}


def test_task_with_all_fields_is_parsed():
    task = Task.from_wire(FULL)
    assert (task.task_id, task.name, task.stage_name, task.state) == (ID, "study-1", "Label", "STAGED")
    assert task.assignee == User("u", "ada@example.com")
    assert task.metadata == {"modality": "CT"}
    assert task.items == ("a.dcm", "b.dcm")
    assert task.item_urls == ("https://a", "https://b")
    assert task.created_at == pendulum.datetime(2023, 10, 20, 14, 31, 38, 610645)
    assert task.updated_at == pendulum.datetime(2023, 10, 21, 12, 31, 38)
    assert task.saved_at == task.labels_at == pendulum.datetime(2023, 10, 20, 16)
    assert task.labels == ({"category": [["object", "x"]]},)
    assert (task.labels_id, task.labels_by) == ("v1", User("API:k"))
    assert task.labels_map == (None, {"labelName": "m", "imageIndex": 0})


def nulled(value):
    """The same shape with null in every place where it may be null."""
    for key in value:
        if key != "taskId":
            yield {**value, key: None}
            if isinstance(value[key], dict):
                for inner in nulled(value[key]):
                    yield {**value, key: inner}


@pytest.mark.parametrize("data", [{"taskId": ID}, *nulled(FULL)], ids=str)
def test_task_fields_may_be_null_or_missing_except_the_id(data):
    task = Task.from_wire(data)
    assert task.task_id == ID
    assert isinstance(task.where, str)


@pytest.mark.parametrize("data", [{}, {"taskId": None}, {"taskId": ""}, None, [], "task", 5])
def test_task_without_an_id_is_an_error(data):
    with pytest.raises(RedBrickAnswerError, match="task"), reading("task"):
        Task.from_wire(data)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)
TIMES = st.text(max_size=30) | st.from_regex(
    r"\d{1,6}-\d{1,3}-\d{1,3}([T ]\d{1,3}:\d{1,3}(:\d+)?([+-]\d+:?\d*|Z)?)?/?P?"
)
PATHS = st.sampled_from(
    [(key,) for key in FULL if key != "taskId"]
    + [(outer, key) for outer in ("datapoint", "currentStageSubTask", "latestTaskData") for key in FULL[outer]]
)


def planted(path, junk):
    data = json.loads(json.dumps(FULL))
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = junk
    return data


@given(PATHS, JUNK | TIMES)
def test_malformed_answer_raises_only_an_answer_error(path, junk):
    try:
        with reading("task"):
            task = Task.from_wire(planted(path, junk))
    except RedBrickAnswerError as error:
        assert str(error).startswith("task: RedBrick's answer lacks what was asked for")  # noqa: PT017
    else:
        assert task.task_id == ID


@given(JUNK)
def test_malformed_members_and_events_raise_only_an_answer_error(junk):
    good = {"user": {"userId": "u"}}
    for read in (
        lambda: Member.from_wire(junk),
        lambda: Member.from_wire({"member": junk}),
        lambda: Member.from_wire({"member": good, "stageAccess": junk}),
        lambda: output_events({"genericEvents": junk}),
        lambda: output_events({"genericEvents": [{"outputEvent": junk}]}),
        lambda: User.from_wire(junk),
    ):
        try:
            with reading("x"):
                read()
        except RedBrickAnswerError:
            pass


def test_deeply_nested_json_is_an_answer_error():
    with pytest.raises(RedBrickAnswerError), reading("task"):
        Task.from_wire(planted(("latestTaskData", "labelsData"), "[" * 100_000))


def test_reading_does_not_convert_other_errors():
    with pytest.raises(KeyboardInterrupt), reading("x"):
        raise KeyboardInterrupt


# ------------------------------------------------------------------ labels


def saved(**changes):
    return Task.from_wire({**FULL, "latestTaskData": {**FULL["latestTaskData"], **changes}})


def test_unread_labels_are_not_empty_labels():
    not_asked = {key: value for key, value in FULL["latestTaskData"].items() if key != "labelsData"}
    assert Task.from_wire({**FULL, "latestTaskData": not_asked}).labels is None
    assert Task.from_wire({**FULL, "latestTaskData": None}).labels == ()
    assert saved(labelsData="[]").labels == ()
    assert saved(labelsData="null").labels == ()


@pytest.mark.parametrize("text", ['{"a": 1}', '"text"', "5", "{", "true"])
def test_labels_that_are_not_a_list_are_an_error(text):
    with pytest.raises(RedBrickAnswerError), reading("task"):
        saved(labelsData=text)


def without(*path):
    data = json.loads(json.dumps(FULL))
    at = data
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return Task.from_wire(data)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("dp_id", ("datapoint", "dpId")),
        ("metadata", ("datapoint", "metaData")),
        ("items", ("datapoint", "items")),
        ("item_urls", ("datapoint", "itemsPresigned")),
        ("series_info", ("datapoint", "seriesInfo")),
        ("state", ("currentStageSubTask", "state")),
        ("assignee", ("currentStageSubTask", "assignedTo")),
        ("assigned_at", ("currentStageSubTask", "assignedAt")),
        ("saved_at", ("currentStageSubTask", "progressSavedAt")),
        ("priority", ("priority",)),
        ("created_at", ("createdAt",)),
        ("updated_at", ("updatedAt",)),
        ("labels", ("latestTaskData", "labelsData")),
        ("labels_map", ("latestTaskData", "labelsMap")),
        ("labels_url", ("latestTaskData", "labelsDataPath")),
        ("labels_id", ("latestTaskData", "tdId")),
        ("labels_by", ("latestTaskData", "createdByEntity")),
        ("labels_at", ("latestTaskData", "createdAt")),
    ],
)
def test_field_missing_in_an_answer_counts_as_unread(name, path):
    assert Task.from_wire(FULL).unread == {"series", "classification"}
    task = without(*path)
    assert getattr(task, name) is None
    assert task.unread == {"series", "classification", name}
    with pytest.raises(RedBrickNotReadError, match=f"Task {ID}: {name} was not read"):
        task.require("stage_name", name)


@pytest.mark.parametrize(
    ("part", "question"),
    [
        ("latestTaskData", lambda task: task.has_labels),
        ("latestTaskData", lambda task: task.has_masks),
        ("latestTaskData", lambda task: task.masks),
        ("latestTaskData", lambda task: task.mask_paths),
        ("latestTaskData", lambda task: task.saved_by("u")),
        ("latestTaskData", lambda task: task.relabeled_by("u", Task.from_wire(FULL))),
        ("latestTaskData", lambda task: Task.from_wire(FULL).relabeled_by("u", task)),
        ("currentStageSubTask", lambda task: task.held_by("u")),
        ("currentStageSubTask", lambda task: task.is_leaving),
        ("currentStageSubTask", lambda task: task.is_queued_in("Label")),
    ],
)
def test_unread_field_raises_when_used(part, question):
    with pytest.raises(RedBrickNotReadError):
        question(without(part))
    question(Task.from_wire({**FULL, part: None}))


def test_inline_labels_suffice_for_has_labels():
    saved_data = {"labelsData": '[{"category": "x"}]'}
    assert Task.from_wire({"taskId": ID, "latestTaskData": saved_data}).has_labels
    assert Task.from_wire({"taskId": ID, "latestTaskData": {"labelsMap": [{"labelName": "m"}]}}).has_labels
    with pytest.raises(RedBrickNotReadError, match="labels_map and labels_url were not read"):
        _ = Task.from_wire({"taskId": ID, "latestTaskData": {"labelsData": "[]"}}).has_labels


def test_constructed_task_has_its_arguments_as_fields():
    task = Task("t", series=({"boundingBoxes": []},))
    assert not task.has_labels
    assert dataclasses.replace(task, labels=({},)).has_labels
    assert dataclasses.replace(without("latestTaskData"), labels=({},)).has_labels


def test_labels_url_counts_as_labels():
    task = saved(labelsData="[]", labelsDataPath="https://storage/labels")
    assert task.labels_url == "https://storage/labels"


def test_task_repr_shows_no_labels():
    task = saved(labelsData='[{"canary": 1}]', labelsDataPath="https://storage/canary", labelsMap=[{"x": "canary"}])
    assert "canary" not in repr(task)


# ------------------------------------------------------------------ stages and states


def test_ground_truth_has_one_name():
    task = Task.from_wire({"taskId": ID, "currentStageName": "END", "currentStageSubTask": None})
    assert task.stage_name == "Ground Truth"
    assert task.state is None
    assert task.is_queued_in("END")
    assert task.is_queued_in("Ground Truth")
    assert not task.is_queued_in("Label")


def test_leaving_task_is_not_queued():
    task = Task.from_wire({"taskId": ID, "currentStageName": "Label", "currentStageSubTask": {"state": "COMPLETED"}})
    assert not task.is_queued_in("Label")
    assert task.where == "on its way out of Label"


def test_where_names_the_holder():
    held = {"state": "ASSIGNED", "assignedTo": {"userId": "API:k", "email": ""}}
    assert Task.from_wire(FULL).where == "in Label, assigned to ada@example.com"
    assert Task.from_wire({**FULL, "currentStageSubTask": held}).where == "in Label, assigned to an API key"
    assert Task.from_wire({"taskId": ID}).where == "in no stage"


# ------------------------------------------------------------------ people


def member(role="LABELER", access=(("Label", True), ("Review_1", False)), **inner):
    return Member.from_wire(
        {
            "member": {"user": {"userId": "u", "email": "ada@example.com"}, **inner},
            "role": role,
            "stageAccess": [{"stageName": name, "access": may} for name, may in access],
        }
    )


def test_labeler_may_work_only_in_allowed_stages():
    assert member().may_work_in("Label")
    assert not member().may_work_in("Review_1")
    assert not member().may_work_in("Review_2")
    assert not member(access=()).may_work_in("Label")


@pytest.mark.parametrize("role", ["MANAGER", "ADMIN", ""])
def test_manager_and_admin_may_work_in_all_stages(role):
    assert member(role=role).may_work_in("Review_1")


def test_inactive_member_may_not_work_in_any_stage():
    assert not member("ADMIN", active=False).may_work_in("Label")
    assert member("ADMIN", active=None).may_work_in("Label")


@pytest.mark.parametrize(
    "data", [{}, {"member": None}, {"member": {"user": None}}, {"member": {"user": {"userId": ""}}}]
)
def test_member_without_a_user_is_none(data):
    assert Member.from_wire(data) is None


def test_user_is_shown_by_email_or_kind():
    assert str(User("u", "ada@example.com")) == "ada@example.com"
    assert str(User("API:1")) == "an API key"
    assert str(User("RB:system")) == "RB:system"
    assert User("API:1").is_api_key
    assert not User("u").is_api_key
    assert User.from_wire({"userId": "API:1", "email": ""}) == User("API:1", None)


# ------------------------------------------------------------------ events


def left(stage, at, **event):
    return {"updatedBy": "API:k", "createdAt": at, "outputEvent": {"currentStageName": stage, **event}}


def test_output_events_are_sorted_and_exclude_others():
    events = output_events(
        {
            "genericEvents": [
                left("END", "2024-05-04T00:00:00Z", nextStageName="Label"),
                left("END", "2024-05-03T00:00:00Z"),
                None,
                {"__typename": "Comment"},
                {"outputEvent": None, "createdAt": "2024-05-01T00:00:00Z"},
                left("Review_1", "2024-05-02T00:00:00Z", outputBool=False),
                left("Label", "2024-05-01T00:00:00Z", nextStageName=None),
            ]
        }
    )
    assert [(e.stage_name, e.by, e.is_edit) for e in events] == [
        ("Label", "API:k", False),
        ("Review_1", "API:k", False),
        ("Ground Truth", "API:k", True),
        ("Ground Truth", "API:k", False),
    ]


@pytest.mark.parametrize("data", [{}, {"genericEvents": None}, {"genericEvents": []}])
def test_output_events_of_an_empty_answer_are_empty(data):
    assert output_events(data) == ()
