"""JSON of the sandbox's own making: what it keeps about tasks, and what it answers."""

from __future__ import annotations

import json
from typing import Any

import orjson

from airflow_provider_redbrick.sandbox.flow import RefusalError


def write(value: Any) -> str:
    """Write a value as compact JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Numbers beyond 64 bits, halves of surrogate pairs, and what is nested deeper than anybody does.
        return json.dumps(value, separators=(",", ":"))


def given(text: Any, what: str) -> Any:
    """Read JSON text as clients send it, or refuse."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusalError(f"{what} is not JSON: {error}") from None


def read(text: str) -> Any:
    """Read what the store keeps: whole numbers beyond 64 bits, which it has none of, would lose digits."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
