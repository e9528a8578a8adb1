"""One request: encode, send, decode, classify, and try again where that is safe."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import random
import re
import ssl
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError
from urllib3.util.ssl_match_hostname import CertificateError

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.api.retry import RetryPolicy, seconds_until_retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_redbrick.api.credential import Credential

log = logging.getLogger(__name__)

_OPERATION = re.compile(r"\s*(query|mutation)\s+(\w+)")
_MAX_SERVER_WORDS = 500
_STORED = "of a stored file"


@dataclass(frozen=True)
class GraphQLIssue:
    """One entry of an answer's ``errors``: the server's words, and the alias or root field it is about, if named."""

    message: str
    root: str | None


@dataclass(frozen=True)
class Answer:
    """A decoded GraphQL answer; ``data`` may be partial when there are ``issues``."""

    data: dict[str, Any] | None
    issues: tuple[GraphQLIssue, ...]


class Transport:
    """Posts GraphQL documents over one session; safe to use from several threads.

    :param url: the full GraphQL URL, see :func:`~airflow_provider_redbrick.api.endpoint.graphql_url`.
    :param timeout: seconds to wait for a connection and for each part of the answer.
    :param plain_json: send the body as plain JSON instead of base64-encoded gzip.
    """

    def __init__(
        self,
        url: str,
        credential: Credential,
        *,
        timeout: float = 30.0,
        plain_json: bool = False,
        user_agent: str = "airflow-provider-redbrick",
        max_connections: int = 10,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.plain_json = plain_json
        self._credential = credential
        self._policy = policy or RetryPolicy()
        self._clock, self._sleep, self._draw = clock, sleep, draw
        self._session = self._new_session(user_agent, max_connections)
        self._session.auth = credential
        # Storage is another server: it must never be sent the key, nor what a .netrc file may hold.
        self._storage = self._new_session(user_agent, max_connections, kind=_StorageSession)
        self._storage.auth = lambda request: request

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()
        self._storage.close()

    def execute(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> dict[str, Any]:
        """Send one operation and return its whole ``data``; any GraphQL error, partial data too, is an error.

        :param task_ids: the tasks it is about, for messages.
        :raises RedBrickAPIError: see the subclasses for what happened and whether a retry helps.
        """
        answer = self.execute_partial(document, variables, task_ids=task_ids)
        operation, mutation = describe(document)
        if answer.issues:
            words = "; ".join(issue.message for issue in answer.issues)
            raise err.RedBrickRefusedError(
                f"RedBrick answered with an error: {words}",
                operation=operation,
                task_ids=task_ids,
                maybe_applied=mutation,
            )
        if answer.data is None:
            raise err.RedBrickAnswerError(
                "RedBrick answered without data.",
                operation=operation,
                task_ids=task_ids,
                maybe_applied=mutation,
            )
        return answer.data

    def execute_partial(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> Answer:
        """Send one operation with several aliases and return what came back, errors beside data."""
        operation, mutation = describe(document)
        attempt = 1
        while True:
            try:
                return self._send(document, variables, operation, mutation, task_ids)
            except err.RedBrickAPIError as error:
                wait = seconds_until_retry(
                    error,
                    mutation=mutation,
                    attempt=attempt,
                    now=self._clock(),
                    draw=self._draw(),
                    policy=self._policy,
                )
                if wait is None:
                    raise
                log.info("%s; trying again in %.1f s (attempt %d).", error, wait, attempt + 1)
            self._sleep(wait)
            attempt += 1

    def put_file(self, url: str, content: bytes, *, headers: Mapping[str, str]) -> None:
        """PUT bytes to a presigned URL; repeating it is harmless, so it is retried like a read."""
        self._storage_request("PUT", url, content, dict(headers))

    def get_file(self, url: str) -> bytes:
        """GET a presigned URL, decompressed when it is gzip, with or without a header saying so."""
        content = self._storage_request("GET", url, None, {}).content
        try:
            return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        except (OSError, EOFError, zlib.error):
            raise err.RedBrickAnswerError("A stored file is cut short or damaged.", operation=_STORED) from None

    def _send(
        self,
        document: str,
        variables: Mapping[str, Any],
        operation: str,
        mutation: bool,
        task_ids: Sequence[str],
    ) -> Answer:
        body, headers = encode(document, variables, plain_json=self.plain_json)
        try:
            response = self._session.post(
                self.url, data=body, headers=headers, timeout=self.timeout, allow_redirects=False
            )
        except (requests.RequestException, OSError) as error:
            raise classify_exception(
                error, url=self.url, operation=operation, task_ids=task_ids, mutation=mutation
            ) from None
        # Nothing that a server echoes may carry the key into a log.
        content = response.content
        for spelling in _spellings(self._credential.secret):
            content = content.replace(spelling, b"***")
        try:
            return decode(response.status_code, response.headers, content)
        except err.RedBrickAPIError as error:
            error.operation, error.task_ids = operation, tuple(task_ids)
            error.maybe_applied = error.maybe_applied and mutation
            raise

    def _storage_request(
        self, method: str, url: str, content: bytes | None, headers: dict[str, str]
    ) -> requests.Response:
        attempt = 1
        while True:
            error: err.RedBrickAPIError
            try:
                response = self._storage.request(method, url, data=content, headers=headers, timeout=self.timeout)
                if 200 <= response.status_code < 300:
                    return response
                error = _storage_error(response)
            except (requests.RequestException, OSError) as failure:
                error = err.RedBrickConnectionError(f"Storage did not answer ({type(failure).__name__}).")
            error.operation = f"{method} {_STORED}"
            wait = seconds_until_retry(
                error,
                mutation=False,
                attempt=attempt,
                now=self._clock(),
                draw=self._draw(),
                policy=self._policy,
            )
            if wait is None:
                raise error
            self._sleep(wait)
            attempt += 1

    @staticmethod
    def _new_session(
        user_agent: str, max_connections: int, *, kind: type[requests.Session] = requests.Session
    ) -> requests.Session:
        session = kind()
        adapter = HTTPAdapter(pool_connections=2, pool_maxsize=max_connections, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        session.headers.update({"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "gzip"})
        return session


class _StorageSession(requests.Session):
    """A session that also keeps .netrc out of redirected requests."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Add nothing: the URL is all the permission there is."""


