"""What each operator is given to do under bad conditions, and how the server must look when it is done.

A work seeds its tasks, makes fresh operators (one for each try), and then counts on the server. Beside the tasks to be
worked on there are always some that are somebody else's: nothing of them may change. Labels carry their task's number,
so that an answer or a label that ends up on the wrong task is seen.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator, Review
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_process import SandboxProcess

PUT = "putManualLabelingTaskAndLabels"
REVIEW = "putExpertReviewTask"
ASSIGN = "assignTasksMultipleUsers"
REOPEN = "moveTaskToStart"
CREATE = "createDatapoint"
PEOPLE = ["alice@example.com", "bob@example.com", "carol@example.com"]
STORAGE = "0a9c6e10-5b1d-4c8e-9f00-00000000abcd"
STRANGERS = 20
DAY = ("2026-03-14T00:00:00+00:00", "2026-03-14T12:00:00+00:00", "2026-03-15T00:00:00+00:00")
WRONG = [{"category": "finding", "bbox2d": {"xnorm": 0.9, "ynorm": 0.9, "wnorm": 0.05, "hnorm": 0.05}}]

_ALL = """query ($o: UUID!, $p: UUID!, $after: String) {
    genericTasks(orgId: $o, projectId: $p, first: 500, after: $after) { cursor entries {
        taskId currentStageName datapoint { name } latestTaskData { labelsData }
        currentStageSubTask { ... on LabelingTask { state assignedTo { userId email } } } } } }"""

_DELETE = (
    "mutation ($o: UUID!, $p: UUID!, $ids: [UUID!]!) { deleteTasks(orgId: $o, projectId: $p, taskIds: $ids) { ok } }"
)


@dataclass(frozen=True)
class Seen:
    """A task as the server has it; ``holder`` is an e-mail, the key's own name, or None."""

    name: str
    stage: str
    state: str | None
    holder: str | None
    labels: str


def look(sandbox: SandboxProcess) -> dict[str, Seen]:
    """Read all tasks there are, by id."""
    found: dict[str, Seen] = {}
    after = None
    while True:
        ids = {"o": sandbox.org_id, "p": sandbox.project_id, "after": after}
        page = sandbox.graphql(_ALL, ids)["genericTasks"]
        for entry in page["entries"]:
            work = entry["currentStageSubTask"] or {}
            user = work.get("assignedTo") or {}
            labels = (entry["latestTaskData"] or {}).get("labelsData") or "[]"
            holder = user.get("email") or user.get("userId")
            name = entry["datapoint"]["name"]
            found[entry["taskId"]] = Seen(name, entry["currentStageName"], work.get("state"), holder, labels)
        after = page["cursor"]
        if after is None:
            return found


def box(name: str) -> dict[str, Any]:
    """Return a box, in the series format, that tells which task it is for."""
    corner = {"xNorm": place(name), "yNorm": 0.25}
    return {"pointTopLeft": corner, "wNorm": 0.125, "hNorm": 0.25, "category": "finding"}


def place(name: str) -> float:
    """Return where the box of a task begins."""
    return round(0.1 + int(name.rsplit("-", 1)[1]) / 10_000, 4)


def boxes(seen: Seen) -> list[float]:
    """Return where the boxes on a task begin."""
    return [label["bbox2d"]["xnorm"] for label in json.loads(seen.labels)]


