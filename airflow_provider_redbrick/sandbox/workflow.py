"""The state machine of one task. Pure: values in, values out; no storage, no clock, no randomness of its own.

Every function answers a `Step`: the task as it is afterwards, and the facts to be kept in its audit trail.
What is not allowed raises `RefusalError`, and then nothing has happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_redbrick.sandbox.flow import ARCHIVED, GROUND_TRUTH, RESTING, Flow, RefusalError, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNASSIGNED = "UNASSIGNED"
ASSIGNED = "ASSIGNED"
STAGED = "STAGED"
PROBLEM = "PROBLEM"
COMPLETED = "COMPLETED"

SYSTEM = "RB:SYSTEM"


class Work(NamedTuple):
    """One person's part in a task: in consensus projects there are several, else one at most."""

    user: str
    state: str = ASSIGNED
    assigned_at: str | None = None
    saved_at: str | None = None
    completed_at: str | None = None
    time_ms: int = 0
    version: str | None = None


class Task(NamedTuple):
    """Where a task is, who holds it, and where it is on its way to.

    `stage` is a stage's name, "END" (ground truth) or "ARCHIVED". `heading` and `arrives_at` are set between a
    submit and the arrival in the next stage. `labelers` remembers who did each label stage, for the way back.
    """

    task_id: str
    stage: str
    state: str | None = UNASSIGNED
    works: tuple[Work, ...] = ()
    updated_at: str = ""
    heading: str | None = None
    arrives_at: str | None = None
    goes_back: bool = False
    pre_assign: Mapping[str, tuple[str, ...]] = {}
    labelers: Mapping[str, tuple[str, ...]] = {}
    review_state: str | None = None
    cycle: int = 0

    @property
    def holders(self) -> tuple[str, ...]:
        """User ids of those who hold the task, in the order they were given it."""
        return tuple(work.user for work in self.works)


class Fact(NamedTuple):
    """One entry of the audit trail: kind is create, input, output, state or done; `data` its details."""

    kind: str
    at: str
    actor: str
    data: Mapping[str, Any]


class Step(NamedTuple):
    """What an action made of a task, and what is to be remembered of it."""

    task: Task
    facts: tuple[Fact, ...] = ()


class Doing(NamedTuple):
    """Who acts, when, and when a task that leaves its stage now arrives in the next one.

    `must_hold` says whether the actor has to hold the task he works on.
    """

    actor: str
    now: str
    arrival: str
    must_hold: bool = True


def create(
    flow: Flow,
    task_id: str,
    doing: Doing,
    *,
    ground_truth: bool = False,
    pre_assign: Mapping[str, tuple[str, ...]] | None = None,
    priority: float | None = None,
) -> Step:
    """Make a new task: it runs through the input stage at once, or is ground truth from the start."""
    born = Fact(
        "create",
        doing.now,
        doing.actor,
        {"currentStageName": flow.entry, "isGroundTruth": ground_truth, "priority": priority},
    )
    task = Task(
        task_id,
        flow.entry,
        updated_at=doing.now,
        heading=GROUND_TRUTH if ground_truth else flow.begin(),
        arrives_at=doing.now,
        pre_assign=dict(pre_assign or {}),
    )
    arrived = arrive(flow, task, doing.now)
    return Step(arrived.task, (born, *arrived.facts))


def arrive(flow: Flow, task: Task, now: str) -> Step:
    """Let a task that is on its way reach the next stage, if its time has come; else nothing changes."""
    if task.arrives_at is None or task.arrives_at > now:
        return Step(task)
    at = task.arrives_at
    place = flow.rest(task.heading, task.task_id)
    rests = flow.find(place) is not None
    # Each pre-assignment counts once, or a task that comes back would be taken from its labeler.
    waiting = {stage: users for stage, users in task.pre_assign.items() if stage != place}
    users = task.labelers.get(place, ()) if task.goes_back else task.pre_assign.get(place, ())
    here = task._replace(
        stage=place,
        state=UNASSIGNED if rests else None,
        works=(),
        updated_at=at,
        heading=None,
        arrives_at=None,
        goes_back=False,
        pre_assign=waiting,
    )
    came = Fact("input", at, SYSTEM, {"currentStageName": place})
    if not users or not rests:
        return Step(here, (came,))
    given = _hold(here, tuple(Work(user, ASSIGNED, assigned_at=at) for user in users), at)
    return Step(given, (came, _change(flow, here, given, at, SYSTEM)))


