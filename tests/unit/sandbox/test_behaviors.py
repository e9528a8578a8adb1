"""Test each behavior of the sandbox, in virtual time."""

from __future__ import annotations

import contextlib
import json
import random
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests
from sandbox_calls import BOX, LIST, MOVE, PAGED, PUT, REOPEN, ask, claim, data, error, submit
from sandbox_in_process import SandboxInProcess

from redbrick_sandbox.behaviors import VALUES, Behaviors, LateDraw, parse

TASK = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
    updatedAt currentStageName genericEvents { __typename
        ... on TaskStateChanges { updatedBy assignedToAfterEntity { userId } }
        ... on Comment { createdBy { userId } replies { createdBy { userId } } } }
    currentStageSubTask { ... on LabelingTask { assignedTo { userId } } }
    datapoint { items(presigned: true) } latestTaskData { labelsMap(presigned: true) { labelName } } } }"""
COMMENT = """mutation ($o: UUID!, $p: UUID!, $t: UUID!) {
    createComment(orgId: $o, projectId: $p, taskId: $t, textVal: "see") { commentId } }"""
ME = "query { me { userId } }"
SIGN = """query ($o: UUID!, $i: [String]!) { presignItems(orgId: $o, items: $i,
    storageId: "22222222-2222-2222-2222-222222222222") }"""


def sandbox_with(behavior="", **settings):
    return SandboxInProcess(behavior=behavior, **settings)


def read(sandbox, task_id):
    return data(sandbox, TASK, t=task_id)


def post(sandbox, query, **variables):
    """Send a document and return the HTTP response, whatever its status."""
    variables = {"o": sandbox.org_id, "p": sandbox.project_id, **variables}
    body = {"query": query, "variables": variables}
    return sandbox.http.post(f"{sandbox.url}/graphql/", json=body, headers={"ApiKey": sandbox.api_key})


def reopen_all(ids):
    fields = (
        f'm{n}: moveTaskToStart(orgId: $o, projectId: $p, taskId: "{each}") {{ ok }}' for n, each in enumerate(ids)
    )
    return f"mutation ($o: UUID!, $p: UUID!) {{ {' '.join(fields)} }}"


# -- specification -------------------------------------------------------------------------------------


def test_parse_continues_lists_at_commas():
    parsed = parse("retired=Task.priority,Task.updatedAt,late_apply=0.3:2:drop:a,b:times=1,times=epoch, read_lag=0.5")
    assert parsed.retired == {"Task.priority", "Task.updatedAt"}
    assert parsed.late_apply is not None
    assert (parsed.late_apply.answers, parsed.late_apply.root_fields) == (("drop",), {"a", "b"})
    assert (parsed.late_apply.times, parsed.times, parsed.read_lag) == (1, "epoch", 0.5)


@pytest.mark.parametrize(
    "spec",
    [
        "conversion",
        "conversion=half",
        "colour=red",
        "aliases=no,aliases=yes",
        "read_lag=-1",
        "read_lag=x",
        "read_lag=nan",
        "lag_probability=2",
        "max_page=x",
        "retired=Task",
        "late_apply=2:1",
        "late_apply=1",
        "late_apply=1:1:a-b",
        "late_apply=1:1:often=2",
    ],
)
def test_parse_invalid_specification_is_refused(spec):
    with pytest.raises(ValueError, match=r".+"):
        parse(spec)


def test_document_can_be_parsed_again():
    changed = parse("retired=Task.priority,max_depth=4,clock_offset=-300,late_apply=0.5:2:504|drop")
    assert Behaviors().changed(changed.document()) == changed
    assert Behaviors().document() == {name: values[0] for name, values in VALUES.items()}
    assert changed.changed({"retired": None, "max_depth": None}).document()["max_depth"] == "none"


def test_reset_restores_behaviors_of_the_start():
    sandbox = sandbox_with("times=naive")
    sandbox.behavior(times="epoch", read_lag=3)
    sandbox.reset()
    assert (sandbox.behavior()["times"], sandbox.behavior()["read_lag"]) == ("naive", "0")


ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "sandbox.md"
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in DOCUMENT.read_text(encoding="utf-8").partition("\n## Behaviors")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| `")
]


def test_document_lists_exactly_the_behaviors_and_values():
    shown = {row[0].strip("`"): (row[2].strip("`"), *re.findall(r"`([^`]+)`", row[3])) for row in ROWS}
    assert list(shown.items()) == list(VALUES.items())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_document_names_a_test_that_exists(row):
    *_, does, cell = row
    if cell == "not yet":
        assert "not yet" in does
        return
    test = re.fullmatch(r"\[`(test_\w+)`\]\((\S+)\)", cell)
    assert test, cell
    text = (DOCUMENT.parent / test[2]).read_text(encoding="utf-8")
    assert re.search(rf"^\s*def {test[1]}\(", text, re.MULTILINE)


# -- read_lag ------------------------------------------------------------------------------------------


def test_read_lag_shows_earlier_state_in_every_read():
    sandbox = sandbox_with()
    (task_id,) = sandbox.seed_tasks(1)
    sandbox.behavior(read_lag=2)
    claim(sandbox, task_id)
    sandbox.clock.sleep(1)
    submit(sandbox, task_id)

    def seen():
        task = read(sandbox, task_id)
        listed = [entry["taskId"] for entry in data(sandbox, LIST, s="Review_1")["entries"]]
        work = task["currentStageSubTask"]["assignedTo"]
        return task["currentStageName"], bool(work), len(task["genericEvents"]), listed, sandbox.count("Review_1")

    created = len(read(sandbox, task_id)["genericEvents"])
    assert seen() == ("Label", False, created, [], 0)
    sandbox.clock.sleep(1)
    assert seen() == ("Label", True, created + 1, [], 0)
    sandbox.clock.sleep(1)
    assert seen()[0] == "Review_1"
    assert seen()[3:] == ([task_id], 1)


def test_read_lag_does_not_affect_mutations():
    sandbox = sandbox_with("read_lag=60")
    (task_id,) = sandbox.seed_tasks(1)
    assert claim(sandbox, task_id)[0]["taskId"] == task_id
    submit(sandbox, task_id)
    assert sandbox.applied("putManualLabelingTaskAndLabels") == {task_id: 1}
    assert sandbox.task(task_id) is None


def test_read_lag_omits_refused_mutations():
    sandbox = sandbox_with("read_lag=1")
    (task_id,) = sandbox.seed_tasks(1)
    claim(sandbox, task_id)
    assert "not in 'Review_1'" in error(sandbox, PUT, t=task_id, s="Review_1", f=True, l="[]")
    sandbox.clock.sleep(2)
    assert sandbox.task(task_id)["stage"] == "Label"
    submit(sandbox, task_id)
    sandbox.clock.sleep(2)
    assert sandbox.task(task_id)["stage"] == "Review_1"


def test_read_lag_shows_transition_at_its_time():
    sandbox = sandbox_with("read_lag=1", transition_ms=5000)
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    submit(sandbox, task_id)
    sandbox.clock.sleep(5.9)
    assert sandbox.task(task_id)["stage"] == "Label"
    sandbox.clock.sleep(0.2)
    assert sandbox.task(task_id)["stage"] == "Review_1"


def test_read_lag_also_delays_deletion_and_projects():
    sandbox = sandbox_with("read_lag=1")
    (task_id,) = sandbox.seed_tasks(1)
    project_id = sandbox.add_project(name="new")
    listed = "query ($o: UUID!, $p: UUID!) { project(orgId: $o, projectId: $p) { name } }"
    assert data(sandbox, listed, p=project_id) is None
    sandbox.clock.sleep(1)
    assert data(sandbox, listed, p=project_id) == {"name": "new"}
    delete = (
        "mutation ($o: UUID!, $p: UUID!, $i: [UUID!]) { deleteTasks(orgId: $o, projectId: $p, taskIds: $i) { ok } }"
    )
    data(sandbox, delete, i=[task_id])
    assert sandbox.task(task_id) is not None
    sandbox.clock.sleep(1)
    assert sandbox.task(task_id) is None


def test_lag_probability_mixes_present_and_past():
    sandbox = sandbox_with("read_lag=100,lag_probability=0.5")
    (task_id,) = sandbox.seed_tasks(1)
    seen = [sandbox.task(task_id) is not None for _ in range(100)]
    assert 20 < sum(seen) < 80
    assert sorted(seen) != seen


def test_read_lag_keeps_few_writes():
    sandbox = sandbox_with("read_lag=1")
    (task_id,) = sandbox.seed_tasks(1)
    for _ in range(50):
        claim(sandbox, task_id)
        data(
            sandbox,
            "mutation ($o: UUID!, $p: UUID!, $i: [UUID!]!) "
            "{ assignTasksMultipleUsers(orgId: $o, projectId: $p, taskIds: $i) { taskId } }",
            i=[task_id],
        )
        sandbox.clock.sleep(1)
    copy = sandbox.sandbox.store._copy
    assert copy is not None
    assert len(copy.log) < 20


def test_read_lag_ends_at_once():
    sandbox = sandbox_with("read_lag=100")
    (task_id,) = sandbox.seed_tasks(1)
    assert sandbox.task(task_id) is None
    sandbox.behavior(read_lag=0)
    assert sandbox.task(task_id) is not None


# -- late_apply ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "kind"), [("504", requests.HTTPError), ("drop", requests.ConnectionError)])
def test_late_apply_fails_at_once_and_applies_later(how, kind):
    sandbox = sandbox_with(f"late_apply=1:2:{how}")
    (task_id,) = sandbox.seed_tasks(1)
    with pytest.raises(kind) as failure:
        claim(sandbox, task_id)
    assert how == "drop" or failure.value.response.status_code == 504
    assert sandbox.sandbox.pending == 1
    sandbox.clock.sleep(1.9)
    assert sandbox.task(task_id)["owner"] is None
    sandbox.clock.sleep(60)
    late = sandbox.task(task_id)
    assert late["owner"].startswith("API:")
    assert sandbox.applied("assignTasksMultipleUsers") == {task_id: 1}
    # It counts as applied at its own time, not when the server was asked next.
    assert sandbox.clock.machine_time_of(late["updatedAt"]) < sandbox.clock.time() - 59


def test_late_apply_assigns_wherever_the_task_is_then():
    sandbox = sandbox_with()
    (task_id,) = sandbox.seed_tasks(1)
    sandbox.behavior(late_apply="1:5:504:assignTasksMultipleUsers:times=1")
    with pytest.raises(requests.HTTPError):
        claim(sandbox, task_id)
    sandbox.humans("Label")
    sandbox.clock.sleep(5)
    task = sandbox.task(task_id)
    assert (task["stage"], task["owner"][:4]) == ("Review_1", "API:")


def test_late_apply_is_refused_when_the_state_has_changed():
    sandbox = sandbox_with()
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    sandbox.behavior(late_apply="1:5:drop:times=1")
    with pytest.raises(requests.ConnectionError):
        submit(sandbox, task_id)
    submit(sandbox, task_id)
    sandbox.clock.sleep(5)
    assert sandbox.applied("putManualLabelingTaskAndLabels") == {task_id: 1}
    assert sandbox.task(task_id)["stage"] == "Review_1"


def test_late_apply_in_the_order_of_its_times():
    sandbox = sandbox_with(transition_ms=3000)
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    submit(sandbox, task_id)
    sandbox.behavior(late_apply="1:5:504:times=1")
    with pytest.raises(requests.HTTPError):
        claim(sandbox, task_id)
    sandbox.clock.sleep(100)
    # The task arrived in review before the assignment was applied.
    assert (sandbox.task(task_id)["stage"], sandbox.task(task_id)["owner"][:4]) == ("Review_1", "API:")


def test_late_apply_leaves_reads_and_other_mutations_alone():
    sandbox = sandbox_with("late_apply=1:1:504:assignTasksMultipleUsers,moveTaskToStart")
    (task_id,) = sandbox.seed_tasks(1, ground_truth=True)
    assert sandbox.task(task_id)["stage"] == "END"
    assert data(sandbox, MOVE, ids=[task_id], s="Label") == {"ok": True, "message": None}
    with pytest.raises(requests.HTTPError):
        data(sandbox, REOPEN, t=task_id)


def test_late_draw_counts_matching_requests():
    draw = LateDraw(parse("late_apply=1:3:drop:a:skip=1:times=2").late_apply, random.Random(0))
    decisions = [draw.decide([name]) for name in "abaaaa"]
    assert decisions == [None, None, ("drop", 3.0), ("drop", 3.0), None, None]


def test_late_draw_share_and_answers():
    draw = LateDraw(parse("late_apply=0.3:1").late_apply, random.Random(0))
    decisions = [draw.decide(["a"]) for _ in range(1000)]
    late = [decision for decision in decisions if decision]
    assert 250 < len(late) < 350
    assert {answer for answer, _ in late} == {"504", "drop"}


def test_reset_forgets_late_mutations():
    sandbox = sandbox_with("late_apply=1:1:504")
    ids = sandbox.seed_tasks(1)
    with pytest.raises(requests.HTTPError):
        claim(sandbox, *ids)
    sandbox.reset()
    assert sandbox.seed_tasks(1) == ids
    sandbox.clock.sleep(10)
    assert sandbox.stats()["applied"] == {}


# -- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 500])
def test_error_status_has_data_beside_errors(status):
    sandbox = sandbox_with(f"error_status={status}")
    ids = [*sandbox.seed_tasks(2, ground_truth=True), *sandbox.seed_tasks(1)]
    response = post(sandbox, reopen_all(ids))
    assert response.status_code == status
    assert response.json()["data"] == {"m0": {"ok": True}, "m1": {"ok": True}, "m2": None}
    (issue,) = response.json()["errors"]
    assert issue["path"] == ["m2"]
    assert sandbox.applied("moveTaskToStart") == dict.fromkeys(ids[:2], 1)
    assert post(sandbox, ME).status_code == 200


def test_error_path_and_data_can_be_absent():
    sandbox = sandbox_with("error_path=no,error_data=null")
    ids = [*sandbox.seed_tasks(1, ground_truth=True), *sandbox.seed_tasks(1)]
    answer = post(sandbox, reopen_all(ids)).json()
    assert answer["data"] is None
    assert [set(issue) for issue in answer["errors"]] == [{"message"}]
    assert sandbox.applied("moveTaskToStart") == {ids[0]: 1}


# -- limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behavior", "message"),
    [
        ("max_root_fields=1", "Root field limit of 1 exceeded, found 2."),
        ("max_complexity=3", "The query exceeds the maximum complexity of 3. Actual complexity is 4."),
        ("max_depth=1", "Query depth limit of 1 exceeded, found 2."),
        ("aliases=nested", "Aliases limit of 0 exceeded, found 2."),
        ("aliases=no", "Aliases limit of 0 exceeded, found 2."),
        ("retired=Mutation.moveTaskToStart", "Cannot query field 'moveTaskToStart' on type 'Mutation'."),
        ("retired=OkPayload.ok", "Cannot query field 'ok' on type 'OkPayload'."),
    ],
)
def test_limit_refuses_the_request_as_a_whole(behavior, message):
    sandbox = sandbox_with(behavior)
    response = post(sandbox, reopen_all(sandbox.seed_tasks(2, ground_truth=True)))
    assert response.status_code == 400
    assert message in [issue["message"] for issue in response.json()["errors"]]
    assert "data" not in response.json()
    assert sandbox.stats()["applied"] == {}


def test_retired_field_is_found_in_fragments():
    sandbox = sandbox_with("retired=LabelingTask.state,User.email")
    query = """query ($o: UUID!, $p: UUID!) { genericTasks(orgId: $o, projectId: $p) { entries { ...Work } } }
        fragment Work on Task { currentStageSubTask { ... on LabelingTask { state assignedTo { email } } } }"""
    messages = [issue["message"] for issue in post(sandbox, query).json()["errors"]]
    assert messages == [
        "Cannot query field 'state' on type 'LabelingTask'.",
        "Cannot query field 'email' on type 'User'.",
    ]


def test_nested_aliases_are_accepted_where_root_aliases_are_not():
    nested = "query { me { id: userId } }"
    assert post(sandbox_with("aliases=nested"), nested).status_code == 200
    assert post(sandbox_with("aliases=no"), nested).status_code == 400


def test_max_page_and_max_ids():
    sandbox = sandbox_with("max_page=2,max_ids=1")
    ids = sandbox.seed_tasks(3)
    assert "at most 2 tasks a page" in error(sandbox, PAGED, first=3)
    assert ask(sandbox, PAGED, first=2)["data"]
    answer = post(
        sandbox,
        "mutation ($o: UUID!, $p: UUID!, $i: [UUID!]!) "
        "{ assignTasksMultipleUsers(orgId: $o, projectId: $p, taskIds: $i) { taskId } }",
        i=ids[:2],
    ).json()
    assert "at most 1 tasks per request" in answer["errors"][0]["message"]


# -- answers -------------------------------------------------------------------------------------------


def test_key_identity_other_differs_from_me():
    sandbox = sandbox_with("key_identity=other")
    (task_id,) = sandbox.seed_tasks(1)
    claim(sandbox, task_id)
    holder = read(sandbox, task_id)["currentStageSubTask"]["assignedTo"]["userId"]
    assert holder != data(sandbox, ME)["userId"]
    sandbox.behavior(key_identity="same")
    assert holder == data(sandbox, ME)["userId"]


@pytest.mark.parametrize(("answer", "shown"), [("empty", []), ("null", None)])
def test_assign_answer_does_not_name_tasks(answer, shown):
    sandbox = sandbox_with(f"assign_answer={answer}")
    (task_id,) = sandbox.seed_tasks(1)
    assert claim(sandbox, task_id) == shown
    assert sandbox.task(task_id)["owner"].startswith("API:")


def test_events_can_be_hidden():
    sandbox = sandbox_with()
    (task_id,) = sandbox.seed_tasks(1)
    claim(sandbox, task_id)
    data(sandbox, COMMENT, t=task_id)
    assert any(event.get("updatedBy") for event in read(sandbox, task_id)["genericEvents"])
    sandbox.behavior(events="anonymous")
    shown = json.dumps(read(sandbox, task_id)["genericEvents"])
    assert "Comment" in shown
    assert "API:" not in shown
    sandbox.behavior(events="empty")
    assert read(sandbox, task_id)["genericEvents"] == []
    sandbox.behavior(events="forbidden")
    answer = ask(sandbox, TASK, t=task_id)
    assert answer["data"]["task"]["genericEvents"] is None
    assert answer["errors"][0]["path"] == ["task", "genericEvents"]
    assert "no permission" in answer["errors"][0]["message"]


def test_updated_at_not_labels_ignores_labels_only():
    sandbox = sandbox_with("updated_at=not-labels")
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    labels = json.dumps([BOX])
    draft = {"t": task_id, "s": "Label", "f": False, "l": labels}
    before = read(sandbox, task_id)["updatedAt"]
    data(sandbox, PUT, **draft)
    staged = read(sandbox, task_id)["updatedAt"]
    assert staged > before  # its state changed
    data(sandbox, PUT, **draft)
    put = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $l: String) {
        putLabels(orgId: $o, projectId: $p, taskId: $t, labelsData: $l) { ok } }"""
    data(sandbox, put, t=task_id, l="[]")
    assert read(sandbox, task_id)["updatedAt"] == staged
    assert sandbox.task(task_id)["labels"] == []
    submit(sandbox, task_id)
    assert read(sandbox, task_id)["updatedAt"] > staged


