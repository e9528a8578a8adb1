"""Test that a sandbox answers requests in this process, in virtual time, as its server does."""

from __future__ import annotations

import pytest
import requests
from sandbox_calls import BOX, PRESIGN, claim, data, submit
from sandbox_in_process import SandboxInProcess

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import Credential
from airflow_provider_redbrick.exceptions import RedBrickConnectionError


@pytest.fixture
def sandbox():
    return SandboxInProcess()


def test_service_answers_api_and_control_routes(sandbox):
    (task_id,) = sandbox.seed_tasks(1)
    claim(sandbox, task_id)
    submit(sandbox, task_id)
    assert sandbox.stage_of(task_id) == "Review_1"
    assert sandbox.applied("putManualLabelingTaskAndLabels") == {task_id: 1}


def test_service_stores_files(sandbox):
    (signed,) = data(sandbox, PRESIGN, files=["a b.nii"], kind="text/plain", enc=None)
    headers = {"Content-Type": "text/plain"}
    assert sandbox.http.put(signed["presignedUrl"], data=b"x", headers=headers).status_code == 200
    assert sandbox.http.get(sandbox.sandbox.download_url(signed["filePath"])).content == b"x"
    assert sandbox.http.get(f"{sandbox.url}/storage/a%20b.nii").status_code == 403


def test_service_unknown_path_is_404(sandbox):
    assert sandbox.http.get(f"{sandbox.url}/elsewhere").status_code == 404
    assert sandbox.http.get(f"{sandbox.url}/_sandbox/elsewhere").status_code == 404


def test_virtual_time_latency_passes_without_waiting(sandbox):
    sandbox.settings(latency_ms=7_200_000)
    before = sandbox.clock.time()
    with pytest.raises(requests.ReadTimeout):
        sandbox.count()
    assert sandbox.clock.time() - before == 7200


def test_virtual_time_transition_arrives_at_its_time():
    sandbox = SandboxInProcess(transition_ms=60_000)
    (task_id,) = sandbox.seed_tasks(1, assignee="API key")
    submit(sandbox, task_id)
    sandbox.clock.sleep(59)
    assert sandbox.task(task_id)["state"] == "COMPLETED"
    sandbox.clock.sleep(3600)
    arrived = sandbox.task(task_id)
    assert arrived["stage"] == "Review_1"
    assert sandbox.clock.machine_time_of(arrived["updatedAt"]) < sandbox.clock.time() - 3500


@pytest.mark.parametrize(("fault", "applied"), [("drop_before", 0), ("drop_after", 1)])
def test_drop_fault_is_a_connection_error(sandbox, fault, applied):
    (task_id,) = sandbox.seed_tasks(1)
    sandbox.fault_once(fault, "assignTasksMultipleUsers")
    with pytest.raises(requests.ConnectionError):
        claim(sandbox, task_id)
    assert len(sandbox.applied("assignTasksMultipleUsers")) == applied


def test_same_seed_repeats_a_run():
    def run(seed):
        sandbox = SandboxInProcess(seed=seed, fault="http_503=0.2", behavior="late_apply=0.5:1,read_lag=1")
        sandbox.behavior(lag_probability=0.5)
        seen = []
        for task_id in sandbox.seed_tasks(20):
            try:
                seen.append(claim(sandbox, task_id))
            except requests.RequestException as error:
                seen.append(str(error))
            sandbox.clock.sleep(0.3)
        return seen

    assert run(1) == run(1)
    assert run(1) != run(2)


def project_over(sandbox):
    """Return the demo project through the provider's client, with the sandbox's time."""
    clock = sandbox.clock
    policy = RetryPolicy(max_attempts=1)
    transport = Transport(
        f"{sandbox.url}/graphql/", Credential(sandbox.api_key), policy=policy, clock=clock.time, sleep=clock.sleep
    )
    return RedBrickProject(RedBrickClient(sandbox.connect(transport)), sandbox.org_id, sandbox.project_id)


def test_provider_lists_claims_and_labels_in_process(sandbox):
    ids = sandbox.seed_tasks(3)
    project = project_over(sandbox)
    stage = project.stage("Label")
    assert [task.task_id for task in project.list_tasks(stage)] == ids
    assert project.claim(ids[:2]) == dict.fromkeys(ids[:2], "Label")
    labels = project.files.label_variables([BOX] * 2000, [], task_id=ids[0])
    assert labels["labelsDataPath"]
    assert project.send([project.put_labels(stage, ids[0], labels, finished=True)]) == [None]
    assert sandbox.stage_of(ids[0]) == "Review_1"
    assert len(project.files.labels(sandbox.sandbox.download_url(labels["labelsDataPath"]))) == 2000
    assert sandbox.task(ids[1])["owner"].startswith("API:")


def test_provider_drop_in_process_may_have_been_applied(sandbox):
    ids = sandbox.seed_tasks(1)
    sandbox.fault_once("drop_after", "assignTasksMultipleUsers")
    with pytest.raises(RedBrickConnectionError) as error:
        project_over(sandbox).claim(ids)
    assert error.value.maybe_applied
