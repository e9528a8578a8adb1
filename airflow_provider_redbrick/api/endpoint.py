"""Which URL a configured host means."""

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
    """Return the URL that GraphQL requests for ``host`` are posted to; the trailing slash is part of it.

    * nothing, or RedBrick's public API in any form: ``https://api.redbrickai.com/graphql/``;
    * a loopback or ``amazonaws.com`` host: as given, then ``/graphql/``;
    * any other host, i.e. a private deployment: ``https://<host>/api/graphql/``.

    What names neither ``http`` nor ``https`` is https, but http for a loopback host.

    :param host: a host name or URL, as written in the connection.
    :param port: the connection's port, for a ``host`` that does not name one.
    :param schema: the connection's schema, for a ``host`` that names neither ``http`` nor ``https``.
    :param allow_http: take ``http`` as it is written for hosts that are not loopback, too; RedBrick's own is https.
    :raises RedBrickInputError: when ``host`` is not a host name or http(s) URL, or is http where that is not allowed.
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
            f"The connection's host says http, and {name} is not this machine: the key would travel unencrypted. "
            f"Write https; or, where the way there is safe, set the connection's extra allow_http to true."
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
    """Whether a host name can only be this machine; names under ``localhost`` are what a name server says they are."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:  # a name, such as 127.example.com, whatever it looks like
        return name == "localhost"


def is_overheard(url: str) -> bool:
    """Whether what goes to a URL travels unencrypted to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _is_host(name: str) -> bool:
    """Whether this is a host name or an address, and not, say, a template that was not rendered."""
    if ":" not in name:
        return _HOST_NAME.fullmatch(name) is not None
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True


def _refused(given: str) -> RedBrickInputError:
    # What stands before an "@" may be a password.
    shown = given.rsplit("@", 1)[-1]
    return RedBrickInputError(
        f"The connection's host must be a host name or an http(s) URL without credentials, not {shown!r}."
    )
