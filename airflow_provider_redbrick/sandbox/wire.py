"""Decode request bodies.

A body is plain JSON or, if the header `Content-Encoding-RB` is `gzip`, base64 of gzip of JSON.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ENCODING_HEADER = "Content-Encoding-RB"


class BodyError(ValueError):
    """A request body cannot be decoded. The message says why."""


@dataclass(frozen=True)
class Call:
    """A decoded request. `size` is the size of the decoded body in bytes."""

    query: str
    variables: dict[str, Any] | None
    size: int


def read_call(body: bytes, headers: Mapping[str, str]) -> Call:
    """Decode a request body.

    :param body: the body.
    :param headers: headers of the request.
    :raises BodyError: if the body does not match its headers, or has no query.
    """
    encoding = headers.get(ENCODING_HEADER)
    if encoding == "gzip":
        try:
            body = gzip.decompress(base64.b64decode(body, validate=True))
        except (binascii.Error, OSError, EOFError, zlib.error) as error:
            raise BodyError(f"{ENCODING_HEADER} says gzip, but the body is not base64 of gzip: {error}") from None
    elif encoding:
        raise BodyError(f"{ENCODING_HEADER}: {encoding!r} is not known")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BodyError(f"the body is not JSON: {error}") from None
    query = document.get("query") if isinstance(document, dict) else None
    if not isinstance(query, str):
        raise BodyError("the body has no query")
    variables = document.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise BodyError("variables must be an object")
    return Call(query, variables, len(body))
