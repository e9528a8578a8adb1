"""Command line: `redbrick-sandbox serve`.

Also `python -m redbrick_sandbox serve`.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PORT = 8585
_LAST_PORT = 65535


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: arguments without the program name; `sys.argv` by default.
    :return: the exit code: 0 after a clean stop, 2 for an invalid option or an unusable port or database.
    """
    options = _parser().parse_args(argv)
    # Imported here so that --help is fast, and a missing dependency gives a message that says what to install.
    try:
        from redbrick_sandbox import behaviors, faults, http  # noqa: PLC0415
        from redbrick_sandbox.creation import populate  # noqa: PLC0415
        from redbrick_sandbox.sandbox import Sandbox, Settings  # noqa: PLC0415
        from redbrick_sandbox.store import Store  # noqa: PLC0415
    except ModuleNotFoundError as error:
        return _fail(f"{error}. Install redbrick-sandbox with its dependencies.")
    settings = Settings(
        latency_ms=options.latency_ms,
        transition_ms=options.transition_ms,
        demo_tasks=options.demo_tasks,
        seed=options.seed,
        fault=options.fault,
    )
    try:
        faults.parse(settings.fault)
    except ValueError as error:
        return _fail(f"--fault: {error}")
    try:
        chosen = behaviors.parse(",".join(options.behavior))
    except ValueError as error:
        return _fail(f"--behavior: {error}")
    try:
        sockets = http.loopback_sockets(options.port)
    except OSError as error:
        return _fail(f"cannot listen on port {options.port}: {error}")
    try:
        sandbox = Sandbox(settings, Store(options.db), populate, behaviors=chosen)
    except sqlite3.Error as error:
        reason = "another sandbox is using it" if "locked" in str(error) else str(error)
        return _fail(f"--db {options.db}: {reason}")
    return http.run(sandbox, sockets)


def _fail(message: str) -> int:
    sys.stderr.write(f"redbrick-sandbox: {message}\n")
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="redbrick-sandbox", description="A local RedBrick server.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="serve on loopback until stopped; prints one line of JSON when ready")
    add = command.add_argument
    add("--port", type=_port, default=DEFAULT_PORT, help="0 selects a free port (default: %(default)s)")
    add("--db", metavar="PATH", help="SQLite file that stores all data (default: in memory)")
    add("--demo-tasks", type=_count, default=0, metavar="N", help="create N tasks with real images at the start")
    add("--latency-ms", type=_count, default=0, metavar="MS", help="latency of each response")
    add(
        "--transition-ms",
        type=_count,
        default=0,
        metavar="MS",
        help="time a task takes from one stage to the next",
    )
    add("--fault", default="", metavar="SPEC", help="e.g. http_503=0.1,drop_after=0.05,seed=7")
    add(
        "--behavior",
        action="append",
        default=[],
        metavar="SPEC",
        help="kind of server, e.g. read_lag=2,assign_answer=null; may be repeated",
    )
    add("--seed", type=_count, default=0, metavar="N", help="seed of the behaviors' random numbers (default: 0)")
    return parser


def _port(text: str) -> int:
    number = _count(text)
    if number > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {_LAST_PORT}")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


if __name__ == "__main__":
    sys.exit(main())
