"""Account-level operations and the project factory.

Design notes on the results of combined mutations:

1. One request carries mutations of different tasks. Each is judged by its own root field, whatever the HTTP status.
2. A value acknowledges the mutation, also if an error is about a part of its selection. ``ok: false`` or a message in
   it is a refusal.
3. A null that an error names is a refusal in the error's words.
4. A null that no error names is not an acknowledgment: the mutation fails with ``maybe_applied``, its neighbors do
   not. If nothing in an answer is a result, the whole request fails so.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import abandon, read_once, renew_after_fork
from airflow_provider_redbrick.client.models.parsing import check_uuid, elements, index, reading, text
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.client.transport.errors import classify_issue
from airflow_provider_redbrick.client.transport.graphql import Call, combine
from airflow_provider_redbrick.client.transport.retry import BatchSize
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickNotFoundError,
    RedBrickRefusedError,
    truncate_message,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.client.transport.clock import ServerClock
    from airflow_provider_redbrick.client.transport.http import Transport

log = logging.getLogger(__name__)

REDBRICK_STORAGE = "22222222-2222-2222-2222-222222222222"
"""Id of RedBrick's own storage, which every account has."""


@dataclass(eq=False)
class RedBrickClient:
    """One account on one server. Reads fail instead of returning partial results.

    :param transport: sends the requests.
    :param page_size: tasks per page of a listing; reduced when the server refuses it.
    :param max_concurrency: the maximum number of concurrent requests about tasks.
    :param bundle: the current number of mutations per request.
    :param settle_seconds: how long a read may lag behind a write, and how late a request without an answer may be
        applied.
    """

    transport: Transport
    page_size: int = 200
    max_concurrency: int = 10
    bundle: BatchSize = field(default_factory=lambda: BatchSize(10))
    settle_seconds: float = 30.0
    _me: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        renew_after_fork(self, RedBrickClient._renew)

    @read_once
    def threads(self) -> ThreadPoolExecutor:
        """Thread pool for concurrent requests.

        A function run in the pool must not wait for another one. The pool is kept, because starting a thread takes
        about as long as sending a request.
        """
        return ThreadPoolExecutor(self.max_concurrency, thread_name_prefix="redbrick")

    @property
    def clock(self) -> ServerClock:
        """The estimate of the server's clock."""
        return self.transport.clock

    def me(self) -> str:
        """Return the user id of the credential, ``API:<uuid>`` for an API key.

        :raises RedBrickAnswerError: if the server does not say whose the credential is.
        """
        if self._me is None:
            data = self.transport.execute(queries.ME, {})
            with reading("me"):
                user_id = (data["me"] or {}).get("userId")
            if not isinstance(user_id, str) or not user_id:
                raise RedBrickAnswerError("RedBrick does not say whose this credential is.", operation="me")
            self._me = user_id
        return self._me

    def organization_name(self, org_id: str) -> str:
        """Return an organization's name.

        :raises RedBrickInputError: if ``org_id`` is not a UUID.
        :raises RedBrickNotFoundError: if the organization does not exist or the key cannot see it.
        """
        check_uuid("org_id", org_id)
        found = self.transport.execute(queries.ORGANIZATION, {"orgId": org_id}).get("organization")
        if not found:
            raise RedBrickNotFoundError(f"There is no organization {org_id}, or this API key cannot see it.")
        with reading("organization"):
            return text(found["name"])

    def convert_labels(self, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Convert labeled tasks to the stored format on the server.

        :param tasks: tasks with ``series`` or ``classification``, in the upload format.
        :return: the converted tasks, in the same order.
        :raises RedBrickInputError: if the server finds the labels of any task invalid; the message quotes it.
        :raises RedBrickAnswerError: if the server does not return as many tasks as it was sent.
        """
        # The server needs no project, and does not access the storage, to convert labels.
        data = self.transport.execute(
            queries.VALIDATE_AND_CONVERT_TO_IMPORT_FORMAT,
            {"original": json.dumps(list(tasks)), "convert": True, "storageId": REDBRICK_STORAGE},
        )
        name = "validateAndConvertToImportFormat"
        with reading(name):
            answer = dict(data[name])
            words = text(answer.get("error")) or "no reason given"
        if not answer.get("isValid"):
            raise RedBrickInputError(truncate_message(f"RedBrick rejects the labels as invalid: {words}"))
        with reading(name):
            converted = [_stored(task) for task in elements(json.loads(answer["converted"]), dict, nulls=False)]
        if len(converted) != len(tasks):
            # Continuing would submit tasks without their labels.
            raise RedBrickAnswerError(
                f"RedBrick was sent {len(tasks)} tasks to convert and returned {len(converted)}.", operation=name
            )
        return converted

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def _renew(self) -> None:
        # The pool counts threads that do not exist in the child, and would wait for them.
        if "threads" in vars(self):
            abandon(vars(self).pop("threads"))


def _stored(task: dict[str, Any]) -> dict[str, Any]:
    """Validate the shape of a converted task."""
    elements(task.get("items"), str, nulls=False)
    for key in ("seriesInfo", "heatMaps", "transforms", "centerline"):
        elements(task.get(key), dict, nulls=False)
    for label in elements(task.get("labels"), dict, nulls=False):
        index(label.get("volumeindex"))
        index(label.get("globalitemsindex"))
    return task


class Scope:
    """Send the operations of one project.

    :param client: the account.
    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :raises RedBrickInputError: if an id is not a UUID.
    """

    def __init__(self, client: RedBrickClient, org_id: str, project_id: str) -> None:
        self.client = client
        self.org_id = check_uuid("org_id", org_id)
        self.project_id = check_uuid("project_id", project_id)

    @property
    def ids(self) -> dict[str, str]:
        """The variables that every document of a project declares."""
        return {"orgId": self.org_id, "projectId": self.project_id}

    def execute(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> dict[str, Any]:
        """Send one operation and return its complete ``data``.

        :param document: the GraphQL document.
        :param variables: its variables except the organization's and the project's id.
        :param task_ids: the tasks it is about, for messages.
        :raises RedBrickAPIError: if the request fails or the answer has an error.
        """
        return self.client.transport.execute(document, {**self.ids, **variables}, task_ids=task_ids)

    def send(self, calls: Sequence[Call]) -> list[RedBrickAPIError | None]:
        """Send mutations of different tasks in one request.

        :return: for each call, the error that it failed with, or ``None``.
        :raises RedBrickAPIError: if the request fails as a whole.
        """
        if len(calls) == 1:
            document, variables, roots = calls[0].document, calls[0].variables, [calls[0].name]
        else:
            document, variables = combine(calls)
            roots = [f"m{i}" for i in range(len(calls))]
        ids = [call.task_id for call in calls]
        answer = self.client.transport.execute_partial(document, {**self.ids, **variables}, task_ids=ids)
        words = "; ".join(issue.message for issue in answer.issues)
        errors: Mapping[str | None, str] = {issue.root: issue.message for issue in reversed(answer.issues)}
        if len(calls) == 1 and answer.issues:
            # Each error is about the only mutation, also if it does not name it.
            errors = {roots[0]: words}
        payloads = [(answer.data or {}).get(root) for root in roots]
        if not any(isinstance(payload, dict) or root in errors for payload, root in zip(payloads, roots, strict=True)):
            raise _not_acknowledged(words, operation=calls[0].name, task_ids=ids)
        return [
            _problem(call, payload, errors.get(root), words)
            for call, payload, root in zip(calls, payloads, roots, strict=True)
        ]

    def change(self, call: Call) -> None:
        """Send a mutation of one task.

        :raises RedBrickAPIError: if it fails.
        """
        (problem,) = self.send([call])
        if problem is not None:
            raise problem


def _problem(call: Call, payload: Any, issue: str | None, words: str) -> RedBrickAPIError | None:
    """Return the error in the answer to one mutation, or ``None`` if it was acknowledged.

    :param call: the mutation.
    :param payload: the value of its root field.
    :param issue: the error that names it, if any.
    :param words: the errors of the whole answer.
    """
    task_ids = [call.task_id]
    if not isinstance(payload, dict):
        if issue is None:
            return _not_acknowledged(words, operation=call.name, task_ids=task_ids)
        return classify_issue(issue, operation=call.name, task_ids=task_ids, maybe_applied=True)
    if payload.get("ok") is not True or payload.get("message"):
        reason = payload.get("message") or issue or f"ok is {payload.get('ok')!r}, without a reason."
        return RedBrickRefusedError(
            f"RedBrick refused the change: {reason}", operation=call.name, task_ids=task_ids, maybe_applied=True
        )
    if issue is not None:
        text = truncate_message(issue)
        log.warning("%s of task %s was acknowledged, with an error in its answer: %s", call.name, call.task_id, text)
    return None


def _not_acknowledged(words: str, *, operation: str, task_ids: Sequence[str]) -> RedBrickAnswerError:
    """Return the error for mutations whose answer has neither a value nor an error of their own."""
    reason = f"RedBrick answered with an error: {words}" if words else "RedBrick answered without a result."
    return RedBrickAnswerError(reason, operation=operation, task_ids=task_ids, maybe_applied=True)
