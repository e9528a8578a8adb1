"""One stage of a project, for Python code that works on a few tasks by itself: what a labelling client has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.api.project import Name
from airflow_provider_redbrick.batch.checking import MODES
from airflow_provider_redbrick.batch.converting import Labels, read_body
from airflow_provider_redbrick.batch.handing import give, held, let_go, read_in_full, take
from airflow_provider_redbrick.batch.labelling import put_labels
from airflow_provider_redbrick.batch.outcome import Outcome, Status, Tally
from airflow_provider_redbrick.batch.people import check_people
from airflow_provider_redbrick.batch.reopen import reopen as batch_reopen
from airflow_provider_redbrick.batch.review import review_as_told
from airflow_provider_redbrick.batch.stage_work import StageWork
from airflow_provider_redbrick.batch.verdict import Review
from airflow_provider_redbrick.exceptions import RedBrickInputError, RedBrickTasksFailedError, readable
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.hooks.storage import open_file
from airflow_provider_redbrick.hooks.working import label_converter, working_stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

log = logging.getLogger(__name__)

_NAMED = 5


class RedBrickStageQueue:
    """The tasks of one stage: look at them, claim some, and submit, review or assign them.

    For many tasks the operators are better: they write a report, and know on a retry what an earlier try did. Here a
    task that has left the stage is skipped.

    What is changed here is changed once, whatever fails in between, and each method returns what happened to each
    task, by its id: ``done``, ``already_done``, or ``skipped`` with the reason. When a task failed, it raises after
    all were tried. Nothing to do is done at once. Labels are those that a labeler returns: an object with ``series``
    and/or ``classification``, or the older ``labels``, or a list of series. They are given in a mapping, which is read
    once; of one that is no ``dict``, each value is copied before the next is asked for.

    :param stage_name: the stage.
    :param validate: what becomes of labels that have problems: ``strict`` fails their task, ``warn`` logs what is wrong
        and sends them, ``off`` does not look.
    """

    def __init__(self, project: RedBrickProject, stage_name: str, *, validate: str = "strict") -> None:
        self._project = project
        self._stage_name = check.text("stage_name", stage_name)
        self._validate = check.one_of("validate", validate, MODES)

    # ------------------------------------------------------------------ looking

    def count(self) -> int:
        """Return how many tasks are in the stage, by the server's own count."""
        return self._project.count(self._stage)

    def tasks(
        self, *, assignee: str | None = None, state: str | None = None, unassigned: bool = False
    ) -> Iterator[Task]:
        """Yield the tasks that wait in the stage, page by page, without their labels and items.

        What was not read is None, and a question about it raises ``RedBrickNotReadError``: :meth:`read` tasks to know
        whether they have labels. A task that changes while the stage is listed comes once, or may be missed.

        :param assignee: only those of a person, by e-mail or user id, or of the API key itself: ``me``.
        :param state: only those in a state, e.g. ``STAGED`` (drafts).
        :param unassigned: only those that nobody holds and anybody may take.
        """
        if assignee is not None:
            check.text("assignee", assignee)
        state = check.task_state("state", state)
        check.flag("unassigned", unassigned)
        if unassigned and (assignee is not None or state not in {None, "UNASSIGNED"}):
            raise RedBrickInputError("What is unassigned has no assignee and no other state: ask for one or the other.")
        return self._project.list_tasks(self._stage, assignee=assignee, state=state, unassigned=unassigned)

    def mine(self) -> list[Task]:
        """Return the tasks that the API key holds in the stage, with their labels."""
        return list(held(self._project, self._stage, me=self._me))

    def find(self, name: str, *, prefix: bool = False) -> list[Task]:
        """Return the tasks of the stage with a name, without their labels and items; see :meth:`tasks`.

        :param prefix: return the tasks whose names begin like it. Case counts.
        """
        check.text("name", name)
        check.flag("prefix", prefix)
        return list(self._project.list_tasks(self._stage, name=Name(name, prefix=prefix)))

    def read(self, task_ids: Sequence[str]) -> Iterator[Task]:
        """Yield tasks with their items and labels, in the order of their ids, 25 a request.

        :param task_ids: tasks of the project, in whatever stage.
        :raises RedBrickAPIError: if one of them cannot be read.
        """
        return read_in_full(self._project, _ids(task_ids))

    # ------------------------------------------------------------------ claiming and assigning

    def claim(self, count: int) -> list[Task]:
        """Assign up to ``count`` tasks that nobody holds to the API key; return those it really has now, in full.

        What the key has already stays out: after a crash, :meth:`mine` has what was claimed before it.

        :raises RedBrickTasksFailedError: when there were tasks to claim, and all failed.
        """
        number = check.whole_number("count", count, low=1)
        if number is None:
            raise RedBrickInputError("count must be a whole number of at least 1, not None.")
        stage = self._assignable()
        found = list(take(self._project, stage, number, me=self._me))
        outcomes = [each for each in found if isinstance(each, Outcome)]
        claimed = [each for each in found if not isinstance(each, Outcome)]
        if not claimed:
            settled("claim", outcomes)
        for outcome in outcomes:
            log.warning("Task %s was not claimed: %s", outcome.task_id, readable(outcome.reason))
        return claimed

    def assign(self, task_ids: Sequence[str], email: str) -> dict[str, Outcome]:
        """Give tasks of the stage to a person, whoever holds them now.

        :raises RedBrickInputError: when the person is no member of the project or may not work in the stage.
        """
        check.text("email", email)
        ids = _ids(task_ids)
        stage = self._assignable()
        (user,) = check_people(self._project.members(), stage, [email]).values()
        return settled("assign", give(self._project, stage, ids, user))

    def release(self, task_ids: Sequence[str]) -> dict[str, Outcome]:
        """Unassign tasks that the API key holds, so that people can have them."""
        ids = _ids(task_ids)
        return settled("release", let_go(self._project, self._assignable(), ids, me=self._me))

    # ------------------------------------------------------------------ labels

    def submit(self, labels: Mapping[str, Any]) -> dict[str, Outcome]:
        """Put labels on tasks of a label stage and send them on to the next.

        :param labels: by task id.
        """
        read = _labels(labels)
        stage = self._workable()
        if stage.is_review:
            raise RedBrickInputError(
                f"{stage.name} is a review stage: correct() replaces labels there, and accepts them."
            )
        return settled("submit", put_labels(self._work(), read))

    def save_draft(self, labels: Mapping[str, Any]) -> dict[str, Outcome]:
        """Put labels on tasks and leave them where they are, assigned to the API key.

        :param labels: by task id.
        """
        read = _labels(labels)
        self._workable()
        return settled("save_draft", put_labels(self._work(), read, finished=False))

    def correct(self, labels: Mapping[str, Any]) -> dict[str, Outcome]:
        """Replace the labels of tasks in a review stage, and accept them so.

        :param labels: by task id.
        """
        read = _labels(labels)
        self._reviewable()
        return settled("correct", put_labels(self._work(), read))

    # ------------------------------------------------------------------ reviews

    def accept(self, task_ids: Sequence[str], *, comment: str | None = None) -> dict[str, Outcome]:
        """Accept tasks in a review stage as they are."""
        return self._review(task_ids, Review.accept(comment))

    def reject(self, task_ids: Sequence[str], *, comment: str | None = None) -> dict[str, Outcome]:
        """Send tasks in a review stage back to their labelers."""
        return self._review(task_ids, Review.reject(comment))

    # ------------------------------------------------------------------ private

    @property
    def _stage(self) -> Stage:
        return self._project.stage(self._stage_name)

    @property
    def _me(self) -> str:
        return self._project.client.me()

    def _workable(self) -> Stage:
        stage = working_stage(self._project, self._stage_name)
        if stage.is_remote:
            raise RedBrickInputError(f"{stage.name} is a remote-labeling stage: use RedBrickPrelabelOperator there.")
        return stage

    def _assignable(self) -> Stage:
        if self._project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project several people label each task, and this would take it from them."
            )
        return self._workable()

    def _reviewable(self) -> Stage:
        stage = self._workable()
        if not stage.is_review:
            raise RedBrickInputError(
                f"{stage.name} is no review stage: nothing is accepted, rejected or corrected there."
            )
        return stage

    def _work(self) -> StageWork:
        return StageWork(
            self._project,
            self._stage,
            label_converter(self._project, validate=self._validate),
            claim=not self._project.info.consensus,
        )

    def _review(self, task_ids: Sequence[str], decision: Review) -> dict[str, Outcome]:
        if decision.comment is not None:
            check.text("comment", decision.comment)
        ids = _ids(task_ids)
        self._reviewable()
        return settled(decision.decision, review_as_told(self._work(), dict.fromkeys(ids, decision)))


