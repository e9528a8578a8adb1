"""Exceptions of this provider, classified by whether a retry can help.

Design notes:

1. No class derives from ``AirflowException``: the client raises the same errors when it is used without Airflow.
2. ``RedBrickAPIError.transient`` says whether the same request may succeed later. :data:`PERMANENT_ERRORS` lists the
   classes for which a retry never helps.
3. ``RedBrickAPIError.maybe_applied`` says whether the server may have applied the request in spite of the error. Such
   a mutation is never sent again before its task has been read.
4. A message is one line, at most :data:`LONGEST_MESSAGE` characters, and can be stored as UTF-8. It may quote the
   server, but contains neither labels nor the API key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_MESSAGE = 4_000
_MAX_VALUE_CHARS = 200
_WHITESPACE_CONTROLS = re.compile("[\t-\r\x85\u2028\u2029]+")
_LINE_BREAKS = re.compile("[\n-\r\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")


def to_valid_utf8(text: str) -> str:
    """Replace characters that UTF-8, and so logs, XComs and databases, refuse."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def has_line_break(text: str) -> bool:
    """Return whether a text has more than one line, which no file name has."""
    return _LINE_BREAKS.search(text) is not None


def single_line(text: str) -> str:
    """Return a text as a single log line without control characters.

    Task names and server messages could otherwise forge log lines ("INFO: all tasks are done") or send escape
    sequences to a terminal.
    """
    return _CONTROLS.sub("\ufffd", _WHITESPACE_CONTROLS.sub(" ", to_valid_utf8(text)))


def truncate_message(text: str) -> str:
    """Return a text as one line of at most :data:`LONGEST_MESSAGE` characters."""
    return single_line(text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}...")


def short_repr(value: object) -> str:
    """Return a value's shortened ``repr`` for a message, or its type if that fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an int of thousands of digits, deeply nested lists, or a user's class
        return type(value).__name__
    return to_valid_utf8(text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}...")


def type_name(answer: object) -> str:
    """Return the type of a callable's result, for a message about a boolean.

    A hint is added for NumPy booleans, which are a common mistake.
    """
    kind = type(answer)
    hint = " (convert it with bool(...))" if kind.__module__ == "numpy" else ""
    return f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.") + hint


class RedBrickError(Exception):
    """Base class of this provider's errors. The message is one line."""

    def __str__(self) -> str:
        return single_line(super().__str__())


class RedBrickInputError(RedBrickError, ValueError):
    """Invalid or ambiguous input, rejected before anything was changed.

    A retry with the same input fails in the same way.
    """


class RedBrickConnectionLookupError(RedBrickError):
    """Airflow cannot find the connection.

    It does not exist, or a secrets backend failed. Airflow reports both in the same way, so a retry may help.
    """


class RedBrickNotReadError(RedBrickInputError):
    """A task's field was used although it was not read.

    "Not read" must not be taken for "empty".
    """


class NoSuchFileError(RedBrickInputError):
    """The named file does not exist."""


class RedBrickTasksFailedError(RedBrickError):
    """Tasks failed, and ``fail_on`` says that the Airflow task fails because of it.

    The operator has processed all its tasks. What succeeded stays done; a retry processes the rest.

    :param message: one sentence with the counts and the first reasons.
    :param retry_after: seconds that the server asks to wait before the next request, as in a ``Retry-After`` header.
    """

    def __init__(self, message: str, *, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RedBrickStoppedError(BaseException):
    """Airflow stops the Airflow task: it was marked failed or cleared.

    Also raised when the worker shuts down. Not an ``Exception``, so that a labeler or reviewer with ``except
    Exception`` does not catch it.
    """


class RedBrickTriggerEventError(RedBrickError):
    """A deferred task received an invalid event, or its trigger gave up polling."""


class RedBrickAPIError(RedBrickError):
    """A request to RedBrick failed.

    :param message: one sentence that says what happened. It may quote the server, but contains neither labels nor the
        API key.
    :param operation: the API operation, e.g. ``putExpertReviewTask``.
    :param task_ids: the tasks that the request was about.
    :param status: the HTTP status, if there was a response.
    :param retry_after: the raw ``Retry-After`` header, if there was one.
    :param maybe_applied: whether the server may have applied the request in spite of the error. Such a mutation is
        never sent again before its task has been read.
    """

    transient = False
    """Whether the same request may succeed a little later."""

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
        self.message = truncate_message(message)
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
        return single_line(f"{about}: {self.message}" if about else self.message)


class RedBrickAuthError(RedBrickAPIError):
    """HTTP 401 or 403: the API key is wrong, revoked, or lacks the permission.

    A retry does not help.
    """


class RedBrickNotFoundError(RedBrickAPIError):
    """The URL, organization, project or task does not exist, or the key cannot see it.

    A retry does not help.
    """


PERMANENT_ERRORS = (RedBrickAuthError, RedBrickInputError, RedBrickNotFoundError)
"""Errors that last until a person changes the API key, the connection or the DAG."""


class RedBrickRefusedError(RedBrickAPIError):
    """The server understood the request and refused it.

    It answered with a GraphQL error, ``ok: false``, a message, or HTTP 400.
    """


class RedBrickRateLimitError(RedBrickAPIError):
    """HTTP 429, or an error that is about a rate limit. The same request succeeds later."""

    transient = True


class RedBrickPayloadTooLargeError(RedBrickAPIError):
    """HTTP 413. Nothing was applied; a smaller request may succeed."""


class RedBrickServerError(RedBrickAPIError):
    """HTTP 5xx. A mutation may have been applied."""

    @property
    def transient(self) -> bool:  # type: ignore[override]
        """Whether the status is 502, 503 or 504.

        A gateway in front of the server sends those, and they pass. A 500 comes from the server itself.
        """
        return self.status in {502, 503, 504}


class RedBrickStorageError(RedBrickServerError):
    """HTTP 5xx from the storage behind presigned URLs.

    Always transient: repeating a storage request is harmless, and S3 asks clients to do so.
    """

    transient = True


class RedBrickConnectionError(RedBrickAPIError):
    """The server did not answer: connection refused, dropped or timed out."""

    transient = True


class RedBrickAnswerError(RedBrickAPIError):
    """The answer is malformed: no JSON, cut short, or of an unexpected shape.

    A mutation may have been applied.
    """
