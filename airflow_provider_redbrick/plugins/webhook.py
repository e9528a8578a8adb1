"""Webhook endpoint. Disabled unless ``webhook_secret`` is set.

A message of RedBrick names tasks that may have entered a stage (hints). Each hint is verified with RedBrick, and only
then are the asset events of the stage registered. Design note:

1. The address contains the secret, so it appears in no access log. The secret is compared in constant time.
2. A payload is untrusted. It is limited in size, and does nothing but start a verification.
3. The endpoint answers at once. Verification runs in a thread with a bounded queue.
4. An event counts as processed only when RedBrick has confirmed it and the asset events were registered.
5. RedBrick may send an event before its reads show the task in the stage. An event that is not confirmed, or whose
   verification failed, is released at once: if it is sent again, it is verified again.
6. It is also verified again without being sent again, after each of a few delays. Then it is dropped.
7. A permanent error (a wrong key, no such stage) is not retried.
8. The number of events that wait for a retry is limited. Beyond it, only rule 5 applies.
9. Each process of the API server has its own record of events. With several processes, a message that is sent again
   may register one asset event per process.
"""

from __future__ import annotations

import heapq
import hmac
import itertools
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from airflow_provider_redbrick._utils import abandon, in_chunks, renew_after_fork
from airflow_provider_redbrick.assets import stages as assets
from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.client.models.task import Detail, Task
from airflow_provider_redbrick.client.models.workflow import public_stage_name
from airflow_provider_redbrick.client.operations.project import MAX_IDS
from airflow_provider_redbrick.exceptions import PERMANENT_ERRORS, RedBrickInputError, single_line, truncate_message
from airflow_provider_redbrick.plugins.access import webhook_options
from airflow_provider_redbrick.plugins.project_view import PageHook

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import Receive, Scope, Send


log = logging.getLogger(__name__)

# Version of the asset event's extra.
SCHEMA_VERSION = 1
# Seconds before each further verification. Reads of RedBrick may lag by half a minute.
RETRY_AFTER_S = (2.0, 8.0, 30.0, 60.0)
# Maximum bytes of a message. RedBrick's messages have about 300 bytes per event.
MAX_MESSAGE_BYTES = 256 << 10
_MAX_EVENTS_PER_MESSAGE = 500
_MAX_NAME_LENGTH = 200
_MAX_REMEMBERED_EVENTS = 10_000
MAX_WAITING_HINTS = 2_000


@dataclass(frozen=True)
class Hint:
    """A webhook event that says a task may have entered a stage."""

    event_id: str
    org_id: str
    project_id: str
    stage_name: str
    task_id: str

    @property
    def stage(self) -> tuple[str, str, str]:
        """The organization's id, the project's id and the stage's name."""
        return self.org_id, self.project_id, self.stage_name


def read_hints(body: bytes) -> list[Hint]:
    """Parse the events of tasks that entered a stage.

    Other events and invalid ones are skipped.

    :raises RedBrickInputError: if the body is not a RedBrick message.
    """
    try:
        message: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise RedBrickInputError("The message is not JSON.") from None
    events = message.get("payload") if isinstance(message, Mapping) else None
    if not isinstance(events, list):
        raise RedBrickInputError("The message has no payload.")
    if len(events) > _MAX_EVENTS_PER_MESSAGE:
        raise RedBrickInputError("The message has too many events.")
    return [hint for event in events if (hint := _hint(event)) is not None]


def _hint(event: object) -> Hint | None:
    if not isinstance(event, Mapping) or event.get("event") != "TASK_ENTERED_STAGE":
        return None
    data = event.get("data")
    try:
        fields: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        return Hint(
            _name(event.get("id")),
            check_uuid("orgId", fields.get("orgId")),
            check_uuid("projectId", fields.get("projectId")),
            public_stage_name(_name(fields.get("stageName"))),
            check_uuid("taskId", fields.get("taskId")),
        )
    except RedBrickInputError:
        return None


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME_LENGTH or single_line(value) != value:
        raise RedBrickInputError("The value is not a name.")
    return value