class Work:
    """One operator's work on ``count`` tasks.

    ``requests`` is how many a try makes for a hundred tasks, at least; ``changes`` are the mutations that do the work.
    """

    stage: ClassVar[str] = "Label"
    to: ClassVar[str] = "Review_1"
    strangers_hold: ClassVar[str] = PEOPLE[0]
    requests: ClassVar[int] = 20
    changes: ClassVar[frozenset[str]] = frozenset({PUT, REVIEW, REOPEN, CREATE})

    def __init__(self, sandbox: SandboxProcess, count: int) -> None:
        self.sandbox = sandbox
        self.count = count
        strangers = set(self.seed_strangers())
        self.ids = self.seed()
        self.before = look(sandbox)
        self.strangers = {task_id: self.before[task_id] for task_id in strangers}
        self.taken: set[str] = set()
        self.excused: set[str] = set()
        self.choosy = False
        self.deleted = 0

    def seed_strangers(self) -> list[str]:
        return self.sandbox.seed_tasks(STRANGERS, stage=self.stage, assignee=self.strangers_hold, prefix="theirs")

    def seed(self) -> list[str]:
        return self.sandbox.seed_tasks(self.count, stage=self.stage)

    def skips(self, name: str) -> bool:
        """Whether a model or a reviewer leaves a task alone; only if it is ``choosy``."""
        return self.choosy and name.endswith("7")

    def operator(self) -> Any:
        """Make the operator of one try."""
        raise NotImplementedError

    def mutations(self, seen: Seen) -> set[str]:
        """Say which mutations must have been applied to a task."""
        raise NotImplementedError

    def wrong(self, before: Seen, after: Seen) -> str | None:
        """Say what is wrong with a task now, if anything."""
        raise NotImplementedError

    def untouched(self) -> int:
        """Count the tasks that have still to be worked on."""
        applied = self.sandbox.stats()["applied"].values()
        return self.count - sum(1 for mutations in applied if mutations.keys() & self.changes)

    def reach(self) -> int:
        """Say how many requests a try is certain to make, if nothing goes wrong."""
        return 3 + self.requests * self.untouched() // 100

    def delete(self, task_id: str) -> None:
        """Let somebody else delete a task."""
        ids = {"o": self.sandbox.org_id, "p": self.sandbox.project_id, "ids": [task_id]}
        self.sandbox.graphql(_DELETE, ids)
        self.ids.remove(task_id)
        del self.before[task_id]
        self.deleted += 1

    def leave(self, task_ids: Iterable[str]) -> None:
        """Take tasks out of the work: somebody else has them now, and nothing else may have happened to them."""
        for task_id in task_ids:
            self.ids.remove(task_id)
            self.taken.add(task_id)

    def excuse(self, said: str) -> None:
        """Let those tasks stay claimed that nothing was done to and that, as was ``said``, could not be given back."""
        named = set(re.findall(r"Task (\S+) stays assigned to the API key", said))
        applied = self.sandbox.stats()["applied"]
        self.excused = {i for i in named if i in self.before and applied[i].keys() == {ASSIGN}}

    # -- counting ------------------------------------------------------------------------------

    def complaints(self, *, often: int = 1) -> list[str]:
        """Count on the server, and say everything that is not as promised.

        :param often: how often the work may have been done to a task.
        """
        after, applied = look(self.sandbox), self.sandbox.stats()["applied"]
        found = [f"{task_id} is lost" for task_id in self.before if task_id not in after]
        found += [
            f"{task_id} was nobody's to take: {seen} is now {after.get(task_id)}, by {applied.get(task_id)}"
            for task_id, seen in self.strangers.items()
            if after.get(task_id) != seen or task_id in applied
        ]
        found += [
            f"{i} is still claimed: {seen}"
            for i, seen in after.items()
            if (seen.holder or "").startswith("API:") and i not in self.excused
        ]
        found += [f"unheard-of: {i}" for i in after if i not in self.before and i not in self.new(after)]
        found += [
            f"{task_id} was taken, and is now {after[task_id]}, by {applied[task_id]}"
            for task_id in self.taken
            if replace(after[task_id], holder=None, state="UNASSIGNED") != self.before[task_id]
            or after[task_id].holder != self.strangers_hold
            or applied[task_id].keys() != {ASSIGN}
        ]
        for task_id in self.targets(after):
            found += self._of_one(task_id, after[task_id], dict(applied.get(task_id, {})), often)
        return found

    def targets(self, after: dict[str, Seen]) -> list[str]:
        """Return the ids of the tasks that were to be worked on."""
        return [task_id for task_id in self.ids if task_id in after]

    def new(self, after: dict[str, Seen]) -> set[str]:
        """Return the ids of tasks that were to be made."""
        return set()

    def _of_one(self, task_id: str, after: Seen, applied: dict[str, int], often: int) -> list[str]:
        before = self.before.get(task_id, after)
        wanted = self.mutations(before)
        if ASSIGN not in wanted:
            # Claiming and giving back change nothing that lasts: how often is not promised.
            applied.pop(ASSIGN, None)
        right = applied.keys() == wanted and all(1 <= applied[name] <= often for name in wanted)
        problems = [] if right else [f"{task_id} got {applied}, not {wanted}"]
        problem = None if task_id in self.excused else self.wrong(before, after)
        return [*problems, f"{task_id} {problem}: {after}"] if problem else problems


