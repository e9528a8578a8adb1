"""Test the server over HTTP: encoding, keys, queries, mutations, storage and refusals."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
import time
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests
from sandbox_calls import (
    ASSIGN,
    BOX,
    LIST,
    MOVE,
    PAGED,
    PRESIGN,
    PUT,
    REOPEN,
    REVIEW,
    ask,
    claim,
    data,
    encoded,
    error,
    post,
    submit,
)
from sandbox_process import SandboxError, SandboxProcess

from redbrick_sandbox.http import loopback_sockets

ME = "query { me { userId } }"
UNKNOWN_ID = "00000000-0000-4000-8000-00000000dead"


def walk(sandbox, document, field=None, page=7, **variables):
    """Read all pages; gives the ids, in order."""
    ids, after = [], None
    while True:
        found = data(sandbox, document, first=page, after=after, **variables)
        ids += [entry["taskId"] for entry in found["entries"]]
        after = found["cursor"]
        if after is None:
            return ids


# -- the wire ------------------------------------------------------------------------------------------


def test_plain_and_encoded_bodies_are_accepted(sandbox):
    key = {"ApiKey": sandbox.api_key}
    plain = post(sandbox, json.dumps({"query": ME}), **key)
    packed = post(sandbox, encoded(ME), **key, **{"Content-Encoding-RB": "gzip"})
    assert plain.json() == packed.json()
    assert plain.json()["data"]["me"]["userId"].startswith("API:")
    assert packed.headers["Content-Type"] == "application/json"
    assert post(sandbox, json.dumps({"query": ME}), "/api/graphql/", **key).json() == plain.json()


@pytest.mark.parametrize("headers", [{}, {"ApiKey": "wrong"}, {"Authorization": "Bearer x"}])
def test_wrong_key_is_401(sandbox, headers):
    assert post(sandbox, json.dumps({"query": ME}), **headers).status_code == 401


def test_key_is_accepted_as_access_token(sandbox):
    assert post(sandbox, json.dumps({"query": ME}), Authorization=sandbox.api_key).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        json.dumps({"query": "query {"}),
        json.dumps({"query": "query { nothing }"}),
        json.dumps({"query": "query ($t: UUID!) { task(orgId: $t, projectId: $t, taskId: $t) { taskId } }"}),
        json.dumps(
            {
                "query": "query ($t: UUID!) { task(orgId: $t, projectId: $t, taskId: $t) { taskId } }",
                "variables": {"t": "{{ not rendered }}"},
            }
        ),
        json.dumps({"query": "query A { me { userId } } query B { me { userId } }"}),
    ],
)
def test_invalid_request_is_400_with_message(sandbox, body):
    response = post(sandbox, body, ApiKey=sandbox.api_key)
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"]


def test_wrongly_encoded_body_is_400(sandbox):
    response = post(sandbox, "{}", ApiKey=sandbox.api_key, **{"Content-Encoding-RB": "gzip"})
    assert response.status_code == 400


def test_fifty_aliases_succeed_or_fail_separately(sandbox):
    ids = sandbox.seed_tasks(50)
    claim(sandbox, *ids[:49])
    arguments = 'orgId: $o, projectId: $p, stageName: "Label", elapsedTimeMs: 0, finished: true'
    fields = " ".join(
        f'a{n}: putManualLabelingTaskAndLabels({arguments}, taskId: "{task_id}", labelsData: "[]") {{ ok }}'
        for n, task_id in enumerate(ids)
    )
    answer = ask(sandbox, f"mutation ($o: UUID!, $p: UUID!) {{ {fields} }}")
    assert [error["path"] for error in answer["errors"]] == [["a49"]]
    assert ids[49] in answer["errors"][0]["message"]
    assert answer["data"]["a49"] is None
    assert all(answer["data"][f"a{n}"] == {"ok": True} for n in range(49))
    assert sandbox.count("Review_1") == 49
    assert sandbox.applied("putManualLabelingTaskAndLabels") == dict.fromkeys(ids[:49], 1)


# -- reading -------------------------------------------------------------------------------------------


def test_unknown_ids_return_null_or_error(sandbox):
    ids = {"o": sandbox.org_id, "p": UNKNOWN_ID}
    query = "query ($o: UUID!, $p: UUID!) { project(orgId: $o, projectId: $p) { name } }"
    assert sandbox.graphql(query, ids, strict=False) == {"data": {"project": None}}
    assert sandbox.task(UNKNOWN_ID) is None
    assert "no stage 'Labels'" in error(sandbox, LIST, s="Labels")
    assert "no stage 'Labels'" in error(sandbox, PAGED, s="Labels")
    assert UNKNOWN_ID in error(sandbox, LIST, p=UNKNOWN_ID)


def test_ground_truth_has_two_names_in_listings(sandbox):
    ids = sandbox.seed_tasks(3, ground_truth=True)
    assert walk(sandbox, LIST, s="Output") == ids
    assert walk(sandbox, PAGED, s="END") == ids
    assert "'END'" in error(sandbox, LIST, s="END")
    assert "'Output'" in error(sandbox, PAGED, s="Output")
    found = sandbox.task(ids[0])
    assert (found["stage"], found["state"]) == ("END", None)


def test_pages_are_sorted_by_priority_and_age(sandbox):
    late = sandbox.seed_tasks(10)
    first = sandbox.seed_tasks(3, priority=0.9)
    assert walk(sandbox, LIST, s="Label") == [*first, *late]
    assert walk(sandbox, PAGED, s="Label", page=13) == [*first, *late]
    assert data(sandbox, PAGED, s="Label", first=0)["count"] == 13
    assert data(sandbox, PAGED, first=0)["count"] == 13


def test_paging_skips_no_task_while_tasks_are_claimed(sandbox):
    ids = sandbox.seed_tasks(30)
    seen, after = [], None
    while True:
        page = data(sandbox, LIST, s="Label", m={"userId": None}, first=4, after=after)
        found = [entry["taskId"] for entry in page["entries"]]
        seen += found
        if found:
            claim(sandbox, *found)
        after = page["cursor"]
        if after is None:
            break
    assert seen == ids


def test_filter_by_assignee(sandbox):
    free = sandbox.seed_tasks(2)
    alices = sandbox.seed_tasks(2, assignee="alice@example.com")
    mine = sandbox.seed_tasks(2, assignee="API key")
    me = sandbox.graphql(ME)["me"]["userId"]
    for filters, wanted in (
        ({}, [*free, *alices, *mine]),
        ({"userId": None}, free),
        ({"userId": "alice@example.com"}, alices),
        ({"userId": me}, mine),
        ({"status": "ASSIGNED"}, [*alices, *mine]),
        ({"taskId": free[1]}, free[1:]),
        ({"userId": "unknown@example.com"}, []),
    ):
        assert walk(sandbox, LIST, s="Label", m=filters) == wanted, filters


def test_search_by_prefix_or_exact_name(sandbox):
    ids = sandbox.seed_tasks(11, prefix="chest")
    sandbox.seed_tasks(2, prefix="knee")
    assert walk(sandbox, LIST, q="chest") == ids
    assert walk(sandbox, LIST, q='"chest-000003"') == [ids[2]]
    assert walk(sandbox, LIST, q='"chest"') == []
    assert walk(sandbox, LIST, q=ids[4]) == [ids[4]]


def test_completed_tasks_are_listed_in_stage_of_completion(sandbox):
    ids = sandbox.seed_tasks(2, assignee="API key")
    before = sandbox.task(ids[0])["updatedAt"]
    submit(sandbox, ids[0])
    done = {"recentlyCompleted": True}
    assert walk(sandbox, LIST, s="Label", m=done) == [ids[0]]
    assert walk(sandbox, LIST, s="Label", m={**done, "completedAtFrom": before}) == [ids[0]]
    assert walk(sandbox, LIST, s="Label", m={**done, "completedAtTo": before}) == []
    assert walk(sandbox, LIST, s="Label", m={**done, "userId": "alice@example.com"}) == []
    claim(sandbox, ids[0])
    data(sandbox, REVIEW, t=ids[0], s="Review_1", v=False)
    assert walk(sandbox, LIST, s="Label", m=done) == []
    assert walk(sandbox, LIST, s="Review_1", m={"reviewState": "FAILED"}) == [ids[0]]
    assert walk(sandbox, LIST, s="Label", m={"reviewState": "FAILED"}) == [ids[0]]


def test_filter_by_time_of_change(sandbox):
    old = sandbox.seed_tasks(2, ground_truth=True, updated_at="2024-02-03T04:05:06Z")
    new = sandbox.seed_tasks(2, ground_truth=True, updated_at="2024-03-03")
    assert sandbox.task(old[0])["updatedAt"] == "2024-02-03T04:05:06.000000+00:00"
    assert walk(sandbox, PAGED, s="END", since="2024-03-03T00:00:00+00:00") == new
    assert walk(sandbox, PAGED, s="END", since="2024-03-03T01:00:00+01:00") == new
    mark = data(sandbox, PAGED, s="END", first=1)["cacheTime"]
    data(sandbox, REOPEN, t=old[0])
    assert walk(sandbox, PAGED, since=mark) == [old[0]]


@pytest.mark.parametrize("since", ["", "yesterday", "P1D", "/", "2024-03-03/P1D", "0001-01-01T00:00:00+14:00", 5])
def test_invalid_time_is_refused(sandbox, since):
    asked = {"o": sandbox.org_id, "p": sandbox.project_id, "s": "END", "since": since}
    response = post(sandbox, encoded(PAGED, asked), ApiKey=sandbox.api_key, **{"Content-Encoding-RB": "gzip"})
    assert response.status_code == 400
    assert f"{str(since)!r} is not an ISO-8601 time" in response.json()["errors"][0]["message"]


def test_page_size_is_limited(sandbox):
    assert "at most 500" in error(sandbox, LIST, s="Label", first=501)
    sandbox.behavior(max_page=20)
    assert "at most 20" in error(sandbox, PAGED, s="Label", first=21)
    assert "not a cursor" in error(sandbox, LIST, s="Label", after="7")


# -- changing ------------------------------------------------------------------------------------------


def test_assign_and_release(sandbox):
    ids = sandbox.seed_tasks(3)
    truth = sandbox.seed_tasks(1, ground_truth=True)
    done = data(sandbox, ASSIGN, ids=[*ids, UNKNOWN_ID, *truth], emails=["bob@example.com"], me=False, refresh=True)
    assert [each["taskId"] for each in done] == ids
    assert done[0] == {"taskId": ids[0], "name": "task-000001", "stageName": "Label"}
    assert sandbox.task(ids[0])["owner"] == "bob@example.com"
    assert claim(sandbox, ids[0], refresh=False) == []
    assert len(claim(sandbox, ids[0])) == 1
    assert len(claim(sandbox, ids[0])) == 1
    # The second claim did not change the task.
    assert sandbox.applied("assignTasksMultipleUsers") == {ids[0]: 2, ids[1]: 1, ids[2]: 1}
    data(sandbox, ASSIGN, ids=ids[:1], emails=None, me=False)
    assert sandbox.task(ids[0])["state"] == "UNASSIGNED"


@pytest.mark.parametrize(
    ("emails", "words"),
    [
        (["bob@example.com", "who@example.com"], "'who@example.com'"),
        ([""], "''"),
        (["alice@example.com"], "alice@example.com has no access to stage 'Review_1'"),
        (["bob@example.com", "carol@example.com"], "more than one assignee"),
    ],
)
def test_assign_is_atomic(sandbox, emails, words):
    ids = [*sandbox.seed_tasks(1), *sandbox.seed_tasks(1, stage="Review_1")]
    before = [sandbox.task(each) for each in ids]
    assert words in error(sandbox, ASSIGN, ids=ids, emails=emails, me=False)
    assert [sandbox.task(each) for each in ids] == before
    assert sandbox.stats()["applied"] == {}


def test_move_is_atomic(sandbox):
    (task_id,) = sandbox.seed_tasks(1)
    before = sandbox.task(task_id)
    assert UNKNOWN_ID in error(sandbox, MOVE, ids=[task_id, UNKNOWN_ID], s="END")
    assert sandbox.task(task_id) == before
    # The refused request must not leave changes in the task cache.
    assert len(claim(sandbox, task_id)) == 1


def test_mutation_accepts_at_most_fifty_ids(sandbox):
    ids = sandbox.seed_tasks(51)
    assert "at most 50" in error(sandbox, ASSIGN, ids=ids, me=True)
    assert "at most 50" in error(sandbox, MOVE, ids=ids, s="END")
    assert len(claim(sandbox, *ids[:50])) == 50


@pytest.mark.parametrize(
    ("options", "stage", "words"),
    [
        ({}, "Label", "not assigned to you"),
        ({"assignee": "alice@example.com"}, "Label", "assigned to another user"),
        ({"assignee": "API key"}, "Review_1", "is in stage 'Label', not in 'Review_1'"),
        ({"assignee": "API key"}, "Nowhere", "there is no stage 'Nowhere'"),
        ({"ground_truth": True}, "Label", "is in stage 'END'"),
        ({"assignee": "API key", "state": "PROBLEM"}, "Label", "open issue"),
    ],
)
def test_submit_without_permission_is_refused(sandbox, options, stage, words):
    (task_id,) = sandbox.seed_tasks(1, **options)
    before = sandbox.task(task_id)
    said = error(sandbox, PUT, t=task_id, s=stage, f=True, l="[]")
    assert words in said
    assert sandbox.task(task_id) == before
    assert sandbox.stats()["applied"] == {}


def test_submit_without_required_ownership(sandbox):
    sandbox.behavior(ownership="free")
    (task_id,) = sandbox.seed_tasks(1)
    submit(sandbox, task_id)
    assert sandbox.stage_of(task_id) == "Review_1"


@pytest.mark.parametrize("labels", ["not json", "{}", "[1]"])
def test_invalid_labels_are_refused(sandbox, labels):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    assert "labelsData" in error(sandbox, PUT, t=task_id, s="Label", f=True, l=labels)
    assert sandbox.stage_of(task_id) == "Label"


def test_submit_without_labels_keeps_labels(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key", labels=[BOX])
    data(sandbox, PUT, t=task_id, s="Label", f=True)
    assert sandbox.task(task_id)["labels"] == [BOX]


def test_reopen_ground_truth(sandbox):
    (task_id,) = sandbox.seed_tasks(1, ground_truth=True, labels=[BOX])
    assert data(sandbox, REOPEN, t=task_id) == {"ok": True}
    found = sandbox.task(task_id)
    assert (found["stage"], found["state"], found["labels"]) == ("Label", "UNASSIGNED", [BOX])
    assert "not in ground truth" in error(sandbox, REOPEN, t=task_id)
    assert sandbox.applied("moveTaskToStart") == {task_id: 1}
    query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
        genericEvents { ... on TaskEvent { updatedBy outputEvent { currentStageName nextStageName } } } } }"""
    events = data(sandbox, query, t=task_id)["genericEvents"]
    moved = [each for each in events if (each.get("outputEvent") or {}).get("nextStageName")]
    assert [each["outputEvent"] for each in moved] == [{"currentStageName": "END", "nextStageName": "Label"}]
    assert moved[0]["updatedBy"].startswith("API:")


