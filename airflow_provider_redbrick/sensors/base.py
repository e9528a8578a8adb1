"""What both sensors share: looking, deferring, and meaning the same by every limit whether deferred or not."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_redbrick.batch.waiting import (
    STALE_AFTER_S,
    START_BACKSTOP,
    Condition,
    Limits,
    Patience,
    Poll,
    read_event,
)
from airflow_provider_redbrick.exceptions import (
    HOPELESS,
    RedBrickAPIError,
    RedBrickAuthError,
    RedBrickConnectionLookupError,
    RedBrickError,
    RedBrickInputError,
    RedBrickNotFoundError,
    RedBrickTriggerEventError,
)
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.links.redbrick import InLinkedProject
from airflow_provider_redbrick.sensors.starting import why_not_from_trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.project import RedBrickProject

# How long Airflow waits beyond the trigger's own deadline before it gives the trigger up.
_BACKSTOP = 60.0

# For that, the longest timeout that a connection may have, where the connection cannot be read at the moment.
_LONGEST_REQUEST = 600.0

# What a trigger's event may say went wrong; whatever else it was is an error of the trigger.
_KNOWN_ERRORS: dict[str, type[RedBrickError]] = {
    kind.__name__: kind for kind in (RedBrickInputError, RedBrickAuthError, RedBrickNotFoundError)
}


class RedBrickWaitSensor(InLinkedProject, BaseSensorOperator):
    """Base of the sensors.

    :param deferrable: wait in the triggerer instead of a worker slot; Airflow's ``default_deferrable`` by default.
    :param start_from_trigger: begin the wait in the triggerer too, so that no worker is needed before it is over; only
        for a deferrable sensor. A mistake then fails the sensor at the first poll. Needs Airflow 3.3; before that, in
        a mapped sensor, and where only a worker can know what is waited for (an upstream task's output; templates
        with more in them than the run's params, conf and dates, or that render to native objects), a worker takes the
        first look as ever.
    """

    trigger_path: ClassVar[str]
    awaited: ClassVar[tuple[str, ...]]
    """The parameters that say what is waited for; the trigger has the same."""

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = check.flag("deferrable", deferrable)
        self._wants_start = check.flag("start_from_trigger", start_from_trigger)
        self._why_on_worker = ""
        self._opened: tuple[RedBrickProject, float] | None = None

    def plan_start(self) -> None:
        """Tell Airflow how to begin the wait in the triggerer, if that is wanted and can be; last in ``__init__``.

        :raises RedBrickInputError: when it is wanted of a sensor that is not deferrable.
        """
        if not self._wants_start:
            return
        if not self.deferrable:
            raise RedBrickInputError("start_from_trigger=True needs deferrable=True.")
        from airflow.triggers.base import BaseTrigger, StartTriggerArgs

        if not hasattr(BaseTrigger, "render_template_fields"):
            self._why_on_worker = "this Airflow is older than 3.3"
            return
        values = {name: getattr(self, name) for name in (*InLinkedProject.template_fields, *self.awaited)}
        self._why_on_worker = why_not_from_trigger(values, self._dag, native=self.render_template_as_native_obj)
        if self._why_on_worker:
            return
        limits = self._limits()
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=self.trigger_path,
            trigger_kwargs={
                **values,
                **self._polling(),
                "timeout": limits.timeout,
                "execution_timeout": limits.execution_timeout,
            },
            next_method="execute_complete",
            timeout=timedelta(seconds=limits.seconds + START_BACKSTOP),
        )
        self.start_from_trigger = True

    def condition(self) -> Condition:
        """Return what is waited for, checked."""
        raise NotImplementedError

    def waits_for(self) -> dict[str, Any]:
        """Return the arguments that say what is waited for, as they are."""
        return {name: getattr(self, name) for name in self.awaited}

    def _limits(self) -> Limits:
        # Airflow leaves the time spent deferred out of execution_timeout; users do not.
        limit = self.execution_timeout
        return Limits(float(self.timeout), None if limit is None else limit.total_seconds())

    def _polling(self) -> dict[str, Any]:
        """Return how often to poll, and whether failed polls matter, as the trigger takes it."""
        options = {
            "exponential_backoff": bool(self.exponential_backoff),
            "max_wait": self.max_wait.total_seconds() if self.max_wait else None,
            "silent_fail": bool(self.silent_fail),
        }
        # What is not set is left out, so that a triggerer of an earlier release can build the trigger.
        return {"poke_interval": self.poke_interval, **{name: value for name, value in options.items() if value}}

    @cached_property
    def _patience(self) -> Patience:
        # The base class watches the time; a rescheduled sensor starts anew with each poke, and only that bounds it.
        return Patience(deadline=math.inf, deadline_name="timeout")

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002
        """Look once."""
        condition = self.condition()
        try:
            poll = self._look(condition)
        except (RedBrickAPIError, RedBrickConnectionLookupError) as error:
            if self._patience.after_error(error, now=time.time()) is not None:
                raise
            self.log.warning("A poll failed: %s", error)
            return PokeReturnValue(False, None)
        self._patience.after(poll, now=time.time())
        self.log.debug("Seen: %s", poll.seen)
        return PokeReturnValue(poll.met, poll.seen)

    def _look(self, condition: Condition) -> Poll:
        """Look once. An error that only a person can mend counts when it comes from what was read during this look."""
        began = time.monotonic()
        project = self._current(began)
        try:
            return condition.look(project)
        except HOPELESS:
            if self._opened is None or self._opened[1] >= began:
                raise
        return condition.look(self._open(began))

    def _current(self, now: float) -> RedBrickProject:
        """Return the project, of a connection that was read lately: a sensor may poke for weeks."""
        if self._opened is None:
            return self._open(now)
        project, opened_at = self._opened
        if now - opened_at < STALE_AFTER_S:
            return project
        try:
            return self._open(now)
        except RedBrickConnectionLookupError as error:
            self.log.warning("Going on with the settings that the connection had before: %s", error)
            return project

    def _open(self, now: float) -> RedBrickProject:
        """Read the connection, and open the project of the first look with what it says.

        :raises RedBrickConnectionLookupError: if Airflow does not find the connection now.
        """
        if self._opened is None:
            hook, ids = self.hook, (self.org_id, self.project_id)
        else:
            before = self._opened[0]
            hook, ids = RedBrickHook(self.redbrick_conn_id), (before.org_id, before.project_id)
        hook.load_settings()
        project = hook.project(ids[1], org_id=ids[0])
        if hook is not self.hook:
            self.hook.close()
            self.hook = hook
        self._opened = (project, now)
        return project

    def execute(self, context: Context) -> Any:
        """Wait, and return what was seen when the wait was over."""
        with self._never_failing(Exception):
            # A mistake in the DAG is no failed poll: it ends the wait also with silent_fail.
            self.check_inputs()
            self.condition()
        if not self.deferrable:
            with self._never_failing(AirflowSensorTimeout):
                return super().execute(context)
        started = time.time()
        # The first look is taken here: a mistake is known at once, and what is met already need not be waited for.
        with self._never_failing(Exception):
            first = self._first_look(context)
        if not first.is_done:
            why = self._why_on_worker and f" (not from the start: {self._why_on_worker})"
            self.log.info("Not yet (%s); waiting in the triggerer%s", first.xcom_value, why)
            self._wait_in_triggerer(started)
        return first.xcom_value

    def _first_look(self, context: Context) -> PokeReturnValue:
        try:
            return self.poke(context)
        except (AirflowFailException, AirflowSensorTimeout, AirflowSkipException):
            raise
        except Exception as error:
            if not self.silent_fail:
                raise
            words = error if isinstance(error, RedBrickError) else type(error).__name__
            self.log.warning("A poll failed; the sensor waits on, since silent_fail is set: %s", words)
            return PokeReturnValue(False, None)

    def _wait_in_triggerer(self, started: float) -> NoReturn:
        module, _, name = self.trigger_path.rpartition(".")
        condition, limits = self.condition(), self._limits()
        org_id, project_id = self.org_id, self.project_id
        request = _LONGEST_REQUEST
        if self._opened is not None:
            # The wait is for this project, whatever the connection says later.
            project = self._opened[0]
            org_id, project_id, request = project.org_id, project.project_id, self.hook.settings.timeout
        checked = {each: getattr(condition, each, getattr(self, each)) for each in self.awaited}
        self.defer(
            trigger=getattr(import_module(module), name)(
                redbrick_conn_id=self.redbrick_conn_id,
                org_id=org_id,
                project_id=project_id,
                deadline=started + limits.seconds,
                deadline_name=limits.name,
                **self._polling(),
                **checked,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=limits.seconds + request + _BACKSTOP),
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume, or fail by the limit that has ended the wait: Airflow itself takes either for the timeout."""
        with self._never_failing(AirflowSensorTimeout):
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except (AirflowSensorTimeout, AirflowSkipException) as error:
                # Airflow has let soft_fail and never_fail speak already, which the timeout alone is a matter of.
                late = error if isinstance(error, AirflowSensorTimeout) else error.__cause__
                given_up = next_method != "execute_complete" and isinstance(late, AirflowSensorTimeout)
                if given_up and self._limits().name == "execution_timeout":
                    raise AirflowTaskTimeout(str(late)) from error
                raise

    @contextmanager
    def _never_failing(self, kind: type[Exception]) -> Iterator[None]:
        """Let never_fail hold for an error; for timeouts Airflow does so in some modes and some releases alone."""
        try:
            yield
        except kind as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping since never_fail is set.") from error
            raise

    def execute_complete(self, context: Context, event: Any = None) -> Any:  # noqa: ARG002
        """Resume with what the trigger saw."""
        try:
            seen = read_event(event)
        except RedBrickInputError as error:
            self._fail(RedBrickTriggerEventError(str(error)))
        message = str(seen.get("message", ""))
        if seen["status"] == "timeout":
            if seen.get("deadline") == "execution_timeout":
                raise AirflowTaskTimeout(message)
            raise AirflowSensorTimeout(message)
        if seen["status"] == "error":
            self._fail(_KNOWN_ERRORS.get(str(seen.get("error")), RedBrickTriggerEventError)(message))
        self.log.info("It has happened: %s", seen.get("seen"))
        return seen.get("seen")

    def _fail(self, error: Exception) -> NoReturn:
        """Fail as the same error would in a poke."""
        if self.never_fail:
            raise AirflowSkipException("Skipping since never_fail is set.") from error
        raise error
