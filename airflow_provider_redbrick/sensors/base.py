"""Base of the sensors: polling, deferring, and the sensor's limits.

Design note on limits and stale data:

1. ``timeout`` and ``execution_timeout`` mean the same on a worker, deferred, and started from the trigger. Time spent
   deferred counts towards ``execution_timeout``, although Airflow itself leaves it out.
2. ``soft_fail`` and ``never_fail`` apply once, to the error of the limit that ended the wait.
3. The connection is read again every ``STALE_AFTER_S`` seconds: a sensor may poll for weeks. The organization and the
   project are those of the first poll.
4. A permanent error counts only if it comes from data read during the same poll. Otherwise the connection is read again
   and the poll is repeated once.
5. Invalid parameters fail the sensor even with ``silent_fail``, because they are not failed polls.
6. A read may lag behind a write that preceded the sensor. A condition that is met soon after the start is confirmed by
   a second look. With ``mode="reschedule"`` each poke is a start: it has no memory.

Design note on ``start_from_trigger``: since Airflow 3.3 the triggerer renders templates, to text and from the
serialized DAG. It has the DAG run. A template that reads an XCom or a Variable blocks the triggerer's event loop or is
never answered. Only plain values of the DAG run are therefore left to the triggerer (``_RUN_VALUE``). With any other
template, a worker makes the first poll.
"""

from __future__ import annotations

import math
import re
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

from airflow_provider_redbrick.engine.polling import (
    STALE_AFTER_S,
    START_BACKSTOP_S,
    Condition,
    Limits,
    Poll,
    PollBudget,
    read_event,
)
from airflow_provider_redbrick.exceptions import (
    PERMANENT_ERRORS,
    RedBrickAPIError,
    RedBrickAuthError,
    RedBrickConnectionLookupError,
    RedBrickError,
    RedBrickInputError,
    RedBrickNotFoundError,
    RedBrickTriggerEventError,
)
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook
from airflow_provider_redbrick.hooks.validation import has_template
from airflow_provider_redbrick.links import InLinkedProject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.client.operations.project import RedBrickProject


# Seconds that Airflow waits beyond the trigger's own deadline before it cancels the trigger.
_BACKSTOP = 60.0

# The longest request timeout that a connection may have, in seconds. Used where the connection cannot be read now.
_MAX_REQUEST_TIMEOUT_S = 600.0

# Errors that a trigger's event may name. Any other name becomes a RedBrickTriggerEventError.
_KNOWN_ERRORS: dict[str, type[RedBrickError]] = {
    kind.__name__: kind for kind in (RedBrickInputError, RedBrickAuthError, RedBrickNotFoundError)
}


