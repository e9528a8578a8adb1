"""Move ground-truth tasks back to the first stage.

Design. A run reopens tasks that were updated in its interval. Reopening is an update itself, and so is the return of
the task to ground truth. Invariants:

1. A task that this key reopened since the first attempt is done, even if people have put it back by now.
2. A task that this key reopened because of an update in the interval is not reopened for this interval again.
3. The reopening itself does not count as that update, since a run starts when its interval is over and so reopens
   within the next interval.
4. If the events of a task are needed for these rules but cannot be read, the task is not reopened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.actions.stage_pipeline import left_stage_since, read_earlier_events
from airflow_provider_redbrick.assignments.settlement import settled
from airflow_provider_redbrick.client.models.task import Detail, Task
from airflow_provider_redbrick.client.models.workflow import GROUND_TRUTH
from airflow_provider_redbrick.engine.concurrency import CallableFailedError, MainThreadExecutor, call, in_parallel
from airflow_provider_redbrick.engine.executor import apply_all
from airflow_provider_redbrick.engine.ledger import Ledger, ledger_of
from airflow_provider_redbrick.engine.mutations import Change
from airflow_provider_redbrick.engine.outcomes import (
    EARLIER_ATTEMPTS,
    Outcome,
    already_done,
    failed,
    failed_read,
    skipped,
)
from airflow_provider_redbrick.engine.task_reader import (
    CHUNK,
    KNOWN_CHUNK,
    CircuitBreaker,
    ReadAhead,
    read_in_chunks,
    with_series_labels,
)
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, type_name

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_redbrick.client.models.task import OutputEvent
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject

log = logging.getLogger(__name__)

Selector = Callable[[Task], bool]


def updated_between(
    project: RedBrickProject,
    ground_truth: Stage,
    *,
    after: pendulum.DateTime | None,
    before: pendulum.DateTime | None,
) -> list[str]:
    """Return the ids of ground-truth tasks that were last updated in an interval.

    :param project: the project.
    :param ground_truth: the ground-truth stage.
    :param after: start of the interval, inclusive; None for no limit.
    :param before: end of the interval, exclusive; None for no limit.
    """

    def within(task: Task) -> bool:
        moment = task.updated_at or task.created_at
        if task.updated_at is None:
            log.warning("Task %s has no time of its last update. Its creation time is used instead.", task.task_id)
        if moment is None:
            return False
        return (after is None or moment >= after) and (before is None or moment < before)

    return list(dict.fromkeys(task.task_id for task in project.list_tasks(ground_truth) if within(task)))


def select(project: RedBrickProject, task_ids: Iterable[str], selector: Selector) -> Iterator[Task | Outcome]:
    """Yield the tasks that a selector selects, and outcomes of those that failed.

    :param project: the project.
    :param task_ids: ids of the candidates.
    :param selector: returns True for a task to reopen.
    """
    executor, breaker = MainThreadExecutor(), CircuitBreaker()

    def select_loaded(found: Mapping[str, Task | RedBrickAPIError]) -> list[Task | Outcome]:
        selected = (_selected_or_failed(project, selector, task_id, task) for task_id, task in found.items())
        return [result for result in selected if result is not None]

    def on(chunk: Sequence[str]) -> Sequence[Task | Outcome]:
        (found,) = read_in_chunks(project, chunk, detail=Detail.FULL, breaker=breaker)
        return executor.run(partial(select_loaded, found.tasks))

    workers = project.client.max_concurrency
    return in_parallel(in_chunks(task_ids, CHUNK), on, workers=workers, stop=Event(), executor=executor)


def reopen(
    project: RedBrickProject,
    task_ids: Iterable[str],
    *,
    me: str,
    first_attempt_at: pendulum.DateTime | None,
    once_since: pendulum.DateTime | None = None,
    ahead: ReadAhead | None = None,
) -> Iterator[Outcome]:
    """Move ground-truth tasks back to the first stage.

    :param project: the project.
    :param task_ids: ids of the tasks.
    :param me: the user id of this key.
    :param first_attempt_at: on a retry, when the first attempt began. Tasks that this key reopened since then are done.
    :param once_since: start of the interval. A task that this key reopened because of an update since then is skipped.
    :param ahead: reads of these tasks that have begun already.
    :return: one outcome per task.
    """
    reopening = _Reopening(project, me, first_attempt_at, once_since, ahead, ledger_of(project.client))
    workers = project.client.max_concurrency
    outcomes = in_parallel(in_chunks(task_ids, KNOWN_CHUNK), reopening.on, workers=workers, stop=reopening.stop)
    return settled(project, outcomes, reopening.ledger, stop=reopening.stop)


@dataclass(frozen=True)
class _Reopening:
    project: RedBrickProject
    me: str
    first_attempt_at: pendulum.DateTime | None
    once_since: pendulum.DateTime | None
    ahead: ReadAhead | None
    ledger: Ledger
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    stop: Event = field(default_factory=Event)

    def on(self, task_ids: Sequence[str]) -> list[Outcome]:
        """Reopen one chunk of tasks."""
        (read,) = read_in_chunks(
            self.project, task_ids, detail=Detail.PLACE, size=KNOWN_CHUNK, breaker=self.breaker, ahead=self.ahead
        )
        found = read.tasks
        ids = [task_id for task_id, task in found.items() if isinstance(task, Task)]
        earlier = read_earlier_events(self.project, ids, self.first_attempt_at or self.once_since)
        outcomes: list[Outcome] = []
        to_move: list[Task] = []
        for task_id, task in found.items():
            events = earlier.get(task_id, ())
            if isinstance(task, RedBrickAPIError):
                outcomes.append(failed_read(task_id, task))
            elif isinstance(events, RedBrickAPIError):
                outcomes.append(failed_read(task_id, events, what=EARLIER_ATTEMPTS, name=task.name))
            elif left_stage_since(events, GROUND_TRUTH, me=self.me, first_attempt_at=self.first_attempt_at):
                reason = f"an earlier attempt reopened it; it is {task.where}"
                outcomes.append(already_done(task_id, reason, name=task.name))
            elif task.stage_name != GROUND_TRUTH:
                outcomes.append(skipped(task_id, f"it is {task.where}, not in {GROUND_TRUTH}", name=task.name))
            elif _reopened_for_interval(task, events, me=self.me, interval_start=self.once_since):
                reason = "it was reopened for this interval before, and people have moved it to ground truth again"
                outcomes.append(skipped(task_id, reason, name=task.name))
            else:
                to_move.append(task)
        moves = [_move(self.project, task) for task in to_move]
        return outcomes + apply_all(self.project, moves, ledger=self.ledger, stop=self.stop)


def _move(project: RedBrickProject, task: Task) -> Change:
    return Change(
        task,
        call=lambda: project.move_to_start(task.task_id),
        applied=lambda found: found.stage_name != GROUND_TRUTH,
        source_stage=GROUND_TRUTH,
    )


def _reopened_for_interval(
    task: Task, events: Sequence[OutputEvent], *, me: str, interval_start: pendulum.DateTime | None
) -> bool:
    """Whether this key has reopened a task because of an update in the interval.

    The time of the reopening itself is not considered (invariant 3). Without an interval the answer is False.
    """
    updated = task.created_at
    for event in events:
        mine = event.leaves(GROUND_TRUTH) and event.by == me
        if mine and interval_start is not None and updated is not None and updated >= interval_start:
            return True
        updated = event.at or updated
    return False


def _selected_or_failed(
    project: RedBrickProject, selector: Selector, task_id: str, task: Task | RedBrickAPIError
) -> Task | Outcome | None:
    """Return a selected task, None for another, or the outcome of a failed call."""
    if isinstance(task, RedBrickAPIError):
        return failed(task_id, task)
    try:
        return task if _is_selected(project, selector, task) else None
    except (CallableFailedError, RedBrickInputError, RedBrickAPIError) as error:
        return failed(task_id, error, name=task.name)


def _is_selected(project: RedBrickProject, selector: Selector, task: Task) -> bool:
    is_selected, _ = call(selector, with_series_labels(project, task), what="selector", take=_validate)
    return is_selected


def _validate(answer: object) -> bool:
    if not isinstance(answer, bool):
        # With truthiness, a bound method whose call was forgotten would reopen every task.
        raise RedBrickInputError(f"the selector must return True or False, not {type_name(answer)}")
    return answer
