"""What must hold whatever comes: which errors come out, how long it takes, and what nobody is told."""

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
    """Something took too long; nothing that catches exceptions catches this."""


class Watch:
    """Sees what is told to anybody: logs, errors, and whatever a test hands to :meth:`tell`."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.words: list[str] = []

    def tell(self, *values: Any) -> None:
        """Note what somebody gets to see."""
        self.words += [value if isinstance(value, str) else repr(value) for value in values]

    def check(self) -> None:
        """Fail when a secret is told."""
        for words in self.words:
            refuse_secrets(words)


@contextmanager
def promises(*allowed: type[BaseException], seconds: float = 20) -> Iterator[Watch]:
    """Let only errors of this provider out of a block, in time, and see that neither key nor signature is told.

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
    """All that an error says, and all that those say which came before it, told or not."""
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
    """Fail when words have the beginning or the end of the key or of a signature, however they are written."""
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), words)
    for spelled in {words, plain, unquote(plain), html.unescape(plain)}:
        assert not of_a_secret(spelled), f"a secret is told: {_about(spelled)!r}"


def _about(words: str) -> str:
    at = max(words.lower().find(part) for part in ("canary", "yranac"))
    return words[max(0, at - 200) : at + 60]


def refuse_unsendable(value: Any) -> None:
    """Fail when a value cannot be an XCom: JSON, in UTF-8, without what databases refuse."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    assert "\\u0000" not in text


@contextmanager
def _logged(stream: io.StringIO) -> Iterator[None]:
    """Write down what is logged at any level, by us and by the HTTP library."""
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
