"""Test that invalid input is refused and leaves no trace."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys

import pytest
from sandbox_calls import ASSIGN, BOX, LIST, PUT, ask, claim, data, error, post, submit
from sandbox_process import SandboxError, SandboxProcess

STAGE = """mutation ($o: UUID!, $p: UUID!, $s: String!, $config: JSONString, $routing: RoutingInput) {
    updateStage(orgId: $o, projectId: $p, stageName: $s, config: $config, routing: $routing) { ok } }"""
CREATE = """mutation ($o: UUID!, $p: UUID!, $name: String!, $items: [String!]!, $storage: UUID!, $truth: Boolean!,
        $meta: String, $pre: String, $attributes: JSONString) {
    createDatapoint(orgId: $o, projectId: $p, name: $name, items: $items, storageId: $storage, isGroundTruth: $truth,
        metaData: $meta, preAssign: $pre, attributes: $attributes) { taskId } }"""
MEMBERS = "query ($o: UUID!, $p: UUID!) { projectMembers(orgId: $o, projectId: $p) { role member { user { email } } } }"
UPDATE_MEMBERS = """mutation ($o: UUID!, $p: UUID!, $who: [MemberAccessInput!]!) {
    updateProjectMembership(orgId: $o, projectId: $p, memberAccess: $who) { ok } }"""
REMOVE_MEMBERS = """mutation ($o: UUID!, $p: UUID!, $ids: [CustomUUID!]!) {
    removeProjectMembers(orgId: $o, projectId: $p, userIds: $ids) { ok } }"""
ITEMS = """mutation ($o: UUID!, $p: UUID!, $t: UUID, $dp: UUID, $storage: UUID!, $items: [String!]) {
    updateTaskItems(orgId: $o, projectId: $p, taskId: $t, dpId: $dp, storageId: $storage, items: $items) { ok } }"""
STORAGE = "22222222-2222-2222-2222-222222222222"


def create(sandbox, call, name="study", **options):
    return call(sandbox, CREATE, **{"name": name, "items": ["a.dcm"], "storage": STORAGE, "truth": False, **options})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"routing": {"nextStageName": "Reveiw_1"}}, "leads to 'Reveiw_1'"),
        ({"config": "[1]"}, "must be objects"),
        ({"config": "{"}, "not JSON"),
        ({"config": '{"reviewPercent": "abc"}', "s": "Review_1"}, "from 0 to 1"),
        ({"config": '{"reviewPercent": 2}', "s": "Review_1"}, "from 0 to 1"),
    ],
)
def test_update_stage_with_invalid_route_is_refused(sandbox, change, words):
    (task_id,) = sandbox.seed_tasks(1)
    assert words in error(sandbox, STAGE, **{"s": "Label", **change})
    claim(sandbox, task_id)
    submit(sandbox, task_id)
    assert sandbox.stage_of(task_id) == "Review_1"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ({"routing": {"nextStageName": "Output!"}}, "does not exist"),
        ({"routing": {"nextStageName": "Around"}}, "circle"),
        ({"routing": {"nextStageName": "Output"}, "stageConfig": [["a", 1]]}, "must be objects"),
    ],
)
def test_add_project_with_invalid_route_is_refused(sandbox, label, words):
    stages = [
        {"stageName": "Input", "brickName": "labelset-input", "routing": {"nextStageName": "Label"}},
        {"stageName": "Label", "brickName": "manual-labeling", **label},
        {"stageName": "Around", "brickName": "feedback", "routing": {"feedbackStageName": "Around"}},
        {"stageName": "Output", "brickName": "labelset-output", "routing": {"nextStageName": "END"}},
    ]
    with pytest.raises(SandboxError, match=words):
        sandbox.control("projects", {"stages": stages})
    assert error(sandbox, LIST, s="Nowhere")


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ({"Review_1": "alice@example.com"}, "alice@example.com has no access to stage 'Review_1'"),
        ({"Label": None}, "takes an email"),
        ({"Label": [5]}, "takes an email"),
    ],
)
def test_pre_assign_is_validated_like_assign(sandbox, pre, words):
    assert words in create(sandbox, error, pre=json.dumps(pre))
    assert sandbox.count() == 0


@pytest.mark.parametrize("wrong", [{"meta": "{bad"}, {"attributes": "{bad"}, {"attributes": {"a": 1}}])
def test_invalid_json_text_is_refused(sandbox, wrong):
    assert "is not JSON" in create(sandbox, error, **wrong)


def test_unreadable_labels_are_refused(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    for labels in ('[{"attributes": 5}]', '[{"attributes": [5]}]'):
        assert "attributes are a list" in error(sandbox, PUT, t=task_id, s="Label", f=True, l=labels)
    assert sandbox.stats()["applied"] == {}


def test_id_must_be_text(sandbox):
    answer = sandbox.http.post(
        f"{sandbox.url}/graphql/",
        json={
            "query": LIST,
            "variables": {"o": sandbox.org_id, "p": sandbox.project_id, "s": "Label", "m": {"userId": 5}},
        },
        headers={"ApiKey": sandbox.api_key},
        timeout=30,
    )
    assert (answer.status_code, "an id must be text" in answer.text) == (400, True)


def test_membership_update_accepts_email_and_user_id(sandbox):
    who = [{"userId": "alice@example.com", "role": "MANAGER"}]
    assert data(sandbox, UPDATE_MEMBERS, who=who) == {"ok": True}
    roles = {each["member"]["user"]["email"]: each["role"] for each in data(sandbox, MEMBERS)}
    assert roles["alice@example.com"] == "MANAGER"
    (task_id,) = sandbox.seed_tasks(1, stage="Review_1")
    assert data(sandbox, ASSIGN, ids=[task_id], emails=["alice@example.com"])
    assert "there is no member zzz" in error(sandbox, REMOVE_MEMBERS, ids=["zzz"])
    assert data(sandbox, REMOVE_MEMBERS, ids=["alice@example.com"]) == {"ok": True}
    assert "alice@example.com" not in {each["member"]["user"]["email"] for each in data(sandbox, MEMBERS)}


def test_update_items_accepts_task_id_or_datapoint_id(sandbox):
    (task_id,) = sandbox.seed_tasks(1)
    whole = "query ($o: UUID!, $p: UUID!, $t: UUID!) { task(orgId: $o, projectId: $p, taskId: $t) { dpId updatedAt } }"
    before = data(sandbox, whole, t=task_id)
    data(sandbox, ITEMS, dp=before["dpId"], storage=STORAGE, items=["b.dcm"])
    assert sandbox.applied("updateTaskItems") == {task_id: 1}
    assert data(sandbox, whole, t=task_id)["updatedAt"] > before["updatedAt"]


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"query": ' + b"[" * 200_000])
def test_deeply_nested_body_is_400(sandbox, body):
    assert post(sandbox, body, ApiKey=sandbox.api_key).status_code == 400
    assert post(sandbox, body, "/_sandbox/humans", **{"Content-Type": "application/json"}).status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"once": [{"fault": "http_500", "root_field": "me", "skip": "x"}]}),
        ("faults", {"once": [{"fault": "http_500", "root_field": "me"}, {"fault": "http_999", "root_field": "me"}]}),
        ("board?limit=x", None),
        ("tasks", {"count": 1, "state": "FOO"}),
        ("tasks", {"count": 1, "priority": 5}),
        ("tasks", {"count": 1, "labels": [1]}),
    ],
)
def test_refused_control_request_changes_nothing(sandbox, path, body):
    with pytest.raises(SandboxError, match=" 400 "):
        sandbox.control(path, body)
    assert sandbox.control("faults")["once"] == []
    assert sandbox.count() == 0
    assert ask(sandbox, "{ me { userId } }")["data"]["me"]


def test_duplicate_prefix_is_refused_and_can_be_changed(sandbox):
    create(sandbox, data, name="task-000002")
    with pytest.raises(SandboxError, match="task-000002"):
        sandbox.seed_tasks(1)
    assert len(sandbox.seed_tasks(1, prefix="other")) == 1


def test_board_works_with_overwritten_labels_file(sandbox):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    presign = """query ($o: UUID!, $p: UUID!, $files: [String!]!) { presignUploads(orgId: $o, projectId: $p,
        files: $files, fileType: "application/json") { presignedUrl filePath } }"""
    (place,) = data(sandbox, presign, files=["labels.json"])
    put = {"headers": {"Content-Type": "application/json"}, "timeout": 30}
    assert sandbox.http.put(place["presignedUrl"], data=json.dumps([BOX]), **put).ok
    data(sandbox, PUT, t=task_id, s="Label", f=False, path=place["filePath"])
    assert sandbox.http.put(place["presignedUrl"], data="garbage", **put).ok
    assert sandbox.http.get(f"{sandbox.url}/board.json", timeout=30).ok


def test_consensus_task_completes_when_open_assignee_is_removed(sandbox):
    project = sandbox.add_project(consensus=True)
    (task_id,) = sandbox.seed_tasks(1, project_id=project)
    here = {"p": project}
    data(sandbox, ASSIGN, ids=[task_id], emails=["alice@example.com"], me=True, refresh=True, **here)
    submit(sandbox, task_id, **here)
    assert sandbox.stage_of(task_id, project_id=project) == "Label"
    data(sandbox, ASSIGN, ids=[task_id], me=True, refresh=True, **here)
    assert sandbox.stage_of(task_id, project_id=project) == "Review_1"


# -- the command line ----------------------------------------------------------------------------


def refused(*options):
    command = [sys.executable, "-m", "redbrick_sandbox", "serve", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (2, "", False)
    return done.stderr


def test_database_of_another_program_is_refused(tmp_path):
    (text := tmp_path / "text").write_text("no database " * 100)
    with sqlite3.connect(other := tmp_path / "other.db") as database:
        database.execute("CREATE TABLE recipes (id INTEGER)")
    for path in (text, other, tmp_path, tmp_path / "nowhere/x.db"):
        assert f"--db {path}" in refused("--port", "0", "--db", str(path))


def test_second_process_on_database_is_refused(tmp_path):
    path = str(tmp_path / "s.db")
    with SandboxProcess(db=path):
        assert "another sandbox is using it" in refused("--port", "0", "--db", path)


def test_port_above_65535_is_refused():
    assert "65535" in refused("--port", "70000")


def test_port_in_use_on_either_address_is_refused():
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on port {port}" in refused("--port", str(port))
