"""Signatures of URLs, kept out of what is told: such a URL is all the permission that anybody needs."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN = "***"

_WORD = re.compile(r"[^\s'\"]+")
_QUERY = re.compile(r"\?\S+")
_ESCAPE = re.compile("%[0-9a-fA-F]{2}")
# Shorter values are in many a word, and no signature.
_SHORTEST = 6


def unsigned(text: str, urls: Iterable[str | None] = ()) -> str:
    """Return a text without the queries of URLs in it, which may be signed.

    :param urls: those whose parameters are hidden wherever they stand, as HTTP libraries write them, too.
    """
    known = {spelled for url in urls if url for spelled in _secrets(url) if len(spelled) >= _SHORTEST}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _WORD.sub(_without_query, text) if "://" in text else text


def _without_query(word: re.Match[str]) -> str:
    scheme, mark, rest = word[0].partition("://")
    place, _, query = rest.partition("?")
    return f"{scheme}{mark}{place}?{HIDDEN}" if query else word[0]


def _secrets(url: str) -> Iterator[str]:
    """Yield the query of a URL and the values in it, in all the ways in which they are written."""
    _, _, query = url.partition("?")
    for part in (query, *(pair.partition("=")[2] for pair in query.split("&"))):
        plain = unquote(part)
        yield from (part, plain, unquote_plus(part), quote_plus(plain), quote(part, safe=""))
        yield from (quote(plain), quote(plain, safe=""))
        yield _ESCAPE.sub(lambda found: found[0].upper(), part)
        yield _ESCAPE.sub(lambda found: found[0].lower(), part)


class _WithoutQueries(logging.Filter):
    """Lets all records pass, without the queries of what was asked for."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "?" in message:
            record.msg, record.args = _QUERY.sub(f"?{HIDDEN}", message), ()
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def hide_queries() -> None:
    """Let the HTTP library log no queries of URLs; it would at ``DEBUG``, and in some warnings."""
    for name in ("connection", "connectionpool", "poolmanager", "util.retry"):
        # Added again it stays there once.
        logging.getLogger(f"urllib3.{name}").addFilter(_WITHOUT_QUERIES)
