"""Say how long a project's queues are, wherever Airflow lets a notifier speak."""

from __future__ import annotations

import copy
import inspect
import pkgutil
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow.sdk.bases.notifier import BaseNotifier  # 3.0.0 shows it nowhere else

from airflow_provider_redbrick.exceptions import RedBrickError, RedBrickInputError, storable, told
from airflow_provider_redbrick.hooks.inputs import CheckedInputs
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

N = TypeVar("N", bound=BaseNotifier)


class RedBrickQueueNotifier(CheckedInputs, BaseNotifier):
    """A message with the live queues of a project and a link to it, delivered by another notifier.

    RedBrick has no messages of its own. ``send`` is called with Airflow's context, to which are added:

    * ``redbrick_message``: the text, i.e. ``message``, a line with the queue of each stage, and the project's address;
    * ``redbrick_counts``: the number of tasks by stage name; empty when they could not be read;
    * ``redbrick_url``: the project's address in RedBrick's web app; empty when it is not known.

    So any notifier will do that has templates::

        RedBrickQueueNotifier(
            message="{{ ti.task_id }} failed.",
            send=SlackNotifier(channel="#labelling", text="{{ redbrick_message }}"),
        )

    When RedBrick cannot be asked, the message says so and goes out all the same; it is asked once, and not for long.
    What ``send`` raises is for Airflow to log. The counts of all stages come in one request, after one for the stages.

    :param message: what to say first.
    :param send: another notifier, or anything that is called with a context; or where to import it from, such as
        ``"my_alerts.to_slack"``, for deadlines, whose arguments Airflow stores as text. The message goes into the log
        when there is none.
    :param redbrick_conn_id: the connection.
    :param org_id: the organisation; the connection's when not given.
    :param project_id: the project; the connection's when not given.
    :param context: for Airflow, which gives deadlines' notifiers their context like this.
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
        super().__init__(**context)  # Airflow 3.0 has no context here, and gives none
        self.message = message
        self.send = send
        self.redbrick_conn_id = redbrick_conn_id
        self.org_id = org_id
        self.project_id = project_id

    def __call__(self, *args: Any) -> None:
        """Render templates into a copy, and send it: several callbacks, and several runs, may share a notifier."""
        super(RedBrickQueueNotifier, _unrendered(self)).__call__(*args)

    def __await__(self) -> Generator[Any, Any, None]:
        """Do the same for deadlines."""
        return super(RedBrickQueueNotifier, _unrendered(self)).__await__()

    def notify(self, context: Context) -> None:
        """Look at the queues, and deliver the message."""
        facts = self._look()
        try:
            send = _receiver(self.send)
        except RedBrickInputError:
            self.log.warning("Not delivered: %s", facts["redbrick_message"])
            raise
        if send is None:
            self.log.info("%s", facts["redbrick_message"])
        else:
            send(cast("Context", {**context, **facts}))

    async def async_notify(self, context: Context) -> None:
        """Do the same in a thread, so that the event loop can serve others."""
        from airflow_provider_redbrick.triggers.threads import in_thread

        await in_thread(self.notify, context)

    def _look(self) -> Mapping[str, Any]:
        """Return what is added to the context; never raises, for a message about trouble must go out."""
        from airflow_provider_redbrick.hooks.quick import RedBrickQuickHook
        from airflow_provider_redbrick.links.addresses import project_address

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
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the message goes out
            # Others' errors may hold a connection's fields.
            reason = str(error) if isinstance(error, RedBrickError) else type(error).__name__
            queues = f"The queues could not be read through connection {self.redbrick_conn_id!r}: {reason}"
            self.log.warning("%s", queues)
        # Rendered to native objects, a message may be a number.
        said = "" if self.message is None else str(self.message)
        text = storable("\n".join(filter(None, (said, queues, address))))
        return {"redbrick_message": text, "redbrick_counts": counts, "redbrick_url": address}


def _receiver(send: object) -> Callable[[Context], Any] | None:
    """Return what delivers a message.

    :raises RedBrickInputError: when it cannot.
    """
    if send is None:
        return None
    try:
        found = pkgutil.resolve_name(send) if isinstance(send, str) else send
    except Exception as error:
        raise RedBrickInputError(f"send: {told(send)} cannot be imported: {error}") from error
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise RedBrickInputError(f"send must be a notifier or a plain function, not {type(found).__name__}.")
    return _unrendered(found) if isinstance(found, BaseNotifier) else cast("Callable[[Context], Any]", found)


def _unrendered(notifier: N) -> N:
    """Return a copy of a notifier for one message: its template fields, and what is in them, are rendered in place."""
    one = copy.copy(notifier)
    for name in one.template_fields:
        # What cannot be copied has no templates in it.
        with suppress(Exception):
            setattr(one, name, copy.deepcopy(getattr(notifier, name)))
    return one
