"""Options of the section ``[redbrick]`` of Airflow's configuration.

An invalid value is logged as an error that names the option, and the default is used: no option keeps Airflow's API
server from starting. No message contains a value that may be secret.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf
from airflow.providers_manager import ProvidersManager

from airflow_provider_redbrick.exceptions import short_repr
from airflow_provider_redbrick.plugins.choices import DEFAULT, is_connection_id, read_choices

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_redbrick.plugins.choices import Choice

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
