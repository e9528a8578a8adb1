"""Create one task, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.batch.change import Mutation
from airflow_provider_redbrick.batch.outcome import Outcome, already_done, done
from airflow_provider_redbrick.batch.reading import NOT_ATTEMPTED, CircuitBreaker
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_redbrick.api.imports import Datapoint
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.new_tasks import NewTask

THERE = "a task with this name is there already"
_NOT_CREATED = "The task was not created"


@dataclass(frozen=True)
class Creation(Mutation):
    """Create a task; after a lost answer, its name shows whether it was created.

    :param new: the task's description.
    :param datapoint: uploads the task's files on the first call only, and returns the task.
    :param breaker: refuses further attempts while RedBrick does not answer.
    :param detail: the report fields of a created task.
    """

    new: NewTask
    datapoint: Callable[[], Datapoint]
    breaker: CircuitBreaker
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def not_applied_message(self) -> str:
        """The message for a lookup that finds no such task."""
        return "Its name was looked up afterwards and no task has it"

    def attempt(self, project: RedBrickProject) -> Outcome:
        """Upload the task's files and create it."""
        if self.breaker.is_open:
            return self.failure(NOT_ATTEMPTED)
        try:
            datapoint = self.datapoint()
        except RedBrickInputError as error:
            return self.failure(f"{error}. {_NOT_CREATED}")
        except RedBrickAPIError as error:
            self.breaker.record(error)
            return self.failure(f"{error} {_NOT_CREATED}")
        self.breaker.record(None)
        created = project.imports.create(datapoint)
        copies = {"task_ids": list(created.task_ids)} if len(created.task_ids) > 1 else {}
        return done(created.task_ids[0], name=self.new.name, dp_id=created.dp_id, **copies, **self.detail)

    def verify(self, project: RedBrickProject, errors: Sequence[RedBrickAPIError]) -> Outcome | None:
        """Look up the task's name; return None if no task has it.

        :param project: the project.
        :param errors: the errors of the attempts to create it.
        """
        found = project.find_by_name([self.new.name])[self.new.name]
        if not found:
            return None
        if all(isinstance(error, RedBrickRefusedError) for error in errors):
            # No answer was lost, so another client created the task first.
            return already_done(found[0], THERE, name=self.new.name)
        return done(found[0], name=self.new.name, **self.detail)

    def failure(self, reason: object) -> Outcome:
        """Return the outcome of a task that was not created."""
        return self.new.failure(reason)
