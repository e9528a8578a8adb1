"""The server from outside: wire, keys, reads, mutations, storage, what it refuses."""

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

from airflow_provider_redbrick.sandbox.serve import loopback_sockets

ME = "query { me { userId } }"
NOBODY = "00000000-0000-4000-8000-00000000dead"


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


def test_plain_and_encoded_bodies(sandbox):
    key = {"ApiKey": sandbox.api_key}
    plain = post(sandbox, json.dumps({"query": ME}), **key)
    packed = post(sandbox, encoded(ME), **key, **{"Content-Encoding-RB": "gzip"})
    assert plain.json() == packed.json()
    assert plain.json()["data"]["me"]["userId"].startswith("API:")
    assert packed.headers["Content-Type"] == "application/json"
    assert post(sandbox, json.dumps({"query": ME}), "/api/graphql/", **key).json() == plain.json()


@pytest.mark.parametrize("headers", [{}, {"ApiKey": "wrong"}, {"Authorization": "Bearer x"}])
def test_a_wrong_key_is_401(sandbox, headers):
    assert post(sandbox, json.dumps({"query": ME}), **headers).status_code == 401


def test_the_key_as_an_access_token(sandbox):
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
def test_what_is_no_request_is_400_with_words(sandbox, body):
    response = post(sandbox, body, ApiKey=sandbox.api_key)
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"]


def test_a_wrongly_encoded_body_is_400(sandbox):
    response = post(sandbox, "{}", ApiKey=sandbox.api_key, **{"Content-Encoding-RB": "gzip"})
    assert response.status_code == 400


def test_fifty_aliases_each_with_its_own_fate(sandbox):
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


def test_unknown_things(sandbox):
    ids = {"o": sandbox.org_id, "p": NOBODY}
    query = "query ($o: UUID!, $p: UUID!) { project(orgId: $o, projectId: $p) { name } }"
    assert sandbox.graphql(query, ids, strict=False) == {"data": {"project": None}}
    assert sandbox.task(NOBODY) is None
    assert "no stage 'Labels'" in error(sandbox, LIST, s="Labels")
    assert "no stage 'Labels'" in error(sandbox, PAGED, s="Labels")
    assert NOBODY in error(sandbox, LIST, p=NOBODY)


def test_ground_truth_has_two_names(sandbox):
    ids = sandbox.seed_tasks(3, ground_truth=True)
    assert walk(sandbox, LIST, s="Output") == ids
    assert walk(sandbox, PAGED, s="END") == ids
    assert "'END'" in error(sandbox, LIST, s="END")
    assert "'Output'" in error(sandbox, PAGED, s="Output")
    found = sandbox.task(ids[0])
    assert (found["stage"], found["state"]) == ("END", None)


def test_pages_follow_priority_and_age_and_end_with_null(sandbox):
    late = sandbox.seed_tasks(10)
    first = sandbox.seed_tasks(3, priority=0.9)
    assert walk(sandbox, LIST, s="Label") == [*first, *late]
    assert walk(sandbox, PAGED, s="Label", page=13) == [*first, *late]
    assert data(sandbox, PAGED, s="Label", first=0)["count"] == 13
    assert data(sandbox, PAGED, first=0)["count"] == 13


def test_no_task_is_skipped_while_tasks_are_claimed(sandbox):
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


def test_filters_by_owner(sandbox):
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
        ({"userId": "nobody@example.com"}, []),
    ):
        assert walk(sandbox, LIST, s="Label", m=filters) == wanted, filters


def test_search_by_the_beginning_or_the_whole_of_a_name(sandbox):
    ids = sandbox.seed_tasks(11, prefix="chest")
    sandbox.seed_tasks(2, prefix="knee")
    assert walk(sandbox, LIST, q="chest") == ids
    assert walk(sandbox, LIST, q='"chest-000003"') == [ids[2]]
    assert walk(sandbox, LIST, q='"chest"') == []
    assert walk(sandbox, LIST, q=ids[4]) == [ids[4]]


def test_completed_tasks_are_listed_where_they_were_completed(sandbox):
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


def test_changed_since(sandbox):
    old = sandbox.seed_tasks(2, ground_truth=True, updated_at="2024-02-03T04:05:06Z")
    new = sandbox.seed_tasks(2, ground_truth=True, updated_at="2024-03-03")
    assert sandbox.task(old[0])["updatedAt"] == "2024-02-03T04:05:06.000000+00:00"
    assert walk(sandbox, PAGED, s="END", since="2024-03-03T00:00:00+00:00") == new
    assert walk(sandbox, PAGED, s="END", since="2024-03-03T01:00:00+01:00") == new
    mark = data(sandbox, PAGED, s="END", first=1)["cacheTime"]
    data(sandbox, REOPEN, t=old[0])
    assert walk(sandbox, PAGED, since=mark) == [old[0]]


