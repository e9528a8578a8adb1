"""Answers that come to an end: in time, and in size, whatever the server does.

``requests`` waits no longer than its time-out for each part of an answer, but for as many parts as there are.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationValueError

from airflow_provider_redbrick.exceptions import RedBrickAnswerError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

LARGEST = 256 << 20
"""Bytes of an answer that is held in memory, decompressed."""

SLOWEST = 16 << 10
"""Bytes a second at which an answer must come at least, once it has taken twice the time-out."""

_PIECE = 1 << 16
# Of an answer that is no success, as much as anybody reads.
_BEGINNING = 1 << 16
_ASKED_FOR = frozenset({"", "identity", "gzip", "x-gzip"})


def body_of(response: requests.Response) -> bytes:
    """Return an answer's body, decompressed; of one that is no success the beginning, as far as it can be read.

    :raises RedBrickAnswerError: when there is more of it than can be meant, or it is compressed in a way that nobody
        asked for: twice, say, which makes gigabytes of a kilobyte.
    """
    if not 200 <= response.status_code < 300:
        return _beginning(response)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ASKED_FOR:
        words = f"The answer comes in an encoding that was not asked for ({encoding[:40]})."
        raise RedBrickAnswerError(words, status=response.status_code, maybe_applied=True)
    return b"".join(no_more_than(LARGEST, response.iter_content(_PIECE)))


def no_more_than(most: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces until there are more bytes than anybody can mean.

    :raises RedBrickAnswerError: then.
    """
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            words = f"The answer is larger than {most >> 20} MiB, and was not read to its end."
            raise RedBrickAnswerError(words, maybe_applied=True)
        yield piece


def _beginning(response: requests.Response) -> bytes:
    read = b""
    try:
        # What is read to its end leaves a connection that can be used again.
        for piece in response.iter_content(_PIECE):
            read += piece
            if len(read) >= _BEGINNING:
                break
    except (requests.RequestException, OSError):
        pass  # The status says what matters.
    return read


class BoundedAdapter(HTTPAdapter):
    """Sends requests whose answers have an end: none takes longer than twice the time-out, and than its size allows.

    Without it a server, or what stands in front of it, could hold a worker for days with a byte now and then.

    :param most: bytes of an answer as it comes over the wire.
    """

    def __init__(self, most: int, **options: Any) -> None:
        self._pools = _pools(most)
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pools of connections by a proxy; those by SOCKS have classes of their own."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = self._pools
        return manager

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; a host's name that cannot be one is an error of ``requests`` like any other."""
        try:
            return super().send(*args, **kwargs)
        except LocationValueError as error:
            raise requests.exceptions.InvalidURL(*error.args) from None


class _Timed(io.RawIOBase):
    """What a socket receives, until it takes too long or is too much."""

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
            # Before the body nothing is so large that it needs more time.
            left += self._received / SLOWEST if self.in_body else 0
            if left <= 0 or self._received > self._most:
                raise TimeoutError("the answer does not come to an end")
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
    """Lines of an answer have an end too, also where the HTTP library does not say so."""

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(_PIECE if size is None or not 0 <= size <= _PIECE else size)


class _Response(http.client.HTTPResponse):
    most = 0

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # By now the socket's time-out is the one for answers, and nothing was read of this one.
        self._timed = _Timed(self.fp.detach(), sock, self.most)
        self.fp = _Reader(self._timed, _PIECE)

    def begin(self) -> None:
        super().begin()
        self._timed.in_body = True


def _pools(most: int) -> dict[str, type[HTTPConnectionPool]]:
    """Return kinds of connections by which answers of so many bytes at most come in time."""

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
