"""Configuration and read access of the plugin: options, projects and cached reads.

Design note:

1. An invalid option of the section ``[redbrick]`` is logged as an error that names the option, and its default is used.
   No option keeps Airflow's API server from starting.
2. No message contains a value that may be secret.
3. The page lists the projects of the option ``boards`` first, then each RedBrick connection's own project.
4. RedBrick is read in threads of the plugin. Users who view the same project at the same time share one read.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf
from airflow.providers_manager import ProvidersManager

from airflow_provider_redbrick._utils import abandon, renew_after_fork
from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable


log = logging.getLogger(__name__)

MIN_SECRET_LENGTH = 20
# Characters that need no encoding in a URL path segment. Clients encode or cut off anything else.
_SECRET = re.compile(r"[A-Za-z0-9._~!$&()*+,;=:@-]*")
DEFAULT_CONN_ID = "redbrick_default"
# Airflow's pattern without the slash, which separates the project id.
_CONNECTION_ID = re.compile(r"[\w#!()\-.:\\]{1,250}")


@dataclass(frozen=True)
class Choice:
    """A project, and the connection to read it through.

    :param connection_id: the connection id.
    :param project_id: the project's UUID; None for the connection's.
    """

    connection_id: str
    project_id: str | None = None


def is_connection_id(text: str) -> bool:
    """Return whether a text can be a connection id."""
    return _CONNECTION_ID.fullmatch(text) is not None


def read_choices(text: str) -> tuple[list[Choice], list[str]]:
    """Parse the option ``[redbrick] boards``.

    Entries are ``connection`` or ``connection/project``, separated by commas or line breaks.

    :return: the distinct choices, and a problem description for each invalid entry.
    """
    choices: dict[Choice, None] = {}
    problems = []
    for entry in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
        connection_id, slash, project_id = (part.strip() for part in entry.partition("/"))
        if not is_connection_id(connection_id):
            problems.append(f"{short_repr(entry)} names no connection")
            continue
        try:
            choices[Choice(connection_id, check_uuid("the project", project_id) if slash else None)] = None
        except RedBrickInputError as error:
            problems.append(f"{short_repr(entry)}: {error}".removesuffix("."))
    return list(choices), problems


def all_choices(configured: Iterable[Choice], connection_ids: Iterable[str]) -> list[Choice]:
    """Return all choices, the configured ones first.

    :param configured: the choices of the option ``boards``.
    :param connection_ids: the RedBrick connections in Airflow's database.
    """
    choices = list(configured)
    named = {choice.connection_id for choice in choices}
    return [*choices, *(Choice(connection_id) for connection_id in connection_ids if connection_id not in named)]


@dataclass(frozen=True)
class WebhookOptions:
    """Options of the webhook.

    :param secret: the part of the address that only RedBrick knows.
    :param connection_id: the connection that verifies events.
    """

    secret: str = field(repr=False)
    connection_id: str


def configured_choices(*, report: bool = False) -> list[Choice]:
    """Return the projects of the option ``boards``.

    :param report: whether to log invalid values. Used once, when the server starts, not at every page view.
    """
    log_problem = _log_problem if report else _ignore_problem
    choices, problems = read_choices(_text("boards", DEFAULT_CONN_ID, log_problem))
    for problem in problems:
        log_problem("boards", f"{problem}, and is left out")
    return choices


def webhook_options() -> WebhookOptions | None:
    """Read the webhook's options; None without a valid secret and connection id.

    Invalid values are logged.
    """
    secret = _secret("webhook_secret", _log_problem)
    if secret is None:
        return None
    connection_id = _text("webhook_conn_id", DEFAULT_CONN_ID, _log_problem)
    if not is_connection_id(connection_id):
        _log_problem(
            "webhook_conn_id", f"{short_repr(connection_id)} is not a connection id. The webhook stays disabled"
        )
        return None
    return WebhookOptions(secret, connection_id)


def _log_problem(option: str, problem: str) -> None:
    log.error("[redbrick] %s: %s.", option, problem)


def _ignore_problem(_option: str, _problem: str) -> None:
    pass


def _text(option: str, default: str, log_problem: Callable[[str, str], None]) -> str:
    """Return an option without the surrounding white space of commands and files."""
    try:
        return str(conf.get("redbrick", option, fallback=default) or "").strip()
    except Exception as error:  # noqa: BLE001 - releases of Airflow differ in what they raise
        log_problem(option, f"it cannot be read ({type(error).__name__}), and {default!r} is used instead")
        return default


def _secret(option: str, log_problem: Callable[[str, str], None]) -> str | None:
    """Return a secret; None if it is not set, or cannot be part of an address."""
    disabled = "The webhook stays disabled"
    is_indirect = _is_indirect(option)
    try:
        if is_indirect:
            # Before 3.1, Airflow may not yet know that the option is sensitive, and would not run its command.
            ProvidersManager().initialize_providers_configuration()  # type: ignore[no-untyped-call]
        # The output of commands and files usually ends in a line break, which is stripped below.
        secret = str(conf.get("redbrick", option, fallback="") or "")
    except Exception as error:  # noqa: BLE001 - a command that fails, a secrets backend that does not answer
        # The error's text may contain the command's output.
        log_problem(option, f"it cannot be read ({type(error).__name__}). {disabled}")
        return None
    stripped = secret.strip()
    if not stripped:
        if secret or is_indirect:
            log_problem(option, f"the secret is blank. {disabled}")
        return None
    if len(stripped) < MIN_SECRET_LENGTH:
        log_problem(option, f"the secret is shorter than {MIN_SECRET_LENGTH} characters. {disabled}")
        return None
    if not _SECRET.fullmatch(stripped):
        log_problem(
            option, f"the secret has characters that need encoding in a URL. Use letters and digits. {disabled}"
        )
        return None
    return stripped


def _is_indirect(option: str) -> bool:
    """Return whether a command or a secrets backend provides the option's value."""
    names = (f"{option}_cmd", f"{option}_secret")
    return any(
        os.environ.get(f"AIRFLOW__REDBRICK__{name.upper()}") or conf.has_option("redbrick", name) for name in names
    )


