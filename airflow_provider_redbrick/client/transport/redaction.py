"""Remove the API key from what a server returns.

Design notes on redaction:

1. A server may echo the key in a body or a header. The raw bytes are redacted before they are parsed, logged or
   quoted.
2. The key is found in each usual encoding: plain, JSON (also nested), URL-encoded, HTML. JSON may escape any
   character, so a pattern covers that as well.
3. If the content was cut off within the key, its ending is removed if at least 4 characters of the key are there.
4. Queries of presigned URLs are secrets too: they grant access without a key. They are removed from messages and from
   the log records of ``urllib3``.

A presigned URL grants access to a file by itself.
"""

from __future__ import annotations

import html
import json
import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")
_ESCAPED = re.compile(r"\\+u00([0-9a-fA-F]{2})")
# An incomplete escape sequence (JSON, URL or HTML) at the end.
_CUT_OFF = re.compile(r"(\\+(u[0-9a-fA-F]{0,3})?|%[0-9a-fA-F]?|&#?\w{0,6})\Z")
# Maximum bytes of an escaped character: JSON in JSON in JSON.
_MAX_ESCAPED_BYTES = 13
# Length of a prefix of the secret that is worth hiding.
_MIN_PREFIX_CHARS = 4


def mask_secret(content: bytes, secret: str) -> bytes:
    """Replace a secret by ``***`` in whatever usual encoding the content has it.

    :param content: a response's body or a header's value.
    :param secret: the API key or token.
    """
    if content[-2:].strip()[-1:] != b"}":
        content = _without_its_beginning(content, secret)
    spellings, escaped = _spellings(secret)
    for spelling in spellings:
        content = content.replace(spelling, b"***")
    return escaped.sub(b"***", content) if _ESCAPED_ASCII.search(content) else content


@lru_cache(maxsize=8)
def _spellings(secret: str) -> tuple[tuple[bytes, ...], re.Pattern[bytes]]:
    """Return usual encodings of a secret, and a pattern for other JSON encodings."""
    quoted = [json.dumps(secret)[1:-1]]
    quoted.append(quoted[0].replace("/", "\\/"))
    quoted += [json.dumps(text)[1:-1] for text in quoted]  # in JSON within JSON
    in_url = quote(secret, safe=""), quote(secret), quote_plus(secret)
    lower = [re.sub("%..", lambda found: found[0].lower(), text) for text in in_url]
    usual = (secret, *quoted, *in_url, *lower, html.escape(secret))
    # JSON may escape any character, and nested JSON escapes the escapes.
    any_way = (rf"(?:\\{{1,7}}u00(?i:{ord(character):02x})|\\{{0,7}}{re.escape(character)})" for character in secret)
    return tuple(text.encode() for text in dict.fromkeys(usual)), re.compile("".join(any_way).encode())


def _without_its_beginning(content: bytes, secret: str) -> bytes:
    """Redact the end of content that was cut off within a secret."""
    tail = content[-_MAX_ESCAPED_BYTES * len(secret) :]
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), tail.decode(errors="replace"))
    for end in (text, _CUT_OFF.sub("", text)):
        for decode in (_unescaped, unquote, unquote_plus, html.unescape):
            known = _unescaped(secret) if decode is _unescaped else secret
            decoded = decode(end)
            if any(decoded.endswith(known[:n]) for n in range(_MIN_PREFIX_CHARS, len(known))):
                return content[: -len(tail)] + b"***"
    return content


def _unescaped(text: str) -> str:
    return text.replace("\\", "")


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
