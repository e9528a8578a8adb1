"""Files behind presigned URLs."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, BinaryIO

import requests

from airflow_provider_redbrick.api.classify import classify_storage_status
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError, RedBrickConnectionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_redbrick.api.retry import Retries

_WHAT = "of a stored file"
_PIECE = 1 << 16


class StorageSession(requests.Session):
    """A session that adds no credential, not even what a ``.netrc`` file holds: the URL is all the permission needed.

    Storage is another server than the API and must never be sent the key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.auth = lambda request: request

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Add nothing after a redirect either."""


class Storage:
    """Puts and gets files. Repeating either is harmless, so both are retried like reads."""

    def __init__(self, session: StorageSession, retries: Retries, *, timeout: float) -> None:
        self._session = session
        self._retries = retries
        self._timeout = timeout

    def put(self, url: str, content: bytes | BinaryIO, *, kind: str, encoding: str | None = None) -> None:
        """PUT bytes, or an open file from its beginning to its end; it is streamed and left open.

        :param kind: the content type, and ``encoding`` the content encoding, that the URL was signed for.
        """
        # Azure insists on the kind of blob; others ignore it.
        headers = {"Content-Type": kind, "x-ms-blob-type": "BlockBlob"}
        if encoding is not None:
            headers["Content-Encoding"] = encoding

        def send() -> None:
            if not isinstance(content, bytes):
                content.seek(0)
            for _ in self._exchange("PUT", url, content, headers):
                pass

        self._retries.run(send, mutation=False)

    def fetch(self, url: str, file: BinaryIO) -> None:
        """GET a file as it is stored, piece by piece, into an open one that can be sought in and truncated.

        Each attempt begins at the beginning; what the file holds after an error is of no use.
        """

        def receive() -> None:
            file.seek(0)
            file.truncate()
            file.writelines(self._exchange("GET", url, None, {}))

        self._retries.run(receive, mutation=False)

    def get(self, url: str) -> bytes:
        """GET bytes, decompressed when they are gzip, with or without a header saying so."""
        received = io.BytesIO()
        self.fetch(url, received)
        content = received.getvalue()
        try:
            return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        except (OSError, EOFError, zlib.error):
            raise RedBrickAnswerError("A stored file is cut short or damaged.", operation=_WHAT) from None

    def _exchange(
        self, method: str, url: str, content: bytes | BinaryIO | None, headers: Mapping[str, str]
    ) -> Iterator[bytes]:
        """Send, and yield the answer's body; what whoever asks for it raises meanwhile is not taken for storage's."""
        error: RedBrickAPIError
        try:
            with self._session.request(
                method, url, data=content, headers=headers, timeout=self._timeout, stream=True
            ) as response:
                if 200 <= response.status_code < 300:
                    yield from response.iter_content(_PIECE)
                    return
                error = classify_storage_status(response)
        except (requests.RequestException, OSError) as failure:
            error = RedBrickConnectionError(f"Storage did not answer ({type(failure).__name__}).")
        error.operation = f"{method} {_WHAT}"
        # Its context would name the signed URL, which is a secret while the signature lives.
        raise error from None
