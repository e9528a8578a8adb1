"""One request: encode, send, decode, and try again where that is safe."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_redbrick.api import stopping
from airflow_provider_redbrick.api.bounds import LARGEST, BoundedAdapter, body_of
from airflow_provider_redbrick.api.classify import classify_exception
from airflow_provider_redbrick.api.endpoint import is_overheard
from airflow_provider_redbrick.api.forks import abandon, renew_after_fork
from airflow_provider_redbrick.api.masking import masked
from airflow_provider_redbrick.api.observer import NoObserver
from airflow_provider_redbrick.api.operation import describe
from airflow_provider_redbrick.api.rate_limit import RateLimiter
from airflow_provider_redbrick.api.retry import Retries, RetryPolicy
from airflow_provider_redbrick.api.sessions import StorageSession, StraightSession
from airflow_provider_redbrick.api.storage import LARGEST_FILE, Storage
from airflow_provider_redbrick.api.wire import Answer, decode, encode
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_redbrick.api.credential import Credential
    from airflow_provider_redbrick.api.observer import Observer

_CLASSIFYING_HEADERS = ("Content-Type", "Retry-After")


class Transport:
    """Posts GraphQL documents over one session; safe to use from several threads.

    :param url: the full GraphQL URL, see :func:`~airflow_provider_redbrick.api.endpoint.graphql_url`.
    :param timeout: seconds to wait for a connection and for each part of the answer; see
        :class:`~airflow_provider_redbrick.api.bounds.BoundedAdapter` for how long all of it may take.
    :param allow_http: let files go unencrypted to storage on other machines; the API's own URL, where it is there and
        http, says so too.
    :param plain_json: send the body as plain JSON instead of base64-encoded gzip.
    :param rate_limiter: how fast requests may follow each other, those to storage apart.
    :param observer: who is told what requests cost.
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
        self._storage_may_be_http = allow_http or is_overheard(url)
        self._observer = observer or NoObserver()
        self._retries = Retries(policy or RetryPolicy(), clock, sleep, draw, self._rate_limiter, self._observer)
        self._open()
        _take_environment(self._session, url)
        renew_after_fork(self, Transport._renew)

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()
        self._storage_session.close()

    def execute(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> dict[str, Any]:
        """Send one operation and return its whole ``data``; any GraphQL error, partial data too, is an error.

        :param task_ids: the tasks it is about, for messages.
        :raises RedBrickAPIError: see the subclasses for what happened and whether a retry helps.
        """
        answer = self.execute_partial(document, variables, task_ids=task_ids)
        operation, mutation = describe(document)
        if answer.issues:
            words = "; ".join(issue.message for issue in answer.issues)
            raise RedBrickRefusedError(
                f"RedBrick answered with an error: {words}",
                operation=operation,
                task_ids=task_ids,
                maybe_applied=mutation,
            )
        if answer.data is None:
            raise RedBrickAnswerError(
                "RedBrick answered without data.",
                operation=operation,
                task_ids=task_ids,
                maybe_applied=mutation,
            )
        return answer.data

    def execute_partial(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> Answer:
        """Send one operation with several aliases and return what came back, errors beside data."""
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
                    # It may have waited for minutes: for its turn, or since the server said no.
                    stopping.check()
                with self._session.post(
                    self.url, data=body, headers=headers, timeout=self.timeout, allow_redirects=False, stream=True
                ) as response:
                    content = masked(body_of(response), self._credential.secret)
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
        # Not while the failure is handled, which would be its context: that holds on to the request, and the key in it.
        raise error

    def _headers_to_classify(self, response: requests.Response) -> dict[str, str]:
        """Return the headers that say what an error means, without the key that a server may repeat in them."""
        if 200 <= response.status_code < 300:
            return {}
        found = {name: response.headers.get(name) for name in _CLASSIFYING_HEADERS}
        return {
            name: masked(value.encode(), self._credential.secret).decode()
            for name, value in found.items()
            if value is not None
        }

    def _open(self) -> None:
        """Make the sessions; nothing is connected yet."""
        # More threads than connections may work at a time; the others wait for their turn here.
        self._connections = threading.BoundedSemaphore(self._max_connections)
        self._session = StraightSession()
        self._session.auth = self._credential
        self._storage_session = StorageSession(allow_http=self._storage_may_be_http)
        for session, most in ((self._session, LARGEST), (self._storage_session, LARGEST_FILE)):
            adapter = BoundedAdapter(most, pool_connections=2, pool_maxsize=self._max_connections, max_retries=0)
            _set_up(session, self._user_agent, adapter)
        self.storage = Storage(self._storage_session, replace(self._retries, rate_limiter=None), timeout=self.timeout)

    def _renew(self) -> None:
        inherited = self._session
        abandon(inherited, self._storage_session)
        self._open()
        self._session.proxies, self._session.verify = inherited.proxies, inherited.verify
        self._session.trust_env = False


def _take_environment(session: requests.Session, url: str) -> None:
    """Look once which proxy and certificates the environment names for a URL, instead of with each request."""
    given = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify, session.trust_env = given["proxies"], given["verify"], False


def _set_up(session: requests.Session, user_agent: str, adapter: BoundedAdapter) -> None:
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # A key is all the permission needed, and a server's cookies would be kept, and sent back, in any number.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update({"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "gzip"})