class BusyError(Exception):
    """All entries of the cache are unfinished reads."""


class ReadCache:
    """Run reads in threads of its own and cache their results for some seconds.

    All methods are thread-safe. Concurrent callers with the same key share one read. Errors are cached like results.
    The API server's own threads stay free.

    :param ttl_s: seconds that a result is cached.
    :param max_entries: the maximum number of cached results and unfinished reads together.
    :param threads: the maximum number of concurrent reads.
    """

    def __init__(self, *, ttl_s: float, max_entries: int, threads: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._threads = threads
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._entries: OrderedDict[Hashable, tuple[Future[Any], float]] = OrderedDict()
        renew_after_fork(self, ReadCache._renew)

    def submit(self, key: Hashable, read: Callable[[], Any]) -> Future[Any]:
        """Return the future result of a read.

        :param key: identifies the read: calls with the same key share one result.
        :param read: the blocking read.
        :raises BusyError: if all entries are unfinished reads.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and self._is_usable(entry):
                return entry[0]
            self._entries.pop(key, None)
            self._make_room()
            if self._pool is None:
                # Created late, because most servers fork before the first read.
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="redbrick-page")
            future = self._pool.submit(read)
            self._entries[key] = (future, time.monotonic())
        future.add_done_callback(lambda _: self._start_lifetime(key, future))
        return future

    def _renew(self) -> None:
        # The parent's threads do not exist in this process.
        abandon(self._pool, self._entries)
        self._lock, self._pool, self._entries = Lock(), None, OrderedDict()

    def _is_usable(self, entry: tuple[Future[Any], float]) -> bool:
        return not entry[0].done() or time.monotonic() - entry[1] < self._ttl_s

    def _start_lifetime(self, key: Hashable, future: Future[Any]) -> None:
        """Start the result's lifetime when the read ends."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry[0] is future:
                self._entries[key] = (future, time.monotonic())

    def _make_room(self) -> None:
        if len(self._entries) < self._max_entries:
            return
        finished = next((key for key, (future, _) in self._entries.items() if future.done()), None)
        if finished is None:
            raise BusyError
        del self._entries[finished]
