"""Read and write JSON.

Stored documents are read with orjson, which is faster than the standard library. JSON from clients is read with the
standard library, because orjson turns integers beyond 64 bits into floats.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from airflow_provider_redbrick.sandbox.flow import RefusalError


def write(value: Any) -> str:
    """Serialize a value as compact JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # orjson rejects integers beyond 64 bits, lone surrogates, and very deep nesting.
        return json.dumps(value, separators=(",", ":"))


def given(text: Any, what: str) -> Any:
    """Parse JSON text from a client.

    :param text: the text.
    :param what: name of the argument, for the message.
    :raises RefusalError: if the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusalError(f"{what} is not JSON: {error}") from None


def read(text: str) -> Any:
    """Parse stored JSON, which has no integers beyond 64 bits."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
