"""Map HTTP statuses and failed requests to exceptions.

Design notes:

1. Each error says whether a mutation may have been applied (``maybe_applied``). Only a failure that is known to come
   before the request was sent excludes it: name resolution, connection setup, an untrusted certificate.
2. URLs of storage are secret as long as their signature is valid, so messages do not contain them.
3. The server's text is quoted up to :data:`MAX_SERVER_WORDS` characters, unless it is HTML.
4. A rate limit is recognized by HTTP 429, or by the words of a GraphQL error or of HTTP 403.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import NewConnectionError, ReadTimeoutError
from urllib3.util.ssl_match_hostname import CertificateError

from airflow_provider_redbrick import exceptions as err

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_SERVER_WORDS = 500
_RATE_LIMIT_WORDS = re.compile(r"rate.?limit|too many requests|throttl", re.IGNORECASE)

INVALID_URL_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
)
"""Errors of ``requests`` for an invalid URL; nothing was sent."""


def classify_status(status: int, headers: Mapping[str, str], content: bytes) -> err.RedBrickAPIError:
    """Return the error for an HTTP status that is not a success.

    :param status: the HTTP status.
    :param headers: the response's headers; ``Content-Type`` and ``Retry-After`` are used.
    :param content: the body or its beginning, with the API key masked; quoted in the message.
    """
    words = _words(headers, content)
    if status == 429 or (status == 403 and is_rate_limit(content[:MAX_SERVER_WORDS].decode("utf-8", "replace"))):
        return err.RedBrickRateLimitError(
            f"RedBrick is limiting the rate of requests (HTTP {status}).",
            status=status,
            retry_after=headers.get("Retry-After"),
        )
    if status in {401, 403}:
        return err.RedBrickAuthError(
            f"RedBrick refused the credential (HTTP {status}): "
            f"the API key is wrong, revoked, or not allowed to do this.",
            status=status,
        )
    if status == 404 or 300 <= status < 400:
        return err.RedBrickNotFoundError(
            f"There is no RedBrick API at this URL (HTTP {status}). Check the connection's host.",
            status=status,
        )
    if status == 413:
        return err.RedBrickPayloadTooLargeError("The request is too large (HTTP 413).", status=status)
    if status >= 500:
        return err.RedBrickServerError(
            f"RedBrick failed to answer (HTTP {status}).{words}",
            status=status,
            retry_after=headers.get("Retry-After"),
            maybe_applied=True,
        )
    return err.RedBrickRefusedError(f"RedBrick refused the request (HTTP {status}).{words}", status=status)


def classify_issue(
    words: str, *, operation: str, task_ids: Sequence[str], maybe_applied: bool
) -> err.RedBrickRefusedError | err.RedBrickRateLimitError:
    """Return the error for a GraphQL error.

    :param words: the server's text.
    :param operation: the API operation.
    :param task_ids: the tasks that it is about.
    :param maybe_applied: whether a mutation may have been applied in spite of it.
    """
    kind = err.RedBrickRateLimitError if is_rate_limit(words) else err.RedBrickRefusedError
    message = f"RedBrick answered with an error: {words}"
    return kind(message, operation=operation, task_ids=task_ids, maybe_applied=maybe_applied)


def is_rate_limit(words: str) -> bool:
    """Return whether the server's text says that there are too many requests."""
    return _RATE_LIMIT_WORDS.search(words) is not None


def classify_exception(
    error: Exception, *, url: str, operation: str, task_ids: Sequence[str], mutation: bool
) -> err.RedBrickConnectionError:
    """Return the error for a failed request, and whether the server may have got it.

    :param error: what the HTTP library raised.
    :param url: the request's URL; its host is named in the message.
    :param operation: the API operation.
    :param task_ids: the tasks that the request was about.
    :param mutation: whether the operation is a mutation.
    """
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", None)
    host = url.split("/")[2]
    if isinstance(error, requests.exceptions.SSLError):
        # Only an untrusted certificate is known to precede the request; other TLS faults may follow it.
        unsent = isinstance(_innermost(reason), (ssl.CertificateError, CertificateError))
        what = (
            f"{host} has no trusted TLS certificate. Check the connection's host and the CA certificates."
            if unsent
            else f"the TLS connection to {host} failed."
        )
    elif isinstance(error, (requests.ConnectTimeout, *INVALID_URL_ERRORS)) or isinstance(reason, NewConnectionError):
        unsent, what = True, f"{host} cannot be reached. Check the connection's host and the network."
    elif isinstance(error, requests.Timeout) or isinstance(inner, ReadTimeoutError):
        unsent, what = False, f"{host} did not answer in time."
    else:
        unsent, what = False, f"{host} dropped the connection ({type(error).__name__})."
    return err.RedBrickConnectionError(
        what, operation=operation, task_ids=task_ids, maybe_applied=mutation and not unsent
    )


def classify_storage_status(response: requests.Response) -> err.RedBrickAPIError:
    """Return the error for a storage response that is not a success.

    The URL is not named: it is secret as long as its signature is valid.
    """
    status = response.status_code
    kind: type[err.RedBrickAPIError] = err.RedBrickRefusedError
    if status == 429:
        kind = err.RedBrickRateLimitError
    elif status >= 500:
        kind = err.RedBrickStorageError
    retry_after = response.headers.get("Retry-After")
    return kind(f"Storage answered HTTP {status}.", status=status, retry_after=retry_after)


def _innermost(error: object) -> object:
    """Return the root exception that the HTTP library's layers have wrapped."""
    while isinstance(error, BaseException) and error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return error


def _words(headers: Mapping[str, str], content: bytes) -> str:
    """Return the server's text for a message; empty if it is HTML."""
    if "html" in headers.get("Content-Type", "").lower():
        return ""
    text = " ".join(content[:MAX_SERVER_WORDS].decode("utf-8", "replace").split())
    return f" It said: {text}" if text else ""