@pytest.mark.parametrize("since", ["", "yesterday", "P1D", "/", "2024-03-03/P1D", "0001-01-01T00:00:00+14:00", 5])
def test_what_is_no_time_is_named(sandbox, since):
    asked = {"o": sandbox.org_id, "p": sandbox.project_id, "s": "END", "since": since}
    response = post(sandbox, encoded(PAGED, asked), ApiKey=sandbox.api_key, **{"Content-Encoding-RB": "gzip"})
    assert response.status_code == 400
    assert f"{str(since)!r} is not an ISO-8601 time" in response.json()["errors"][0]["message"]


def test_pages_have_a_largest_size(sandbox):
    assert "at most 500" in error(sandbox, LIST, s="Label", first=501)
    sandbox.settings(max_page=20)
    assert "at most 20" in error(sandbox, PAGED, s="Label", first=21)
    assert "not a cursor" in error(sandbox, LIST, s="Label", after="7")


# -- changing ------------------------------------------------------------------------------------------


def test_assigning(sandbox):
    ids = sandbox.seed_tasks(3)
    truth = sandbox.seed_tasks(1, ground_truth=True)
    done = data(sandbox, ASSIGN, ids=[*ids, NOBODY, *truth], emails=["bob@example.com"], me=False, refresh=True)
    assert [each["taskId"] for each in done] == ids
    assert done[0] == {"taskId": ids[0], "name": "task-000001", "stageName": "Label"}
    assert sandbox.task(ids[0])["owner"] == "bob@example.com"
    assert claim(sandbox, ids[0], refresh=False) == []
    assert len(claim(sandbox, ids[0])) == 1
    assert len(claim(sandbox, ids[0])) == 1
    # The second claim found the task claimed: nothing was changed by it.
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
def test_assigning_is_all_or_nothing(sandbox, emails, words):
    ids = [*sandbox.seed_tasks(1), *sandbox.seed_tasks(1, stage="Review_1")]
    before = [sandbox.task(each) for each in ids]
    assert words in error(sandbox, ASSIGN, ids=ids, emails=emails, me=False)
    assert [sandbox.task(each) for each in ids] == before
    assert sandbox.stats()["applied"] == {}


def test_moving_is_all_or_nothing(sandbox):
    (task_id,) = sandbox.seed_tasks(1)
    before = sandbox.task(task_id)
    assert NOBODY in error(sandbox, MOVE, ids=[task_id, NOBODY], s="END")
    assert sandbox.task(task_id) == before
    # What the refused request had done to the task is not what the next one begins with.
    assert len(claim(sandbox, task_id)) == 1


def test_at_most_fifty_ids(sandbox):
    ids = sandbox.seed_tasks(51)
    assert "at most 50" in error(sandbox, ASSIGN, ids=ids, me=True)
    assert "at most 50" in error(sandbox, MOVE, ids=ids, s="END")
    assert len(claim(sandbox, *ids[:50])) == 50


@pytest.mark.parametrize(
    ("options", "stage", "words"),
    [
        ({}, "Label", "assigned to nobody"),
        ({"assignee": "alice@example.com"}, "Label", "somebody else"),
        ({"assignee": "API key"}, "Review_1", "is in stage 'Label', not in 'Review_1'"),
        ({"assignee": "API key"}, "Nowhere", "there is no stage 'Nowhere'"),
        ({"ground_truth": True}, "Label", "is in stage 'END'"),
        ({"assignee": "API key", "state": "PROBLEM"}, "Label", "open issue"),
    ],
)
def test_submitting_where_it_cannot_be(sandbox, options, stage, words):
    (task_id,) = sandbox.seed_tasks(1, **options)
    before = sandbox.task(task_id)
    said = error(sandbox, PUT, t=task_id, s=stage, f=True, l="[]")
    assert words in said
    assert sandbox.task(task_id) == before
    assert sandbox.stats()["applied"] == {}


def test_ownership_can_be_waived(sandbox):
    sandbox.settings(require_ownership=False)
    (task_id,) = sandbox.seed_tasks(1)
    submit(sandbox, task_id)
    assert sandbox.stage_of(task_id) == "Review_1"


@pytest.mark.parametrize("labels", ["not json", "{}", "[1]"])
def test_labels_must_be_labels(sandbox, labels):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    assert "labelsData" in error(sandbox, PUT, t=task_id, s="Label", f=True, l=labels)
    assert sandbox.stage_of(task_id) == "Label"


