"""Test faults: specification, reproducibility, and effect on clients."""

from __future__ import annotations

import json
import time

import pytest
import requests
from sandbox_calls import LIST, PAGED, PUT, ask, claim, data, post
from sandbox_process import SandboxError

from redbrick_sandbox.faults import Faults, Shot, parse

ME = "query { me { userId } }"


def me(sandbox):
    return post(sandbox, json.dumps({"query": ME}), ApiKey=sandbox.api_key)


# -- decisions -----------------------------------------------------------------------------------------


def test_parse_specification():
    plan = parse("http_503=0.1, drop_after=0.05,seed=7")
    assert dict(plan.chances) == {"http_503": 0.1, "drop_after": 0.05}
    assert plan.seed == 7
    assert parse("").chances == {}


@pytest.mark.parametrize(
    "spec", ["http_503", "http_418=0.1", "slow=2", "slow=x", "seed=x", "too_large=-1", "slow=-0.1"]
)
def test_parse_invalid_specification_is_refused(spec):
    with pytest.raises(ValueError, match=r".+"):
        parse(spec)


def test_same_seed_gives_same_faults():
    def run(spec):
        faults = Faults(spec)
        return [faults.decide(["task"], mutation=True, pages=False) for _ in range(200)]

    spec = "http_503=0.1,drop_after=0.1,not_ok=0.1"
    assert run(f"{spec},seed=1") == run(f"{spec},seed=1")
    assert run(f"{spec},seed=1") != run(f"{spec},seed=2")
    assert 40 < sum(1 for fault in run(f"{spec},seed=1") if fault) < 80
    # Enabling another fault does not change when this one occurs.
    alone = [index for index, fault in enumerate(run("http_503=0.2,seed=1")) if fault]
    first = [index for index, fault in enumerate(run("http_503=0.2,slow=0,seed=1")) if fault]
    assert len(alone) > 20
    assert len(first) > 20


def test_faults_apply_only_to_matching_requests():
    faults = Faults("not_ok=1,empty_page=1")
    assert faults.decide(["me"], mutation=False, pages=False) is None
    assert faults.decide(["genericTasks"], mutation=False, pages=True) == "empty_page"
    assert faults.decide(["moveTaskToStart"], mutation=True, pages=False) == "not_ok"


def test_one_shot_skips_and_expires():
    faults = Faults()
    faults.add([Shot("slow", "task", skip=2, times=2)])
    fired = [faults.decide([name], mutation=False, pages=False) for name in ["task", "me", *["task"] * 5]]
    assert fired == [None, None, None, "slow", "slow", None, None]
    assert faults.shots == []


# -- effect on clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("http_500", 500),
        ("http_502", 502),
        ("http_503", 503),
        ("http_504", 504),
        ("rate_limit", 429),
        ("rate_limit_after", 429),
        ("html", 200),
    ],
)
def test_fault_returns_http_status(sandbox, fault, status):
    sandbox.faults(f"{fault}=1")
    response = me(sandbox)
    assert response.status_code == status
    assert response.headers.get("Retry-After") == ("1" if fault == "rate_limit_after" else None)
    assert response.headers["Content-Type"].startswith("text/html" if fault == "html" else "application/json")
    sandbox.faults("")
    assert me(sandbox).json()["data"]


def test_max_body_measures_decoded_body(sandbox):
    sandbox.behavior(max_body=2000)
    assert me(sandbox).status_code == 200
    long = json.dumps({"query": ME + " " * 3000})
    assert post(sandbox, long, ApiKey=sandbox.api_key).status_code == 413


def test_slow_delays_response(sandbox):
    sandbox.fault_once("slow", "me")
    started = time.monotonic()
    assert me(sandbox).status_code == 200
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(("fault", "happened"), [("drop_before", 0), ("drop_after", 1)])
def test_drop_aborts_connection(sandbox, fault, happened):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    sandbox.fault_once(fault, "putManualLabelingTaskAndLabels")
    with pytest.raises(requests.ConnectionError):
        data(sandbox, PUT, t=task_id, s="Label", f=True, l="[]")
    assert sandbox.stage_of(task_id) == ("Review_1" if happened else "Label")
    assert sandbox.applied("putManualLabelingTaskAndLabels") == ({task_id: 1} if happened else {})
    assert me(sandbox).status_code == 200


