"""Outcome of each task and the manifest that summarizes a run.

Invariants:

1. Every task handed to an operator ends in exactly one `Status`.
2. The counts of a manifest therefore add up to the number of tasks handed in.
3. `unknown` is never guessed away: it means that a change was sent and that no read could show whether it was applied.
4. A manifest is small whatever the number of tasks: lists are capped by `MAX_FAILED_SHOWN` and `MAX_TASK_IDS`. The
   full report has one row per task and is written separately.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickNotReadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.client.models.task import Task

SCHEMA_VERSION = 1
"""Version of the manifest's JSON schema."""

MAX_FAILED_SHOWN = 50
"""Failed or unknown tasks that a manifest lists, and different reasons for skipping that are counted."""

MAX_TASK_IDS = 1000
"""Ids of completed tasks that a manifest lists."""

_MAX_REASON_CHARS = 500


class Status(str, Enum):
    """Final status of one task."""

    DONE = "done"
    ALREADY_DONE = "already_done"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_bad(self) -> bool:
        """Whether the status counts against `fail_on`."""
        return self in {Status.FAILED, Status.UNKNOWN}

    @property
    def is_done(self) -> bool:
        """Whether the task is in the requested state."""
        return self in {Status.DONE, Status.ALREADY_DONE}


@dataclass(frozen=True)
class Outcome:
    """Outcome of one task.

    :param task_id: the task's id; empty if the task was never created or its id is not known.
    :param status: the final status.
    :param reason: why the task was skipped or failed (with the server's message), or what an earlier attempt had done.
    :param name: the task's name, if it was read.
    :param detail: further columns of the report, e.g. the assignee. They never replace the columns above.
    """

    task_id: str
    status: Status
    reason: str = ""
    name: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return the row of the report; `detail` cannot overwrite the standard columns."""
        row = {"task_id": self.task_id, "name": self.name, "status": self.status.value, "reason": self.reason}
        return {**row, **self.detail, **row}


def done(task_id: str, *, name: str = "", **detail: Any) -> Outcome:
    """Return the outcome of a task that this attempt changed.

    :param task_id: the task's id.
    :param name: the task's name, if known.
    :param detail: further columns of the report.
    """
    return Outcome(task_id, Status.DONE, "", name, detail)


def already_done(task_id: str, reason: str, *, name: str = "") -> Outcome:
    """Return the outcome of a task that an earlier attempt changed.

    :param task_id: the task's id.
    :param reason: what the earlier attempt did.
    :param name: the task's name, if known.
    """
    return Outcome(task_id, Status.ALREADY_DONE, reason, name)


def skipped(task_id: str, reason: str, *, name: str = "") -> Outcome:
    """Return the outcome of a task that was left unchanged without an error.

    :param task_id: the task's id.
    :param reason: why it was left unchanged.
    :param name: the task's name, if known.
    """
    return Outcome(task_id, Status.SKIPPED, reason, name)


def existing_labels_outcome(task: Task, *, me: str) -> Outcome | None:
    """Return the outcome of a task that must not be labeled again; None if it may be.

    A draft without labels, saved by this API key, counts as labeled: the key recorded that there is nothing to label.
    A task whose labels could not be read fails, so that nothing is overwritten.

    :param task: the task as read with its labels.
    :param me: user id of the API key.
    """
    try:
        has_labels = task.has_labels
    except RedBrickNotReadError as error:
        return failed_read(task.task_id, error, name=task.name)
    if has_labels:
        return skipped(task.task_id, "it already has labels and overwrite is off", name=task.name)
    if task.saved_by(me):
        reason = "the API key already saved it without labels and overwrite is off"
        return skipped(task.task_id, reason, name=task.name)
    return None


def failed(task_id: str, reason: object, *, name: str = "") -> Outcome:
    """Return the outcome of a task that was not changed; a retry attempts it again.

    :param task_id: the task's id; may be empty.
    :param reason: the error or its text.
    :param name: the task's name, if known.
    """
    return Outcome(task_id, Status.FAILED, str(reason), name)


EARLIER_ATTEMPTS = "The history of earlier attempts"
"""Subject of the message when the events of a task could not be read."""


def failed_read(task_id: str, error: object, *, what: str = "It", name: str = "") -> Outcome:
    """Return the outcome of a task that was not attempted because a read failed.

    :param task_id: the task's id.
    :param error: why the read failed.
    :param what: what could not be read, as the subject of the message. Default: the task itself.
    :param name: the task's name, if known.
    """
    return failed(task_id, f"{what} could not be read, and nothing was sent: {error}", name=name)


class Tally:
    """Count outcomes in memory that does not grow with their number.

    :ivar counts: number of tasks per status.
    :ivar failed: the first `MAX_FAILED_SHOWN` failed or unknown tasks, with id, name and reason.
    :ivar unknown: ids (or names) of the first `MAX_FAILED_SHOWN` unknown tasks.
    :ivar task_ids: the first `MAX_TASK_IDS` ids of completed tasks.
    :ivar skipped: number of skipped tasks per reason.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {status.value: 0 for status in Status}
        self.failed: list[dict[str, str]] = []
        self.unknown: list[str] = []
        self.task_ids: list[str] = []
        self.skipped: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Number of tasks counted so far."""
        return sum(self.counts.values())

    def summary(self) -> str:
        """Return the counts as text: ``3 done, 0 already done, ...``."""
        return ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in self.counts.items())

    def add(self, outcome: Outcome) -> None:
        """Count the outcome of one task."""
        self.counts[outcome.status.value] += 1
        if outcome.status is Status.UNKNOWN and len(self.unknown) < MAX_FAILED_SHOWN:
            self.unknown.append(outcome.task_id or outcome.name)
        if outcome.status.is_bad:
            if len(self.failed) < MAX_FAILED_SHOWN:
                row = {"task_id": outcome.task_id, "name": outcome.name, "reason": outcome.reason[:_MAX_REASON_CHARS]}
                self.failed.append(row)
        elif outcome.status is Status.SKIPPED:
            # Most reasons repeat. Those that name a person could be as many as there are tasks, so they are capped.
            if outcome.reason in self.skipped or len(self.skipped) < MAX_FAILED_SHOWN:
                self.skipped[outcome.reason] += 1
        elif outcome.status.is_done and len(self.task_ids) < MAX_TASK_IDS:
            self.task_ids.append(outcome.task_id)

    def manifest(
        self, *, operation: str, org_id: str, project_id: str, stage_name: str | None, report: str | None
    ) -> dict[str, Any]:
        """Return the summary of all outcomes as JSON-compatible values.

        :param operation: name of the operation, e.g. ``prelabel``.
        :param org_id: the organization.
        :param project_id: the project.
        :param stage_name: the stage that was worked on; None if the operation is not bound to one.
        :param report: URI of the full report; None if none was written.
        :return: ``counts`` has one number per status and adds up to the tasks handed in. ``failed`` holds the first 50
            failed or unknown tasks. ``task_ids`` holds the first 1,000 tasks completed by this attempt or an earlier
            one. The other keys are the arguments.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "operation": operation,
            "org_id": org_id,
            "project_id": project_id,
            "stage_name": stage_name,
            "counts": dict(self.counts),
            "failed": list(self.failed),
            "task_ids": list(self.task_ids),
            "report": report,
        }

    def fails(self, fail_on: str) -> bool:
        """Return whether the outcomes fail the Airflow task.

        :param fail_on: ``any`` (at least one task failed or is unknown), ``all`` (and none is done) or ``never``.
        """
        bad = sum(self.counts[status.value] for status in Status if status.is_bad)
        if fail_on == "all":
            return bad > 0 and not self.counts[Status.DONE.value] and not self.counts[Status.ALREADY_DONE.value]
        return fail_on == "any" and bad > 0
