"""Which URL a configured host means."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from airflow_provider_redbrick.exceptions import RedBrickInputError

DEFAULT_HOST = "https://api.redbrickai.com"
_PUBLIC_HOST = "api.redbrickai.com"
_HOST_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?")


def graphql_url(host: str | None, *, port: int | None = None) -> str:
    """Return the URL that GraphQL requests for ``host`` are posted to; the trailing slash is part of it.

    * nothing, or RedBrick's public API in any form: ``https://api.redbrickai.com/graphql/``;
    * a loopback or ``amazonaws.com`` host: as given, then ``/graphql/`` (``http`` is allowed on loopback only);
    * any other host, i.e. a private deployment: ``https://<host>/api/graphql/``.

    :param host: a host name or URL, as written in the connection.
    :param port: the connection's port, for a ``host`` that does not name one.
    :raises RedBrickInputError: when ``host`` is not a host name or http(s) URL.
    """
    given = (host or "").strip() or DEFAULT_HOST
    try:
        parts = urlsplit(given if "://" in given else f"//{given}")
        name, own_port = (parts.hostname or "").lower(), parts.port or port
    except ValueError:
        raise _refused(given) from None
    if not _is_host(name) or parts.scheme not in {"", "http", "https"} or "@" in given:
        raise _refused(given)
    if name == _PUBLIC_HOST:
        return f"{DEFAULT_HOST}/graphql/"
    netloc = f"[{name}]" if ":" in name else name
    if own_port:
        netloc = f"{netloc}:{own_port}"
    if is_loopback(name):
        return f"{parts.scheme or 'http'}://{netloc}{parts.path.rstrip('/')}/graphql/"
    if name == "amazonaws.com" or name.endswith(".amazonaws.com"):
        return f"https://{netloc}{parts.path.rstrip('/')}/graphql/"
    # The key never travels in the clear: http is read as https.
    return f"https://{netloc}/api/graphql/"


def is_loopback(name: str) -> bool:
    """Whether a host name can only be this machine."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:  # a name, such as 127.example.com, whatever it looks like
        return name == "localhost" or name.endswith(".localhost")


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
