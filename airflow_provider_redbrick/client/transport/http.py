"""Send one GraphQL request: encode, send, decode, and retry if that is safe.

Design notes on the transport:

1. A response with GraphQL ``data`` is an answer, whatever its status. It is not sent again. Errors are classified;
   each says whether a mutation may have been applied.
2. The API key is masked in the raw response before anything else reads it.
3. An error is raised outside its ``except`` block. Otherwise its context would hold the request with the API key.
4. At most ``max_connections`` requests run at the same time; other threads wait before they send.
5. Proxy and certificates are taken from the environment once, and not with each request.
6. In a forked child the sessions are replaced.

Design notes on stopping:

1. The stop event belongs to one thread's context. Releasing claims, in another thread or later in the same one, is
   not affected.
2. The event is checked immediately before a mutation is sent, because a request may have waited for minutes.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_redbrick._utils import abandon, renew_after_fork
from airflow_provider_redbrick.client.transport.clock import ServerClock
from airflow_provider_redbrick.client.transport.endpoint import is_plaintext_remote
from airflow_provider_redbrick.client.transport.errors import classify_exception, classify_issue
from airflow_provider_redbrick.client.transport.graphql import Answer, decode, describe, encode
from airflow_provider_redbrick.client.transport.redaction import mask_secret
from airflow_provider_redbrick.client.transport.retry import NoObserver, RateLimiter, Retries, RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import (
    MAX_RESPONSE_BYTES,
    BoundedAdapter,
    NoRedirectSession,
    StorageSession,
    read_body,
)
from airflow_provider_redbrick.client.transport.storage import LARGEST_FILE, Storage
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickStoppedError,
    truncate_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from threading import Event

    from airflow_provider_redbrick.client.transport.retry import Observer
    from airflow_provider_redbrick.client.transport.sessions import Credential


log = logging.getLogger(__name__)

_CLASSIFYING_HEADERS = ("Content-Type", "Retry-After")


class Transport:
    """Send GraphQL documents over one session. Thread-safe.

    :param url: the full GraphQL URL, see :func:`~airflow_provider_redbrick.client.transport.endpoint.graphql_url`.
    :param credential: the API key or token.
    :param timeout: seconds for a connection, and for each part of a response.
        :class:`~airflow_provider_redbrick.client.transport.sessions.BoundedAdapter` limits the whole response.
    :param allow_http: allow unencrypted requests to storage on other machines. Implied if ``url`` itself is plain
        HTTP to another machine.
    :param plain_json: send the body as plain JSON instead of base64-encoded gzip.
    :param user_agent: the ``User-Agent`` header.
    :param max_connections: the maximum number of concurrent requests to the API.
    :param policy: the limits of the retry loop.
    :param rate_limiter: limits the request rate, except for requests to storage.
    :param observer: receives durations, retries and waits.
    :param clock: returns this machine's time in epoch seconds; replaced in tests.
    :param sleep: waits for a number of seconds; replaced in tests.
    :param draw: returns a random number in [0, 1) for jitter; replaced in tests.
    :ivar clock: the estimate of the server's clock.
    """

    def __init__(
        self,
        url: str,
        credential: Credential,
        *,
        timeout: float = 30.0,
        allow_http: bool = False,
        plain_json: bool = False,
        user_agent: str = "airflow-provider-redbrick",
        max_connections: int = 10,
        policy: RetryPolicy | None = None,
        rate_limiter: RateLimiter | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.plain_json = plain_json
        self._credential = credential
        self._rate_limiter = rate_limiter or RateLimiter()
        self._max_connections = max_connections
        self._user_agent = user_agent
        self._storage_may_be_http = allow_http or is_plaintext_remote(url)
        self._observer = observer or NoObserver()
        self.clock = ServerClock(clock)
        self._retries = Retries(
            policy or RetryPolicy(), self.clock.timestamp, sleep, draw, self._rate_limiter, self._observer
        )
        self._open()
        _take_environment(self._session, url)
        renew_after_fork(self, Transport._renew)

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    @property
    def retry_after_s(self) -> float:
        """How much longer the server asks to wait, in seconds, since a request was given up; 0 if it does not."""
        return self._rate_limiter.asked_s

    @property
    def storage(self) -> Storage:
        """Uploads and downloads, without the API key and the rate limit."""
        return Storage(self._storage_session, replace(self._retries, rate_limiter=None), timeout=self.timeout)

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()
        self._storage_session.close()

    def execute(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> dict[str, Any]:
        """Send one operation and return its complete ``data``.

        Any GraphQL error is raised, even if there is partial data. A mutation that has a value is acknowledged,
        whatever errors its selection has.

        :param document: the GraphQL document.
        :param variables: its variables.
        :param task_ids: the tasks it is about, for messages.
        :raises RedBrickAPIError: if the request fails; the subclass says what happened and whether a retry helps.
        """
        operation, mutation = describe(document)

        def send() -> dict[str, Any]:
            answer = self._send(document, variables, operation, mutation, task_ids)
            return _complete_data(answer, operation, mutation, task_ids)

        return self._retries.run(send, mutation=mutation)

    def execute_partial(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> Answer:
        """Send one operation with several aliases; return data and errors.

        :param document: the GraphQL document.
        :param variables: its variables.
        :param task_ids: the tasks it is about, for messages.
        :raises RedBrickAPIError: if there is no GraphQL answer.
        """
        operation, mutation = describe(document)
        return self._retries.run(
            lambda: self._send(document, variables, operation, mutation, task_ids), mutation=mutation
        )

    def _send(
        self,
        document: str,
        variables: Mapping[str, Any],
        operation: str,
        mutation: bool,
        task_ids: Sequence[str],
    ) -> Answer:
        body, headers = encode(document, variables, plain_json=self.plain_json)
        if waited := self._rate_limiter.wait():
            self._observer.waited(waited)
        error: RedBrickAPIError
        began = time.monotonic()
        try:
            with self._connections:
                began = time.monotonic()
                if mutation:
                    # The request may have waited for minutes, for its turn or for a retry.
                    check()
                sent_at = self.clock.local()
                with self._session.post(
                    self.url, data=body, headers=headers, timeout=self.timeout, allow_redirects=False, stream=True
                ) as response:
                    date = response.headers.get("Date")
                    self.clock.observe(date, sent_at=sent_at, received_at=self.clock.local())
                    content = mask_secret(read_body(response), self._credential.secret)
            answer = decode(response.status_code, self._headers_to_classify(response), content)
        except (requests.RequestException, OSError) as failure:
            error = classify_exception(failure, url=self.url, operation=operation, task_ids=task_ids, mutation=mutation)
        except RedBrickAPIError as problem:
            error = problem
            error.operation, error.task_ids = operation, tuple(task_ids)
            error.maybe_applied = error.maybe_applied and mutation
        else:
            self._observer.answered(operation, time.monotonic() - began, None)
            return answer
        self._observer.answered(operation, time.monotonic() - began, error)
        # Raised outside the except block: the failure as its context would hold the request with the API key.
        raise error

    def _headers_to_classify(self, response: requests.Response) -> dict[str, str]:
        """Return the headers that classify an error, with the API key masked."""
        found = {name: response.headers.get(name) for name in _CLASSIFYING_HEADERS}
        return {
            name: mask_secret(value.encode(), self._credential.secret).decode()
            for name, value in found.items()
            if value is not None
        }

    def _open(self) -> None:
        """Create the sessions, without connecting."""
        # There may be more threads than connections.
        self._connections = threading.BoundedSemaphore(self._max_connections)
        self._session = NoRedirectSession()
        self._session.auth = self._credential
        self._storage_session = StorageSession(allow_http=self._storage_may_be_http)
        for session, most in ((self._session, MAX_RESPONSE_BYTES), (self._storage_session, LARGEST_FILE)):
            adapter = BoundedAdapter(most, pool_connections=2, pool_maxsize=self._max_connections, max_retries=0)
            _set_up(session, self._user_agent, adapter)

    def _renew(self) -> None:
        inherited = self._session
        abandon(inherited, self._storage_session)
        self._open()
        self._session.proxies, self._session.verify = inherited.proxies, inherited.verify
        self._session.trust_env = False


def _complete_data(answer: Answer, operation: str, mutation: bool, task_ids: Sequence[str]) -> dict[str, Any]:
    """Return an answer's data.

    :raises RedBrickAPIError: if it has an error, unless that is about the selection of an acknowledged mutation.
    """
    words = "; ".join(issue.message for issue in answer.issues)
    if answer.issues and mutation and answer.data and all(answer.data.values()):
        log.warning("%s was acknowledged, with an error in its answer: %s", operation, truncate_message(words))
    elif answer.issues:
        raise classify_issue(words, operation=operation, task_ids=task_ids, maybe_applied=mutation)
    if answer.data is None:
        raise RedBrickAnswerError(
            "RedBrick answered without data.", operation=operation, task_ids=task_ids, maybe_applied=mutation
        )
    return answer.data


def _take_environment(session: requests.Session, url: str) -> None:
    """Read the proxy and certificates for a URL from the environment, once."""
    settings = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify, session.trust_env = settings["proxies"], settings["verify"], False


def _set_up(session: requests.Session, user_agent: str, adapter: BoundedAdapter) -> None:
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # Requests need no cookies, and a server could set any number of them.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update({"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "gzip"})


# Per thread: releasing claims, in another thread or later in the same one, is not affected.
_stop: ContextVar[Event | None] = ContextVar("redbrick_stop", default=None)


@contextmanager
def until(stop: Event) -> Iterator[None]:
    """Let this thread send mutations only until the event is set."""
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


def check() -> None:
    """Check, immediately before a mutation is sent, that the work was not stopped.

    :raises RedBrickStoppedError: if it was stopped.
    """
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise RedBrickStoppedError("The mutation was not sent because the work was stopped.")