def reopen(project: RedBrickProject, task_ids: Sequence[str]) -> dict[str, Outcome]:
    """Send ground-truth tasks back to the first stage, with their labels."""
    ids = _ids(task_ids)
    project.open()
    return settled("reopen", batch_reopen(project, ids, me=project.client.me(), since=None))


def settled(operation: str, outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Carry outcomes out to the end and return them by task id.

    :raises RedBrickTasksFailedError: when a task failed, with the reasons.
    """
    tally = Tally()
    found: dict[str, Outcome] = {}
    for outcome in outcomes:
        tally.add(outcome)
        found[outcome.task_id] = outcome
        if outcome.status is Status.SKIPPED:
            log.warning("%s: task %s was left alone: %s", operation, outcome.task_id, readable(outcome.reason))
    if not tally.failed:
        return found
    reasons = [f"Task {each['task_id']}: {each['reason'].rstrip('.')}." for each in tally.failed[:_NAMED]]
    raise RedBrickTasksFailedError(" ".join([f"{operation}: of {tally.total} tasks {tally.words()}.", *reasons]))


def _ids(task_ids: object) -> list[str]:
    return [] if isinstance(task_ids, (list, tuple)) and not task_ids else check.task_ids(task_ids)


def _labels(labels: object) -> list[Labels]:
    """Read labels by task id.

    :raises RedBrickInputError: naming the task whose labels are none.
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
            # Any other mapping may make its values when it is asked for them, of one object or file for all of them.
            read[task_id] = given if isinstance(labels, dict) else given.copied_if_there(open_file)
        except RedBrickInputError as error:
            raise RedBrickInputError(f"labels[{task_id!r}]: {error}.") from None
    return list(read.values())
