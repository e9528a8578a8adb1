"""The account-wide operations, and the door to a project's."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.answers import elements, index, reading, text
from airflow_provider_redbrick.api.forks import abandon, renew_after_fork
from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.rate_limit import Bundle
from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickInputError,
    RedBrickNotFoundError,
    readable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.transport import Transport

REDBRICK_STORAGE = "22222222-2222-2222-2222-222222222222"
"""RedBrick's own storage, which every account has."""


@dataclass(eq=False)
class RedBrickClient:
    """One account on one server. One method per operation; every read is strict.

    :param page_size: how many tasks a page of a listing asks for, adapted down when the server refuses.
    :param max_concurrency: how many requests work on tasks at the same time.
    :param bundle: how many mutations go in one request.
    """

    transport: Transport
    page_size: int = 200
    max_concurrency: int = 10
    bundle: Bundle = field(default_factory=lambda: Bundle(10))
    _me: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        renew_after_fork(self, RedBrickClient._renew)

    @read_once
    def threads(self) -> ThreadPoolExecutor:
        """Threads for requests that are sent at the same time; what is done in one must not wait for another.

        They are kept: to start one takes about as long as to send something.
        """
        return ThreadPoolExecutor(self.max_concurrency, thread_name_prefix="redbrick")

    def me(self) -> str:
        """Return the id of the user behind the credential, ``API:<uuid>`` for an API key."""
        if self._me is None:
            data = self.transport.execute(documents.ME, {})
            with reading("me"):
                user_id = (data["me"] or {}).get("userId")
            if not isinstance(user_id, str) or not user_id:
                raise RedBrickAnswerError("RedBrick does not say whose this credential is.", operation="me")
            self._me = user_id
        return self._me

    def organization_name(self, org_id: str) -> str:
        """Return an organisation's name.

        :raises RedBrickNotFoundError: when it does not exist or this key cannot see it.
        """
        check_uuid("org_id", org_id)
        found = self.transport.execute(documents.ORGANIZATION, {"orgId": org_id}).get("organization")
        if not found:
            raise RedBrickNotFoundError(f"There is no organisation {org_id}, or this API key cannot see it.")
        with reading("organization"):
            return text(found["name"])

    def convert_labels(self, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Have the server turn labelled tasks into the form it stores; the result is in the same order.

        :raises RedBrickInputError: when the server finds them invalid, with its words; one bad task sinks the list.
        """
        # Labels are converted without a look at any project or storage.
        data = self.transport.execute(
            documents.VALIDATE_AND_CONVERT_TO_IMPORT_FORMAT,
            {"original": json.dumps(list(tasks)), "convert": True, "storageId": REDBRICK_STORAGE},
        )
        name = "validateAndConvertToImportFormat"
        with reading(name):
            answer = dict(data[name])
            words = text(answer.get("error")) or "no reason given"
        if not answer.get("isValid"):
            raise RedBrickInputError(readable(f"RedBrick finds the labels invalid: {words}"))
        with reading(name):
            converted = [_stored(task) for task in elements(json.loads(answer["converted"]), dict, nulls=False)]
        if len(converted) != len(tasks):
            # Submitting all the same would put these tasks through without their labels.
            raise RedBrickAnswerError(
                f"RedBrick converted {len(tasks)} labelled tasks into something else.", operation=name
            )
        return converted

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def _renew(self) -> None:
        # The pool counts threads that do not exist here, and would wait for them.
        if "threads" in vars(self):
            abandon(vars(self).pop("threads"))


def _stored(task: dict[str, Any]) -> dict[str, Any]:
    """Check that a task is what the conversion makes of one."""
    elements(task.get("items"), str, nulls=False)
    for key in ("seriesInfo", "heatMaps", "transforms", "centerline"):
        elements(task.get(key), dict, nulls=False)
    for label in elements(task.get("labels"), dict, nulls=False):
        index(label.get("volumeindex"))
        index(label.get("globalitemsindex"))
    return task
