"""Read and validate the settings in an Airflow connection.

1. Extras are an allowlist. Unknown ones are ignored with a warning, and none is passed on as a keyword argument.
2. The API key is only in the password. It appears in no message, repr or frame of an error.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.client.transport.endpoint import graphql_url
from airflow_provider_redbrick.client.transport.sessions import Credential
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr, truncate_message
from airflow_provider_redbrick.labels.strict_json import RepeatedKeyError, each_key_once

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)

# Allowlist of extras. Users who may edit a connection cannot set anything else.
_KNOWN = frozenset(
    {
        "org_id",
        "project_id",
        "web_url",
        "auth",
        "timeout",
        "max_concurrency",
        "mutations_per_request",
        "requests_per_second",
        "page_size",
        "settle_seconds",
        "plain_json",
        "allow_http",
    }
)
_HEADERS = {"api_key": "ApiKey", "access_token": "Authorization"}
_LONGEST_SHOWN = 24
# Without credentials, query or fragment.
_WEB_ADDRESS = re.compile(r"https?://[\w.-]+(:\d+)?(/[\w./~-]*)?", re.ASCII)
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True)
class Settings:
    """The settings of a RedBrick connection. The repr does not show the credential."""

    url: str
    credential: Credential
    org_id: str | None
    project_id: str | None
    web_url: str | None
    timeout: float
    max_concurrency: int
    mutations_per_request: int
    requests_per_second: float
    page_size: int
    settle_seconds: float
    plain_json: bool
    allow_http: bool


def read_settings(connection: Connection) -> Settings:
    """Read and validate a connection.

    Error trackers store the local variables of an error's frames, and some frames here hold the key. A new error is
    therefore raised without those frames, and this frame drops the connection first.

    :raises RedBrickInputError: with the connection and the field that is missing or invalid.
    """
    try:
        return _read(connection)
    except RedBrickInputError as error:
        message = str(error)
    del connection
    raise RedBrickInputError(message)


def _read(connection: Connection) -> Settings:
    where = f"connection {connection.conn_id!r}"
    extras = _extras(connection, where)
    unknown = sorted(set(extras) - _KNOWN)
    if unknown:
        log.warning("Ignoring unknown extras of %s: %s.", where, truncate_message(", ".join(unknown)))
    key = (connection.password or "").strip()
    if not key:
        raise RedBrickInputError(f"The {where} has no API key. Put it into the password field.")
    duplicates = [name for name, value in extras.items() if isinstance(value, str) and value.strip() == key]
    if duplicates:
        raise RedBrickInputError(
            f"The extra of {where} contains the API key as {duplicates[0]!r}. Put it only into the password field."
        )
    auth = extras.get("auth") or "api_key"
    if not isinstance(auth, str) or auth not in _HEADERS:
        raise RedBrickInputError(f"'auth' of {where} must be one of {', '.join(_HEADERS)}, not {_shown(auth)}.")
    allow_http = _flag(extras, "allow_http", where)
    return Settings(
        url=graphql_url(connection.host, port=connection.port, schema=connection.schema, allow_http=allow_http),
        credential=Credential(key, _HEADERS[auth]),
        org_id=_text(extras, "org_id", where),
        project_id=_text(extras, "project_id", where),
        web_url=_address(extras, "web_url", where),
        timeout=_number(extras, "timeout", where, default=30.0, low=1, high=600),
        max_concurrency=_whole(extras, "max_concurrency", where, default=10, low=1, high=30),
        mutations_per_request=_whole(extras, "mutations_per_request", where, default=10, low=1, high=50),
        requests_per_second=_number(extras, "requests_per_second", where, default=0, low=0, high=1000),
        page_size=_whole(extras, "page_size", where, default=200, low=1, high=1000),
        settle_seconds=_number(extras, "settle_seconds", where, default=30.0, low=0, high=600),
        plain_json=_flag(extras, "plain_json", where),
        allow_http=allow_http,
    )


def _extras(connection: Connection, where: str) -> Mapping[str, Any]:
    if not connection.extra:
        return {}
    try:
        extras = json.loads(connection.extra, object_pairs_hook=each_key_once)
    except RepeatedKeyError as error:
        raise RedBrickInputError(f"The extra of {where} has the key {_shown(error.key)} twice.") from None
    except (ValueError, RecursionError):
        raise RedBrickInputError(f"The extra of {where} is not JSON.") from None
    if not isinstance(extras, dict):
        raise RedBrickInputError(f"The extra of {where} must be a JSON object.")
    return extras


def _text(extras: Mapping[str, Any], name: str, where: str) -> str | None:
    value = extras.get(name)
    if value is not None and not isinstance(value, str):
        raise RedBrickInputError(f"{name!r} of {where} must be text, not {_shown(value)}.")
    return (value or "").strip() or None


def _address(extras: Mapping[str, Any], name: str, where: str) -> str | None:
    """Read the address of a web page: http or https, since it becomes a link."""
    value = _text(extras, name, where)
    if value is not None and not _WEB_ADDRESS.fullmatch(value):
        raise RedBrickInputError(f"{name!r} of {where} must be an address that begins with https:// or http://.")
    return value and value.rstrip("/")


def _shown(value: object) -> str:
    """Return a value for a message; long ones may be keys and are not shown."""
    text = short_repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"a long {type(value).__name__}"


def _number(extras: Mapping[str, Any], name: str, where: str, *, default: float, low: float, high: float) -> float:
    value = extras.get(name)
    if value is None or value == "":
        return default
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not low <= number <= high:
        raise RedBrickInputError(f"{name!r} of {where} must be a number from {low:g} to {high:g}, not {_shown(value)}.")
    return number


def _whole(extras: Mapping[str, Any], name: str, where: str, *, default: int, low: int, high: int) -> int:
    number = _number(extras, name, where, default=default, low=low, high=high)
    if number != int(number):
        raise RedBrickInputError(f"{name!r} of {where} must be a whole number, not {_shown(extras.get(name))}.")
    return int(number)


def _flag(extras: Mapping[str, Any], name: str, where: str) -> bool:
    value = extras.get(name)
    text = str(value).strip().lower() if isinstance(value, (str, int)) else "no flag"
    if value is None or text == "" or text in _FALSE:
        return False
    if text in _TRUE:
        return True
    raise RedBrickInputError(f"{name!r} of {where} must be true or false, not {_shown(value)}.")
