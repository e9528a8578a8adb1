"""What both sensors share: looking, deferring, and meaning the same by every limit whether deferred or not."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_redbrick.batch.waiting import Condition, Patience, read_event
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, RedBrickTriggerEventError
from airflow_provider_redbrick.hooks.in_project import InRedBrickProject

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.triggers.base import RedBrickPollTrigger

# How long Airflow waits beyond the trigger's own deadline before it gives the trigger up.
_BACKSTOP = 60.0


class RedBrickWaitSensor(InRedBrickProject, BaseSensorOperator):
    """Base of the sensors.

    :param deferrable: wait in the triggerer instead of a worker slot; Airflow's ``default_deferrable`` by default.
    """

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    def condition(self) -> Condition:
        """Return what is waited for, checked."""
        raise NotImplementedError

    def trigger(self, condition: Condition, **common: Any) -> RedBrickPollTrigger:
        """Return the trigger that waits for it."""
        raise NotImplementedError

    def check_stages(self, project: RedBrickProject, condition: Condition) -> None:
        """Refuse stage names that the project does not have: they would be waited for for ever."""
        raise NotImplementedError

    @cached_property
    def _project(self) -> RedBrickProject:
        return self.get_project()

    @cached_property
    def _patience(self) -> Patience:
        # The base class watches the time; a rescheduled sensor starts anew with each poke, and only that bounds it.
        return Patience(deadline=math.inf, deadline_name="timeout")

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002
        """Look once."""
        condition = self.condition()
        try:
            self.check_stages(self._project, condition)
            poll = condition.look(self._project)
        except RedBrickAPIError as error:
            if self._patience.after_error(error, now=time.time()) is not None:
                raise
            self.log.warning("A poll failed: %s", error)
            return PokeReturnValue(False, None)
        self._patience.after(poll, now=time.time())
        self.log.debug("Seen: %s", poll.seen)
        return PokeReturnValue(poll.met, poll.seen)

    def execute(self, context: Context) -> Any:
        """Wait, and return what was seen when the wait was over."""
        if not self.deferrable:
            return super().execute(context)
        started = time.time()
        # The first look is taken here: a mistake is known at once, and what is met already need not be waited for.
        try:
            first = self.poke(context)
        except Exception as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping since never_fail is set.") from error
            raise
        if not first.is_done:
            self.log.info("Not yet (%s); waiting in the triggerer", first.xcom_value)
            self._wait_in_triggerer(started)
        return first.xcom_value

    def _wait_in_triggerer(self, started: float) -> NoReturn:
        limits = {"timeout": float(self.timeout)}
        if self.execution_timeout is not None:
            # Airflow leaves the time spent deferred out of it; users do not.
            limits["execution_timeout"] = self.execution_timeout.total_seconds()
        name = min(limits, key=lambda limit: limits[limit])
        self.defer(
            trigger=self.trigger(
                self.condition(),
                redbrick_conn_id=self.redbrick_conn_id,
                org_id=self.org_id,
                project_id=self.project_id,
                poke_interval=self.poke_interval,
                deadline=started + limits[name],
                deadline_name=name,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=limits[name] + self.hook.settings.timeout + _BACKSTOP),
        )

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
            self._fail(RedBrickTriggerEventError(message))
        self.log.info("It has happened: %s", seen.get("seen"))
        return seen.get("seen")

    def _fail(self, error: Exception) -> NoReturn:
        """Fail as the same error would in a poke."""
        if self.never_fail:
            raise AirflowSkipException("Skipping since never_fail is set.") from error
        raise error
