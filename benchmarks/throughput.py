"""Measure the sandbox's own throughput, which must not limit the benchmarks."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks.limits import CONNECTIONS, MUTATIONS_A_REQUEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.sandbox import Sandbox

_TASKS = 1000


def throughput(sandbox: Sandbox) -> dict[int, float]:
    """Return the cheapest mutations per second, with one and with several a request."""
    return {many: _rate(sandbox, many) for many in (1, MUTATIONS_A_REQUEST)}


def _rate(sandbox: Sandbox, many: int) -> float:
    ids = sandbox.fresh(_TASKS, ground_truth=True)
    sandbox.without_latency()
    requests = [_request(sandbox.ready, ids[i : i + many]) for i in range(0, _TASKS, many)]
    address = urlsplit(sandbox.ready["url"])

    async def at_once() -> None:
        await asyncio.gather(
            *(
                _send(str(address.hostname), int(address.port or 0), requests[i::CONNECTIONS])
                for i in range(CONNECTIONS)
            )
        )

    started = time.perf_counter()
    asyncio.run(at_once())
    return _TASKS / (time.perf_counter() - started)


def _request(ready: dict[str, Any], ids: Sequence[str]) -> bytes:
    """Return a request as bytes, so that sending is cheap."""
    fields = " ".join(
        f"m{i}: moveTaskToStart(orgId: $orgId, projectId: $projectId, taskId: $id{i}) {{ ok }}" for i in range(len(ids))
    )
    declared = ", ".join(f"$id{i}: UUID!" for i in range(len(ids)))
    variables = {"orgId": ready["org_id"], "projectId": ready["project_id"]}
    variables.update((f"id{i}", task_id) for i, task_id in enumerate(ids))
    document = f"mutation moveTaskToStart($orgId: UUID!, $projectId: UUID!, {declared}) {{ {fields} }}"
    body = json.dumps({"query": document, "variables": variables}).encode()
    length = f"Content-Length: {len(body)}"
    head = "\r\n".join(("POST /graphql/ HTTP/1.1", "Host: localhost", f"ApiKey: {ready['api_key']}", length, "", ""))
    return head.encode() + body


async def _send(host: str, port: int, requests: Sequence[bytes]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for request in requests:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if b'"errors"' in answer:
            raise SystemExit(f"The sandbox refused: {answer[:500].decode()}")
    writer.close()
    await writer.wait_closed()
