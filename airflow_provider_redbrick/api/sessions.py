"""Sessions that send each request to where it is for, and nowhere else."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from airflow_provider_redbrick.api.endpoint import is_loopback
from airflow_provider_redbrick.api.signatures import hide_queries


class StraightSession(requests.Session):
    """A session that follows no redirect, and reaches this machine without a proxy."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Say that no answer leads anywhere.

        Also where redirects are not to be followed ``requests`` looks where one leads; and then it reads all that comes
        with it into memory, decompressed and whatever its size.
        """
        return None

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        """Look which proxy and certificates are for a URL: no proxy for this machine, whatever the environment says.

        What goes there may go unencrypted, for nobody else hears it; a proxy would.
        """
        merged = super().merge_environment_settings(url, *args, **kwargs)
        if is_loopback(urlsplit(url).hostname or ""):
            merged["proxies"] = {}
        return merged


class StorageSession(StraightSession):
    """A session that adds no credential, not even what a ``.netrc`` file holds: the URL is all the permission needed.

    Storage is another server than the API and must never be sent the key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.auth = lambda request: request
        hide_queries()


def leads_to(response: requests.Response) -> str:
    """Return the URL that a redirect leads to.

    :raises requests.exceptions.InvalidURL: when that is no URL.
    """
    try:
        # Headers are read as Latin-1; servers write UTF-8.
        return urljoin(response.url, response.headers["Location"].encode("latin-1").decode())
    except ValueError:
        # Its context would tell the URL, which may be signed.
        raise requests.exceptions.InvalidURL("a redirect to what is no URL") from None
