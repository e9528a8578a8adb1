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

Design notes on response limits:

1. The timeout of ``requests`` applies to each read of the socket. A server that sends a byte now and then could hold
   a worker for days.
2. The headers must arrive within twice the timeout. The body has additional time in proportion to the bytes received,
   at :data:`MIN_BYTES_PER_S` bytes per second.
3. The deadline is checked on the socket. A deadline around ``iter_content`` is 100 lines shorter, and ends none of
   these: it has its turn only when a whole chunk of 64 KiB has arrived, and never while headers or the size of a chunk
   arrive. ``execution_timeout`` does not help the triggerer and the API server, which have none.
4. The size is limited twice: on the socket, as transferred, and after decompression (:func:`limit_bytes`).
5. Only gzip is accepted as an encoding, once. Nested encodings could expand a kilobyte into gigabytes.
6. Of an error response that cannot be a GraphQL answer, only the first 64 KiB are read.
"""

from __future__ import annotations

import http.client
import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationValueError

from airflow_provider_redbrick.client.transport.endpoint import is_loopback, is_plaintext_remote
from airflow_provider_redbrick.client.transport.graphql import may_be_answer
from airflow_provider_redbrick.client.transport.redaction import hide_queries
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickInputError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer


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


MAX_RESPONSE_BYTES = 256 << 20
"""Maximum size of a response held in memory, in bytes, after decompression."""

MIN_BYTES_PER_S = 16 << 10
"""Minimum transfer rate in bytes per second, once a response takes twice the timeout."""

_CHUNK_BYTES = 1 << 16
# Bytes that are read of a response that is not a success.
_ERROR_BYTES = 1 << 16
_ACCEPTED_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip"})


def read_body(response: requests.Response) -> bytes:
    """Return a response's body, decompressed.

    A response that is not a success is returned as far as it can be read. Unless it may be a GraphQL answer, only its
    beginning is read.

    :raises RedBrickAnswerError: if the body is larger than :data:`MAX_RESPONSE_BYTES`, or has an encoding that was not
        requested.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    is_accepted = encoding in _ACCEPTED_ENCODINGS
    if not 200 <= response.status_code < 300:
        return _error_body(response, MAX_RESPONSE_BYTES if is_accepted else _ERROR_BYTES)
    if not is_accepted:
        words = f"The response has an encoding that was not requested: {encoding[:40]!r}."
        raise RedBrickAnswerError(words, status=response.status_code, maybe_applied=True)
    return b"".join(limit_bytes(MAX_RESPONSE_BYTES, response.iter_content(_CHUNK_BYTES)))


def limit_bytes(most: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield chunks until their total size exceeds a limit.

    :param most: the limit in bytes.
    :param pieces: the chunks.
    :raises RedBrickAnswerError: if the limit is exceeded.
    """
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            words = f"The response is larger than {most >> 20} MiB. Reading was stopped."
            raise RedBrickAnswerError(words, maybe_applied=True)
        yield piece


def _error_body(response: requests.Response, most: int) -> bytes:
    """Return the body of an error response as far as it can be read.

    :param response: the response.
    :param most: the maximum size in bytes if it may be a GraphQL answer; otherwise :data:`_ERROR_BYTES` are enough.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        # A response that is read to its end leaves a reusable connection.
        for piece in response.iter_content(_CHUNK_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size >= (most if may_be_answer(pieces[0]) else _ERROR_BYTES):
                break
    except (requests.RequestException, OSError):
        pass  # The status carries the information, and an answer that was cut short is recognized.
    return b"".join(pieces)


class BoundedAdapter(HTTPAdapter):
    """HTTP adapter whose responses are limited in duration and size.

    A response may take twice the timeout, plus the time that its size needs at :data:`MIN_BYTES_PER_S`.

    :param most: the maximum size of a response as transferred, in bytes.
    :param options: passed to ``HTTPAdapter``.
    """

    def __init__(self, most: int, **options: Any) -> None:
        self._pools = _pools(most)
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the connection pools for direct connections.

        :param args: passed to ``HTTPAdapter``.
        :param kwargs: passed to ``HTTPAdapter``.
        """
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Return the connection pools for a proxy; SOCKS proxies keep their own.

        :param args: passed to ``HTTPAdapter``.
        :param kwargs: passed to ``HTTPAdapter``.
        """
        manager = super().proxy_manager_for(*args, **kwargs)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = self._pools
        return manager

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; raise an error of ``requests`` also for an invalid host name.

        :param args: passed to ``HTTPAdapter``.
        :param kwargs: passed to ``HTTPAdapter``.
        :raises requests.exceptions.InvalidURL: if the host name is invalid.
        """
        try:
            return super().send(*args, **kwargs)
        except LocationValueError as error:
            raise requests.exceptions.InvalidURL(*error.args) from None


class _Timed(io.RawIOBase):
    """Socket stream that raises ``TimeoutError`` when a limit is exceeded."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, most: int) -> None:
        self._raw = raw
        self._sock = sock
        self._most = most
        self._timeout = sock.gettimeout()
        self._began = time.monotonic()
        self._received = 0
        self.in_body = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int | None:
        if self._timeout is not None:
            left = self._began + 2 * self._timeout - time.monotonic()
            # Status line and headers are small and get no additional time.
            left += self._received / MIN_BYTES_PER_S if self.in_body else 0
            if left <= 0 or self._received > self._most:
                raise TimeoutError("the response takes too long or is too large")
            self._sock.settimeout(min(self._timeout, left))
        count: int | None = self._raw.readinto(buffer)
        self._received += count or 0
        return count

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """Buffered reader that limits the length of a line.

    ``http.client`` does not limit it everywhere.
    """

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(_CHUNK_BYTES if size is None or not 0 <= size <= _CHUNK_BYTES else size)


class _Response(http.client.HTTPResponse):
    most = 0

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # The socket has its read timeout by now, and nothing of this response was read yet.
        self._timed = _Timed(self.fp.detach(), sock, self.most)
        self.fp = _Reader(self._timed, _CHUNK_BYTES)

    def begin(self) -> None:
        super().begin()
        self._timed.in_body = True


def _pools(most: int) -> dict[str, type[HTTPConnectionPool]]:
    """Return connection pool classes whose responses are limited in size."""

    class Response(_Response):
        pass

    Response.most = most

    class Plain(HTTPConnection):
        response_class = Response

    class Secure(HTTPSConnection):
        response_class = Response

    class Pool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": Pool, "https": SecurePool}


@dataclass(frozen=True, repr=False, init=False)
class Credential:
    """The API key or access token. Its ``repr`` does not show it.

    As the session's ``auth`` it also keeps ``requests`` from sending credentials of a ``.netrc`` file.

    :param secret: the key or token.
    :param header: the name of the HTTP header that carries it.
    :raises RedBrickInputError: if the secret is empty or has characters that a header cannot hold.
    """

    secret: str
    header: str

    def __init__(self, secret: str, header: str = "ApiKey") -> None:
        valid = bool(secret) and all(" " <= character <= "~" for character in secret)
        object.__setattr__(self, "secret", secret)
        object.__setattr__(self, "header", header)
        # Error trackers store the local variables of each frame of a traceback.
        del secret
        if not valid:
            # Checked here, because the HTTP library's own error would quote the secret.
            raise RedBrickInputError(
                "The API key is empty or has invalid characters, for example a line break. Copy it again."
            )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        request.headers[self.header] = self.secret
        return request

    def __repr__(self) -> str:
        return f"Credential({self.header}: ***)"