def describe(document: str) -> tuple[str, bool]:
    """Return a document's operation name and whether it is a mutation."""
    match = _OPERATION.match(document)
    if match is None:
        raise ValueError("A document starts with 'query name' or 'mutation name'.")
    return match.group(2), match.group(1) == "mutation"


def encode(document: str, variables: Mapping[str, Any], *, plain_json: bool) -> tuple[bytes, dict[str, str]]:
    """Return a request's body and headers: base64 text of gzipped JSON, or JSON as it is."""
    text = json.dumps({"query": document, "variables": variables}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    if plain_json:
        return text, headers
    # mtime=0: the same request is the same bytes.
    return base64.b64encode(gzip.compress(text, mtime=0)), {**headers, "Content-Encoding-RB": "gzip"}


def decode(status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Turn an HTTP answer into data and issues.

    :raises RedBrickAPIError: for every status that is not a success, and for a body that is not a GraphQL answer.
    """
    if not 200 <= status < 300:
        raise classify_status(status, headers, content)
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise err.RedBrickAnswerError(
            "RedBrick answered with something that is not JSON (a proxy or login page?).",
            status=status,
            maybe_applied=True,
        ) from None
    data, errors = (body.get("data"), body.get("errors")) if isinstance(body, dict) else (None, None)
    well_formed = isinstance(body, dict) and (data is None or isinstance(data, dict))
    if not well_formed or (data is None and not errors):
        raise err.RedBrickAnswerError(
            "RedBrick answered with JSON that is no GraphQL answer.", status=status, maybe_applied=True
        )
    if not isinstance(errors, list):
        errors = [errors] if errors else []
    return Answer(data, tuple(_issue(entry) for entry in errors))


def classify_status(status: int, headers: Mapping[str, str], content: bytes) -> err.RedBrickAPIError:
    """Return the error that an HTTP status other than a success means."""
    words = _words(headers, content)
    if status in {401, 403}:
        return err.RedBrickAuthError(
            f"RedBrick refused the credential (HTTP {status}): "
            f"the API key is wrong, revoked, or not allowed to do this.",
            status=status,
        )
    if status == 404 or 300 <= status < 400:
        return err.RedBrickNotFoundError(
            f"There is no RedBrick API at this URL (HTTP {status}); check the connection's host.",
            status=status,
        )
    if status == 413:
        return err.RedBrickPayloadTooLargeError("The request is too large (HTTP 413).", status=status)
    if status == 429:
        return err.RedBrickRateLimitError(
            "RedBrick is limiting the rate of requests (HTTP 429).",
            status=status,
            retry_after=headers.get("Retry-After"),
        )
    if status >= 500:
        return err.RedBrickServerError(
            f"RedBrick failed to answer (HTTP {status}).{words}",
            status=status,
            retry_after=headers.get("Retry-After"),
            maybe_applied=True,
        )
    return err.RedBrickRefusedError(f"RedBrick refused the request (HTTP {status}).{words}", status=status)


def classify_exception(
    error: Exception, *, url: str, operation: str, task_ids: Sequence[str], mutation: bool
) -> err.RedBrickConnectionError:
    """Return the error that a failed exchange means, and whether the request can have reached the server."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    host = url.split("/")[2]
    if isinstance(error, requests.exceptions.SSLError):
        # Only a certificate that was not accepted is known to come before the request; other faults may come after.
        unsent = isinstance(_innermost(reason), (ssl.CertificateError, CertificateError))
        what = f"{host} did not prove who it is." if unsent else f"the TLS connection to {host} failed."
    elif isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError):
        unsent, what = True, f"{host} cannot be reached; check the connection's host and the network."
    elif isinstance(error, requests.Timeout):
        unsent, what = False, f"{host} did not answer in time."
    else:
        unsent, what = False, f"{host} dropped the connection ({type(error).__name__})."
    return err.RedBrickConnectionError(
        what, operation=operation, task_ids=task_ids, maybe_applied=mutation and not unsent
    )


def _issue(entry: object) -> GraphQLIssue:
    if not isinstance(entry, dict):
        return GraphQLIssue(str(entry)[:_MAX_SERVER_WORDS], None)
    path = entry.get("path")
    root = path[0] if isinstance(path, list) and path and isinstance(path[0], str) else None
    return GraphQLIssue(str(entry.get("message") or "no message")[:_MAX_SERVER_WORDS], root)


def _spellings(secret: str) -> tuple[bytes, ...]:
    """Return the ways in which JSON may spell a secret."""
    quoted = json.dumps(secret)[1:-1]
    return tuple(spelling.encode() for spelling in dict.fromkeys((secret, quoted, quoted.replace("/", "\\/"))))


def _storage_error(response: requests.Response) -> err.RedBrickAPIError:
    """Return the error that storage's answer means. Its URL is a secret while its signature lives: it is not named."""
    status = response.status_code
    kind: type[err.RedBrickAPIError] = err.RedBrickRefusedError
    if status == 429:
        kind = err.RedBrickRateLimitError
    elif status >= 500:
        kind = err.RedBrickServerError
    retry_after = response.headers.get("Retry-After")
    return kind(f"Storage answered HTTP {status}.", status=status, retry_after=retry_after)


def _innermost(error: object) -> object:
    """Return the exception that the layers of the HTTP library have wrapped."""
    while isinstance(error, BaseException) and error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return error


def _words(headers: Mapping[str, str], content: bytes) -> str:
    """Return the server's own words, when they are meant for reading."""
    if "html" in headers.get("Content-Type", "").lower():
        return ""
    text = " ".join(content[:_MAX_SERVER_WORDS].decode("utf-8", "replace").split())
    return f" It said: {text}" if text else ""
