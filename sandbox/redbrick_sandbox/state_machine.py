"""State machine of a task: stages, assignment, submission, review and reopening.

All functions are pure: values in, values out, without storage, clock or random numbers. Invariants:

1. Each action returns a `Step`: the task afterwards, and the facts to append to its audit trail.
2. An action that is not allowed raises `RefusalError` and has no effect.
3. A submitted task stays COMPLETED in its stage until `arrives_at`. Then `arrive` moves it to the next stage.
4. The state of a task is the state of its first assignee who has not completed the task.
5. A task leaves its stage when all assignees have completed it. Only consensus projects have several.
6. A rejected task returns to the users who labeled it (`labelers`), with an incremented `cycle`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redbrick_sandbox.transitions import ARCHIVED, GROUND_TRUTH, RESTING, Flow, RefusalError, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNASSIGNED = "UNASSIGNED"
ASSIGNED = "ASSIGNED"
STAGED = "STAGED"
PROBLEM = "PROBLEM"
COMPLETED = "COMPLETED"

SYSTEM = "RB:SYSTEM"


class Work(NamedTuple):
    """Work of one user on a task.

    A task of a consensus project has several, any other task at most one.
    """

    user: str
    state: str = ASSIGNED
    assigned_at: str | None = None
    saved_at: str | None = None
    completed_at: str | None = None
    time_ms: int = 0
    version: str | None = None


class Task(NamedTuple):
    """A task in its workflow: stage, assignees and current transition.

    `stage` is the name of a stage, "END" (ground truth) or "ARCHIVED". `heading` and `arrives_at` are set between a
    submit and the arrival in the next stage. `labelers` has the users who completed each label stage, for rejections.
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
        """User ids of the assignees, in order of assignment."""
        return tuple(work.user for work in self.works)


class Fact(NamedTuple):
    """An entry of the audit trail.

    `kind` is create, input, output, state or done. `data` has its details.
    """

    kind: str
    at: str
    actor: str
    data: Mapping[str, Any]


class Step(NamedTuple):
    """Result of an action: the task afterwards, and new facts for its audit trail."""

    task: Task
    facts: tuple[Fact, ...] = ()


class Doing(NamedTuple):
    """Context of an action.

    It has the actor, the time, and the arrival time of a task that leaves its stage. `must_hold` says whether the actor
    must hold the task.
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
    """Create a task and move it through the input stage.

    :param flow: stages of the project.
    :param task_id: id of the new task.
    :param doing: the creator and the time.
    :param ground_truth: whether the task starts in ground truth.
    :param pre_assign: user ids by stage. They are assigned when the task first arrives there.
    :param priority: priority from 0 to 1, for the audit trail.
    """
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
    """Complete a transition whose time has come.

    :param flow: stages of the project.
    :param task: the task. If it is not in transition, or its time has not come, it does not change.
    :param now: current time.
    """
    if task.arrives_at is None or task.arrives_at > now:
        return Step(task)
    at = task.arrives_at
    place = flow.rest(task.heading, task.task_id)
    rests = flow.find(place) is not None
    # A pre-assignment applies once. Otherwise a task that returns would be taken from its labeler.
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
    """Assign a task to users, or release it.

    :param flow: stages of the project.
    :param task: the task.
    :param users: user ids of the new assignees. An empty sequence releases the task.
    :param doing: the actor and the time.
    :param refresh: True replaces the current assignees. False adds assignees in the label stages of a consensus
        project, and elsewhere assigns only unassigned tasks.
    :return: the step, without facts if the assignees do not change; None if the task cannot be assigned where it is.
    :raises RefusalError: if there are several users outside the label stages of a consensus project.
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
    # All remaining assignees have submitted.
    gone = _leave(flow, after, stage, doing, verdict=None, time_ms=0)
    return Step(gone.task, (change, *gone.facts))


def save(flow: Flow, task: Task, stage: str, doing: Doing, *, version: str | None = None) -> Step:
    """Save labels as a draft. The task stays in its stage with state STAGED.

    :param flow: stages of the project.
    :param task: the task.
    :param stage: the stage in which the client expects the task.
    :param doing: the actor and the time.
    :param version: tdId of the labels.
    :raises RefusalError: if the task does not wait in the stage, or the actor does not hold it.
    """
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
    """Complete a task in a label or review stage.

    In a review stage this is a correction: new labels, accepted.

    :param flow: stages of the project.
    :param task: the task.
    :param stage: the stage in which the client expects the task.
    :param doing: the actor and the time.
    :param time_ms: time that the actor spent, in milliseconds.
    :param version: tdId of the labels.
    :raises RefusalError: if the task does not wait in the stage, or the actor does not hold it.
    """
    place = _working(flow, task, stage)
    verdict = None if place.is_label else "CORRECTED"
    return _finish(flow, _held(task, doing), task, place, doing, verdict=verdict, time_ms=time_ms, version=version)


