"""Invariants for any response and input: error types, duration, and secrecy of the key."""

from __future__ import annotations

import html
import io
import json
import logging
import re
import traceback
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fixtures import alarm
from fuzz.values import of_a_secret

from airflow_provider_redbrick.exceptions import RedBrickError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")


class HangError(BaseException):
    """A time limit was exceeded. Handlers of ``Exception`` do not catch it."""


class Watch:
    """Collect all output: logs, errors, and values that a test passes to :meth:`tell`."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.words: list[str] = []

    def tell(self, *values: Any) -> None:
        """Record visible output."""
        self.words += [value if isinstance(value, str) else repr(value) for value in values]

    def check(self) -> None:
        """Fail if output contains a secret."""
        for words in self.words:
            refuse_secrets(words)


@contextmanager
def promises(*allowed: type[BaseException], seconds: float = 20) -> Iterator[Watch]:
    """Assert that a block raises only provider errors, in time, without secrets in its output.

    :param allowed: what else may come out.
    """
    watch, printed = Watch(), io.StringIO()
    with alarm(seconds, HangError(f"not done after {seconds} seconds")), redirect_stdout(printed), _logged(printed):
        try:
            yield watch
        except (RedBrickError, *allowed) as error:
            watch.error = error
    if watch.error is not None:
        watch.tell(everything_about(watch.error))
    watch.tell(printed.getvalue())
    watch.check()


def everything_about(error: BaseException) -> str:
    """Return all text of an error and of its causes and contexts."""
    parts = traceback.format_exception(error)
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen.add(id(each))
            parts += [str(each), repr(each), repr(each.args), repr(each.__dict__)]
            left += [other for other in (each.__cause__, each.__context__) if other is not None]
    return " ".join(parts)


def refuse_secrets(words: str) -> None:
    """Fail if a text has the beginning or end of the key or a signature, in any encoding."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), words)
    for spelled in {words, plain, unquote(plain), html.unescape(plain)}:
        assert not of_a_secret(spelled), f"a secret is told: {_about(spelled)!r}"


def _about(words: str) -> str:
    at = max(words.lower().find(part) for part in ("canary", "yranac"))
    return words[max(0, at - 200) : at + 60]


def refuse_unsendable(value: Any) -> None:
    """Fail if a value is not a valid XCom: JSON in UTF-8, without characters that databases refuse."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    assert "\\u0000" not in text


@contextmanager
def _logged(stream: io.StringIO) -> Iterator[None]:
    """Record logs of all levels, from the provider and the HTTP library."""
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    loggers = [logging.getLogger(name) for name in ("airflow_provider_redbrick", "urllib3")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