def test_move_tasks(sandbox):
    ids = sandbox.seed_tasks(2)
    assert data(sandbox, MOVE, ids=ids, s="Review_1") == {"ok": True, "message": None}
    assert sandbox.count("Review_1") == 2
    assert UNKNOWN_ID in error(sandbox, MOVE, ids=[ids[0], UNKNOWN_ID], s="END")
    assert sandbox.count("Review_1") == 2
    data(sandbox, MOVE, ids=ids[:1], s="ARCHIVED")
    assert sandbox.count() == 1


def test_transition_takes_configured_time(sandbox):
    sandbox.settings(transition_ms=300)
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    submit(sandbox, task_id)
    found = sandbox.task(task_id)
    assert (found["stage"], found["state"]) == ("Label", "COMPLETED")
    assert sandbox.count("Review_1") == 0
    time.sleep(0.35)
    assert sandbox.stage_of(task_id) == "Review_1"


# -- other projects ------------------------------------------------------------------------------------


def test_project_with_custom_stages(sandbox):
    stages = [
        {"stageName": "In", "brickName": "labelset-input", "routing": {"nextStageName": "QA"}},
        {"stageName": "QA", "brickName": "manual-labeling", "routing": {"stageNames": ["A stage, with words"]}},
        {"stageName": "A stage, with words", "brickName": "something-new", "routing": {"nextStageName": "Done"}},
        {"stageName": "Done", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
    ]
    project = sandbox.add_project(stages, name="Odd")
    (task_id,) = sandbox.seed_tasks(1, project_id=project, assignee="API key")
    assert sandbox.task(task_id, project_id=project)["stage"] == "QA"
    submit(sandbox, task_id, "QA", p=project)
    assert sandbox.stage_of(task_id, project_id=project) == "END"
    assert walk(sandbox, LIST, s="Done", p=project) == [task_id]
    query = """query ($o: UUID!, $p: UUID!) { stages(orgId: $o, projectId: $p) {
        stageName routing { __typename ... on MultiRouting { stageNames } } } }"""
    assert data(sandbox, query, p=project)[1]["routing"]["stageNames"] == ["A stage, with words"]


def test_consensus_project(sandbox):
    project = sandbox.add_project(consensus=True)
    (task_id,) = sandbox.seed_tasks(1, project_id=project)
    data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], me=True)
    assert sandbox.task(task_id, project_id=project)["owners"][0] == "alice@example.com"
    data(sandbox, PUT, p=project, t=task_id, s="Label", f=True, l="[]")
    assert sandbox.stage_of(task_id, project_id=project) == "Label"
    assert data(sandbox, MOVE, p=project, ids=[task_id], s="END")["ok"] is False
    # The API key also holds the task, so that people leave it alone. Alice's assignment must be removed.
    assert sandbox.humans("Label", project_id=project)["done"] == 0
    data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], me=False)
    assert sandbox.humans("Label", project_id=project)["done"] == 1
    assert sandbox.stage_of(task_id, project_id=project) == "Review_1"


