"""Python API for a few tasks of one stage: list, claim, label, review, assign.

1. Each method applies each change once, whatever fails in between, and returns one outcome per task.
2. All tasks are attempted before a method raises for those that failed.
3. The API keeps no state between calls: after a crash, ``mine()`` returns the tasks that were claimed before it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.actions.balance import (
    assign_tasks,
    claim_tasks,
    list_held_tasks,
    read_in_full,
    release_tasks,
)
from airflow_provider_redbrick.actions.decision import Review
from airflow_provider_redbrick.actions.put_labels import put_labels
from airflow_provider_redbrick.actions.reopen import reopen as batch_reopen
from airflow_provider_redbrick.actions.review import apply_reviews
from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline, working_stage
from airflow_provider_redbrick.annotations.conversion import MODES, Converter, Labels, read_body
from airflow_provider_redbrick.assignments.assign import check_people
from airflow_provider_redbrick.client.models.parsing import Name, check_uuid
from airflow_provider_redbrick.engine.ledger import ledger_of
from airflow_provider_redbrick.engine.outcomes import Outcome, Status, Tally
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickTasksFailedError, truncate_message
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.hooks.files import open_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_redbrick.client.models.task import Task
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject


log = logging.getLogger(__name__)

_MAX_NAMED_TASKS = 5


class RedBrickStageQueue:
    """The tasks of one stage: list, read, claim, submit, review or assign them.

    For many tasks, use the operators: they write a report, and a retry recognizes what an earlier attempt did. Here a
    task that has left the stage is skipped.

    Methods that change tasks return the outcomes by task id: ``done``, ``already_done``, or ``skipped`` with a reason.
    If a task failed, they raise ``RedBrickTasksFailedError`` after all tasks were attempted. An empty input returns
    immediately. Labels are what a labeler returns: an object with ``series`` and/or ``classification``, or the older
    ``labels``, or a list of series. They are passed in a mapping, which is read once. If it is not a ``dict``, each
    value is copied before the next is read.

    :param project: the project of the stage.
    :param stage_name: the stage.
    :param validate: how to treat invalid labels. ``strict`` fails the task, ``warn`` logs the problems and sends the
        labels, ``off`` does not validate.
    """

    def __init__(self, project: RedBrickProject, stage_name: str, *, validate: str = "strict") -> None:
        self._project = project
        self._stage_name = validation.text("stage_name", stage_name)
        self._validate = validation.one_of("validate", validate, MODES)

    # ------------------------------------------------------------------ looking

    def count(self) -> int:
        """Return the number of tasks in the stage, as counted by the server."""
        return self._project.count(self._stage)

    def tasks(
        self, *, assignee: str | None = None, state: str | None = None, unassigned: bool = False
    ) -> Iterator[Task]:
        """Yield the tasks of the stage page by page, without labels and items.

        Fields that were not read are None, and properties that need them raise ``RedBrickNotReadError``. Use
        :meth:`read` to get labels. A task that changes during the listing is returned once or missed.

        :param assignee: only tasks of this person (email or user id), or of the API key (``me``). Default: any.
        :param state: only tasks in this state, such as ``STAGED`` (drafts). Default: any.
        :param unassigned: only unassigned tasks.
        :raises RedBrickInputError: if a parameter is invalid, or ``unassigned`` is combined with the others.
        """
        if assignee is not None:
            validation.text("assignee", assignee)
        state = validation.task_state("state", state)
        validation.flag("unassigned", unassigned)
        if unassigned and (assignee is not None or state not in {None, "UNASSIGNED"}):
            raise RedBrickInputError(
                "Unassigned tasks have no assignee and no other state. Give either unassigned or the other filters."
            )
        return self._project.list_tasks(self._stage, assignee=assignee, state=state, unassigned=unassigned)

    def mine(self) -> list[Task]:
        """Return the tasks of the stage that the API key holds, with their labels."""
        return list(list_held_tasks(self._project, self._stage, me=self._me))

    def find(self, name: str, *, prefix: bool = False) -> list[Task]:
        """Return the tasks of the stage with a name, without labels and items.

        :param name: the name. Case matters.
        :param prefix: whether to match names that start with ``name``.
        """
        validation.text("name", name)
        validation.flag("prefix", prefix)
        return list(self._project.list_tasks(self._stage, name=Name(name, prefix=prefix)))

    def read(self, task_ids: Sequence[str]) -> Iterator[Task]:
        """Yield tasks with items and labels in the given order, 25 per request.

        :param task_ids: tasks of the project, in any stage.
        :raises RedBrickAPIError: if a task cannot be read.
        """
        return read_in_full(self._project, _ids(task_ids))

    # ------------------------------------------------------------------ claiming and assigning

    def claim(self, count: int) -> list[Task]:
        """Assign up to ``count`` unassigned tasks to the API key.

        Tasks that the key already holds are not returned. After a crash, :meth:`mine` has the tasks claimed before it.

        :param count: maximum number of tasks, at least 1.
        :return: the claimed tasks with their labels, as re-read after the claim.
        :raises RedBrickTasksFailedError: if there were unassigned tasks and all claims failed.
        """
        number = validation.whole_number("count", count, low=1)
        if number is None:
            raise RedBrickInputError("count must be a whole number of at least 1, not None.")
        stage = self._assignable()
        found = list(claim_tasks(self._project, stage, number, me=self._me))
        outcomes = [item for item in found if isinstance(item, Outcome)]
        claimed = [item for item in found if not isinstance(item, Outcome)]
        if not claimed:
            collect_outcomes("claim", outcomes)
        for outcome in outcomes:
            log.warning("Task %s was not claimed: %s", outcome.task_id, truncate_message(outcome.reason))
        return claimed

    def assign(self, task_ids: Sequence[str], email: str) -> dict[str, Outcome]:
        """Assign tasks of the stage to a person, also if another person holds them.

        :param task_ids: the tasks.
        :param email: a member of the project with access to the stage.
        :raises RedBrickInputError: if the person is not a member or has no access to the stage.
        """
        validation.text("email", email)
        ids = _ids(task_ids)
        stage = self._assignable()
        (user,) = check_people(self._project.members(), stage, [email]).values()
        return collect_outcomes("assign", assign_tasks(self._project, stage, ids, user))

    def release(self, task_ids: Sequence[str]) -> dict[str, Outcome]:
        """Unassign tasks that the API key holds."""
        ids = _ids(task_ids)
        return collect_outcomes("release", release_tasks(self._project, self._assignable(), ids, me=self._me))

    # ------------------------------------------------------------------ labels

    def submit(self, labels: Mapping[str, Any]) -> dict[str, Outcome]:
        """Save labels on tasks of a label stage, and submit the tasks.

        :param labels: labels by task id.
        :raises RedBrickInputError: in a review stage; use :meth:`correct` there.
        """
        read = _labels(labels)
        stage = self._workable()
        if stage.is_review:
            raise RedBrickInputError(
                f"{stage.name!r} is a review stage. Use correct() to replace and accept labels there."
            )
        return collect_outcomes("submit", self._put(read))

    def save_draft(self, labels: Mapping[str, Any]) -> dict[str, Outcome]:
        """Save labels as drafts. The tasks stay assigned to the API key.

        :param labels: labels by task id.
        """
        read = _labels(labels)
        self._workable()
        return collect_outcomes("save_draft", self._put(read, finished=False))

    def correct(self, labels: Mapping[str, Any]) -> dict[str, Outcome]:
        """Replace the labels of tasks in a review stage, and accept the tasks.

        :param labels: labels by task id.
        """
        read = _labels(labels)
        self._reviewable()
        return collect_outcomes("correct", self._put(read))

    # ------------------------------------------------------------------ reviews

    def accept(self, task_ids: Sequence[str], *, comment: str | None = None) -> dict[str, Outcome]:
        """Accept tasks of a review stage unchanged.

        :param task_ids: the tasks.
        :param comment: comment for the audit trail. Default: none.
        """
        return self._review(task_ids, Review.accept(comment))

    def reject(self, task_ids: Sequence[str], *, comment: str | None = None) -> dict[str, Outcome]:
        """Send tasks of a review stage back to their labelers.

        :param task_ids: the tasks.
        :param comment: comment for the labelers. Default: none.
        """
        return self._review(task_ids, Review.reject(comment))

    # ------------------------------------------------------------------ private

    @property
    def _stage(self) -> Stage:
        return self._project.stage(self._stage_name)

    @property
    def _me(self) -> str:
        return self._project.client.me()

    def _workable(self) -> Stage:
        stage = working_stage(self._project, validation.text("stage_name", self._stage_name))
        if stage.is_remote:
            raise RedBrickInputError(f"{stage.name!r} is a remote-labeling stage. Use RedBrickPrelabelOperator there.")
        return stage

    def _assignable(self) -> Stage:
        if self._project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project several people label each task, and this would unassign all of them."
            )
        return self._workable()

    def _reviewable(self) -> Stage:
        stage = self._workable()
        if not stage.is_review:
            raise RedBrickInputError(
                f"{stage.name!r} is not a review stage. Tasks can be reviewed only in review stages."
            )
        return stage

    def _put(self, labels: Sequence[Labels], *, finished: bool = True) -> Iterator[Outcome]:
        work = self._work()
        return work.settled(put_labels(work, labels, finished=finished))

    def _work(self) -> StagePipeline:
        return StagePipeline(
            self._project,
            self._stage,
            Converter.for_project(self._project, open_file, validate=self._validate),
            claim=not self._project.info.consensus,
            ledger=ledger_of(self._project.client),
        )

    def _review(self, task_ids: Sequence[str], decision: Review) -> dict[str, Outcome]:
        if decision.comment is not None:
            validation.text("comment", decision.comment)
        ids = _ids(task_ids)
        self._reviewable()
        return collect_outcomes(decision.decision, apply_reviews(self._work(), dict.fromkeys(ids, decision)))


def reopen(project: RedBrickProject, task_ids: Sequence[str]) -> dict[str, Outcome]:
    """Send ground-truth tasks back to the first stage, with their labels.

    :param project: the project of the tasks.
    :param task_ids: the tasks.
    :return: the outcomes by task id.
    :raises RedBrickTasksFailedError: if a task failed. All tasks were attempted then.
    """
    ids = _ids(task_ids)
    project.open()
    return collect_outcomes("reopen", batch_reopen(project, ids, me=project.client.me(), first_attempt_at=None))


def collect_outcomes(operation: str, outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Consume all outcomes and return them by task id.

    :param operation: the operation, for messages.
    :param outcomes: one outcome per task. The work is done while they are consumed.
    :raises RedBrickTasksFailedError: if a task failed, with the first reasons.
    """
    tally = Tally()
    found: dict[str, Outcome] = {}
    for outcome in outcomes:
        tally.add(outcome)
        found[outcome.task_id] = outcome
        if outcome.status is Status.SKIPPED:
            log.warning("%s: task %s was skipped: %s", operation, outcome.task_id, truncate_message(outcome.reason))
    if not tally.failed:
        return found
    reasons = [f"Task {item['task_id']}: {item['reason'].rstrip('.')}." for item in tally.failed[:_MAX_NAMED_TASKS]]
    raise RedBrickTasksFailedError(" ".join([f"{operation}: of {tally.total} tasks {tally.summary()}.", *reasons]))


def _ids(task_ids: object) -> list[str]:
    return [] if isinstance(task_ids, (list, tuple)) and not task_ids else validation.task_id_list(task_ids)


def _labels(labels: object) -> list[Labels]:
    """Parse labels by task id.

    :raises RedBrickInputError: with the task id, if labels are invalid.
    """
    if not isinstance(labels, Mapping):
        raise RedBrickInputError(f"labels must be an object with labels by task id, not {type(labels).__name__}.")
    read: dict[str, Labels] = {}
    for key, body in labels.items():
        task_id = check_uuid("A key of labels", key)
        if task_id in read:
            raise RedBrickInputError(f"labels has two entries for task {task_id}. Nothing was sent.")
        try:
            given = Labels(task_id, read_body(body))
            # Another mapping may create its values on access, and reuse one object or file for all of them.
            read[task_id] = given if isinstance(labels, dict) else given.copied_if_there(open_file)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"labels[{task_id!r}]: {error}.") from None
    return list(read.values())