class PrelabelSubmit(Work):
    """A model's labels go on with the tasks; the queue is looked up by the operator."""

    write: ClassVar[str] = "submit"

    def operator(self) -> Any:
        def labeler(task: Any) -> Any:
            return None if self.skips(task.name) else [_series(task)]

        return RedBrickPrelabelOperator(task_id="work", stage_name="Label", labeler=labeler, write=self.write)

    def mutations(self, seen: Seen) -> set[str]:
        return set() if self.skips(seen.name) else {PUT}

    def wrong(self, before: Seen, after: Seen) -> str | None:
        if self.skips(before.name):
            return _misplaced(after, "Label", "UNASSIGNED", boxes=[])
        return _misplaced(after, self.to, "UNASSIGNED", boxes=[place(before.name)])


class PrelabelDrafts(PrelabelSubmit):
    """A model's labels become drafts, and people get the tasks."""

    write = "draft_and_release"
    to = "Label"


class PutLabels(Work):
    """Finished labels, half of them by the tasks' ids and half by their names."""

    def operator(self) -> Any:
        tasks = [
            {**({"taskId": i} if n % 2 else {"name": self.before[i].name}), "series": [_series(self.before[i])]}
            for n, i in enumerate(self.ids)
        ]
        return RedBrickPutLabelsOperator(task_id="work", stage_name="Label", tasks=tasks)

    def mutations(self, seen: Seen) -> set[str]:
        return {PUT}

    def wrong(self, before: Seen, after: Seen) -> str | None:
        return _misplaced(after, self.to, "UNASSIGNED", boxes=[place(before.name)])


class AutoReview(Work):
    """A third is accepted, a third rejected, a third corrected."""

    stage = "Review_1"
    strangers_hold = PEOPLE[1]

    def seed(self) -> list[str]:
        return self.sandbox.seed_tasks(self.count, stage=self.stage, labels=WRONG)

    def operator(self) -> Any:
        def reviewer(task: Any) -> Review:
            if self.skips(task.name):
                return Review.leave()
            return (Review.accept(), Review.reject("Not so."), Review.correct([_series(task)]))[_third(task.name)]

        return RedBrickAutoReviewOperator(task_id="work", stage_name="Review_1", reviewer=reviewer)

    def mutations(self, seen: Seen) -> set[str]:
        if self.skips(seen.name):
            return set()
        return {PUT} if _third(seen.name) == 2 else {REVIEW}

    def wrong(self, before: Seen, after: Seen) -> str | None:
        third = _third(before.name)
        if self.skips(before.name):
            return _misplaced(after, "Review_1", "UNASSIGNED", boxes=boxes(before))
        if third == 1:
            # It goes back to whoever labeled it.
            return _misplaced(after, "Label", "ASSIGNED", boxes=boxes(before), holders=PEOPLE)
        return _misplaced(after, "END", None, boxes=[place(before.name)] if third else boxes(before))