class RedBrickWaitSensor(InLinkedProject, BaseSensorOperator):
    """Base of the sensors.

    :param deferrable: wait in the triggerer instead of a worker slot. Airflow's ``default_deferrable`` by default.
    :param start_from_trigger: begin the wait in the triggerer, so that no worker is needed until it ends. Only for a
        deferrable sensor, and needs Airflow 3.3. Invalid parameters then fail the sensor at the first poll. A worker
        still makes the first poll before Airflow 3.3, in a mapped sensor, and where only a worker can resolve the
        parameters: an upstream task's output, native rendering, or a template that is more than a value of the run
        such as ``{{ params.stage }}``, ``{{ dag_run.conf["stage"] }}`` or ``{{ ds }}``.
    """

    trigger_path: ClassVar[str]
    awaited: ClassVar[tuple[str, ...]]
    """The parameters that describe the condition. The trigger has the same ones."""

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = validation.flag("deferrable", deferrable)
        self._start_requested = validation.flag("start_from_trigger", start_from_trigger)
        self._worker_reason = ""
        self._opened: tuple[RedBrickProject, float] | None = None

    def plan_start(self) -> None:
        """Prepare the start from the trigger if it is requested and possible.

        Subclasses call this last in ``__init__``.

        :raises RedBrickInputError: if it is requested of a sensor that is not deferrable.
        """
        if not self._start_requested:
            return
        if not self.deferrable:
            raise RedBrickInputError("start_from_trigger=True needs deferrable=True.")
        from airflow.triggers.base import BaseTrigger, StartTriggerArgs

        if not hasattr(BaseTrigger, "render_template_fields"):
            self._worker_reason = "this Airflow is older than 3.3"
            return
        values = {name: getattr(self, name) for name in (*InLinkedProject.template_fields, *self.awaited)}
        native = self.render_template_as_native_obj
        if native is None:
            # A sensor without a DAG may be added to one that renders natively.
            native = self._dag is None or self._dag.render_template_as_native_obj
        unresolved = [name for name, value in values.items() if not triggerer_resolves(value, native=native)]
        if unresolved:
            self._worker_reason = f"only a worker can resolve {' and '.join(unresolved)}"
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
            timeout=timedelta(seconds=limits.seconds + START_BACKSTOP_S),
        )
        self.start_from_trigger = True

    def condition(self) -> Condition:
        """Return the validated condition."""
        raise NotImplementedError

    def waits_for(self) -> dict[str, Any]:
        """Return the parameters that describe the condition, not validated."""
        return {name: getattr(self, name) for name in self.awaited}

    def _limits(self) -> Limits:
        # Airflow leaves the time spent deferred out of execution_timeout. Users expect it to count.
        limit = self.execution_timeout
        return Limits(float(self.timeout), None if limit is None else limit.total_seconds())

    def _polling(self) -> dict[str, Any]:
        """Return the trigger's arguments for poll interval, backoff and failed polls."""
        options = {
            "exponential_backoff": bool(self.exponential_backoff),
            "max_wait": self.max_wait.total_seconds() if self.max_wait else None,
            "silent_fail": bool(self.silent_fail),
        }
        # Omit unset options, so that a triggerer of an earlier release can build the trigger.
        return {"poke_interval": self.poke_interval, **{name: value for name, value in options.items() if value}}

    @cached_property
    def _poll_budget(self) -> PollBudget:
        # The base class enforces the timeout, also over the pokes of a rescheduled sensor.
        return PollBudget(deadline=math.inf, deadline_name="timeout", awaited=self.condition())

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002
        """Poll once, or twice if a second look must confirm the first one."""
        condition = self.condition()
        try:
            poll = self._poll(condition)
            while self._poll_budget.must_confirm(poll, now=time.time(), settle_seconds=self.hook.client.settle_seconds):
                time.sleep(self._poll_budget.pause_to_confirm(self.poke_interval))
                poll = self._poll(condition)
        except (RedBrickAPIError, RedBrickConnectionLookupError) as error:
            if self._poll_budget.after_error(error, now=time.time()) is not None:
                raise
            self.log.warning("A poll failed: %s", error)
            return PokeReturnValue(False, None)
        self._poll_budget.after(poll, now=time.time())
        self.log.debug("Poll result: %s", poll.observed)
        return PokeReturnValue(poll.met, poll.observed)

    def _poll(self, condition: Condition) -> Poll:
        """Poll once. See rule 4 of the module for permanent errors."""
        began = time.monotonic()
        project = self._current(began)
        try:
            return condition.look(project)
        except PERMANENT_ERRORS:
            if self._opened is None or self._opened[1] >= began:
                raise
        return condition.look(self._open(began))

    def _current(self, now: float) -> RedBrickProject:
        """Return the project, read through settings that are not stale."""
        if self._opened is None:
            return self._open(now)
        project, opened_at = self._opened
        if now - opened_at < STALE_AFTER_S:
            return project
        try:
            return self._open(now)
        except RedBrickConnectionLookupError as error:
            self.log.warning("The connection cannot be read. Its previous settings stay in use: %s", error)
            return project

    def _open(self, now: float) -> RedBrickProject:
        """Read the connection, and open the project of the first poll with it.

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
        """Wait, and return the state observed when the condition was met."""
        with self._skip_if_never_fail(Exception):
            # Invalid parameters are not a failed poll: they end the wait even with silent_fail.
            self.check_inputs()
            self.condition()
        if not self.deferrable:
            with self._skip_if_never_fail(AirflowSensorTimeout):
                try:
                    return super().execute(context)
                except AirflowSensorTimeout as error:
                    raise AirflowSensorTimeout(f"{error} {self._poll_budget.status}") from error
        started = time.time()
        # Poll once before deferring: mistakes fail at once, and a condition that is met needs no trigger.
        with self._skip_if_never_fail(Exception):
            first = self._first_poll(context)
        if not first.is_done:
            reason = self._worker_reason and f". The wait did not start in the triggerer: {self._worker_reason}."
            self.log.info("Condition not met (%s). Waiting in the triggerer%s", first.xcom_value, reason)
            self._wait_in_triggerer(started)
        return first.xcom_value

    def _first_poll(self, context: Context) -> PokeReturnValue:
        try:
            return self.poke(context)
        except (AirflowFailException, AirflowSensorTimeout, AirflowSkipException):
            raise
        except Exception as error:
            if not self.silent_fail:
                raise
            reason = error if isinstance(error, RedBrickError) else type(error).__name__
            self.log.warning("A poll failed. The wait continues because silent_fail is set: %s", reason)
            return PokeReturnValue(False, None)

    def _wait_in_triggerer(self, started: float) -> NoReturn:
        module, _, class_name = self.trigger_path.rpartition(".")
        condition, limits = self.condition(), self._limits()
        org_id, project_id = self.org_id, self.project_id
        request = _MAX_REQUEST_TIMEOUT_S
        if self._opened is not None:
            # The wait keeps this project, even if the connection changes later.
            project = self._opened[0]
            org_id, project_id, request = project.org_id, project.project_id, self.hook.settings.timeout
        checked = {name: getattr(condition, name, getattr(self, name)) for name in self.awaited}
        self.defer(
            trigger=getattr(import_module(module), class_name)(
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
        """Resume, or fail with the error of the limit that ended the wait.

        Airflow itself raises the sensor's timeout for either limit.

        :param next_method: the method to resume with, as Airflow passes it.
        :param next_kwargs: its arguments.
        :param context: the task's context.
        """
        with self._skip_if_never_fail(AirflowSensorTimeout):
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except (AirflowSensorTimeout, AirflowSkipException) as error:
                # `soft_fail` and `never_fail` were already applied. They concern the timeout only.
                timeout = error if isinstance(error, AirflowSensorTimeout) else error.__cause__
                timed_out = next_method != "execute_complete" and isinstance(timeout, AirflowSensorTimeout)
                if timed_out and self._limits().name == "execution_timeout":
                    raise AirflowTaskTimeout(str(timeout)) from error
                raise

    @contextmanager
    def _skip_if_never_fail(self, kind: type[Exception]) -> Iterator[None]:
        """Skip instead of failing if ``never_fail`` is set.

        Airflow does this for timeouts only in some modes and releases.
        """
        try:
            yield
        except kind as error:
            if self.never_fail:
                raise AirflowSkipException("Skipped because never_fail is set.") from error
            raise

    def execute_complete(self, context: Context, event: Any = None) -> Any:  # noqa: ARG002
        """Return the state that the trigger observed, or raise its error.

        :param context: the task's context.
        :param event: the trigger's event.
        :return: the observed state.
        :raises AirflowSensorTimeout: if the sensor's timeout ended the wait.
        :raises AirflowTaskTimeout: if the sensor's execution_timeout ended the wait.
        """
        try:
            outcome = read_event(event)
        except RedBrickInputError as error:
            self._fail(RedBrickTriggerEventError(str(error)))
        message = str(outcome.get("message", ""))
        if outcome["status"] == "timeout":
            if outcome.get("deadline") == "execution_timeout":
                raise AirflowTaskTimeout(message)
            raise AirflowSensorTimeout(message)
        if outcome["status"] == "error":
            self._fail(_KNOWN_ERRORS.get(str(outcome.get("error")), RedBrickTriggerEventError)(message))
        self.log.info("Condition met: %s", outcome.get("seen"))
        return outcome.get("seen")

    def _fail(self, error: Exception) -> NoReturn:
        """Raise an error, or skip if ``never_fail`` is set, as a poke would."""
        if self.never_fail:
            raise AirflowSkipException("Skipped because never_fail is set.") from error
        raise error


# A value of the DAG run, with attributes and keys but without calls, filters or lookups: {{ params.stage }}.
_RUN_VALUE = re.compile(
    r"\{\{\s*(?:params|dag_run|run_id|logical_date|ds|ds_nodash|ts|ts_nodash|ts_nodash_with_tz|data_interval_start"
    r"|data_interval_end)(?:\.\w+|\[(?:\d+|'[^'{}]*'|\"[^\"{}]*\")\])*\s*\}\}"
)


def triggerer_resolves(value: object, *, native: bool) -> bool:
    """Return whether the triggerer can resolve a parameter without a worker.

    :param value: the parameter as written in the DAG.
    :param native: whether the sensor renders templates to native objects.
    """
    if isinstance(value, (list, tuple)):
        return all(triggerer_resolves(item, native=native) for item in value)
    if isinstance(value, str):
        return not has_template(value if native else _RUN_VALUE.sub("", value))
    return value is None or isinstance(value, (int, float))
