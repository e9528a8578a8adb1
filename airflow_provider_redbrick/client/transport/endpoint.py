"""Map a configured host to the GraphQL URL."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from airflow_provider_redbrick.exceptions import RedBrickInputError

DEFAULT_HOST = "https://api.redbrickai.com"
_PUBLIC_HOST = "api.redbrickai.com"
_HOST_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?")


def graphql_url(
    host: str | None, *, port: int | None = None, schema: str | None = None, allow_http: bool = False
) -> str:
    """Return the GraphQL URL for a configured host, including the trailing slash.

    * No host, or RedBrick's public API in any spelling: ``https://api.redbrickai.com/graphql/``.
    * A loopback or ``amazonaws.com`` host: the URL as configured, followed by ``/graphql/``.
    * Any other host, i.e. a private deployment: ``https://<host>/api/graphql/``.

    Without a scheme, a loopback host uses http and any other host https.

    :param host: a host name or URL, as written in the connection.
    :param port: the connection's port; used if ``host`` has none.
    :param schema: the connection's schema; used if ``host`` has none, and ignored unless it is ``http`` or ``https``.
    :param allow_http: accept http for hosts that are not loopback. RedBrick's public API always uses https.
    :raises RedBrickInputError: if ``host`` is not a host name or http(s) URL, contains credentials, or uses http
        where that is not allowed.
    """
    given = (host or "").strip() or DEFAULT_HOST
    if "://" not in given and schema in {"http", "https"}:
        given = f"{schema}://{given}"
    try:
        parts = urlsplit(given if "://" in given else f"//{given}")
        name, own_port = (parts.hostname or "").lower(), parts.port or port
    except ValueError:
        raise _refused(given) from None
    if not _is_host(name) or parts.scheme not in {"", "http", "https"} or "@" in given:
        raise _refused(given)
    loopback = is_loopback(name)
    if parts.scheme == "http" and not (loopback or allow_http):
        raise RedBrickInputError(
            f"The connection's host uses http, and {name} is not this machine: the API key would travel unencrypted. "
            f"Use https or, on a trusted network, set the connection's extra allow_http to true."
        )
    if name == _PUBLIC_HOST:
        return f"{DEFAULT_HOST}/graphql/"
    netloc = f"[{name}]" if ":" in name else name
    if own_port:
        netloc = f"{netloc}:{own_port}"
    scheme = parts.scheme or ("http" if loopback else "https")
    as_given = loopback or name == "amazonaws.com" or name.endswith(".amazonaws.com")
    return f"{scheme}://{netloc}{parts.path.rstrip('/') if as_given else '/api'}/graphql/"


def is_loopback(name: str) -> bool:
    """Return whether a host name can only mean this machine.

    Names below ``localhost`` do not count: a name server decides what they are.
    """
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:  # not an address but a name, such as 127.example.com
        return name == "localhost"


def is_plaintext_remote(url: str) -> bool:
    """Return whether a URL uses plain HTTP to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _is_host(name: str) -> bool:
    """Return whether a text is a host name or an address, e.g. no unrendered template."""
    if ":" not in name:
        return _HOST_NAME.fullmatch(name) is not None
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True


def _refused(given: str) -> RedBrickInputError:
    # The part before an "@" may be a password.
    shown = given.rsplit("@", 1)[-1]
    return RedBrickInputError(
        f"The connection's host must be a host name or an http(s) URL without credentials, not {shown!r}."
    )
