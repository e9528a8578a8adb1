"""Creating tasks: each name once, a few held at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.actions.task_specs import NewTask, read_new_task
from airflow_provider_redbrick.actions.upload import ALREADY_EXISTS, Creation, Uploading
from airflow_provider_redbrick.annotations.conversion import Converter
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.uploads import Created, Datapoint
from airflow_provider_redbrick.client.transport.retry import BatchSize
from airflow_provider_redbrick.engine.executor import ATTEMPTS, apply_together, settle_postponed
from airflow_provider_redbrick.engine.ledger import Ledger
from airflow_provider_redbrick.engine.outcomes import Status
from airflow_provider_redbrick.engine.task_reader import CircuitBreaker

LOST = err.RedBrickConnectionError("the answer was lost.", maybe_applied=True)
REFUSED = err.RedBrickRefusedError("the name exists.", maybe_applied=True)
DENIED = err.RedBrickAuthError("HTTP 401.")
LARGE = err.RedBrickPayloadTooLargeError("HTTP 413.")
DOWN = err.RedBrickServerError("HTTP 503.", status=503)


PAUSES = Ledger().pauses


class Server:
    """Creates tasks. Each request is one of: (created at all?, the error that comes back or None)."""

    def __init__(self, *sends, finds=()):
        self.sends, self.finds = list(sends), list(finds)
        self.imports = self
        self.sent, self.names, self.looked = 0, [], []

    def create(self, new):
        self.sent += 1
        applies, error = self.sends.pop(0)
        if applies:
            self.names.append(new.name)
        if error is not None:
            raise error
        return Created(("id",), "dp")

    def find_by_name(self, names):
        self.looked.append(list(names))
        error = self.finds.pop(0) if self.finds else None
        if error is not None:
            raise error
        return {name: ["id"] if name in self.names else [] for name in names}


def create(server, stored=None, breaker=None):
    def datapoint():
        if stored is not None:
            raise stored
        return Datapoint("study", "s", ["a"], {}, {})

    pauses = []
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds):
        pauses.append(seconds)
        clock.now += seconds

    ledger = Ledger(settle_s=30.0, now=lambda: clock.now)
    creation = Creation(NewTask("study", [{"items": "a"}]), datapoint, breaker or CircuitBreaker())
    (outcome,) = apply_together(server, [creation], ledger=ledger, sleep=sleep)
    if ledger.is_open("study"):
        clock.now = ledger.due_at()
        (outcome,) = settle_postponed(server, ledger.take_changes().values(), ledger).values()
    return outcome, pauses


def test_an_answer_that_came_needs_no_look():
    server = Server((True, None))
    outcome, _ = create(server)
    assert (outcome.status, outcome.task_id, outcome.name, outcome.detail) == (
        Status.DONE,
        "id",
        "study",
        {"dp_id": "dp"},
    )
    assert server.looked == []


def test_a_lost_answer_of_what_was_created_is_done_and_not_sent_again():
    server = Server((True, LOST))
    outcome, _ = create(server)
    assert (outcome.status, outcome.task_id) == (Status.DONE, "id")
    assert server.sent == 1


def test_a_lost_request_is_sent_again_after_some_looks():
    server = Server((False, LOST), (True, None))
    outcome, pauses = create(server)
    assert outcome.status is Status.DONE
    assert (server.sent, server.looked) == (2, [["study"]] * len(PAUSES))
    assert pauses == list(PAUSES)


def test_created_after_all_the_looks_it_is_found_when_the_second_request_is_refused():
    server = Server((False, LOST), (True, REFUSED))
    assert create(server)[0].status is Status.DONE


def test_what_somebody_else_created_is_already_done():
    server = Server((True, REFUSED))
    outcome, _ = create(server)
    assert (outcome.status, outcome.reason) == (Status.ALREADY_DONE, ALREADY_EXISTS)


@pytest.mark.parametrize("error", [DENIED, LARGE], ids=repr)
def test_what_cannot_have_been_created_is_failed_without_a_look(error):
    server = Server((False, error))
    outcome, _ = create(server)
    assert (outcome.status, outcome.reason) == (Status.FAILED, str(error))
    assert (server.sent, server.looked) == (1, [])


def test_giving_up_says_that_there_is_no_such_task():
    server = Server(*[(False, LOST)] * ATTEMPTS)
    outcome, _ = create(server)
    assert outcome.status is Status.FAILED
    assert outcome.reason == (
        "the answer was lost. Its name was looked up afterwards and no task has it. Gave up after 3 attempts."
    )
    assert server.sent == ATTEMPTS


def test_a_name_that_cannot_be_looked_up_afterwards_is_not_sent_again():
    server = Server((True, LOST), finds=[DOWN, DOWN])
    outcome, _ = create(server)
    assert outcome.status is Status.UNKNOWN
    assert "is not known" in outcome.reason
    assert server.sent == 1


@pytest.mark.parametrize("error", [DOWN, err.RedBrickInputError("item 'a': it is empty")], ids=repr)
def test_what_cannot_be_stored_is_not_created(error):
    server = Server()
    outcome, _ = create(server, stored=error)
    assert outcome.status is Status.FAILED
    assert str(error) in outcome.reason
    assert outcome.reason.endswith("The task was not created")
    assert (server.sent, server.looked) == (0, [])


def test_storage_that_is_down_is_not_asked_again_and_again():
    breaker = CircuitBreaker()
    reasons = [create(Server(), stored=DOWN, breaker=breaker)[0].reason for _ in range(4)]
    assert [reason.startswith("Not attempted") for reason in reasons] == [False, False, True, True]


# ------------------------------------------------------------------ many


class Project:
    """Knows who has which name; notes what it is asked for, and what is created."""

    def __init__(self, *, refuses=(), fails=None, converts=None):
        self.refuses, self.fails = set(refuses), fails
        self.converts = converts or (lambda task: {**task, "items": [s["items"] for s in task["series"]]})
        self.asked, self.created = [], []
        self.imports = self.files = self
        self.client = RedBrickClient(transport=None, max_concurrency=2, bundle=BatchSize(1))
        self.client.convert_labels = lambda tasks: list(map(self.converts, tasks))

    def find_by_name(self, names):
        self.asked.append(len(names))
        if self.fails is not None:
            raise self.fails
        if self.refuses.intersection(names):
            raise err.RedBrickRefusedError("no such search")
        return {name: [] for name in names}

    def create(self, new):
        self.created.append(new.name)
        return Created((f"id-{new.name}",), None)

    def read_tasks(self, task_ids, *, detail=None):
        return {task_id: Task(task_id) for task_id in task_ids}

    def label_variables(self, labels, labels_map, *, task_id):
        return {"labelsData": labels, "labelsMap": labels_map}


def described(n):
    return [read_new_task({"name": str(i), "items": "a.dcm"}) for i in range(n)]


def upload(project, given):
    return list(Uploading(project, Converter(project.client, lambda _: None), "storage").run(given))


def test_no_more_is_read_than_is_worked_on():
    project, ahead = Project(), []

    def given():
        for i, new in enumerate(described(100)):
            ahead.append(i - len(project.created))
            yield new

    assert len(upload(project, given())) == 100
    assert max(ahead) < 25


def test_a_name_that_cannot_be_searched_for_sinks_nobody_else():
    project = Project(refuses={"3"})
    outcomes = upload(project, described(10))
    assert [outcome.name for outcome in outcomes if outcome.status is Status.FAILED] == ["3"]
    assert len(project.created) == 9


def test_a_server_that_is_down_is_asked_twice():
    project = Project(fails=DOWN)
    outcomes = upload(project, described(100))
    assert project.asked == [25, 25]
    assert [outcome.reason.startswith("Not attempted") for outcome in outcomes] == [False] * 50 + [True] * 50
    assert {outcome.status for outcome in outcomes} == {Status.FAILED}


@pytest.mark.parametrize("items", [None, [], ["another.dcm"], ["a.dcm", "another.dcm"]], ids=repr)
def test_items_that_a_conversion_makes_up_are_not_created(items):
    project = Project(converts=lambda task: {"items": items})
    (outcome,) = upload(project, described(1))
    assert outcome.reason == "It could not be checked: RedBrick's conversion changed its items. Nothing was sent"
    assert project.created == []


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"items": ["a", "b"], "seriesInfo": []}, "lost items (3 given, 2 converted)"),
        ({"items": ["a", "b", "c"]}, "lost series (2 given, 0 converted)"),
        ({"items": ["a", "b", "c"], "seriesInfo": [{"itemsIndices": [0, 1, 2]}]}, "lost series (2 given, 1 converted)"),
        (
            {"items": ["a", "b", "c"], "seriesInfo": [{"itemsIndices": [0]}, {"itemsIndices": [1, 2]}]},
            "changed the items of series 0 (2 given, 1 converted)",
        ),
    ],
)
def test_items_that_the_conversion_loses_or_puts_elsewhere(stored, words):
    project = Project(converts=lambda task: stored)
    uploading = Uploading(project, Converter(project.client, lambda _: None), "22222222-2222-2222-2222-222222222222")
    (outcome,) = uploading.run([NewTask("study", [{"items": ["a", "b"]}, {"items": "c"}])])
    assert outcome.status is Status.FAILED
    assert f"It cannot be sent: RedBrick's conversion {words}. Nothing was sent" in outcome.reason