def assign(flow: Flow, task: Task, users: Sequence[str], doing: Doing, *, refresh: bool = True) -> Step | None:
    """Give a task to people (none: release it). None when it is nowhere where it could be assigned.

    With `refresh` those who hold it lose it. Without, a consensus task gets them in addition, and any other
    task is only given away when nobody holds it. Giving it to those who have it already changes nothing.
    """
    stage = flow.find(task.stage)
    if stage is None or not (stage.is_label or stage.is_review) or task.state == COMPLETED:
        return None
    several = flow.consensus and stage.is_label
    if len(users) > 1 and not several:
        raise RefusalError("only the label stages of a consensus project take more than one assignee")
    wanted = tuple(dict.fromkeys(users))
    if not refresh:
        if task.works and not several:
            return None
        wanted = tuple(dict.fromkeys((*task.holders, *wanted)))
    if wanted == task.holders and (wanted or task.state == UNASSIGNED):
        return Step(task)
    kept = {work.user: work for work in task.works}
    works = tuple(kept.get(user) or Work(user, ASSIGNED, assigned_at=doing.now) for user in wanted)
    after = _hold(task, works, doing.now)
    change = _change(flow, task, after, doing.now, doing.actor)
    if after.state != COMPLETED:
        return Step(after, (change,))
    # Of those who are left everybody has submitted.
    gone = _leave(flow, after, stage, doing, verdict=None, time_ms=0)
    return Step(gone.task, (change, *gone.facts))


def save(flow: Flow, task: Task, stage: str, doing: Doing, *, version: str | None = None) -> Step:
    """Keep labels as a draft: the task stays where it is, STAGED."""
    _working(flow, task, stage)
    held = _held(task, doing)
    works = tuple(
        work._replace(state=STAGED, saved_at=doing.now, version=version) if work.user == doing.actor else work
        for work in held.works
    )
    after = _hold(held, works, doing.now)
    facts = () if after.state == task.state else (_change(flow, task, after, doing.now, doing.actor),)
    return Step(after, facts)


def submit(flow: Flow, task: Task, stage: str, doing: Doing, *, time_ms: int = 0, version: str | None = None) -> Step:
    """Finish a label stage; in a review stage this is a correction: new labels, accepted."""
    place = _working(flow, task, stage)
    verdict = None if place.is_label else "CORRECTED"
    return _finish(flow, _held(task, doing), task, place, doing, verdict=verdict, time_ms=time_ms, version=version)


def review(flow: Flow, task: Task, stage: str, doing: Doing, *, accept: bool, time_ms: int = 0) -> Step:
    """Accept or reject what was labeled."""
    place = _working(flow, task, stage)
    if not place.is_review:
        raise RefusalError(f"stage {stage!r} is not a review stage")
    verdict = "PASSED" if accept else "FAILED"
    return _finish(flow, _held(task, doing), task, place, doing, verdict=verdict, time_ms=time_ms)


def hand_on(flow: Flow, task: Task, stage: str, doing: Doing) -> Step:
    """Let a task leave a remote-labeling stage, where nobody holds it: whoever labeled it may."""
    place = flow.remote(stage)
    require_waiting(task, stage)
    return _finish(flow, task, task, place, doing, verdict=None, time_ms=0)


def reopen(flow: Flow, task: Task, doing: Doing) -> Step:
    """Send ground truth back to the first stage: unassigned, with the labels it has."""
    if task.stage != GROUND_TRUTH:
        raise RefusalError(f"task {task.task_id} is in stage {task.stage!r}, not in ground truth")
    return move(flow, task, flow.start, doing)


def move(flow: Flow, task: Task, target: str, doing: Doing) -> Step:
    """Put a task into a resting stage, into ground truth ("END") or away ("ARCHIVED"), from wherever it is."""
    stage = flow.find(target)
    if target not in (GROUND_TRUTH, ARCHIVED) and (stage is None or stage.brick not in RESTING):
        raise RefusalError(f"tasks cannot be sent to {target!r}")
    left = Fact(
        "output",
        doing.now,
        doing.actor,
        {"currentStageName": task.stage, "nextStageName": target, "cycleCount": task.cycle},
    )
    back = target not in (GROUND_TRUTH, ARCHIVED)
    there = task._replace(
        stage=target,
        state=UNASSIGNED if back else None,
        works=(),
        updated_at=doing.now,
        heading=None,
        arrives_at=None,
        goes_back=False,
        review_state=None if back else task.review_state,
        cycle=task.cycle + 1 if task.stage == GROUND_TRUTH and back else task.cycle,
    )
    return Step(there, (left, Fact("input", doing.now, doing.actor, {"currentStageName": target})))


def require_waiting(task: Task, stage: str) -> None:
    """Refuse a task that is not in the stage, is done with there, or has an issue."""
    if task.stage != stage:
        raise RefusalError(f"task {task.task_id} is in stage {task.stage!r}, not in {stage!r}")
    if task.state == COMPLETED:
        raise RefusalError(f"task {task.task_id} has already been completed in stage {stage!r}")
    if task.state == PROBLEM:
        raise RefusalError(f"task {task.task_id} in stage {stage!r} has an open issue")


