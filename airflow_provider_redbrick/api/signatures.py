"""Remove the signatures of presigned URLs from messages and logs.

A presigned URL grants access to a file by itself.
"""

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
# Shorter values occur in ordinary words and are no signatures.
_MIN_SECRET_CHARS = 6


def strip_signatures(text: str, urls: Iterable[str | None] = ()) -> str:
    """Remove the queries of URLs from a text, since they may be signatures.

    :param text: the text.
    :param urls: URLs whose parameters are removed wherever they occur, in any encoding that HTTP libraries use.
    """
    known = {spelled for url in urls if url for spelled in _secrets(url) if len(spelled) >= _MIN_SECRET_CHARS}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _WORD.sub(_without_query, text) if "://" in text else text


def _without_query(word: re.Match[str]) -> str:
    scheme, mark, rest = word[0].partition("://")
    place, _, query = rest.partition("?")
    return f"{scheme}{mark}{place}?{HIDDEN}" if query else word[0]


def _secrets(url: str) -> Iterator[str]:
    """Yield a URL's query and its values, in all usual encodings."""
    _, _, query = url.partition("?")
    for part in (query, *(pair.partition("=")[2] for pair in query.split("&"))):
        plain = unquote(part)
        yield from (part, plain, unquote_plus(part), quote_plus(plain), quote(part, safe=""))
        yield from (quote(plain), quote(plain, safe=""))
        yield _ESCAPE.sub(lambda found: found[0].upper(), part)
        yield _ESCAPE.sub(lambda found: found[0].lower(), part)


class _WithoutQueries(logging.Filter):
    """Log filter that removes the queries of URLs and drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "?" in message:
            record.msg, record.args = _QUERY.sub(f"?{HIDDEN}", message), ()
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def hide_queries() -> None:
    """Keep the HTTP library from logging queries of URLs.

    It does at ``DEBUG``, and in some warnings.
    """
    for name in ("connection", "connectionpool", "poolmanager", "util.retry"):
        # addFilter() ignores a filter that was added before.
        logging.getLogger(f"urllib3.{name}").addFilter(_WITHOUT_QUERIES)
