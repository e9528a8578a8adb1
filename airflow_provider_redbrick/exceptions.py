"""What can go wrong, sorted by what a retry would do.

None of these is an ``AirflowException``: the same errors come out of the client when it is used without Airflow.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_MESSAGE = 4_000
_LONGEST_VALUE = 200
_BREAKS = re.compile("[\t-\r\x85\u2028\u2029]+")
_LINE_BREAKS = re.compile("[\n-\r\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")


def storable(text: str) -> str:
    """Return a text without what UTF-8, and so logs and XComs, or databases refuse."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def has_line_break(text: str) -> bool:
    """Whether a text is more than one line, which no name of a file is."""
    return _LINE_BREAKS.search(text) is not None


def one_line(text: str) -> str:
    """Return a storable text that is one line of a log, and no order to a terminal.

    Names, and words of a server, could otherwise write lines of their own: "INFO: all tasks are done".
    """
    return _CONTROLS.sub("\ufffd", _BREAKS.sub(" ", storable(text)))


def readable(text: str) -> str:
    """Return a text for people: one line that is no longer than anybody reads."""
    return one_line(text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}...")


def told(value: object) -> str:
    """Return a value for a message, as Python writes it; its kind alone where that cannot be written."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a number of thousands of digits, a tower of lists, somebody's own class
        return type(value).__name__
    return storable(text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}...")


def kind_of(answer: object) -> str:
    """Return what a callable's answer is, for a message that says it should be True or False."""
    kind = type(answer)
    hint = "; turn it into one with bool(...)" if kind.__module__ == "numpy" else ""
    return f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.") + hint


class RedBrickError(Exception):
    """The root of every error this provider raises on purpose. What it says is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class RedBrickInputError(RedBrickError, ValueError):
    """Bad or ambiguous input, refused before anything was changed. A retry with the same input fails the same way."""


class RedBrickConnectionLookupError(RedBrickError):
    """Airflow does not find the connection: it is missing, or a secrets backend failed, which looks the same.

    The latter passes, so a retry may help.
    """


class RedBrickNotReadError(RedBrickInputError):
    """A question about something of a task that was not read: "not read" must not be taken for "there is none"."""


class NoSuchFileError(RedBrickInputError):
    """There is nothing of a file's name."""


class RedBrickTasksFailedError(RedBrickError):
    """An operator tried all its tasks and ``fail_on`` says that the outcome fails the Airflow task.

    What succeeded stays done; a retry finishes the rest.
    """


class RedBrickStoppedError(BaseException):
    """Airflow stops the task: it was marked failed or cleared, or its worker goes away.

    Not an ``Exception``, so that it passes through whatever a labeler or reviewer catches.
    """


class RedBrickTriggerEventError(RedBrickError):
    """A deferred task was resumed with an event it does not understand, or its trigger gave up polling."""


class RedBrickAPIError(RedBrickError):
    """A request to RedBrick that did not succeed.

    :param message: what happened, in one sentence; carries the server's words but never labels or the API key.
    :param operation: the API operation, e.g. ``putExpertReviewTask``.
    :param task_ids: the tasks the request was about.
    :param status: the HTTP status, where there was one.
    :param retry_after: the raw ``Retry-After`` header, where there was one.
    :param maybe_applied: whether the server may have carried the request out all the same. Such a mutation is never
        sent again before the task has been read.
    """

    transient = False
    """Whether the same request may well succeed a little later."""

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        task_ids: Sequence[str] = (),
        status: int | None = None,
        retry_after: str | None = None,
        maybe_applied: bool = False,
    ) -> None:
        self.message = readable(message)
        super().__init__(self.message)
        self.operation = operation
        self.task_ids = tuple(task_ids)
        self.status = status
        self.retry_after = retry_after
        self.maybe_applied = maybe_applied

    def __str__(self) -> str:
        about = self.operation
        if self.task_ids:
            shown = ", ".join(self.task_ids[:3])
            more = f" and {len(self.task_ids) - 3} more" if len(self.task_ids) > 3 else ""
            about = f"{about} of task {shown}{more}".strip()
        return one_line(f"{about}: {self.message}" if about else self.message)


class RedBrickAuthError(RedBrickAPIError):
    """HTTP 401 or 403: the key is wrong, revoked, or not allowed to do this. A retry does not help."""


class RedBrickNotFoundError(RedBrickAPIError):
    """The URL, organisation, project or task does not exist, or this key cannot see it. A retry does not help."""


HOPELESS = (RedBrickAuthError, RedBrickInputError, RedBrickNotFoundError)
"""What stays wrong until a person changes something: the key, the connection, the DAG."""


class RedBrickRefusedError(RedBrickAPIError):
    """The server understood the request and said no: a GraphQL error, ``ok: false``, a message, or HTTP 400."""


class RedBrickRateLimitError(RedBrickAPIError):
    """HTTP 429. Nothing was applied; the same request succeeds later."""

    transient = True


class RedBrickPayloadTooLargeError(RedBrickAPIError):
    """HTTP 413. Nothing was applied; a smaller request may succeed."""


class RedBrickServerError(RedBrickAPIError):
    """HTTP 5xx. A mutation may have been applied all the same."""

    @property
    def transient(self) -> bool:  # type: ignore[override]
        """502, 503 and 504 come from what stands in front of the server and pass; a 500 is the server's own."""
        return self.status in {502, 503, 504}


class RedBrickStorageError(RedBrickServerError):
    """HTTP 5xx of the storage behind presigned URLs, where doing it again is harmless, and asked for by S3."""

    transient = True


class RedBrickConnectionError(RedBrickAPIError):
    """No answer: refused, dropped, or timed out."""

    transient = True


class RedBrickAnswerError(RedBrickAPIError):
    """An answer that is not the API's: not JSON, cut short, or of another shape. Mutations may have been applied."""
