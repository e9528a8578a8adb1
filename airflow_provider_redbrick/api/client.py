"""Account-level operations and the project factory."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.answers import elements, index, reading, text
from airflow_provider_redbrick.api.forks import abandon, renew_after_fork
from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.rate_limit import BatchSize
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickInputError,
    RedBrickNotFoundError,
    truncate_message,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.transport import Transport

REDBRICK_STORAGE = "22222222-2222-2222-2222-222222222222"
"""Id of RedBrick's own storage, which every account has."""


@dataclass(eq=False)
class RedBrickClient:
    """One account on one server. Reads fail instead of returning partial results.

    :param transport: sends the requests.
    :param page_size: tasks per page of a listing; reduced when the server refuses it.
    :param max_concurrency: the maximum number of concurrent requests about tasks.
    :param bundle: the current number of mutations per request.
    """

    transport: Transport
    page_size: int = 200
    max_concurrency: int = 10
    bundle: BatchSize = field(default_factory=lambda: BatchSize(10))
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

    def me(self) -> str:
        """Return the user id of the credential, ``API:<uuid>`` for an API key.

        :raises RedBrickAnswerError: if the server does not say whose the credential is.
        """
        if self._me is None:
            data = self.transport.execute(documents.ME, {})
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
        found = self.transport.execute(documents.ORGANIZATION, {"orgId": org_id}).get("organization")
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
            documents.VALIDATE_AND_CONVERT_TO_IMPORT_FORMAT,
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
