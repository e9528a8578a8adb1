"""Keeping the key out of all that a server may say."""

from __future__ import annotations

import html
import json
import re
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")
_ESCAPED = re.compile(r"\\+u00([0-9a-fA-F]{2})")
# What is left of one character that was cut off in the middle: of JSON's, a URL's or HTML's way to write it.
_CUT_OFF = re.compile(r"(\\+(u[0-9a-fA-F]{0,3})?|%[0-9a-fA-F]?|&#?\w{0,6})\Z")
# Bytes that a character may take: JSON in JSON in JSON.
_WIDEST = 13
# So much of a secret that whoever reads it knows something.
_TELLING = 4


def masked(content: bytes, secret: str) -> bytes:
    """Return an answer without the secret, however it may be spelled there: nothing a server echoes may be logged."""
    if content[-2:].strip()[-1:] != b"}":
        content = _without_its_beginning(content, secret)
    spellings, escaped = _spellings(secret)
    for spelling in spellings:
        content = content.replace(spelling, b"***")
    return escaped.sub(b"***", content) if _ESCAPED_ASCII.search(content) else content


@lru_cache(maxsize=8)
def _spellings(secret: str) -> tuple[tuple[bytes, ...], re.Pattern[bytes]]:
    """Return the ways in which a secret is usually written, and a pattern for what JSON may make of it besides."""
    quoted = [json.dumps(secret)[1:-1]]
    quoted.append(quoted[0].replace("/", "\\/"))
    quoted += [json.dumps(text)[1:-1] for text in quoted]  # in JSON within JSON
    in_url = quote(secret, safe=""), quote(secret), quote_plus(secret)
    lower = [re.sub("%..", lambda found: found[0].lower(), text) for text in in_url]
    usual = (secret, *quoted, *in_url, *lower, html.escape(secret))
    # JSON may escape any character, and JSON in JSON escapes the escapes.
    any_way = (rf"(?:\\{{1,7}}u00(?i:{ord(each):02x})|\\{{0,7}}{re.escape(each)})" for each in secret)
    return tuple(text.encode() for text in dict.fromkeys(usual)), re.compile("".join(any_way).encode())


def _without_its_beginning(content: bytes, secret: str) -> bytes:
    """Return an answer that was cut short in the middle of a secret without its end; any other as it is."""
    tail = content[-_WIDEST * len(secret) :]
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), tail.decode(errors="replace"))
    for end in (text, _CUT_OFF.sub("", text)):
        for read in (_unescaped, unquote, unquote_plus, html.unescape):
            known = _unescaped(secret) if read is _unescaped else secret
            said = read(end)
            if any(said.endswith(known[:n]) for n in range(_TELLING, len(known))):
                return content[: -len(tail)] + b"***"
    return content


def _unescaped(text: str) -> str:
    return text.replace("\\", "")
