"""Answers of the sandbox, written down once and given again with changes: hundreds of conversations a second."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import requests
from fuzz.promises import HangError
from fuzz.values import KEY, SIGNATURE, Change
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPResponse

from airflow_provider_redbrick.client.operations.account import RedBrickClient
from airflow_provider_redbrick.client.operations.project import RedBrickProject
from airflow_provider_redbrick.client.transport.http import Transport
from airflow_provider_redbrick.client.transport.retry import RetryPolicy
from airflow_provider_redbrick.client.transport.sessions import BoundedAdapter, Credential

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sandbox_process import SandboxProcess

MOST_REQUESTS = 300


class Recorder(BoundedAdapter):
    """Sends requests and keeps the answers."""

    def __init__(self) -> None:
        super().__init__(1 << 30)
        self.answers: list[bytes] = []

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request."""
        response = super().send(*args, **kwargs)
        self.answers.append(response.content)
        return response


class Replayer(BaseAdapter):
    """Gives answers in their order, and goes on with the last one.

    :param changes: what happens to which of them.
    """

    def __init__(self, answers: Sequence[bytes], changes: Mapping[int, Change]) -> None:
        super().__init__()
        self._answers = answers
        self._changes = changes
        self.asked = 0

    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:  # type: ignore[override]
        """Answer a request."""
        number = self.asked
        self.asked += 1
        if number >= MOST_REQUESTS:
            raise HangError("it never stops asking")
        body = self._answers[min(number, len(self._answers) - 1)]
        change = self._changes.get(number)
        if change is not None and not body.startswith(b"\x1f\x8b"):
            body = change(body.decode()).encode("utf-8", "surrogatepass")
        response = requests.Response()
        response.status_code, response.url, response.request = 200, str(request.url), request
        response.headers = CaseInsensitiveDict({"Content-Type": "application/json"})
        response.raw = HTTPResponse(io.BytesIO(body), status=200, preload_content=False)
        return response

    def close(self) -> None:
        """Do nothing."""


def project_at(url: str, ids: tuple[str, str], adapter: BaseAdapter, *, key: str = KEY) -> RedBrickProject:
    """Return a project whose requests all go through an adapter."""
    transport = Transport(f"{url}/graphql/", Credential(key), timeout=5, policy=RetryPolicy(max_attempts=1))
    for session in (transport._session, transport._storage_session):
        session.mount("http://", adapter)
    return RedBrickProject(RedBrickClient(transport, page_size=2, max_concurrency=1), *ids)


def recorded(sandbox: SandboxProcess, ids: tuple[str, str], act: Callable[[RedBrickProject], Any]) -> list[bytes]:
    """Do something against the sandbox and return its answers, with signatures that are told apart."""
    recorder = Recorder()
    project = project_at(sandbox.url, ids, recorder, key=sandbox.api_key)
    act(project)
    project.client.close()
    assert recorder.answers
    assert not any(json.loads(answer).get("errors") for answer in recorder.answers if answer.startswith(b"{"))
    return [answer.replace(b"signature=", f"signature={SIGNATURE}-".encode()) for answer in recorder.answers]