# -- storage -------------------------------------------------------------------------------------------


def upload(sandbox, content, kind="application/json", encoding=None):
    (place,) = data(sandbox, PRESIGN, files=["labels/a/b/data.json"], kind=kind, enc=encoding)
    headers = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})}
    return place, requests.put(place["presignedUrl"], data=content, headers=headers, timeout=30)


def test_submit_labels_file(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    labels = [BOX] * 1500
    place, response = upload(sandbox, gzip.compress(json.dumps(labels).encode()), encoding="gzip")
    assert response.status_code == 200
    data(sandbox, PUT, t=task_id, s="Label", f=True, l="[]", path=place["filePath"])
    query = """query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) {
        latestTaskData { labelsData labelsDataPath(presigned: true) } } }"""
    found = data(sandbox, query, t=task_id)["latestTaskData"]
    assert found["labelsData"] is None
    assert requests.get(found["labelsDataPath"], timeout=30).json() == labels


def test_labels_file_not_uploaded_is_refused(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    assert "nothing has been uploaded" in error(sandbox, PUT, t=task_id, s="Label", f=True, l="[]", path="labels/x")


def test_storage_url_signature_is_required(sandbox):
    place, _ = upload(sandbox, b"{}")
    url = place["presignedUrl"]
    other = requests.put(url, data=b"", headers={"Content-Type": "text/html"}, timeout=30)
    assert other.status_code == 403
    assert requests.get(url, timeout=30).status_code == 403
    assert requests.get(f"{sandbox.url}/storage/{place['filePath']}", timeout=30).status_code == 403
    query = """query ($o: UUID!, $s: UUID!, $i: [String]!) { presignItems(orgId: $o, storageId: $s, items: $i) }"""
    storage = "22222222-2222-2222-2222-222222222222"
    items = [place["filePath"], None, "https://elsewhere/x", "labels/none"]
    signed = sandbox.graphql(query, {"o": sandbox.org_id, "s": storage, "i": items})["presignItems"]
    assert requests.get(signed[0], timeout=30).content == b"{}"
    assert signed[1:3] == [None, "https://elsewhere/x"]
    assert requests.get(signed[3], timeout=30).status_code == 404


# -- the process ---------------------------------------------------------------------------------------


def test_ready_line(sandbox):
    assert re.fullmatch(r"http://localhost:\d+", sandbox.url)
    assert len(sandbox.api_key) == 43
    assert sandbox.stages == ["Input", "Label", "Review_1", "Failed_Review_1", "Output"]
    assert sandbox.members == ["alice@example.com", "bob@example.com", "carol@example.com"]


def test_connection_uri_has_url_key_and_ids(sandbox):
    parts = urlsplit(sandbox.ready["airflow_conn_uri"])
    assert parts.scheme == "redbrick"
    assert unquote(parts.netloc.rpartition("@")[2]) == sandbox.url
    assert parts.password == sandbox.api_key
    assert parse_qs(parts.query) == {"org_id": [sandbox.org_id], "project_id": [sandbox.project_id]}


def test_server_listens_on_loopback_only():
    sockets = loopback_sockets(0)
    try:
        assert {each.getsockname()[0] for each in sockets} <= {"127.0.0.1", "::1"}
        assert len({each.getsockname()[1] for each in sockets}) == 1
    finally:
        for each in sockets:
            each.close()


def test_port_in_use_is_reported():
    with SandboxProcess() as first, pytest.raises(SandboxError, match="cannot listen on port"):
        SandboxProcess(port=int(first.url.rsplit(":", 1)[1])).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_server(number):
    process = SandboxProcess().start()
    process.process.send_signal(number)
    assert process.process.wait(timeout=30) == 0


def test_server_prints_its_address():
    command = [sys.executable, "-m", "redbrick_sandbox", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = json.loads(process.stdout.readline())
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "loopback only" in said
    assert ready["url"] in said


def test_database_is_kept_after_stop(tmp_path):
    path = str(tmp_path / "sandbox.sqlite")
    with SandboxProcess(db=path) as first:
        ids = first.seed_tasks(3, assignee="API key")
        submit(first, ids[0])
        same = (first.org_id, first.project_id, first.api_key)
    with SandboxProcess(db=path) as second:
        assert (second.org_id, second.project_id, second.api_key) == same
        assert (second.count("Label"), second.count("Review_1")) == (2, 1)
        assert len({*ids, *second.seed_tasks(1)}) == 4


@pytest.mark.parametrize("arguments", [["--fault", "nonsense=1"], ["--port", "-1"], ["--port", "x"]])
def test_invalid_options_are_reported(arguments):
    command = [sys.executable, "-m", "redbrick_sandbox", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "error" in done.stderr or "no fault" in done.stderr