def review(flow: Flow, task: Task, stage: str, doing: Doing, *, accept: bool, time_ms: int = 0) -> Step:
    """Accept or reject a task in a review stage.

    :param flow: stages of the project.
    :param task: the task.
    :param stage: the stage in which the client expects the task.
    :param doing: the actor and the time.
    :param accept: True accepts, False rejects.
    :param time_ms: time that the actor spent, in milliseconds.
    :raises RefusalError: if the task does not wait in a review stage of this name, or the actor does not hold it.
    """
    place = _working(flow, task, stage)
    if not place.is_review:
        raise RefusalError(f"stage {stage!r} is not a review stage")
    verdict = "PASSED" if accept else "FAILED"
    return _finish(flow, _held(task, doing), task, place, doing, verdict=verdict, time_ms=time_ms)


def hand_on(flow: Flow, task: Task, stage: str, doing: Doing) -> Step:
    """Complete a task in a remote-labeling stage.

    Tasks of such stages have no assignees, so that the actor does not have to hold it.

    :param flow: stages of the project.
    :param task: the task.
    :param stage: the stage in which the client expects the task.
    :param doing: the actor and the time.
    """
    place = flow.remote(stage)
    require_waiting(task, stage)
    return _finish(flow, task, task, place, doing, verdict=None, time_ms=0)


def reopen(flow: Flow, task: Task, doing: Doing) -> Step:
    """Return a ground truth task to the first stage, unassigned, with its labels.

    :param flow: stages of the project.
    :param task: the task.
    :param doing: the actor and the time.
    :raises RefusalError: if the task is not in ground truth.
    """
    if task.stage != GROUND_TRUTH:
        raise RefusalError(f"task {task.task_id} is in stage {task.stage!r}, not in ground truth")
    return move(flow, task, flow.start, doing)


def move(flow: Flow, task: Task, target: str, doing: Doing) -> Step:
    """Move a task to another stage, from any stage.

    :param flow: stages of the project.
    :param task: the task.
    :param target: a stage where tasks rest, "END" (ground truth) or "ARCHIVED".
    :param doing: the actor and the time.
    :raises RefusalError: if tasks cannot rest in `target`.
    """
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
    """Require that a task waits in a stage.

    :param task: the task.
    :param stage: name of the stage.
    :raises RefusalError: if the task is elsewhere, is completed there, or has an open issue.
    """
    if task.stage != stage:
        raise RefusalError(f"task {task.task_id} is in stage {task.stage!r}, not in {stage!r}")
    if task.state == COMPLETED:
        raise RefusalError(f"task {task.task_id} has already been completed in stage {stage!r}")
    if task.state == PROBLEM:
        raise RefusalError(f"task {task.task_id} in stage {stage!r} has an open issue")


def _working(flow: Flow, task: Task, stage: str) -> Stage:
    """Return the stage in which the task waits for work, or refuse."""
    place = flow.get(stage)
    if not (place.is_label or place.is_review):
        raise RefusalError(f"stage {stage!r} ({place.brick}) is not a label or review stage")
    require_waiting(task, stage)
    return place


def _held(task: Task, doing: Doing) -> Task:
    """Return the task with the actor as an assignee.

    Refuses if the actor does not hold the task and must hold it.
    """
    mine = next((work for work in task.works if work.user == doing.actor), None)
    if mine is not None:
        if mine.state == COMPLETED:
            raise RefusalError(f"you have already completed task {task.task_id} in stage {task.stage!r}")
        return task
    if doing.must_hold:
        state = "assigned to another user" if task.works else "not assigned to you"
        raise RefusalError(f"task {task.task_id} in stage {task.stage!r} is {state}")
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
    """Complete the work of the actor.

    The task leaves its stage when all assignees have completed it.
    """
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
        # Clients distinguish an acceptance from a correction by this field alone.
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
    """Start the transition of a completed task to the next stage."""
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
    """Return the task with these works and the state that follows from them."""
    open_works = [work for work in works if work.state != COMPLETED]
    state = open_works[0].state if open_works else COMPLETED if works else UNASSIGNED
    return task._replace(works=works, state=state, updated_at=now)


def _change(flow: Flow, before: Task, after: Task, now: str, actor: str) -> Fact:
    """Return the fact that records a change of assignees and states."""
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
