"""What happened to each task, and the manifest that sums it up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickNotReadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_redbrick.api.models import Task

SCHEMA_VERSION = 1
MAX_FAILED_SHOWN = 50
MAX_TASK_IDS = 1000


class Status(str, Enum):
    """The five ways a task can end; each task handed in ends in exactly one."""

    DONE = "done"
    ALREADY_DONE = "already_done"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_bad(self) -> bool:
        """Whether somebody should know of it."""
        return self in {Status.FAILED, Status.UNKNOWN}

    @property
    def is_done(self) -> bool:
        """Whether the task is as it was to be."""
        return self in {Status.DONE, Status.ALREADY_DONE}


@dataclass(frozen=True)
class Outcome:
    """What happened to one task.

    :param reason: why it was skipped or failed (then with the server's words), or what was found already done.
    :param detail: what else is worth a place in the report, e.g. who the task was given to.
    """

    task_id: str
    status: Status
    reason: str = ""
    name: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return the row of the report."""
        row = {"task_id": self.task_id, "name": self.name, "status": self.status.value, "reason": self.reason}
        return {**row, **self.detail, **row}


def done(task_id: str, *, name: str = "", **detail: Any) -> Outcome:
    """Return the outcome of a task that this try changed."""
    return Outcome(task_id, Status.DONE, "", name, detail)


def already_done(task_id: str, reason: str, *, name: str = "") -> Outcome:
    """Return the outcome of a task that an earlier try changed."""
    return Outcome(task_id, Status.ALREADY_DONE, reason, name)


def skipped(task_id: str, reason: str, *, name: str = "") -> Outcome:
    """Return the outcome of a task left alone, for a reason that is not an error."""
    return Outcome(task_id, Status.SKIPPED, reason, name)


def labelled(task: Task, *, me: str) -> Outcome | None:
    """Return the outcome of a task that was labelled before, if only to say that there is nothing on it.

    Of a task whose labels are not known nothing is overwritten.
    """
    try:
        has_labels = task.has_labels
    except RedBrickNotReadError as error:
        return unread(task.task_id, error, name=task.name)
    if has_labels:
        return skipped(task.task_id, "it has labels already; overwrite is off", name=task.name)
    if task.saved_by(me):
        words = "this key has looked at it already and found nothing; overwrite is off"
        return skipped(task.task_id, words, name=task.name)
    return None


def failed(task_id: str, reason: object, *, name: str = "") -> Outcome:
    """Return the outcome of a task tried without success; a retry tries it again."""
    return Outcome(task_id, Status.FAILED, str(reason), name)


EARLIER = "What earlier tries did to it"


def unread(task_id: str, error: object, *, what: str = "It", name: str = "") -> Outcome:
    """Return the outcome of a task of which could not even be read what must be known first."""
    return failed(task_id, f"{what} could not be read, and nothing was sent: {error}", name=name)


class Tally:
    """Counts outcomes as they come, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {status.value: 0 for status in Status}
        self.failed: list[dict[str, str]] = []
        self.unknown: list[str] = []
        self.task_ids: list[str] = []
        self.skipped: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many tasks were handed in."""
        return sum(self.counts.values())

    def words(self) -> str:
        """Return the counts for people: ``3 done, 0 already done, ...``."""
        return ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in self.counts.items())

    def add(self, outcome: Outcome) -> None:
        """Count one task's outcome."""
        self.counts[outcome.status.value] += 1
        if outcome.status is Status.UNKNOWN and len(self.unknown) < MAX_FAILED_SHOWN:
            self.unknown.append(outcome.task_id or outcome.name)
        if outcome.status.is_bad:
            if len(self.failed) < MAX_FAILED_SHOWN:
                shown = {"task_id": outcome.task_id, "name": outcome.name, "reason": outcome.reason[:500]}
                self.failed.append(shown)
        elif outcome.status is Status.SKIPPED:
            # Nearly all reasons are alike; the few that name somebody must not become many.
            if outcome.reason in self.skipped or len(self.skipped) < MAX_FAILED_SHOWN:
                self.skipped[outcome.reason] += 1
        elif outcome.status.is_done and len(self.task_ids) < MAX_TASK_IDS:
            self.task_ids.append(outcome.task_id)

    def manifest(
        self, *, operation: str, org_id: str, project_id: str, stage_name: str | None, report: str | None
    ) -> dict[str, Any]:
        """Return the small, JSON-able sum of all outcomes.

        :return: ``counts`` has one number per status and adds up to the tasks handed in; ``failed`` holds the first 50
            that failed or are unknown; ``task_ids`` the first 1,000 that are done by this try or an earlier one;
            ``report`` the URI of the full report, if one was written.
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
        """Whether these outcomes fail the Airflow task, for ``fail_on`` ``any``, ``all`` or ``never``."""
        bad = sum(self.counts[status.value] for status in Status if status.is_bad)
        if fail_on == "all":
            return bad > 0 and not self.counts[Status.DONE.value] and not self.counts[Status.ALREADY_DONE.value]
        return fail_on == "any" and bad > 0
