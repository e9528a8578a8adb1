"""Where Airflow's metrics go in tests: UDP packets, one line each, kept as they come."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

# As in "airflow.redbrick.requests,operation=me,answer=ok:1|c".
_LINE = re.compile(r"airflow\.(?P<name>[\w.]+)(?P<tags>(,\w+=[^,:]*)*):(?P<value>[\d.]+)\|(?P<kind>\w+)")


class StatsdServer:
    """Receives metrics with InfluxDB's tags until it is closed; use it as a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._receive, daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        host, port = self._socket.getsockname()
        return str(host), int(port)

    @property
    def settings(self) -> dict[str, str]:
        """Airflow's settings to send this provider's metrics here, and no others."""
        host, port = self.address
        given = {"statsd_on": "True", "statsd_host": host, "statsd_port": str(port), "statsd_influxdb_enabled": "True"}
        given["metrics_allow_list"] = "redbrick"
        return {f"AIRFLOW__METRICS__{name.upper()}": value for name, value in given.items()}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._lines += self._socket.recv(65_536).decode().splitlines()

    def sums(self, kind: str) -> Counter[tuple[str, frozenset[str]]]:
        """Add up what came of a kind (``c`` for counters, ``ms`` for timers): values by name and ``tag=value``s."""
        found: Counter[tuple[str, frozenset[str]]] = Counter()
        for match in filter(None, map(_LINE.fullmatch, list(self._lines))):
            if match["kind"] == kind:
                tags = frozenset(filter(None, match["tags"].split(",")))
                found[match["name"], tags] += float(match["value"])
        return found