def _working(flow: Flow, task: Task, stage: str) -> Stage:
    """Give the stage in which the task may be worked on, or say why it may not."""
    place = flow.get(stage)
    if not (place.is_label or place.is_review):
        raise RefusalError(f"nobody works in stage {stage!r} ({place.brick})")
    require_waiting(task, stage)
    return place


def _held(task: Task, doing: Doing) -> Task:
    """Give the task as the actor holds it; without the duty to hold it first, he holds it from now on."""
    mine = next((work for work in task.works if work.user == doing.actor), None)
    if mine is not None:
        if mine.state == COMPLETED:
            raise RefusalError(f"you have already completed task {task.task_id} in stage {task.stage!r}")
        return task
    if doing.must_hold:
        owner = "somebody else" if task.works else "nobody"
        raise RefusalError(f"task {task.task_id} in stage {task.stage!r} is assigned to {owner}, not to you")
    return task._replace(works=(Work(doing.actor, ASSIGNED, assigned_at=doing.now),))


def _finish(
    flow: Flow,
    task: Task,
    before: Task,
    place: Stage,
    doing: Doing,
    *,
    verdict: str | None,
    time_ms: int,
    version: str | None = None,
) -> Step:
    """Complete the actor's work; the task leaves once everybody who holds it, if anybody, has completed his."""
    works = tuple(
        work._replace(
            state=COMPLETED,
            completed_at=doing.now,
            time_ms=time_ms,
            version=version or work.version,
        )
        if work.user == doing.actor
        else work
        for work in task.works
    )
    after = _hold(task, works, doing.now)
    change = _change(flow, before, after, doing.now, doing.actor)
    if verdict in ("PASSED", "CORRECTED"):
        # Readers of the trail tell an acceptance from a correction by this pair alone.
        change = change._replace(data={**change.data, "reviewResultAfter": verdict == "PASSED"})
    done = Fact(
        "done",
        doing.now,
        doing.actor,
        {"stage": place.name, "review_state": verdict, "time_ms": time_ms, "cycle": task.cycle},
    )
    facts = (change, done) if works else (done,)
    if any(work.state != COMPLETED for work in works):
        return Step(after, facts)
    gone = _leave(flow, after, place, doing, verdict=verdict, time_ms=time_ms)
    return Step(gone.task, (*facts, *gone.facts))


def _leave(flow: Flow, task: Task, place: Stage, doing: Doing, *, verdict: str | None, time_ms: int) -> Step:
    """Let a task that is done with leave its stage."""
    passed = None if verdict is None else verdict != "FAILED"
    left = Fact(
        "output",
        doing.now,
        doing.actor,
        {
            "currentStageName": place.name,
            "outputBool": passed,
            "cycleCount": task.cycle,
            "timeSpentMs": time_ms,
            "multiLabels": [[w.user, w.version] for w in task.works] if flow.consensus and place.is_label else None,
        },
    )
    rejected = verdict == "FAILED"
    leaving = task._replace(
        state=COMPLETED,
        heading=place.leads_to(passed) or GROUND_TRUTH,
        arrives_at=doing.arrival,
        goes_back=rejected,
        labelers={**task.labelers, place.name: task.holders} if place.is_label else task.labelers,
        review_state=verdict or task.review_state,
        cycle=task.cycle + 1 if rejected else task.cycle,
    )
    return Step(leaving, (left,))


def _hold(task: Task, works: tuple[Work, ...], now: str) -> Task:
    """Give the task with these works; its state is that of the first who is not yet done."""
    open_works = [work for work in works if work.state != COMPLETED]
    state = open_works[0].state if open_works else COMPLETED if works else UNASSIGNED
    return task._replace(works=works, state=state, updated_at=now)


def _change(flow: Flow, before: Task, after: Task, now: str, actor: str) -> Fact:
    """Write down how holders and states changed, in the terms of the audit trail."""
    first = after.works[0] if after.works else None
    data: dict[str, Any] = {
        "stageName": after.stage,
        "statusBefore": before.state,
        "statusAfter": after.state,
        "assignedToBefore": before.holders[0] if before.holders else None,
        "assignedToAfter": first.user if first else None,
        "assignedAtAfter": first.assigned_at if first else None,
    }
    if flow.consensus and (len(before.works) > 1 or len(after.works) > 1):
        data |= {
            "consensusAssigneesBefore": [work.user for work in before.works],
            "consensusAssigneesAfter": [work.user for work in after.works],
            "consensusStatusesBefore": [work.state for work in before.works],
            "consensusStatusesAfter": [work.state for work in after.works],
        }
    return Fact("state", now, actor, data)
