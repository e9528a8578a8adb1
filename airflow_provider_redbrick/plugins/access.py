"""Options of the section ``[redbrick]`` of Airflow's configuration.

An invalid value is logged as an error that names the option, and the default is used: no option keeps Airflow's API
server from starting. No message contains a value that may be secret.

The page lists the projects of the option ``[redbrick] boards`` first, then each RedBrick connection's own project.
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
# Maximum of days or minutes. A larger value is a mistake, or exceeds the range of dates.
_MOST = 100_000
# Characters that need no encoding in a URL path segment. Clients encode or cut off anything else.
_SECRET = re.compile(r"[A-Za-z0-9._~!$&()*+,;=:@-]*")


@dataclass(frozen=True)
class PageOptions:
    """Options of the RedBrick page.

    :param boards: the projects that it lists first.
    :param history_days: days of queue history; 0 keeps none.
    :param sample_minutes: minutes between counts of the queues; 0 disables counting.
    """

    boards: tuple[Choice, ...]
    history_days: float
    sample_minutes: float


@dataclass(frozen=True)
class WebhookOptions:
    """Options of the webhook.

    :param secret: the part of the address that only RedBrick knows.
    :param connection_id: the connection that verifies events.
    """

    secret: str = field(repr=False)
    connection_id: str


def page_options(*, report: bool = False) -> PageOptions:
    """Read the page's options.

    :param report: whether to log invalid values. Used once, when the server starts, not at every page view.
    """
    note = _logged if report else _silent
    choices, problems = read_choices(_text("boards", DEFAULT, note))
    for problem in problems:
        note("boards", f"{problem}, and is left out")
    return PageOptions(
        tuple(choices),
        history_days=_number("queue_history_days", 7.0, note),
        sample_minutes=_number("queue_sample_minutes", 15.0, note),
    )


def webhook_options() -> WebhookOptions | None:
    """Read the webhook's options; None without a valid secret and connection id.

    Invalid values are logged.
    """
    secret = _secret("webhook_secret", _logged)
    if secret is None:
        return None
    connection_id = _text("webhook_conn_id", DEFAULT, _logged)
    if not is_connection_id(connection_id):
        _logged("webhook_conn_id", f"{short_repr(connection_id)} is not a connection id. The webhook stays disabled")
        return None
    return WebhookOptions(secret, connection_id)


def _logged(option: str, words: str) -> None:
    log.error("[redbrick] %s: %s.", option, words)


def _silent(_option: str, _words: str) -> None:
    pass


def _text(option: str, default: str, note: Callable[[str, str], None]) -> str:
    """Return an option without the surrounding white space of commands and files."""
    try:
        return str(conf.get("redbrick", option, fallback=default) or "").strip()
    except Exception as error:  # noqa: BLE001 - releases of Airflow differ in what they raise
        note(option, f"it cannot be read ({type(error).__name__}), and {default!r} is used instead")
        return default


def _number(option: str, default: float, note: Callable[[str, str], None]) -> float:
    """Return an option that is a number of at least 0."""
    text = _text(option, str(default), note)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _MOST:
        note(option, f"{short_repr(text)} is no number from 0 to {_MOST}, and {default:g} is used instead")
        return default
    return number


def _secret(option: str, note: Callable[[str, str], None]) -> str | None:
    """Return a secret; None if it is not set, or cannot be part of an address."""
    disabled = "The webhook stays disabled"
    elsewhere = _comes_from_elsewhere(option)
    try:
        if elsewhere:
            # Before 3.1, Airflow may not yet know that the option is sensitive, and would not run its command.
            ProvidersManager().initialize_providers_configuration()  # type: ignore[no-untyped-call]
        # The output of commands and files usually ends in a line break, which is stripped below.
        secret = str(conf.get("redbrick", option, fallback="") or "")
    except Exception as error:  # noqa: BLE001 - a command that fails, a secrets backend that does not answer
        # The error's text may contain the command's output.
        note(option, f"it cannot be read ({type(error).__name__}). {disabled}")
        return None
    stripped = secret.strip()
    if not stripped:
        if secret or elsewhere:
            note(option, f"the secret is blank. {disabled}")
        return None
    if len(stripped) < MIN_SECRET_LENGTH:
        note(option, f"the secret is shorter than {MIN_SECRET_LENGTH} characters. {disabled}")
        return None
    if not _SECRET.fullmatch(stripped):
        note(option, f"the secret has characters that need encoding in a URL. Use letters and digits. {disabled}")
        return None
    return stripped


def _comes_from_elsewhere(option: str) -> bool:
    """Return whether a command or a secrets backend provides the option's value."""
    names = (f"{option}_cmd", f"{option}_secret")
    return any(
        os.environ.get(f"AIRFLOW__REDBRICK__{name.upper()}") or conf.has_option("redbrick", name) for name in names
    )


DEFAULT = "redbrick_default"
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


class BusyError(Exception):
    """All slots hold unfinished reads."""


class Asking:
    """Run reads in its own threads and keep their results for some seconds.

    All methods are thread-safe. Concurrent callers with the same key share one read. A result is kept for ``keep``
    seconds, and so is an error. The API server's own threads stay free.

    :param keep: seconds that a result is kept.
    :param places: the maximum number of kept results and unfinished reads together.
    :param threads: the maximum number of concurrent reads.
    """

    def __init__(self, *, keep: float, places: int, threads: int) -> None:
        self._keep = keep
        self._places = places
        self._threads = threads
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._asked: OrderedDict[Hashable, tuple[Future[Any], float]] = OrderedDict()
        renew_after_fork(self, Asking._renew)

    def ask(self, key: Hashable, question: Callable[[], Any]) -> Future[Any]:
        """Return the future result of a read.

        :param key: identifies the read: calls with the same key share one result.
        :param question: the blocking read.
        :raises BusyError: if all slots hold unfinished reads.
        """
        with self._lock:
            known = self._asked.get(key)
            if known is not None and self._is_good(known):
                return known[0]
            self._asked.pop(key, None)
            self._make_room()
            if self._pool is None:
                # Created late, because most servers fork before the first read.
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="redbrick-page")
            future = self._pool.submit(question)
            self._asked[key] = (future, time.monotonic())
        future.add_done_callback(lambda _: self._answered(key, future))
        return future

    def _renew(self) -> None:
        # The parent's threads do not exist in this process.
        abandon(self._pool, self._asked)
        self._lock, self._pool, self._asked = Lock(), None, OrderedDict()

    def _is_good(self, known: tuple[Future[Any], float]) -> bool:
        return not known[0].done() or time.monotonic() - known[1] < self._keep

    def _answered(self, key: Hashable, future: Future[Any]) -> None:
        """Start the result's lifetime when the read ends."""
        with self._lock:
            known = self._asked.get(key)
            if known is not None and known[0] is future:
                self._asked[key] = (future, time.monotonic())

    def _make_room(self) -> None:
        if len(self._asked) < self._places:
            return
        answered = next((key for key, (future, _) in self._asked.items() if future.done()), None)
        if answered is None:
            raise BusyError
        del self._asked[answered]