class EventDeduplicator:
    """Record of the last events that are processed or in progress.

    All methods are thread-safe. An event is added when its verification begins, and stays when it is confirmed.
    :meth:`release` removes an event that was not confirmed, so that it is verified when it is sent again.

    :param max_events: the number of events to remember.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._lock = Lock()
        renew_after_fork(self, EventDeduplicator._renew)
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, hints: Iterable[Hint]) -> list[Hint]:
        """Record events, and return the hints whose events are new."""
        new = []
        with self._lock:
            for hint in hints:
                if hint.event_id not in self._ids:
                    self._ids[hint.event_id] = None
                    new.append(hint)
            while len(self._ids) > self._max_events:
                self._ids.popitem(last=False)
        return new

    def _renew(self) -> None:
        self._lock = Lock()

    def release(self, hints: Iterable[Hint]) -> None:
        """Remove events that were not confirmed."""
        with self._lock:
            for hint in hints:
                self._ids.pop(hint.event_id, None)


def webhook_app(*, max_waiting_hints: int = MAX_WAITING_HINTS) -> SecretPathFilter | None:
    """Return the application; None if the webhook is disabled.

    ``POST /<secret>`` answers at once: 202 if the message is accepted or known, 400 if it is invalid, 404 for another
    secret, 413 if it is too large, 503 if too many hints are waiting.

    :param max_waiting_hints: the maximum number of hints that wait for their verification.
    """
    options = webhook_options()
    if options is None:
        return None
    secret = options.secret
    events = EventDeduplicator(_MAX_REMEMBERED_EVENTS)
    verifier = HintVerifier(options.connection_id, events, max_waiting=max_waiting_hints)
    app = FastAPI(title="RedBrick webhook", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.verifier = verifier
    log.info("The webhook is enabled. Events are verified through connection %r.", options.connection_id)

    @app.post("/{path_secret}")
    async def receive(path_secret: str, request: Request) -> JSONResponse:
        if not hmac.compare_digest(_bytes(path_secret), _bytes(secret)):
            return _answer(404, "Not found.")
        body = await _body(request)
        if body is None:
            return _answer(413, f"A message must have at most {MAX_MESSAGE_BYTES} bytes.")
        try:
            hints = events.add(read_hints(body))
        except RedBrickInputError as error:
            return _answer(400, str(error))
        if hints and not verifier.submit(hints):
            events.release(hints)
            return _answer(503, "Too many messages are waiting.")
        return _answer(202, "Accepted.")

    return SecretPathFilter(app)


class SecretPathFilter:
    """Hide an application's paths from the server's access log.

    The paths contain the secret. Servers log the path of the scope that they passed in.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        inside = dict(scope)
        if scope["type"] == "http":
            scope["path"] = f"{scope.get('root_path', '')}/***"
        await self.app(inside, receive, send)


def _bytes(text: str) -> bytes:
    """Encode text that may contain lone surrogates from a decoded address."""
    return text.encode("utf-8", "surrogatepass")


async def _body(request: Request) -> bytes | None:
    """Read a message; None if it is larger than ``MAX_MESSAGE_BYTES``."""
    content_length = request.headers.get("Content-Length", "")
    # str.isdecimal() accepts non-ASCII digits, too.
    if content_length.isascii() and content_length.isdecimal() and int(content_length[:20]) > MAX_MESSAGE_BYTES:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_MESSAGE_BYTES:
            return None
    return bytes(body)


def _answer(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status, headers={"Cache-Control": "no-store"})