def test_labels_that_are_not_sent_stay(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key", labels=[BOX])
    data(sandbox, PUT, t=task_id, s="Label", f=True)
    assert sandbox.task(task_id)["labels"] == [BOX]


def test_reopening(sandbox):
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


def test_moving(sandbox):
    ids = sandbox.seed_tasks(2)
    assert data(sandbox, MOVE, ids=ids, s="Review_1") == {"ok": True, "message": None}
    assert sandbox.count("Review_1") == 2
    assert NOBODY in error(sandbox, MOVE, ids=[ids[0], NOBODY], s="END")
    assert sandbox.count("Review_1") == 2
    data(sandbox, MOVE, ids=ids[:1], s="ARCHIVED")
    assert sandbox.count() == 1


def test_transitions_take_their_time(sandbox):
    sandbox.settings(transition_ms=300)
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    submit(sandbox, task_id)
    found = sandbox.task(task_id)
    assert (found["stage"], found["state"]) == ("Label", "COMPLETED")
    assert sandbox.count("Review_1") == 0
    time.sleep(0.35)
    assert sandbox.stage_of(task_id) == "Review_1"


# -- other projects ------------------------------------------------------------------------------------


def test_a_project_with_odd_stages(sandbox):
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


def test_a_consensus_project(sandbox):
    project = sandbox.add_project(consensus=True)
    (task_id,) = sandbox.seed_tasks(1, project_id=project)
    data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], me=True)
    assert sandbox.task(task_id, project_id=project)["owners"][0] == "alice@example.com"
    data(sandbox, PUT, p=project, t=task_id, s="Label", f=True, l="[]")
    assert sandbox.stage_of(task_id, project_id=project) == "Label"
    assert data(sandbox, MOVE, p=project, ids=[task_id], s="END")["ok"] is False
    # Shared with the API key, so the people leave it alone; alice's part has to be waived.
    assert sandbox.humans("Label", project_id=project)["done"] == 0
    data(sandbox, ASSIGN, p=project, ids=[task_id], emails=["alice@example.com"], me=False)
    assert sandbox.humans("Label", project_id=project)["done"] == 1
    assert sandbox.stage_of(task_id, project_id=project) == "Review_1"


# -- storage -------------------------------------------------------------------------------------------


def upload(sandbox, content, kind="application/json", encoding=None):
    (place,) = data(sandbox, PRESIGN, files=["labels/a/b/data.json"], kind=kind, enc=encoding)
    headers = {"Content-Type": kind, **({"Content-Encoding": encoding} if encoding else {})}
    return place, requests.put(place["presignedUrl"], data=content, headers=headers, timeout=30)


def test_labels_in_a_file(sandbox):
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


def test_a_file_that_was_never_uploaded(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    assert "nothing has been uploaded" in error(sandbox, PUT, t=task_id, s="Label", f=True, l="[]", path="labels/x")


def test_addresses_must_be_signed_for_what_they_are_used_for(sandbox):
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


def test_the_ready_line(sandbox):
    assert re.fullmatch(r"http://localhost:\d+", sandbox.url)
    assert len(sandbox.api_key) == 43
    assert sandbox.stages == ["Input", "Label", "Review_1", "Failed_Review_1", "Output"]
    assert sandbox.members == ["alice@example.com", "bob@example.com", "carol@example.com"]


def test_the_connection_uri_holds_it_all(sandbox):
    parts = urlsplit(sandbox.airflow_conn_uri)
    assert parts.scheme == "redbrick"
    assert unquote(parts.netloc.rpartition("@")[2]) == sandbox.url
    assert parts.password == sandbox.api_key
    assert parse_qs(parts.query) == {"org_id": [sandbox.org_id], "project_id": [sandbox.project_id]}


def test_it_listens_on_loopback_only():
    sockets = loopback_sockets(0)
    try:
        assert {each.getsockname()[0] for each in sockets} <= {"127.0.0.1", "::1"}
        assert len({each.getsockname()[1] for each in sockets}) == 1
    finally:
        for each in sockets:
            each.close()


def test_a_port_that_is_taken_is_said():
    with SandboxProcess() as first, pytest.raises(SandboxError, match="cannot listen on port"):
        SandboxProcess(port=int(first.url.rsplit(":", 1)[1])).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(number):
    process = SandboxProcess().start()
    process.process.send_signal(number)
    assert process.process.wait(timeout=30) == 0


def test_it_says_where_it_listens():
    command = [sys.executable, "-m", "airflow_provider_redbrick.sandbox", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = json.loads(process.stdout.readline())
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "loopback only" in said
    assert ready["url"] in said


def test_a_database_outlives_the_process(tmp_path):
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
def test_wrong_options_are_said(arguments):
    command = [sys.executable, "-m", "airflow_provider_redbrick.sandbox", "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "error" in done.stderr or "no fault" in done.stderr
