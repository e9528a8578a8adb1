"""One mutation on one task, applied once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.batch.outcome import Outcome, done, failed, skipped
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject

ATTEMPTS = 3
# Seconds before each look at a task whose answer was lost: the server may still be busy with the request.
SETTLE = (0.0, 0.5, 1.5)
# Seconds that requests under way get when the work is stopped.
LAST_MOMENT = 2.0


@dataclass(frozen=True)
class Change:
    """A mutation to apply to a task.

    :param task: the task as it was read before.
    :param send: sends the mutation once.
    :param applied: whether a task, read again, shows that the mutation was applied.
    :param leaves: the stage that the mutation takes the task out of, if it does: somebody else can do that too.
    :param verdict: for a review, what it decides: another run with this key can decide the opposite.
    """

    task: Task
    send: Callable[[], None]
    applied: Callable[[Task], bool]
    leaves: str | None = None
    verdict: bool | None = None


def apply_all(project: RedBrickProject, changes: Sequence[Change]) -> list[Outcome]:
    """Apply changes to different tasks, several at a time; outcomes come in the order of the changes."""
    workers = min(project.client.max_concurrency, len(changes))
    if workers <= 1:
        return [apply_once(project, change) for change in changes]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick")
    futures = [pool.submit(apply_once, project, change) for change in changes]
    try:
        return [future.result() for future in futures]
    except BaseException:
        # Killed or timed out: what has not been sent yet never will be. Requests under way get a moment, no more:
        # Airflow kills for good a few seconds later, and what was claimed is still to be given back.
        pool.shutdown(wait=False, cancel_futures=True)
        wait(futures, timeout=LAST_MOMENT)
        raise
    finally:
        pool.shutdown(wait=False)


def apply_once(project: RedBrickProject, change: Change, *, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Apply a change; settle a lost answer by reading the task, and send again only what was not applied.

    A refusal is final. An answer that was lost (dropped connection, time-out, 5xx, a body that is not the API's) says
    nothing about the mutation, and there is no idempotency key, so the task itself is asked.
    """
    task = change.task
    error: RedBrickAPIError | None = None
    for _ in range(ATTEMPTS):
        try:
            change.send()
        except RedBrickAPIError as problem:
            error = problem
        else:
            return done(task.task_id, name=task.name)
        outcome = _settle(project, change, error, sleep)
        if outcome is not None:
            return outcome
    reason = f"{error} The task was read afterwards and is unchanged; given up after {ATTEMPTS} attempts."
    return failed(task.task_id, reason, name=task.name)


def _settle(
    project: RedBrickProject, change: Change, error: RedBrickAPIError, sleep: Callable[[float], None]
) -> Outcome | None:
    """Return what became of the task, or None when it is unchanged and another attempt may help."""
    task_id, name = change.task.task_id, change.task.name
    final = isinstance(error, RedBrickRefusedError) or not error.maybe_applied
    try:
        if error.maybe_applied and _shows(project, change, looks=1 if final else len(SETTLE), sleep=sleep):
            if _is_ours(project, change):
                return done(task_id, name=name)
            return skipped(task_id, f"it was moved on in the meantime, not by this try. {error}", name=name)
    except RedBrickAPIError as unread:
        reason = (
            f"{error} Whether it was applied is not known: the task could not be read afterwards ({unread}). "
            f"The next try reads it first."
        )
        return failed(task_id, reason, name=name)
    return failed(task_id, error, name=name) if final else None


def _shows(project: RedBrickProject, change: Change, *, looks: int, sleep: Callable[[float], None]) -> bool:
    """Read the task until it shows the change, or long enough to say that it will not."""
    for pause in SETTLE[:looks]:
        sleep(pause)
        found = project.read_tasks([change.task.task_id])[change.task.task_id]
        if isinstance(found, RedBrickAPIError):
            raise found
        if change.applied(found):
            return True
    return False


def _is_ours(project: RedBrickProject, change: Change) -> bool:
    """Whether it was this key that took the task out of its stage; events that cannot be read do not deny it."""
    if change.leaves is None:
        return True
    events = project.output_events([change.task.task_id])[change.task.task_id]
    if isinstance(events, RedBrickAPIError):
        return True
    left = [event for event in events if event.stage_name == change.leaves and not event.is_edit]
    if not left:
        return True
    decided = None in {change.verdict, left[-1].accepted} or left[-1].accepted == change.verdict
    return left[-1].by == project.client.me() and decided
