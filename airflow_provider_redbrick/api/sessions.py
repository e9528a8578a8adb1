"""HTTP sessions that send a request to its own host and nowhere else.

Design notes on sessions:

1. The API's session follows no redirect. Storage redirects are followed explicitly for reads, and never from https to
   http.
2. Loopback requests bypass proxies, whatever the environment says: they may be unencrypted, and a proxy would see
   them.
3. The storage session sends no credential, not even one of a ``.netrc`` file. A presigned URL grants access by
   itself.
4. The credential is the API session's ``auth``. Response sizes and durations are limited, and JSON is counted before
   it is parsed.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from airflow_provider_redbrick.api.endpoint import is_loopback, is_plaintext_remote
from airflow_provider_redbrick.api.signatures import hide_queries


class NoRedirectSession(requests.Session):
    """HTTP session without redirects, and without a proxy for loopback requests."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Return ``None``: no response is a redirect.

        ``requests`` resolves a redirect even if it is not to be followed, and then reads the whole body into memory,
        decompressed and of any size.
        """
        return None

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request; raise an error of ``requests`` for any invalid URL.

        :raises requests.exceptions.InvalidURL: if the URL is invalid.
        """
        try:
            return super().prepare_request(request)
        except requests.RequestException:
            raise
        except ValueError:
            raise requests.exceptions.InvalidURL("not a URL") from None

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        """Return proxies and certificates for a URL; no proxy for loopback requests.

        Loopback requests may be unencrypted, and a proxy would see them.

        :param url: the request's URL.
        :param args: passed to ``requests``.
        :param kwargs: passed to ``requests``.
        """
        merged = super().merge_environment_settings(url, *args, **kwargs)
        if is_loopback(urlsplit(url).hostname or ""):
            merged["proxies"] = {}
        return merged


class UnencryptedError(requests.RequestException):
    """A request was not sent because it would travel unencrypted."""


class StorageSession(NoRedirectSession):
    """HTTP session without credentials, for presigned URLs.

    Storage is another server than the API and must never receive the API key, nor credentials of a ``.netrc`` file.

    :param allow_http: allow unencrypted requests to other machines, if a URL says http.
    """

    def __init__(self, *, allow_http: bool = False) -> None:
        super().__init__()
        self.auth = lambda request: request
        self._allow_http = allow_http
        hide_queries()

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request unless it would expose a file and a signature in transit.

        :param request: the prepared request.
        :param kwargs: passed to ``requests``.
        :raises UnencryptedError: if the URL is plain HTTP to another machine and ``allow_http`` is not set.
        """
        # The prepared URL is the one that is connected to.
        if is_plaintext_remote(request.url or "") and not self._allow_http:
            raise UnencryptedError(
                "RedBrick returned an http URL for storage on another machine, so files would travel unencrypted. "
                "On a trusted network, set the connection's extra allow_http to true."
            )
        return super().send(request, **kwargs)


def redirect_target(response: requests.Response) -> str:
    """Return the target URL of a redirect.

    :raises requests.exceptions.InvalidURL: if it is not a URL.
    :raises UnencryptedError: if it leads from https to http.
    """
    try:
        # Headers are decoded as Latin-1, but servers send UTF-8.
        target = urljoin(response.url, response.headers["Location"].encode("latin-1").decode())
        schemes = urlsplit(response.url).scheme, urlsplit(target).scheme
    except ValueError:
        # The context would contain the URL, which may be signed.
        raise requests.exceptions.InvalidURL("a redirect to an invalid URL") from None
    if schemes == ("https", "http"):
        raise UnencryptedError("Storage redirects from https to http, which is not followed.")
    return target