class Balance(Work):
    """A queue is shared among three people, one of whom has tasks already."""

    requests = 2
    changes = frozenset({ASSIGN})

    def operator(self) -> Any:
        return RedBrickBalanceAssignmentsOperator(task_id="work", stage_name="Label", emails=PEOPLE)

    def mutations(self, seen: Seen) -> set[str]:
        return {ASSIGN}

    def wrong(self, before: Seen, after: Seen) -> str | None:
        return _misplaced(after, "Label", "ASSIGNED", boxes=[], holders=PEOPLE)

    def complaints(self, *, often: int = 1) -> list[str]:
        queues = Counter(seen.holder for seen in look(self.sandbox).values())
        even = max(queues.values()) - min(queues[email] for email in PEOPLE) <= 1 + self.deleted
        return [*super().complaints(often=often), *([] if even else [f"the queues are uneven: {queues}"])]


class Reopen(Work):
    """A day's ground truth goes back for correction, with its labels; other days' stays."""

    stage = "END"

    def seed_strangers(self) -> list[str]:
        return self.sandbox.seed_tasks(STRANGERS, ground_truth=True, updated_at=DAY[2], labels=WRONG, prefix="theirs")

    def seed(self) -> list[str]:
        return self.sandbox.seed_tasks(self.count, ground_truth=True, updated_at=DAY[1], labels=WRONG)

    def operator(self) -> Any:
        return RedBrickReopenGroundTruthOperator(
            task_id="work", selector=lambda _task: True, updated_after=DAY[0], updated_before=DAY[2]
        )

    def mutations(self, seen: Seen) -> set[str]:
        return {REOPEN}

    def wrong(self, before: Seen, after: Seen) -> str | None:
        return _misplaced(after, "Label", "UNASSIGNED", boxes=boxes(before))


class Upload(Work):
    """New tasks with labels; some of the names are there already."""

    requests = 100

    def seed(self) -> list[str]:
        self.names = [f"study-{number:04d}" for number in range(self.count)]
        return []

    def operator(self) -> Any:
        tasks = [
            {"name": name, "series": [{"items": f"{name}.dcm", "boundingBoxes": [box(name)]}]}
            for name in [*self.names, *(seen.name for seen in self.strangers.values())]
        ]
        return RedBrickUploadTasksOperator(task_id="work", tasks=tasks, storage_id=STORAGE)

    def new(self, after: dict[str, Seen]) -> set[str]:
        return {task_id for task_id, seen in after.items() if seen.name in self.names}

    def targets(self, after: dict[str, Seen]) -> list[str]:
        return sorted(self.new(after))

    def mutations(self, seen: Seen) -> set[str]:
        return {CREATE}

    def wrong(self, before: Seen, after: Seen) -> str | None:
        return _misplaced(after, "Label", "UNASSIGNED", boxes=[place(before.name)])

    def complaints(self, *, often: int = 1) -> list[str]:
        counts = Counter(seen.name for seen in look(self.sandbox).values())
        twins = [f"{name} is there {counts[name]} times" for name in self.names if counts[name] != 1]
        return [*super().complaints(often=often), *twins]


WORKS = {
    "prelabel-submit": PrelabelSubmit,
    "prelabel-draft": PrelabelDrafts,
    "put-labels": PutLabels,
    "auto-review": AutoReview,
    "balance": Balance,
    "reopen": Reopen,
    "upload": Upload,
}


def _series(task: Any) -> dict[str, Any]:
    return {"boundingBoxes": [box(task.name)]}


def _third(name: str) -> int:
    return int(name.rsplit("-", 1)[1]) % 3


def _misplaced(
    after: Seen, stage: str, state: str | None, *, boxes: list[float], holders: list[str] | None = None
) -> str | None:
    if after.stage != stage:
        return f"is not in {stage}"
    if after.state != state or after.holder not in (holders or [None]):
        return f"is in the wrong hands, not {state} of {holders}"
    there = [label["bbox2d"]["xnorm"] for label in json.loads(after.labels)]
    return None if there == boxes else f"has boxes at {there}, not {boxes}"
