"""Sessions that send each request to where it is for, and nowhere else."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from airflow_provider_redbrick.api.endpoint import is_loopback, is_overheard
from airflow_provider_redbrick.api.signatures import hide_queries


class StraightSession(requests.Session):
    """A session that follows no redirect, and reaches this machine without a proxy."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Say that no answer leads anywhere.

        Also where redirects are not to be followed ``requests`` looks where one leads; and then it reads all that comes
        with it into memory, decompressed and whatever its size.
        """
        return None

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Make what is sent; a URL that cannot be one is an error of ``requests`` whatever it begins with."""
        try:
            return super().prepare_request(request)
        except requests.RequestException:
            raise
        except ValueError:
            raise requests.exceptions.InvalidURL("no URL") from None

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        """Look which proxy and certificates are for a URL: no proxy for this machine, whatever the environment says.

        What goes there may go unencrypted, for nobody else hears it; a proxy would.
        """
        merged = super().merge_environment_settings(url, *args, **kwargs)
        if is_loopback(urlsplit(url).hostname or ""):
            merged["proxies"] = {}
        return merged


class UnencryptedError(requests.RequestException):
    """A request was not sent, for it would travel unencrypted."""


class StorageSession(StraightSession):
    """A session that adds no credential, not even what a ``.netrc`` file holds: the URL is all the permission needed.

    Storage is another server than the API and must never be sent the key.

    :param allow_http: reach other machines than this one unencrypted, too, where URLs say so.
    """

    def __init__(self, *, allow_http: bool = False) -> None:
        super().__init__()
        self.auth = lambda request: request
        self._allow_http = allow_http
        hide_queries()

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request, unless it would show a file and a signature to whoever is on the way."""
        # The URL is the one that is connected to by now, whatever was written.
        if is_overheard(request.url or "") and not self._allow_http:
            raise UnencryptedError(
                "RedBrick gives a URL of storage that is http on another machine: files would travel unencrypted. "
                "Where the way there is safe, the connection's extra allow_http lets them."
            )
        return super().send(request, **kwargs)


def leads_to(response: requests.Response) -> str:
    """Return the URL that a redirect leads to.

    :raises requests.exceptions.InvalidURL: when that is no URL.
    :raises UnencryptedError: when it is http after https: whoever asked for the one does not mean the other.
    """
    try:
        # Headers are read as Latin-1; servers write UTF-8.
        target = urljoin(response.url, response.headers["Location"].encode("latin-1").decode())
        schemes = urlsplit(response.url).scheme, urlsplit(target).scheme
    except ValueError:
        # Its context would tell the URL, which may be signed.
        raise requests.exceptions.InvalidURL("a redirect to what is no URL") from None
    if schemes == ("https", "http"):
        raise UnencryptedError("Storage redirects from https to http, which is not followed.")
    return target