class HintVerifier:
    """Verify hints and register asset events, in a thread.

    Messages are processed one after the other. The sender of a message does not wait.

    :param connection_id: the connection to verify with.
    :param events: the events that are processed or in progress.
    :param max_waiting: the maximum number of hints that wait for their first verification, and of those that wait for
        a retry.
    :param retry_after_s: seconds before each retry.
    """

    def __init__(
        self,
        connection_id: str,
        events: EventDeduplicator,
        *,
        max_waiting: int,
        retry_after_s: Sequence[float] = RETRY_AFTER_S,
    ) -> None:
        self._connection_id = connection_id
        self._events = events
        self._max_waiting = max_waiting
        self._delays = tuple(retry_after_s)
        self._waiting = 0
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._retries: list[tuple[float, int, list[Hint], int]] = []
        self._scheduled: set[str] = set()
        self._sequence = itertools.count()
        self._timer: Timer | None = None
        renew_after_fork(self, HintVerifier._renew)

    def _renew(self) -> None:
        # The parent process handles the hints that it has accepted.
        abandon(self._pool)
        self._waiting, self._lock, self._pool = 0, Lock(), None
        self._retries, self._scheduled, self._timer = [], set(), None

    def submit(self, hints: Sequence[Hint]) -> bool:
        """Enqueue hints.

        :return: False if too many hints are waiting. Then none is enqueued.
        """
        with self._lock:
            if self._waiting + len(hints) > self._max_waiting:
                return False
            self._waiting += len(hints)
            if self._pool is None:
                # Created late, because most servers fork before the first message.
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="redbrick-webhook")
        self._pool.submit(self._verify_first, hints)
        return True

    def stop(self) -> None:
        """Cancel all retries. Verifications in progress are finished."""
        with self._lock:
            self._delays = ()
            self._retries.clear()
            self._scheduled.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _verify_first(self, hints: Sequence[Hint]) -> None:
        try:
            self._verify(hints, 0)
        finally:
            with self._lock:
                self._waiting -= len(hints)

    def _verify(self, hints: Sequence[Hint], attempts: int) -> None:
        """Verify hints stage by stage, and release and retry those not confirmed.

        :param hints: hints of any stages.
        :param attempts: the number of verifications before this one.
        """
        by_stage: dict[tuple[str, str, str], list[Hint]] = {}
        for hint in hints:
            by_stage.setdefault(hint.stage, []).append(hint)
        for stage_hints in by_stage.values():
            for chunk in in_chunks(stage_hints, MAX_IDS):
                unconfirmed = self._register_events(chunk)
                self._events.release(unconfirmed)
                self._schedule_retry(unconfirmed, attempts)

    def _register_events(self, hints: Sequence[Hint]) -> list[Hint]:
        """Register a stage's asset events if any of the hinted tasks is in it.

        :param hints: hints of one stage.
        :return: the hints to retry.
        """
        org_id, project_id, hinted_stage = hints[0].stage
        try:
            payload = confirm_hints(self._connection_id, hints)
            if payload is None:
                log.info("No task of the webhook message is in stage %s of project %s.", hinted_stage, project_id)
                return list(hints)
            stage_name = payload["stage_name"]
            with create_session() as session:
                count = assets.register_stage_events(
                    org_id=org_id, project_id=project_id, stage_name=stage_name, extra=payload, session=session
                )
        except Exception as error:  # noqa: BLE001 - a retry may succeed, and triggers poll anyway
            log.warning(
                "Webhook events could not be verified. %s: %s", type(error).__name__, truncate_message(str(error))
            )
            if isinstance(error, PERMANENT_ERRORS):
                self._events.release(hints)
                return []
            return list(hints)
        log.info(
            "Asset events registered by the webhook for stage %s of project %s: %d.",
            single_line(stage_name),
            project_id,
            count,
        )
        return [hint for hint in hints if hint.task_id not in payload["task_ids"]]

    def _schedule_retry(self, hints: Sequence[Hint], attempts: int) -> None:
        """Schedule a retry after the next delay, if there is one."""
        if hints and attempts >= len(self._delays):
            log.info(
                "Webhook events not confirmed: %d. They are verified again only if RedBrick sends them again.",
                len(hints),
            )
        with self._lock:
            if not hints or attempts >= len(self._delays):
                return
            # An event that was sent again in the meantime is already scheduled.
            new = [hint for hint in hints if hint.event_id not in self._scheduled]
            new = new[: self._max_waiting - len(self._scheduled)]
            if not new:
                return
            self._scheduled.update(hint.event_id for hint in new)
            due = time.monotonic() + self._delays[attempts]
            heapq.heappush(self._retries, (due, next(self._sequence), new, attempts + 1))
            self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer to when the next hints are due. The caller holds the lock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(max(0.0, self._retries[0][0] - time.monotonic()), self._submit_due)
        self._timer.daemon = True
        self._timer.start()

    def _submit_due(self) -> None:
        """Submit the hints that are due."""
        with self._lock:
            while self._retries and self._retries[0][0] <= time.monotonic():
                _, _, hints, attempts = heapq.heappop(self._retries)
                self._scheduled.difference_update(hint.event_id for hint in hints)
                if self._pool is not None:
                    with suppress(RuntimeError):  # the server shuts down
                        self._pool.submit(self._verify_again, hints, attempts)
            if self._retries:
                self._set_timer()

    def _verify_again(self, hints: Sequence[Hint], attempts: int) -> None:
        """Verify the hints whose events were not sent again and processed meanwhile."""
        self._verify(self._events.add(hints), attempts)


def confirm_hints(connection_id: str, hints: Sequence[Hint]) -> dict[str, Any] | None:
    """Return the payload of a stage's asset event.

    :param connection_id: the connection to verify with.
    :param hints: hints of one stage, at most ``MAX_IDS``.
    :return: ``count``, the number of tasks in the stage, and ``task_ids``, the hinted tasks that are in it. None if
        there are no such tasks.
    :raises RedBrickError: if RedBrick cannot be read.
    """
    org_id, project_id, stage_name = hints[0].stage
    with closing(PageHook(connection_id)) as hook:
        project = hook.project(project_id, org_id=org_id)
        stage = project.stage(stage_name)
        task_ids = list(dict.fromkeys(hint.task_id for hint in hints))
        tasks = project.read_tasks(task_ids, detail=Detail.PLACE)
        confirmed = [
            task_id
            for task_id, task in tasks.items()
            if isinstance(task, Task) and task.stage_name == stage.public_name
        ]
        if not confirmed:
            return None
        return {
            "schema_version": SCHEMA_VERSION,
            "project_id": project_id,
            "stage_name": stage.public_name,
            "count": project.count(stage),
            "task_ids": confirmed,
        }
