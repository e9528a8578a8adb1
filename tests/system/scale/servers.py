"""PostgreSQL and Redis from Debian's packages, for as long as a test takes, on loopback."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from airflow_processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
STOP_SECONDS = 20


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with an empty database; gives ``host:port/name`` with the user before it."""
    # PostgreSQL refuses to run as root. Its folder must not be inside another user's private folder.
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    port = free_port()
    tools, data = POSTGRES[-1], home / "data"
    options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off -c max_connections=200"
    try:
        if getpass.getuser() == "root":
            shutil.chown(home, "postgres", "postgres")
        _as_postgres([tools / "initdb", "-D", data, "-U", "airflow", "--auth=trust", "--encoding=UTF8"])
        start = [tools / "pg_ctl", "-D", data, "-o", f"-p {port} {options}", "-w", "-l", home / "log", "start"]
        _as_postgres(start)
        try:
            _as_postgres([tools / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow", "airflow"])
            yield f"airflow@127.0.0.1:{port}/airflow"
        finally:
            _as_postgres([tools / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _as_postgres(line: list[object]) -> None:
    before = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
    # To a file, not a pipe: the server that pg_ctl starts keeps what it is given open.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run([*before, *map(str, line)], stdout=said, stderr=said, cwd="/", timeout=120, check=False)
        said.seek(0)
        assert done.returncode == 0, said.read().decode(errors="replace")


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis without persistence, and yield its URL."""
    port = free_port()
    home = tempfile.mkdtemp(prefix="redis-")
    line = [
        "redis-server",
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        home,
    ]
    with Path(os.devnull).open("ab") as nowhere:
        process = psutil.Popen(line, stdout=nowhere, stderr=nowhere)
    try:
        deadline = time.monotonic() + STOP_SECONDS
        while subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=STOP_SECONDS)
        shutil.rmtree(home, ignore_errors=True)