def test_updated_at_absent_is_null():
    sandbox = sandbox_with("updated_at=absent")
    assert read(sandbox, *sandbox.seed_tasks(1))["updatedAt"] is None


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ("utc", "2023-11-14T22:13:20.000000+00:00"),
        ("z", "2023-11-14T22:13:20.000000Z"),
        ("offset", "2023-11-15T00:13:20.000000+02:00"),
        ("naive", "2023-11-14T22:13:20.000000"),
        ("epoch", 1_700_000_000_000),
    ],
)
def test_times_have_the_style(times, shown):
    sandbox = sandbox_with(f"times={times}")
    (task_id,) = sandbox.seed_tasks(1, updated_at="2023-11-14T22:13:20Z")
    assert read(sandbox, task_id)["updatedAt"] == shown


def test_presigned_items_signs_only_by_presign_items():
    sandbox = sandbox_with("presigned=items")
    (task_id,) = sandbox.seed_tasks(1)
    (item,) = read(sandbox, task_id)["datapoint"]["items"]
    assert item.startswith("items/")
    (signed,) = data(sandbox, SIGN, i=[item])
    assert signed.startswith(f"{sandbox.url}/storage/items/")


def test_ownership_free_submits_unassigned_tasks():
    (task_id,) = sandbox_with().seed_tasks(1)
    sandbox = sandbox_with("ownership=free")
    sandbox.seed_tasks(1)
    submit(sandbox, task_id)
    assert sandbox.stage_of(task_id) == "Review_1"


