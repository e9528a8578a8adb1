"""Upload and download files behind presigned URLs.

Design notes on storage:

1. Repeating an upload or a download is harmless, so both are retried like reads. Each attempt starts at the beginning
   of the file.
2. Redirects are followed for downloads only. A file is never uploaded to another URL than the one that RedBrick
   returned.
3. Files are streamed. A size limit applies to the transferred bytes, and another one to decompressed content in
   memory.
4. Errors do not contain the URL, nor have a context that does: it is secret as long as its signature is valid.
"""

from __future__ import annotations

import gzip
import io
import zlib
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

import requests

from airflow_provider_redbrick.client.transport.errors import INVALID_URL_ERRORS, classify_storage_status
from airflow_provider_redbrick.client.transport.sessions import (
    MAX_RESPONSE_BYTES,
    UnencryptedError,
    limit_bytes,
    redirect_target,
)
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError, RedBrickConnectionError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from airflow_provider_redbrick.client.transport.retry import Retries
    from airflow_provider_redbrick.client.transport.sessions import StorageSession

LARGEST_FILE = 8 << 30
"""Maximum size in bytes of a file saved as stored: masks of twice the voxels that are read."""

_WHAT = "of a stored file"
_CHUNK_BYTES = 1 << 16
_MAX_IGNORED_CHUNKS = 16
_MAX_REDIRECTS = 10


class Storage:
    """Upload and download files, with retries: repeating either is harmless.

    :param session: sends the requests.
    :param retries: the retry loop.
    :param timeout: seconds for a connection, and for each part of a response.
    """

    def __init__(self, session: StorageSession, retries: Retries, *, timeout: float) -> None:
        self._session = session
        self._retries = retries
        self._timeout = timeout

    def put(self, url: str, content: bytes | BinaryIO, *, kind: str, encoding: str | None = None) -> None:
        """Upload bytes, or an open file from its start to its end.

        A file is streamed and left open.

        :param url: the presigned URL.
        :param content: the bytes or file.
        :param kind: the content type that the URL was signed for.
        :param encoding: the content encoding that the URL was signed for.
        :raises RedBrickAPIError: if the upload fails.
        """
        # Azure requires the blob type; other storages ignore the header.
        headers = {"Content-Type": kind, "x-ms-blob-type": "BlockBlob"}
        if encoding is not None:
            headers["Content-Encoding"] = encoding

        def send() -> None:
            if not isinstance(content, bytes):
                content.seek(0)
            with closing(self._exchange("PUT", url, content, headers)) as body:
                # A body that is read to its end leaves a reusable connection; a long one is not worth it.
                for _ in islice(body, _MAX_IGNORED_CHUNKS):
                    pass

        self._retries.run(send, mutation=False)

    def fetch(self, url: str, file: BinaryIO) -> None:
        """Download a file, without decompressing it, into an open seekable file.

        Each attempt starts at the beginning. After an error, the file's content is undefined.

        :param url: the presigned URL.
        :param file: the target, open for writing in binary mode; it is truncated.
        :raises RedBrickAPIError: if the download fails or is larger than :data:`LARGEST_FILE`.
        """
        self._receive(url, file, LARGEST_FILE)

    def get(self, url: str) -> bytes:
        """Download bytes, decompressed if they are gzip.

        The content decides, not a header.

        :raises RedBrickAPIError: if the download fails, is too large or is damaged.
        """
        received = io.BytesIO()
        self._receive(url, received, MAX_RESPONSE_BYTES)
        content = received.getvalue()
        if content[:2] != b"\x1f\x8b":
            return content
        received.seek(0)
        try:
            with gzip.GzipFile(fileobj=received) as unpacked:
                return b"".join(limit_bytes(MAX_RESPONSE_BYTES, iter(partial(unpacked.read1, _CHUNK_BYTES), b"")))
        except (OSError, EOFError, zlib.error):
            raise RedBrickAnswerError("A stored file is cut short or damaged.", operation=_WHAT) from None

    def _receive(self, url: str, file: BinaryIO, most: int) -> None:
        def receive() -> None:
            file.seek(0)
            file.truncate()
            file.writelines(limit_bytes(most, self._exchange("GET", url, None, {})))

        self._retries.run(receive, mutation=False)

    def _exchange(
        self, method: str, url: str, content: bytes | BinaryIO | None, headers: Mapping[str, str]
    ) -> Generator[bytes, None, None]:
        """Send a request and yield the response's body.

        Errors that the consumer raises meanwhile are not converted to storage errors.
        """
        error: RedBrickAPIError
        try:
            with self._answer(method, url, content, headers) as response:
                if 200 <= response.status_code < 300:
                    yield from response.iter_content(_CHUNK_BYTES)
                    return
                error = classify_storage_status(response)
        except (requests.RequestException, OSError) as failure:
            kind = type(failure).__name__
            if isinstance(failure, UnencryptedError):
                error = RedBrickAnswerError(str(failure))
            elif isinstance(failure, INVALID_URL_ERRORS):
                error = RedBrickAnswerError(f"RedBrick returned an invalid storage URL ({kind}).")
            else:
                error = RedBrickConnectionError(f"Storage did not answer ({kind}).")
        error.operation = f"{method} {_WHAT}"
        # The context would contain the signed URL, which is secret as long as its signature is valid.
        raise error from None

    def _answer(
        self, method: str, url: str, content: bytes | BinaryIO | None, headers: Mapping[str, str]
    ) -> requests.Response:
        """Return the response, following redirects for GET only."""
        for _ in range(_MAX_REDIRECTS):
            response = self._session.request(
                method, url, data=content, headers=headers, timeout=self._timeout, stream=True, allow_redirects=False
            )
            if method != "GET" or not response.is_redirect:
                return response
            # The body is not read: it would be held in memory, whatever its size.
            response.close()
            url = redirect_target(response)
        raise requests.TooManyRedirects
