"""Files behind presigned URLs."""

from __future__ import annotations

import gzip
import io
import zlib
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

import requests

from airflow_provider_redbrick.api.bounds import LARGEST, no_more_than
from airflow_provider_redbrick.api.classify import NOWHERE, classify_storage_status
from airflow_provider_redbrick.api.sessions import UnencryptedError, leads_to
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError, RedBrickConnectionError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from airflow_provider_redbrick.api.retry import Retries
    from airflow_provider_redbrick.api.sessions import StorageSession

LARGEST_FILE = 8 << 30
"""Bytes of a file that is put on the disk as it is stored: masks of twice as many voxels as are read."""

_WHAT = "of a stored file"
_PIECE = 1 << 16
_FEW = 16
_MOST_REDIRECTS = 10


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
            with closing(self._exchange("PUT", url, content, headers)) as said:
                # Read to its end it leaves a connection that can be used again; there is no need to hear all of it.
                for _ in islice(said, _FEW):
                    pass

        self._retries.run(send, mutation=False)

    def fetch(self, url: str, file: BinaryIO) -> None:
        """GET a file as it is stored, piece by piece, into an open one that can be sought in and truncated.

        Each attempt begins at the beginning; what the file holds after an error is of no use.
        """
        self._receive(url, file, LARGEST_FILE)

    def get(self, url: str) -> bytes:
        """GET bytes, decompressed when they are gzip, with or without a header saying so."""
        received = io.BytesIO()
        self._receive(url, received, LARGEST)
        content = received.getvalue()
        if content[:2] != b"\x1f\x8b":
            return content
        received.seek(0)
        try:
            with gzip.GzipFile(fileobj=received) as unpacked:
                return b"".join(no_more_than(LARGEST, iter(partial(unpacked.read1, _PIECE), b"")))
        except (OSError, EOFError, zlib.error):
            raise RedBrickAnswerError("A stored file is cut short or damaged.", operation=_WHAT) from None

    def _receive(self, url: str, file: BinaryIO, most: int) -> None:
        def receive() -> None:
            file.seek(0)
            file.truncate()
            file.writelines(no_more_than(most, self._exchange("GET", url, None, {})))

        self._retries.run(receive, mutation=False)

    def _exchange(
        self, method: str, url: str, content: bytes | BinaryIO | None, headers: Mapping[str, str]
    ) -> Generator[bytes, None, None]:
        """Send, and yield the answer's body; what whoever asks for it raises meanwhile is not taken for storage's."""
        error: RedBrickAPIError
        try:
            with self._answer(method, url, content, headers) as response:
                if 200 <= response.status_code < 300:
                    yield from response.iter_content(_PIECE)
                    return
                error = classify_storage_status(response)
        except (requests.RequestException, OSError) as failure:
            kind = type(failure).__name__
            if isinstance(failure, UnencryptedError):
                error = RedBrickAnswerError(str(failure))
            elif isinstance(failure, NOWHERE):
                error = RedBrickAnswerError(f"RedBrick gives a URL that leads nowhere ({kind}).")
            else:
                error = RedBrickConnectionError(f"Storage did not answer ({kind}).")
        error.operation = f"{method} {_WHAT}"
        # Its context would name the signed URL, which is a secret while the signature lives.
        raise error from None

    def _answer(
        self, method: str, url: str, content: bytes | BinaryIO | None, headers: Mapping[str, str]
    ) -> requests.Response:
        """Return storage's answer, to a reader from wherever it sends one; nothing is written elsewhere than told."""
        for _ in range(_MOST_REDIRECTS):
            response = self._session.request(
                method, url, data=content, headers=headers, timeout=self._timeout, stream=True, allow_redirects=False
            )
            if method != "GET" or not response.is_redirect:
                return response
            # What comes with it is not read: it would be held in memory, whatever its size.
            response.close()
            url = leads_to(response)
        raise requests.TooManyRedirects
