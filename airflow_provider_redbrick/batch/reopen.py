"""Ground truth back to the first stage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.api.stage_names import GROUND_TRUTH
from airflow_provider_redbrick.batch.applying import apply_all
from airflow_provider_redbrick.batch.calling import CallableFailedError, call, handed
from airflow_provider_redbrick.batch.change import Change
from airflow_provider_redbrick.batch.outcome import EARLIER, Outcome, already_done, failed, skipped, unread
from airflow_provider_redbrick.batch.parallel import Desk, in_parallel
from airflow_provider_redbrick.batch.reading import CHUNK, KNOWN_CHUNK, CircuitBreaker, ReadAhead, read_in_chunks
from airflow_provider_redbrick.batch.stage_work import earlier_events, left_since
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError, kind_of

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_redbrick.api.models import OutputEvent
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

log = logging.getLogger(__name__)

Selector = Callable[[Task], bool]


def updated_between(
    project: RedBrickProject,
    ground_truth: Stage,
    *,
    after: pendulum.DateTime | None,
    before: pendulum.DateTime | None,
) -> list[str]:
    """Return the ids of ground truth last updated at or after ``after`` and earlier than ``before``."""

    def within(task: Task) -> bool:
        moment = task.updated_at or task.created_at
        if task.updated_at is None:
            log.warning("Task %s does not say when it was last updated; its creation counts instead.", task.task_id)
        if moment is None:
            return False
        return (after is None or moment >= after) and (before is None or moment < before)

    return list(dict.fromkeys(task.task_id for task in project.list_tasks(ground_truth) if within(task)))


def select(project: RedBrickProject, task_ids: Iterable[str], selector: Selector) -> Iterator[Task | Outcome]:
    """Yield the tasks that a selector wants reopened, and the outcome of each that it could not judge."""
    desk, breaker = Desk(), CircuitBreaker()

    def judge(found: Mapping[str, Task | RedBrickAPIError]) -> list[Task | Outcome]:
        judged = (_judged(project, selector, task_id, task) for task_id, task in found.items())
        return [each for each in judged if each is not None]

    def on(chunk: Sequence[str]) -> Sequence[Task | Outcome]:
        (found,) = read_in_chunks(project, chunk, detail=Detail.FULL, breaker=breaker)
        return desk.ask(partial(judge, found.tasks))

    workers = project.client.max_concurrency
    return in_parallel(in_chunks(task_ids, CHUNK), on, workers=workers, stop=Event(), desk=desk)


def reopen(
    project: RedBrickProject,
    task_ids: Iterable[str],
    *,
    me: str,
    since: pendulum.DateTime | None,
    once_since: pendulum.DateTime | None = None,
    ahead: ReadAhead | None = None,
) -> Iterator[Outcome]:
    """Send ground-truth tasks back to the first stage; yields one outcome a task.

    :param since: on a retry, when the run began: what this key reopened since then, an earlier try did.
    :param once_since: when the interval begins: what this key reopened because of an update in it, and people have put
        back since, is left alone.
    :param ahead: what is read of them already.
    """
    work = _Reopening(project, me, since, once_since, ahead)
    workers = project.client.max_concurrency
    return in_parallel(in_chunks(task_ids, KNOWN_CHUNK), work.on, workers=workers, stop=work.stop)


@dataclass(frozen=True)
class _Reopening:
    project: RedBrickProject
    me: str
    since: pendulum.DateTime | None
    once_since: pendulum.DateTime | None
    ahead: ReadAhead | None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    stop: Event = field(default_factory=Event)

    def on(self, task_ids: Sequence[str]) -> list[Outcome]:
        """Reopen some tasks."""
        (read,) = read_in_chunks(
            self.project, task_ids, detail=Detail.PLACE, size=KNOWN_CHUNK, breaker=self.breaker, ahead=self.ahead
        )
        found = read.tasks
        ids = [task_id for task_id, task in found.items() if isinstance(task, Task)]
        earlier = earlier_events(self.project, ids, self.since or self.once_since)
        outcomes: list[Outcome] = []
        here: list[Task] = []
        for task_id, task in found.items():
            events = earlier.get(task_id, ())
            if isinstance(task, RedBrickAPIError):
                outcomes.append(unread(task_id, task))
            elif isinstance(events, RedBrickAPIError):
                outcomes.append(unread(task_id, events, what=EARLIER, name=task.name))
            elif left_since(events, GROUND_TRUTH, me=self.me, since=self.since):
                reason = f"an earlier try reopened it; it is {task.where}"
                outcomes.append(already_done(task_id, reason, name=task.name))
            elif task.stage_name != GROUND_TRUTH:
                outcomes.append(skipped(task_id, f"it is {task.where}, not in {GROUND_TRUTH}", name=task.name))
            elif _reopened_for_interval(task, events, me=self.me, since=self.once_since):
                reason = "it was reopened for this interval already, and people have put it back since"
                outcomes.append(skipped(task_id, reason, name=task.name))
            else:
                here.append(task)
        return outcomes + apply_all(self.project, [_move(self.project, task) for task in here], stop=self.stop)


def _move(project: RedBrickProject, task: Task) -> Change:
    return Change(
        task,
        call=lambda: project.move_to_start(task.task_id),
        applied=lambda found: found.stage_name != GROUND_TRUTH,
        leaves=GROUND_TRUTH,
    )


def _reopened_for_interval(
    task: Task, events: Sequence[OutputEvent], *, me: str, since: pendulum.DateTime | None
) -> bool:
    """Whether this key has reopened a task when its last update was one since a time; no when no time is given.

    The reopening itself says nothing: a run comes when its interval is over, and so reopens within the next one.
    """
    updated = task.created_at
    for event in events:
        mine = event.leaves(GROUND_TRUTH) and event.by == me
        if mine and since is not None and updated is not None and updated >= since:
            return True
        updated = event.at or updated
    return False


def _judged(
    project: RedBrickProject, selector: Selector, task_id: str, task: Task | RedBrickAPIError
) -> Task | Outcome | None:
    """Return a task that the selector wants, None for one that it does not, or why that is not known."""
    if isinstance(task, RedBrickAPIError):
        return failed(task_id, task)
    try:
        return task if _wanted(project, selector, task) else None
    except (CallableFailedError, RedBrickInputError, RedBrickAPIError) as error:
        return failed(task_id, error, name=task.name)


def _wanted(project: RedBrickProject, selector: Selector, task: Task) -> bool:
    wanted, _ = call(selector, handed(project, task), what="selector", take=_read)
    return wanted


def _read(answer: object) -> bool:
    if not isinstance(answer, bool):
        # Truthiness would reopen a task because of, say, a forgotten call's bound method.
        raise RedBrickInputError(f"the selector must return True or False, not {kind_of(answer)}")
    return answer
