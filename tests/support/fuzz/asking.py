"""Asking a server that answers as told, with no patience."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from fuzz.promises import Watch, promises
from fuzz.values import KEY, SIGNATURE
from tiny_server import json_reply

from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import Credential

if TYPE_CHECKING:
    from tiny_server import TinyServer

QUERY = "query me { me { userId } }"
MUTATION = "mutation moveTaskToStart($taskId: UUID!) { moveTaskToStart(taskId: $taskId) { ok } }"
GOOD = json_reply({"data": {"me": {"userId": "API:1"}}})


def new_transport(server: TinyServer, *, timeout: float = 2.0, max_attempts: int = 1) -> Transport:
    policy = RetryPolicy(max_attempts=max_attempts, base=0.0, cap=0.0, retry_after_cap=0.01)
    return Transport(server.url, Credential(KEY), timeout=timeout, policy=policy)


def ask(server: TinyServer, reply: Any, *, document: str = QUERY, **options: Any) -> Watch:
    """Send one request that is answered so; answers what was told of it."""
    server.replies = [reply]
    transport = new_transport(server, **options)
    with promises(seconds=10) as watch:
        answer = transport.execute_partial(document, {"taskId": "t"}, task_ids=["t"])
        watch.tell(answer)
    watch.tell(transport)
    watch.check()
    transport.close()
    return watch


def fetch(server: TinyServer, reply: Any, **options: Any) -> list[BaseException | None]:
    """Fetch a file in both ways."""
    server.replies = [reply]
    transport = new_transport(server, **options)
    url = f"{server.origin}/f?signature={SIGNATURE}"
    errors = []
    for receive in (transport.storage.get, lambda url: transport.storage.fetch(url, io.BytesIO())):
        with promises(seconds=10) as watch:
            watch.tell(receive(url))
        errors.append(watch.error)
    with promises(seconds=10) as watch:
        transport.storage.put(url, b"x", kind="text/plain")
    transport.close()
    return errors