@pytest.mark.parametrize("fault", ["http_500", "http_503", "rate_limit", "html", "gql_error", "gql_partial", "not_ok"])
def test_faults_with_response_change_no_task(sandbox, fault):
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    sandbox.fault_once(fault, "putManualLabelingTaskAndLabels")
    variables = {"o": sandbox.org_id, "p": sandbox.project_id, "t": task_id, "s": "Label", "f": True, "l": "[]"}
    response = post(sandbox, json.dumps({"query": PUT, "variables": variables}), ApiKey=sandbox.api_key)
    assert sandbox.stage_of(task_id) == "Label"
    assert sandbox.stats()["applied"] == {}
    if fault == "gql_error":
        assert response.json()["data"] is None
        assert response.json()["errors"]
    if fault == "gql_partial":
        assert response.json()["data"] == {"putManualLabelingTaskAndLabels": None}
        assert response.json()["errors"][0]["path"] == ["putManualLabelingTaskAndLabels"]
    if fault == "not_ok":
        assert response.json() == {"data": {"putManualLabelingTaskAndLabels": {"ok": False}}}


def test_gql_partial_fails_half_of_root_fields(sandbox):
    ids = sandbox.seed_tasks(4, ground_truth=True)
    fields = " ".join(
        f'a{n}: moveTaskToStart(orgId: $o, projectId: $p, taskId: "{task_id}") {{ ok }}'
        for n, task_id in enumerate(ids)
    )
    sandbox.fault_once("gql_partial", "moveTaskToStart")
    answer = ask(sandbox, f"mutation ($o: UUID!, $p: UUID!) {{ {fields} }}")
    assert answer["data"] == {"a0": {"ok": True}, "a1": None, "a2": {"ok": True}, "a3": None}
    assert [error["path"] for error in answer["errors"]] == [["a1"], ["a3"]]
    assert sandbox.applied("moveTaskToStart") == {ids[0]: 1, ids[2]: 1}


@pytest.mark.parametrize(("document", "stage"), [(LIST, "Label"), (PAGED, "Label")])
def test_empty_page_has_cursor_to_its_tasks(sandbox, document, stage):
    ids = sandbox.seed_tasks(5)
    sandbox.faults("empty_page=1")
    seen, after, empty = [], None, 0
    for _ in range(20):
        page = data(sandbox, document, s=stage, first=2, after=after)
        empty += not page["entries"]
        seen += [entry["taskId"] for entry in page["entries"]]
        after = page["cursor"]
        if after is None:
            break
    assert seen == ids
    assert empty == 3


def test_empty_page_does_not_affect_count(sandbox):
    sandbox.seed_tasks(5)
    sandbox.faults("empty_page=1")
    assert sandbox.count("Label") == 5


def test_control_routes_and_storage_have_no_faults(sandbox):
    sandbox.faults("http_500=1")
    assert sandbox.stats()["requests"] == 0
    assert sandbox.board()["stages"]
    assert requests.get(f"{sandbox.url}/storage/none", timeout=30).status_code == 403


def test_faults_route_lists_faults_and_refuses_unknown(sandbox):
    sandbox.faults("http_500=0.5,seed=3")
    shown = sandbox.fault_once("slow", "me", skip=4)
    assert shown == {
        "spec": "http_500=0.5,seed=3",
        "once": [{"fault": "slow", "root_field": "me", "skip": 4, "times": 1}],
    }
    with pytest.raises(SandboxError, match="no fault 'sleepy'"):
        sandbox.fault_once("sleepy", "me")
    with pytest.raises(SandboxError, match="no fault 'sleepy'"):
        sandbox.faults("sleepy=1")
    assert sandbox.faults("") == {"spec": "", "once": []}


def test_one_shot_skips_matching_requests(sandbox):
    ids = sandbox.seed_tasks(4)
    sandbox.fault_once("http_503", "assignTasksMultipleUsers", skip=2)
    outcomes = []
    for task_id in ids:
        try:
            claim(sandbox, task_id)
        except requests.HTTPError as error:
            outcomes.append(error.response.status_code)
        else:
            outcomes.append("ok")
    assert outcomes == ["ok", "ok", 503, "ok"]
