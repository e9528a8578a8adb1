"""What a status or a failed exchange means: which error it is, and whether a mutation may have been applied."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import NewConnectionError, ReadTimeoutError
from urllib3.util.ssl_match_hostname import CertificateError

from airflow_provider_redbrick import exceptions as err

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_SERVER_WORDS = 500

NOWHERE = (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema)
"""What a URL that cannot be one makes of a request, before it is sent."""


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
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", None)
    host = url.split("/")[2]
    if isinstance(error, requests.exceptions.SSLError):
        # Only a certificate that was not accepted is known to come before the request; other faults may come after.
        unsent = isinstance(_innermost(reason), (ssl.CertificateError, CertificateError))
        what = f"{host} did not prove who it is." if unsent else f"the TLS connection to {host} failed."
    elif isinstance(error, (requests.ConnectTimeout, *NOWHERE)) or isinstance(reason, NewConnectionError):
        unsent, what = True, f"{host} cannot be reached; check the connection's host and the network."
    elif isinstance(error, requests.Timeout) or isinstance(inner, ReadTimeoutError):
        unsent, what = False, f"{host} did not answer in time."
    else:
        unsent, what = False, f"{host} dropped the connection ({type(error).__name__})."
    return err.RedBrickConnectionError(
        what, operation=operation, task_ids=task_ids, maybe_applied=mutation and not unsent
    )


def classify_storage_status(response: requests.Response) -> err.RedBrickAPIError:
    """Return the error that storage's answer means. Its URL is a secret while its signature lives: it is not named."""
    status = response.status_code
    kind: type[err.RedBrickAPIError] = err.RedBrickRefusedError
    if status == 429:
        kind = err.RedBrickRateLimitError
    elif status >= 500:
        kind = err.RedBrickStorageError
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
    text = " ".join(content[:MAX_SERVER_WORDS].decode("utf-8", "replace").split())
    return f" It said: {text}" if text else ""
