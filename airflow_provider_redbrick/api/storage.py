"""Files behind presigned URLs."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, BinaryIO

import requests

from airflow_provider_redbrick.api.classify import classify_storage_status
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError, RedBrickConnectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.api.retry import Retries

_WHAT = "of a stored file"


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

        def send() -> bytes:
            if not isinstance(content, bytes):
                content.seek(0)
            return self._send("PUT", url, content, headers)

        self._retries.run(send, mutation=False)

    def get(self, url: str) -> bytes:
        """GET bytes, decompressed when they are gzip, with or without a header saying so."""
        content = self._retries.run(lambda: self._send("GET", url, None, {}), mutation=False)
        try:
            return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        except (OSError, EOFError, zlib.error):
            raise RedBrickAnswerError("A stored file is cut short or damaged.", operation=_WHAT) from None

    def _send(self, method: str, url: str, content: bytes | BinaryIO | None, headers: Mapping[str, str]) -> bytes:
        error: RedBrickAPIError
        try:
            response = self._session.request(method, url, data=content, headers=headers, timeout=self._timeout)
            if 200 <= response.status_code < 300:
                return response.content
            error = classify_storage_status(response)
        except (requests.RequestException, OSError) as failure:
            error = RedBrickConnectionError(f"Storage did not answer ({type(failure).__name__}).")
        error.operation = f"{method} {_WHAT}"
        # Its context would name the signed URL, which is a secret while the signature lives.
        raise error from None
