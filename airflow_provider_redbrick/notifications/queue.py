"""Notifier that reports the length of a project's queues."""

from __future__ import annotations

import copy
import inspect
import pkgutil
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow.sdk.bases.notifier import BaseNotifier  # the only public path in Airflow 3.0.0

from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError, short_repr, to_valid_utf8
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.hooks.validation import CheckedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

N = TypeVar("N", bound=BaseNotifier)


class RedBrickQueueNotifier(CheckedInputs, BaseNotifier):
    """Report a project's current queues and address through another notifier.

    RedBrick has no messages of its own. ``send`` is called with Airflow's context, to which are added:

    * ``redbrick_message``: the text: ``message``, a line with the queue of each stage, and the project's address;
    * ``redbrick_counts``: the number of tasks by stage name; empty if they could not be read;
    * ``redbrick_url``: the project's address in RedBrick's web app; empty if it is unknown.

    Any notifier with templates can therefore deliver it::

        RedBrickQueueNotifier(
            message="{{ ti.task_id }} failed.",
            send=SlackNotifier(channel="#labeling", text="{{ redbrick_message }}"),
        )

    If RedBrick cannot be read, the message says so and is sent all the same. RedBrick is read once, with short timeouts
    and no retries. All stages are counted in one request, after one for the stages. Airflow logs what ``send`` raises.

    :param message: the first line of the text.
    :param send: another notifier, or any callable that takes a context. For deadlines, whose arguments Airflow stores
        as text, an import path such as ``"my_alerts.to_slack"``. None logs the message.
    :param redbrick_conn_id: the connection id.
    :param org_id: the organization; None for the connection's.
    :param project_id: the project; None for the connection's.
    :param context: passed by Airflow to the notifiers of deadlines.
    """

    template_fields: Sequence[str] = ("message", "redbrick_conn_id", "org_id", "project_id")

    def __init__(
        self,
        *,
        message: str = "",
        send: Callable[[Context], Any] | str | None = None,
        redbrick_conn_id: str = RedBrickHook.default_conn_name,
        org_id: str | None = None,
        project_id: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(**context)  # empty in Airflow 3.0, whose base class takes no context
        self.message = message
        self.send = send
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id

    def __call__(self, *args: Any) -> None:
        """Render a copy and send it: callbacks and runs may share a notifier."""
        super(RedBrickQueueNotifier, _unrendered(self)).__call__(*args)

    def __await__(self) -> Generator[Any, Any, None]:
        """Render a copy and send it, for deadlines."""
        return super(RedBrickQueueNotifier, _unrendered(self)).__await__()

    def notify(self, context: Context) -> None:
        """Read the queues, and deliver the message."""
        additions = self._read_queues()
        try:
            send = _resolve_send(self.send)
        except RedBrickInputError:
            self.log.warning("Not delivered: %s", additions["redbrick_message"])
            raise
        if send is None:
            self.log.info("%s", additions["redbrick_message"])
        else:
            send(cast("Context", {**context, **additions}))

    async def async_notify(self, context: Context) -> None:
        """Read the queues and deliver the message in a thread."""
        from airflow_provider_redbrick._utils import in_thread

        await in_thread(self.notify, context)

    def _read_queues(self) -> Mapping[str, Any]:
        """Return the additions to the context.

        Never raises: a message about a problem must be sent.
        """
        from airflow_provider_redbrick.hooks.redbrick import RedBrickQuickHook
        from airflow_provider_redbrick.links import project_address

        counts: Mapping[str, int] = {}
        address = ""
        try:
            self.check_inputs(besides=["message"])
            with closing(RedBrickQuickHook(self.redbrick_conn_id)) as hook:
                project = hook.project(self.project_id, org_id=self.org_id)
                address = project_address(hook.settings, project.org_id, project.project_id)
                info = project.info
                address = info.url or address
                counts = project.queues()
                queues = f"{info.name}: {', '.join(f'{name} {count}' for name, count in counts.items())}"
        except Exception as error:  # noqa: BLE001 - the message is sent in any case
            # The text of other errors may contain the connection's fields.
            reason = str(error) if isinstance(error, RedBrickError) else type(error).__name__
            queues = f"The queues could not be read through connection {self.redbrick_conn_id!r}: {reason}"
            self.log.warning("%s", queues)
        # With native rendering, a message may be a number.
        first_line = "" if self.message is None else str(self.message)
        text = to_valid_utf8("\n".join(filter(None, (first_line, queues, address))))
        return {"redbrick_message": text, "redbrick_counts": counts, "redbrick_url": address}


def _resolve_send(send: object) -> Callable[[Context], Any] | None:
    """Return the callable that delivers a message; None to log it.

    :raises RedBrickInputError: if ``send`` cannot be imported, or is neither a notifier nor a plain function.
    """
    if send is None:
        return None
    try:
        receiver = pkgutil.resolve_name(send) if isinstance(send, str) else send
    except Exception as error:
        raise RedBrickInputError(f"send: {short_repr(send)} cannot be imported: {error}") from error
    if not callable(receiver) or inspect.iscoroutinefunction(receiver):
        raise RedBrickInputError(f"send must be a notifier or a plain function, not {type(receiver).__name__}.")
    return _unrendered(receiver) if isinstance(receiver, BaseNotifier) else cast("Callable[[Context], Any]", receiver)


def _unrendered(notifier: N) -> N:
    """Return a copy of a notifier for one message.

    Airflow renders template fields, and the objects in them, in place.
    """
    clone = copy.copy(notifier)
    for name in clone.template_fields:
        # Values that cannot be copied contain no templates.
        with suppress(Exception):
            setattr(clone, name, copy.deepcopy(getattr(notifier, name)))
    return clone
