"""Observe the GraphQL requests of operators, or act at a chosen request."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Tap:
    """Hooks around each GraphQL request of an operator.

    ``before`` is called with the request body as text, ``after`` with the parsed answer, or None if it is not JSON.
    Several threads may call them at once.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.before: Callable[[str], None] = lambda _text: None
        self.after: Callable[[Any], None] = lambda _answer: None
        send = HTTPAdapter.send

        def tapped(adapter: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
            is_provider = str(request.headers.get("User-Agent")).startswith("airflow-provider-redbrick")
            if not is_provider or request.method != "POST":
                return send(adapter, request, *args, **kwargs)
            self.before(_text(request))
            response = send(adapter, request, *args, **kwargs)
            self.after(_answer(response))
            return response

        patch.setattr(HTTPAdapter, "send", tapped)


def _text(request: Any) -> str:
    body = request.body or b""
    if request.headers.get("Content-Encoding-RB") == "gzip":
        body = gzip.decompress(base64.b64decode(body))
    return str(body, "utf-8")


def _answer(response: Any) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