@pytest.mark.parametrize("offset", [300, -300])
def test_clock_offset_moves_date_and_timestamps(offset):
    sandbox = sandbox_with(f"clock_offset={offset}")
    (task_id,) = sandbox.seed_tasks(1)
    date = parsedate_to_datetime(post(sandbox, ME).headers["Date"]).timestamp()
    assert date == sandbox.clock.time() + offset
    updated_at = datetime.fromisoformat(read(sandbox, task_id)["updatedAt"]).timestamp()
    assert updated_at == pytest.approx(sandbox.clock.time() + offset, abs=0.001)


def test_clock_offset_can_be_set_back():
    sandbox = sandbox_with("clock_offset=300")
    (task_id,) = sandbox.seed_tasks(1)
    before = read(sandbox, task_id)["updatedAt"]
    sandbox.behavior(clock_offset=0)
    claim(sandbox, task_id)
    assert read(sandbox, task_id)["updatedAt"] < before


# -- combinations --------------------------------------------------------------------------------------

EXAMPLES = {
    "read_lag": "0.5",
    "lag_probability": "0.5",
    "late_apply": "0.3:1",
    "max_root_fields": "1",
    "max_complexity": "200",
    "max_depth": "8",
    "max_body": "20000",
    "retired": "Task.priority",
    "max_page": "3",
    "max_ids": "1",
    "clock_offset": "-300",
}


@pytest.mark.parametrize("seed", range(20))
def test_any_combination_of_behaviors_is_a_server(seed):
    """A patient client gets every task through the workflow, whatever the server is like."""
    draw = random.Random(seed)
    behaviors = {
        name: EXAMPLES.get(name) or draw.choice(values) for name, values in VALUES.items() if draw.random() < 0.5
    }
    sandbox = sandbox_with(seed=seed)
    ids = sandbox.seed_tasks(3)
    sandbox.behavior(**behaviors)
    for _ in range(30):
        for task_id in ids:
            for send in (claim, submit):
                with contextlib.suppress(requests.RequestException, AssertionError):
                    send(sandbox, task_id)
        sandbox.clock.sleep(2)
    sandbox.behavior(**{name: values[0] for name, values in VALUES.items()})
    assert {sandbox.stage_of(task_id) for task_id in ids} == {"Review_1"}
    assert sandbox.applied("putManualLabelingTaskAndLabels") == dict.fromkeys(ids, 1)
