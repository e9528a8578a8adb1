"""The command line: `redbrick-sandbox serve`, also `python -m airflow_provider_redbrick.sandbox serve`."""

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
    """Run the command line; answers the exit code."""
    options = _parser().parse_args(argv)
    # Imported here, so that --help is there at once and says what to install when something is missing.
    try:
        from airflow_provider_redbrick.sandbox import behaviors, faults, serve  # noqa: PLC0415
        from airflow_provider_redbrick.sandbox.core import Sandbox  # noqa: PLC0415
        from airflow_provider_redbrick.sandbox.settings import Settings  # noqa: PLC0415
        from airflow_provider_redbrick.sandbox.store import Store  # noqa: PLC0415
    except ModuleNotFoundError as error:
        return _fail(f"{error}; pip install 'airflow-provider-redbrick[sandbox]' brings what the sandbox needs")
    settings = Settings(
        latency_ms=options.latency_ms,
        transition_ms=options.transition_ms,
        require_ownership=options.require_ownership,
        demo_tasks=options.demo_tasks,
        fault=options.fault,
        behavior=options.behavior,
    )
    for option, parse, spec in (
        ("--fault", faults.parse, settings.fault),
        ("--behavior", behaviors.parse, settings.behavior),
    ):
        try:
            parse(spec)
        except ValueError as error:
            return _fail(f"{option}: {error}")
    try:
        sockets = serve.loopback_sockets(options.port)
    except OSError as error:
        return _fail(f"cannot listen on port {options.port}: {error}")
    try:
        sandbox = Sandbox(settings, Store(options.db))
    except sqlite3.Error as error:
        why = "another sandbox works with it" if "locked" in str(error) else str(error)
        return _fail(f"--db {options.db}: {why}")
    return serve.run(sandbox, sockets)


def _fail(words: str) -> int:
    sys.stderr.write(f"redbrick-sandbox: {words}\n")
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="redbrick-sandbox", description="A RedBrick AI on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve on loopback until stopped; prints one line of JSON when ready")
    add = serve.add_argument
    add("--port", type=_port, default=DEFAULT_PORT, help="0 takes any free one (default: %(default)s)")
    add("--db", metavar="PATH", help="keep everything in this SQLite file (default: in memory)")
    add("--demo-tasks", type=_count, default=0, metavar="N", help="start with N tasks with real images")
    add("--latency-ms", type=_count, default=0, metavar="MS", help="wait before every answer")
    add("--transition-ms", type=_count, default=0, metavar="MS", help="time between leaving a stage and the next")
    add("--fault", default="", metavar="SPEC", help="e.g. http_503=0.1,drop_after=0.05,seed=7")
    add("--behavior", default="", metavar="SPEC", help="what the API leaves open, e.g. conversion=omit-empty")
    add(
        "--require-ownership",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the API key must hold a task before it submits or reviews it (default: yes)",
    )
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
