"""Working through tasks of one stage: look, claim, decide, apply, release."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.assigning import claim, release_quietly
from airflow_provider_redbrick.batch.change import Change, apply_all
from airflow_provider_redbrick.batch.outcome import Outcome, Status, already_done, failed, skipped
from airflow_provider_redbrick.batch.reading import read_in_chunks
from airflow_provider_redbrick.exceptions import RedBrickAPIError

if TYPE_CHECKING:
    import pendulum

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

log = logging.getLogger(__name__)

Plan = Callable[[Sequence[Task]], Sequence["Change | Outcome"]]
"""Decides what to do with tasks that are ours to work on: for each a change to apply, or its outcome."""


@dataclass(frozen=True)
class StageWork:
    """How one operator works on the tasks of a stage.

    :param claim: assign unowned tasks to the API key first.
    :param take_from_people: also take tasks that a person holds.
    :param since: on a retry, when the run began: what this key did to a task since then, an earlier try did.
    :param full: read items and labels too, for a callable that wants to see them.
    :param saved_counts: a task this key has saved labels on since then counts as done, though it is still here.
    :param only_unlabelled: leave tasks alone that have labels; goes with ``full``.
    :param may_hold: the tasks that may be worked on when this key holds them already; None for all. Any other one is
        in the hands of another run with the same key.
    """

    project: RedBrickProject
    stage: Stage
    claim: bool = True
    take_from_people: bool = False
    since: pendulum.DateTime | None = None
    full: bool = False
    saved_counts: bool = False
    only_unlabelled: bool = False
    may_hold: Collection[str] | None = None
    me: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "me", self.project.client.me())

    def run(self, task_ids: Iterable[str], plan: Plan) -> Iterator[Outcome]:
        """Work on tasks and yield the outcome of each, exactly one a task."""
        for found in read_in_chunks(self.project, task_ids, full=self.full):
            yield from self._work_on(found, plan)

    def _work_on(self, found: Mapping[str, Task | RedBrickAPIError], plan: Plan) -> Iterator[Outcome]:
        ours, to_claim, outcomes = self._sort(found)
        yield from outcomes
        claimed: list[str] = []
        finished: set[str] = set()
        try:
            # Before the request goes out: a claim whose answer is lost is ours to release all the same.
            claimed = [task.task_id for task in to_claim]
            refused = claim(self.project, to_claim, me=self.me)
            for task in to_claim:
                problem = refused[task.task_id]
                if problem is None:
                    ours.append(task)
                    continue
                ending = skipped if problem.taken else failed
                yield ending(task.task_id, f"It could not be claimed: {problem}", name=task.name)
            for outcome in self._apply(plan, ours):
                if outcome.status in {Status.DONE, Status.ALREADY_DONE}:
                    finished.add(outcome.task_id)
                yield outcome
        finally:
            release_quietly(self.project, [i for i in claimed if i not in finished], me=self.me)

    def _apply(self, plan: Plan, tasks: Sequence[Task]) -> Iterator[Outcome]:
        changes = []
        for step in plan(tasks) if tasks else ():
            if isinstance(step, Outcome):
                yield step
            else:
                changes.append(step)
        yield from apply_all(self.project, changes)

    def _sort(self, found: Mapping[str, Task | RedBrickAPIError]) -> tuple[list[Task], list[Task], list[Outcome]]:
        """Split tasks into ours already, to be claimed, and those that end here."""
        ours: list[Task] = []
        to_claim: list[Task] = []
        left: list[Task] = []
        outcomes: list[Outcome] = []
        for task_id, task in found.items():
            if isinstance(task, RedBrickAPIError):
                outcomes.append(failed(task_id, f"It could not be read, and nothing was sent: {task}"))
            elif not task.is_queued_in(self.stage.public_name):
                left.append(task)
            elif self._was_saved(task):
                outcomes.append(already_done(task_id, "an earlier try saved its labels", name=task.name))
            elif self.only_unlabelled and task.has_labels:
                outcomes.append(skipped(task_id, "it has labels already; overwrite is off", name=task.name))
            elif task.state == "PROBLEM":
                outcomes.append(skipped(task_id, "it has an open issue, which an admin must resolve", name=task.name))
            elif self._is_mine(task) and self.may_hold is not None and task_id not in self.may_hold:
                outcomes.append(skipped(task_id, "another run with this API key has it", name=task.name))
            elif self._is_mine(task) or (task.assignee is None and not self.claim):
                ours.append(task)
            elif task.assignee is None or self.take_from_people:
                to_claim.append(task)
            else:
                reason = f"it is {task.where}; take_from_people is off"
                outcomes.append(skipped(task_id, reason, name=task.name))
        return ours, to_claim, [*outcomes, *self._explain(left)]

    def _is_mine(self, task: Task) -> bool:
        return task.assignee is not None and task.assignee.user_id == self.me

    def _was_saved(self, task: Task) -> bool:
        """Whether an earlier try saved labels on this task, which is still where it was."""
        if not self.saved_counts or self.since is None or task.labels_by is None or task.labels_at is None:
            return False
        return task.labels_by.user_id == self.me and task.labels_at >= self.since

    def _explain(self, left: Sequence[Task]) -> list[Outcome]:
        """Say of tasks that are not in the stage whether an earlier try of this run moved them on."""
        moved = moved_since(
            self.project, [task.task_id for task in left], self.stage.public_name, me=self.me, since=self.since
        )
        return [
            already_done(task.task_id, f"an earlier try moved it on; it is {task.where}", name=task.name)
            if task.task_id in moved
            else skipped(task.task_id, f"it is {task.where}, not waiting in {self.stage.public_name}", name=task.name)
            for task in left
        ]


def moved_since(
    project: RedBrickProject,
    task_ids: Sequence[str],
    stage_name: str,
    *,
    me: str,
    since: pendulum.DateTime | None,
) -> set[str]:
    """Return the tasks that left a stage by this key's doing since a time; none when there is no such time.

    It only decides between two words for "nothing to do", so events that cannot be read prove nothing and break
    nothing.
    """
    if since is None or not task_ids:
        return set()
    try:
        found = project.output_events(task_ids)
    except RedBrickAPIError as error:
        log.warning("What earlier tries did could not be read: %s", error)
        return set()
    return {
        task_id
        for task_id, events in found.items()
        if not isinstance(events, RedBrickAPIError)
        and any(e.stage_name == stage_name and e.by == me and e.at is not None and e.at >= since for e in events)
    }
