"""Which URL a configured host means."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow_provider_redbrick.exceptions import RedBrickInputError

DEFAULT_HOST = "https://api.redbrickai.com"
_PUBLIC_HOST = "api.redbrickai.com"


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
    parts = urlsplit(given if "://" in given else f"//{given}")
    try:
        name, own_port = (parts.hostname or "").lower(), parts.port or port
    except ValueError as error:
        raise RedBrickInputError(f"The connection's host {given!r} is not a host name or URL: {error}.") from None
    if not name or parts.scheme not in {"", "http", "https"} or parts.username or parts.password:
        raise RedBrickInputError(
            f"The connection's host must be a host name or an http(s) URL without credentials, not {_safe(given)!r}."
        )
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
    return name in {"localhost", "::1"} or name.endswith(".localhost") or name.startswith("127.")


def _safe(given: str) -> str:
    """Return the host without what may be a password before an ``@``."""
    return given.rsplit("@", 1)[-1]
