"""Options of the section ``[redbrick]`` of Airflow's configuration, checked where they are read.

A value that is not valid is an error in the log which names the option, and a default takes its place: no option keeps
Airflow's API server from starting. No message shows a value that may be secret.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf
from airflow.providers_manager import ProvidersManager

from airflow_provider_redbrick.exceptions import told
from airflow_provider_redbrick.plugins.choices import DEFAULT, is_connection_id, read_choices

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_redbrick.plugins.choices import Choice

log = logging.getLogger(__name__)

LEAST_SECRET = 20
# Of days or minutes: more is a mistake, or more than a clock can tell.
_MOST = 100_000
# What stands for itself within one part of an address: a client sends anything else encoded, or cuts it off.
_SECRET = re.compile(r"[A-Za-z0-9._~!$&()*+,;=:@-]*")


@dataclass(frozen=True)
class PageOptions:
    """Options of the page RedBrick.

    :param boards: the projects that it offers first.
    :param history_days: how long queue lengths are kept; 0 keeps none.
    :param sample_minutes: from one count of the queues to the next; 0 counts none.
    """

    boards: tuple[Choice, ...]
    history_days: float
    sample_minutes: float


@dataclass(frozen=True)
class WebhookOptions:
    """Options of the webhook.

    :param secret: the part of the address that only RedBrick knows.
    :param connection_id: the connection through which RedBrick is asked.
    """

    secret: str = field(repr=False)
    connection_id: str


def page_options(*, report: bool = False) -> PageOptions:
    """Read the options of the page.

    :param report: whether values that are not valid are logged: once when the server starts, not at every look.
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
    """Read the options of the webhook, and log what is not valid; None without a secret that can be used."""
    secret = _secret("webhook_secret", _logged)
    if secret is None:
        return None
    connection_id = _text("webhook_conn_id", DEFAULT, _logged)
    if not is_connection_id(connection_id):
        _logged("webhook_conn_id", f"{told(connection_id)} is no connection id: the webhook stays shut")
        return None
    return WebhookOptions(secret, connection_id)


def _logged(option: str, words: str) -> None:
    log.error("[redbrick] %s: %s.", option, words)


def _silent(_option: str, _words: str) -> None:
    pass


def _text(option: str, default: str, note: Callable[[str, str], None]) -> str:
    """Return an option without the white space around it, as commands and files add it."""
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
        note(option, f"{told(text)} is no number from 0 to {_MOST}, and {default:g} is used instead")
        return default
    return number


def _secret(option: str, note: Callable[[str, str], None]) -> str | None:
    """Return a secret; None when there is none, or none that can be a part of an address."""
    shut = "the webhook stays shut"
    elsewhere = _comes_from_elsewhere(option)
    try:
        if elsewhere:
            # Before 3.1 Airflow may not know yet that the option is a secret, and would run no command for it.
            ProvidersManager().initialize_providers_configuration()  # type: ignore[no-untyped-call]
        # What a command prints, and most editors write, ends in a line break.
        secret = str(conf.get("redbrick", option, fallback="") or "")
    except Exception as error:  # noqa: BLE001 - a command that fails, a secrets backend that does not answer
        # What it says may have what the command printed.
        note(option, f"it cannot be read ({type(error).__name__}): {shut}")
        return None
    stripped = secret.strip()
    if not stripped:
        if secret or elsewhere:
            note(option, f"it is blank: {shut}")
        return None
    if len(stripped) < LEAST_SECRET:
        note(option, f"it is shorter than {LEAST_SECRET} characters: {shut}")
        return None
    if not _SECRET.fullmatch(stripped):
        note(option, f"it has characters that cannot stand in an address; use letters and digits: {shut}")
        return None
    return stripped


def _comes_from_elsewhere(option: str) -> bool:
    """Whether a command or a secrets backend is to have the option's value."""
    names = (f"{option}_cmd", f"{option}_secret")
    return any(
        os.environ.get(f"AIRFLOW__REDBRICK__{name.upper()}") or conf.has_option("redbrick", name) for name in names
    )
