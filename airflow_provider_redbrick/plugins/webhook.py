"""Webhook endpoint. Disabled unless ``webhook_secret`` is set.

Design note:

1. The address contains the secret, so it appears in no access log. The secret is compared in constant time.
2. A payload is untrusted. It is limited in size and only triggers a verification with RedBrick.
3. The endpoint answers at once. Verification runs in a thread with a bounded queue.
4. Each process of the API server remembers events by itself. With several processes, a message that is resent may send
   one asset event per process.

The payload itself sends nothing, and RedBrick may send it before it shows the task in its stage. Design note:

1. An event is done only when RedBrick has confirmed it and the asset events were registered.
2. An event that is not confirmed, or whose verification failed, is released at once: if resent, it is verified again.
3. It is also verified again without being resent, after each of a few delays. Then it is dropped.
4. A permanent error (a wrong key, no such stage) is not retried.
5. The number of waiting retries is limited. Beyond it, only rule 2 applies.
"""

from __future__ import annotations

import heapq
import hmac
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from airflow_provider_redbrick._utils import abandon, in_chunks, renew_after_fork
from airflow_provider_redbrick.assets import events as assets
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


_MAX_NAME_LENGTH = 200
_MAX_EVENTS = 500


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
    if len(events) > _MAX_EVENTS:
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


class Seen:
    """Ids of the last ``most`` events that are done or in progress.

    All methods are thread-safe. An event is added when its verification begins. It stays when it is confirmed.
    :meth:`forget` removes an event that was not confirmed, so that it counts again when it is resent.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        renew_after_fork(self, Seen._renew)
        self._ids: OrderedDict[str, None] = OrderedDict()

    def new(self, hints: Iterable[Hint]) -> list[Hint]:
        """Add the hints whose events are unknown, and return them."""
        new = []
        with self._lock:
            for hint in hints:
                if hint.event_id not in self._ids:
                    self._ids[hint.event_id] = None
                    new.append(hint)
            while len(self._ids) > self._most:
                self._ids.popitem(last=False)
        return new

    def _renew(self) -> None:
        self._lock = Lock()

    def forget(self, hints: Iterable[Hint]) -> None:
        """Remove events that were not confirmed."""
        with self._lock:
            for hint in hints:
                self._ids.pop(hint.event_id, None)


log = logging.getLogger(__name__)

LARGEST = 256 << 10
"""Maximum bytes of a message. RedBrick's take about 300 per event."""
_MAX_SEEN_EVENTS = 10_000
_MAX_WAITING_HINTS = 2_000


def webhook_app() -> Unlogged | None:
    """Return the application; None if the webhook is disabled.

    ``POST /<secret>`` answers at once: 202 if the message is accepted or known, 400 if it is invalid, 404 for another
    secret, 413 if it is too large, 503 if too many hints are waiting.
    """
    options = webhook_options()
    if options is None:
        return None
    secret = options.secret
    seen = Seen(_MAX_SEEN_EVENTS)
    waking = Waking(options.connection_id, seen, most=_MAX_WAITING_HINTS)
    app = FastAPI(title="RedBrick webhook", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.waking = waking
    log.info("The webhook is enabled. Events are verified through connection %r.", options.connection_id)

    @app.post("/{path_secret}")
    async def take(path_secret: str, request: Request) -> JSONResponse:
        if not hmac.compare_digest(_bytes(path_secret), _bytes(secret)):
            return _answer(404, "Not found.")
        body = await _body(request)
        if body is None:
            return _answer(413, f"A message must have at most {LARGEST} bytes.")
        try:
            hints = seen.new(read_hints(body))
        except RedBrickInputError as error:
            return _answer(400, str(error))
        if hints and not waking.take(hints):
            seen.forget(hints)
            return _answer(503, "Too many messages are waiting.")
        return _answer(202, "Accepted.")

    return Unlogged(app)


class Unlogged:
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
    """Read a message; None if it is larger than ``LARGEST``."""
    announced = request.headers.get("Content-Length", "")
    # str.isdecimal() accepts non-ASCII digits, too.
    if announced.isascii() and announced.isdecimal() and int(announced[:20]) > LARGEST:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            return None
    return bytes(body)


def _answer(status: int, words: str) -> JSONResponse:
    return JSONResponse({"message": words}, status, headers={"Cache-Control": "no-store"})


SCHEMA_VERSION = 1
RETRY_AFTER_S = (2.0, 8.0, 30.0, 60.0)
"""Delays before further verifications. Reads of RedBrick may lag by half a minute."""


class Waking:
    """Verify hints in a thread, one message after the other. The sender does not wait.

    :param connection_id: the connection to verify with.
    :param seen: the events that are done or in progress.
    :param most: the maximum number of hints that wait for their first verification, and of those that wait for a retry.
    :param retry_after_s: seconds before each retry.
    """

    def __init__(
        self, connection_id: str, seen: Seen, *, most: int, retry_after_s: Sequence[float] = RETRY_AFTER_S
    ) -> None:
        self._connection_id = connection_id
        self._seen = seen
        self._most = most
        self._delays = tuple(retry_after_s)
        self._waiting = 0
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._later: list[tuple[float, int, list[Hint], int]] = []
        self._scheduled: set[str] = set()
        self._numbers = count()
        self._timer: Timer | None = None
        renew_after_fork(self, Waking._renew)

    def _renew(self) -> None:
        # The parent process handles the hints that it has accepted.
        abandon(self._pool)
        self._waiting, self._lock, self._pool = 0, Lock(), None
        self._later, self._scheduled, self._timer = [], set(), None

    def take(self, hints: Sequence[Hint]) -> bool:
        """Enqueue hints: all of them, or none if too many are waiting."""
        with self._lock:
            if self._waiting + len(hints) > self._most:
                return False
            self._waiting += len(hints)
            if self._pool is None:
                # Created late, because most servers fork before the first message.
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="redbrick-webhook")
        self._pool.submit(self._work, hints)
        return True

    def stop(self) -> None:
        """Cancel all retries. Verifications in progress are finished."""
        with self._lock:
            self._delays = ()
            self._later.clear()
            self._scheduled.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _work(self, hints: Sequence[Hint]) -> None:
        try:
            self._look_at(hints, 0)
        finally:
            with self._lock:
                self._waiting -= len(hints)

    def _look_at(self, hints: Sequence[Hint], looks: int) -> None:
        """Verify hints stage by stage. Release and retry those not confirmed."""
        stages: dict[tuple[str, str, str], list[Hint]] = {}
        for hint in hints:
            stages.setdefault(hint.stage, []).append(hint)
        for of_stage in stages.values():
            for chunk in in_chunks(of_stage, MAX_IDS):
                unconfirmed = self._wake(chunk)
                self._seen.forget(unconfirmed)
                self._look_again(unconfirmed, looks)

    def _wake(self, hints: Sequence[Hint]) -> list[Hint]:
        """Send a stage's asset events if any of the tasks is there.

        :return: the hints to retry.
        """
        org_id, project_id, named = hints[0].stage
        try:
            facts = look(self._connection_id, hints)
            if facts is None:
                log.info("No task of the webhook message is in stage %s of project %s.", named, project_id)
                return list(hints)
            stage_name = facts["stage_name"]
            with create_session() as session:
                woken = assets.wake(
                    org_id=org_id, project_id=project_id, stage_name=stage_name, extra=facts, session=session
                )
        except Exception as error:  # noqa: BLE001 - a retry may succeed, and triggers poll anyway
            log.warning(
                "Webhook events could not be verified. %s: %s", type(error).__name__, truncate_message(str(error))
            )
            if isinstance(error, PERMANENT_ERRORS):
                self._seen.forget(hints)
                return []
            return list(hints)
        log.info("The webhook has woken %d assets of %s in project %s.", woken, single_line(stage_name), project_id)
        return [hint for hint in hints if hint.task_id not in facts["task_ids"]]

    def _look_again(self, hints: Sequence[Hint], looks: int) -> None:
        """Schedule a retry after the next delay, if there is one."""
        if hints and looks >= len(self._delays):
            log.info("%d events of the webhook were not confirmed; they count when they are sent again.", len(hints))
        with self._lock:
            if not hints or looks >= len(self._delays):
                return
            # An event that was resent meanwhile is already scheduled.
            fresh = [hint for hint in hints if hint.event_id not in self._scheduled]
            fresh = fresh[: self._most - len(self._scheduled)]
            if not fresh:
                return
            self._scheduled.update(hint.event_id for hint in fresh)
            due = time.monotonic() + self._delays[looks]
            heapq.heappush(self._later, (due, next(self._numbers), fresh, looks + 1))
            self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer to when the next hints are due. The caller holds the lock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(max(0.0, self._later[0][0] - time.monotonic()), self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        """Submit the hints that are due."""
        with self._lock:
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, hints, looks = heapq.heappop(self._later)
                self._scheduled.difference_update(hint.event_id for hint in hints)
                if self._pool is not None:
                    with suppress(RuntimeError):  # the server shuts down
                        self._pool.submit(self._look_once_more, hints, looks)
            if self._later:
                self._set_timer()

    def _look_once_more(self, hints: Sequence[Hint], looks: int) -> None:
        """Verify the hints that were not resent and processed meanwhile."""
        self._look_at(self._seen.new(hints), looks)


def look(connection_id: str, hints: Sequence[Hint]) -> dict[str, Any] | None:
    """Return a stage's count and the hinted tasks in it; None if there are none.

    :param connection_id: the connection to verify with.
    :param hints: hints of one stage, at most ``MAX_IDS``.
    :return: ``count``, the number of tasks in the stage, and ``task_ids``, the hinted tasks that are in it.
    :raises RedBrickError: if RedBrick cannot be read.
    """
    org_id, project_id, stage_name = hints[0].stage
    with closing(PageHook(connection_id)) as hook:
        project = hook.project(project_id, org_id=org_id)
        stage = project.stage(stage_name)
        named = list(dict.fromkeys(hint.task_id for hint in hints))
        tasks = project.read_tasks(named, detail=Detail.PLACE)
        there = [
            task_id
            for task_id, task in tasks.items()
            if isinstance(task, Task) and task.stage_name == stage.public_name
        ]
        if not there:
            return None
        return {
            "schema_version": SCHEMA_VERSION,
            "project_id": project_id,
            "stage_name": stage.public_name,
            "count": project.count(stage),
            "task_ids": there,
        }
