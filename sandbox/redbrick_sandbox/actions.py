"""Change tasks on behalf of the API key or a project member, and simulate people at work.

Each action computes a step of the state machine and stores it. Invariants:

1. A refused action raises `RefusalError`. The surrounding `Sandbox.mutation` rolls back what was written before.
2. The step is computed before labels are stored, so that a refused submit leaves no label version behind.
3. Each applied step is stored together with its audit-trail facts.
4. Simulated people leave the tasks of the API key alone. Tasks that people hold come first, then unassigned ones.
"""

from __future__ import annotations

import json
from math import ceil
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import demo_project, state_machine
from redbrick_sandbox.labels import corrected, current_labels, current_map, drawn_by_hand, incoming
from redbrick_sandbox.store import Record, make_id, record_of
from redbrick_sandbox.transitions import GROUND_TRUTH, RefusalError, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redbrick_sandbox.sandbox import Project, Sandbox

MINUTE_MS = 60_000


def people_by_email(project: Project, emails: Sequence[str]) -> list[demo_project.Person]:
    """Find project members by email.

    :param project: the project whose members are searched.
    :param emails: email addresses, in any case.
    :return: the members, in the order of `emails`.
    :raises RefusalError: if an address belongs to no member of the project. The message lists all such addresses.
    """
    matches = [(email, demo_project.person_of(email) if "@" in email else None) for email in emails]
    unknown = [email for email, person in matches if person is None or person.user_id not in project.access]
    if unknown:
        raise RefusalError(f"no member of the project has the email {', '.join(map(repr, unknown))}")
    return [person for _, person in matches if person is not None]


def assign(
    sandbox: Sandbox,
    project: Project,
    task_ids: Sequence[str],
    users: Sequence[str],
    doing: state_machine.Doing,
    *,
    refresh: bool = True,
) -> list[tuple[Record, bool]]:
    """Assign tasks to users, or release them.

    :param sandbox: the sandbox that stores the tasks.
    :param project: the project of the tasks.
    :param task_ids: ids of tasks. Duplicates are ignored.
    :param users: user ids of the new assignees. An empty sequence releases the tasks.
    :param doing: the actor and the time.
    :param refresh: whether current assignees lose the task. See `workflow.assign`.
    :return: the tasks that now have the requested assignees, each with whether it changed. Tasks that do not exist,
        or that cannot be assigned where they are, are absent.
    :raises RefusalError: if a user has no access to the stage of a task. No task is changed then.
    """
    records = [sandbox.store.task(project.project_id, task_id) for task_id in dict.fromkeys(task_ids)]
    steps: list[tuple[Record, state_machine.Step]] = []
    for record in records:
        step = state_machine.assign(project.flow, record.task, users, doing, refresh=refresh) if record else None
        if record is None or step is None:
            continue
        for user in users:
            if not project.may_work(user, record.task.stage):
                name = demo_project.short_name(user)
                raise RefusalError(
                    f"{name} has no access to stage {record.task.stage!r}, where task {record.task.task_id} is"
                )
        steps.append((record, step))
    for record, step in steps:
        if step.facts:
            sandbox.apply(project, record, step)
    return [(record, bool(step.facts)) for record, step in steps]


def put_labels(
    sandbox: Sandbox,
    project: Project,
    task_id: str,
    stage: str,
    doing: state_machine.Doing,
    *,
    finished: bool,
    data: str | None = None,
    path: str | None = None,
    labels_map: Sequence[Mapping[str, Any] | None] = (),
    time_ms: int = 0,
) -> None:
    """Save a draft or submit a task.

    :param sandbox: the sandbox that stores the task.
    :param project: the project of the task.
    :param task_id: the task.
    :param stage: the stage in which the client expects the task.
    :param doing: the actor and the time.
    :param finished: True submits the task, False saves a draft.
    :param data: new labels as JSON text.
    :param path: path of an uploaded labels file. Takes precedence over `data`. When both are None, the task keeps its
        labels.
    :param labels_map: segmentation files by series.
    :param time_ms: time that the actor spent, in milliseconds. Only a submit records it.
    :raises RefusalError: if the labels are invalid or the step is not allowed.
    """
    record = sandbox.record(project, task_id)
    labels = incoming(sandbox, data, path)
    version = record.version if labels is None else sandbox.next_version()
    # Compute the step first: a refused step must not leave a label version behind.
    if finished:
        step = state_machine.submit(project.flow, record.task, stage, doing, time_ms=time_ms, version=version)
    else:
        step = state_machine.save(project.flow, record.task, stage, doing, version=version)
    if labels is not None:
        sandbox.add_version(task_id, stage, doing, labels[0], path=labels[1], labels_map=labels_map)
    sandbox.apply(project, record, step, version=version)


def submit_as_is(sandbox: Sandbox, project: Project, task_id: str, stage: str, doing: state_machine.Doing) -> None:
    """Submit a task of a label stage with its current labels.

    :param sandbox: the sandbox that stores the task.
    :param project: the project of the task.
    :param task_id: the task.
    :param stage: the label stage in which the client expects the task.
    :param doing: the actor and the time.
    :raises RefusalError: if the stage is not a label stage, or the step is not allowed.
    """
    place = project.flow.find(stage)
    if place is not None and not place.is_label:
        raise RefusalError(f"stage {stage!r} is not a label stage")
    put_labels(sandbox, project, task_id, stage, doing, finished=True)


def overwrite_labels(
    sandbox: Sandbox,
    project: Project,
    task_id: str,
    doing: state_machine.Doing,
    *,
    data: str | None,
    path: str | None,
    labels_map: Sequence[Mapping[str, Any] | None],
    finalize: bool,
    time_ms: int,
    extra: str | None,
) -> None:
    """Write labels to a task in any stage, whether or not the actor holds it.

    :param sandbox: the sandbox that stores the task.
    :param project: the project of the task.
    :param task_id: the task.
    :param doing: the actor and the time. `must_hold` is ignored.
    :param data: new labels as JSON text.
    :param path: path of an uploaded labels file. Takes precedence over `data`. When both are None, the task keeps its
        labels.
    :param labels_map: segmentation files by series.
    :param finalize: whether to also submit the task if it is in a label or review stage.
    :param time_ms: time that the actor spent, in milliseconds.
    :param extra: JSON text for the audit trail, or None.
    """
    record = sandbox.record(project, task_id)
    labels = incoming(sandbox, data, path)
    stage = project.flow.find(record.task.stage)
    free = state_machine.Doing(doing.actor, doing.now, doing.arrival, must_hold=False)
    version = record.version
    if labels is not None:
        version = sandbox.add_version(
            task_id, record.task.stage, doing, labels[0], path=labels[1], labels_map=labels_map
        )
    if finalize and stage is not None and (stage.is_label or stage.is_review):
        step = state_machine.submit(project.flow, record.task, stage.name, free, time_ms=time_ms, version=version)
    else:
        step = state_machine.Step(record.task._replace(updated_at=doing.now))
    sandbox.apply(project, record, _with_extra_data(step, record.task, doing, time_ms, extra), version=version)


def _with_extra_data(
    step: state_machine.Step, before: state_machine.Task, doing: state_machine.Doing, time_ms: int, extra: str | None
) -> state_machine.Step:
    """Add `extra` to the audit trail.

    It becomes part of the event that records the task leaving its stage. If the task stays, `extra` gets an event of
    its own.
    """
    if any(fact.kind == "output" for fact in step.facts):
        facts = [
            fact._replace(data={**fact.data, "extraData": extra}) if fact.kind == "output" else fact
            for fact in step.facts
        ]
        return step._replace(facts=tuple(facts))
    # Labels replaced in ground truth are recorded as an output of END, other labels only if `extra` is set.
    in_truth = before.stage == GROUND_TRUTH
    if extra is None and not in_truth:
        return step
    edited = {
        "currentStageName": before.stage,
        # A client that reads an output event as leaving the stage must see that the task did not move.
        "nextStageName": None if in_truth else before.stage,
        "cycleCount": before.cycle,
        "timeSpentMs": time_ms,
        "extraData": extra,
    }
    return step._replace(facts=(*step.facts, state_machine.Fact("output", doing.now, doing.actor, edited)))


def review(
    sandbox: Sandbox,
    project: Project,
    task_id: str,
    stage: str,
    doing: state_machine.Doing,
    *,
    accept: bool,
    comment: str | None = None,
    pin: Mapping[str, Any] | None = None,
    time_ms: int = 0,
) -> None:
    """Accept or reject a task in a review stage.

    :param sandbox: the sandbox that stores the task.
    :param project: the project of the task.
    :param task_id: the task.
    :param stage: the review stage in which the client expects the task.
    :param doing: the actor and the time.
    :param accept: True accepts, False rejects.
    :param comment: text that is stored as a comment of the task. A rejection marks it as an issue.
    :param pin: position of the comment in the image, in the API's format.
    :param time_ms: time that the actor spent, in milliseconds.
    :raises RefusalError: if the stage is not a review stage, or the step is not allowed.
    """
    record = sandbox.record(project, task_id)
    step = state_machine.review(project.flow, record.task, stage, doing, accept=accept, time_ms=time_ms)
    if comment:
        add_comment(sandbox, record, stage, doing, comment, pin=pin, issue=not accept)
    sandbox.apply(project, record, step)


def add_comment(
    sandbox: Sandbox,
    record: Record,
    stage: str | None,
    doing: state_machine.Doing,
    text: str,
    *,
    pin: Mapping[str, Any] | None = None,
    issue: bool = False,
    label_id: str | None = None,
    reply_to: str | None = None,
) -> dict[str, Any]:
    """Add a comment to the audit trail of a task.

    :param sandbox: the sandbox that stores the task.
    :param record: the task.
    :param stage: stage that the comment refers to. The current stage of the task by default.
    :param doing: the author and the time.
    :param text: text of the comment.
    :param pin: position of the comment in the image, in the API's format.
    :param issue: whether the comment reports an issue.
    :param label_id: id of the label that the comment refers to.
    :param reply_to: id of the comment that this one answers.
    :return: the comment in the API's format.
    """
    number = sandbox.store.next_number("events")
    comment_id = make_id("comment", number)
    data = {
        "commentId": comment_id,
        "textVal": text,
        "stageName": stage or record.task.stage,
        "issueComment": issue,
        "issueResolved": False,
        "labelEntityLabelId": label_id,
        "replyTo": reply_to,
        "pin": {"pinId": make_id("pin", number), **pin} if pin else None,
    }
    row = {
        "event_id": comment_id,
        "task_id": record.task.task_id,
        "kind": "comment",
        "at": doing.now,
        "actor": doing.actor,
        "version": record.version,
        "data": json.dumps(data),
    }
    sandbox.store.insert("events", [row])
    return {**data, "createdAt": doing.now, "createdBy": demo_project.user(doing.actor), "replies": []}


def work(
    sandbox: Sandbox,
    project: Project,
    stage: str,
    *,
    limit: int,
    accept_ratio: float = 1.0,
    labels: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Complete up to `limit` tasks of a stage as its members.

    :param sandbox: the sandbox that stores the tasks.
    :param project: the project of the stage.
    :param stage: a label or review stage.
    :param limit: maximum number of tasks.
    :param accept_ratio: share of reviewed tasks that are accepted, from 0 to 1. They are evenly spread, so that a run
        is reproducible.
    :param labels: flat labels to submit. By default tasks without labels get a box, and reopened or rejected tasks get
        corrected labels.
    :return: the counts `done`, `accepted` and `rejected`, and `task_ids`.
    :raises RefusalError: if the stage is not a label or review stage, or has no members.
    """
    place = project.flow.find(stage)
    if place is None or not (place.is_label or place.is_review):
        raise RefusalError(f"there is no label or review stage {stage!r}")
    team = [person.user_id for person in demo_project.LABELERS if project.access.get(person.user_id, {}).get(stage)]
    if not team:
        raise RefusalError(f"no member has access to stage {stage!r}")
    done: list[str] = []
    accepted = 0
    for index, record in enumerate(_waiting(sandbox, project, stage, limit)):
        with sandbox.mutation(None):
            assigned = _ensure_assigned(sandbox, project, record, team[index % len(team)])
            if place.is_label:
                _label(sandbox, project, assigned, stage, labels)
            else:
                # The rounded product grows by one in exactly this share of the steps.
                accept = ceil((index + 1) * accept_ratio - 1e-9) > ceil(index * accept_ratio - 1e-9)
                _review(sandbox, project, assigned, place, accept=accept, labels=labels)
                accepted += accept
        done.append(record.task.task_id)
    rejected = len(done) - accepted if place.is_review else 0
    return {"done": len(done), "accepted": accepted, "rejected": rejected, "task_ids": done}


def _waiting(sandbox: Sandbox, project: Project, stage: str, limit: int) -> list[Record]:
    rows = sandbox.store.rows(
        "SELECT * FROM tasks WHERE project_id = ? AND stage = ? AND state NOT IN (?, ?)"
        " AND instr(holders, ?) = 0 ORDER BY holders = '', rank, seq LIMIT ?",
        (
            project.project_id,
            stage,
            state_machine.COMPLETED,
            state_machine.PROBLEM,
            f",{demo_project.API_KEY_USER},",
            limit,
        ),
    )
    return [record_of(row) for row in rows]


def _ensure_assigned(sandbox: Sandbox, project: Project, record: Record, person: str) -> Record:
    if record.task.works:
        return record
    assign(sandbox, project, [record.task.task_id], [person], sandbox.doing(person))
    return sandbox.record(project, record.task.task_id)


def _label(
    sandbox: Sandbox,
    project: Project,
    record: Record,
    stage: str,
    given: Sequence[Mapping[str, Any]] | None,
) -> None:
    """Submit a task for each of its assignees, with given or corrected labels."""
    has = current_labels(sandbox, record.version)
    if given is not None:
        text = json.dumps(list(given))
    elif record.task.cycle:
        text = json.dumps(corrected(has, record.name))
    else:
        text = json.dumps(has or drawn_by_hand(record.name))
    for member_work in record.task.works:
        if member_work.state == state_machine.COMPLETED:
            continue
        put_labels(
            sandbox,
            project,
            record.task.task_id,
            stage,
            sandbox.doing(member_work.user),
            finished=True,
            data=text,
            labels_map=current_map(sandbox, record.version),
            time_ms=MINUTE_MS,
        )


def _review(
    sandbox: Sandbox,
    project: Project,
    record: Record,
    place: Stage,
    *,
    accept: bool,
    labels: Sequence[Mapping[str, Any]] | None,
) -> None:
    task_id = record.task.task_id
    doing = sandbox.doing(record.task.works[0].user)
    if accept and labels is not None:
        text = json.dumps(list(labels))
        masks = current_map(sandbox, record.version)
        put_labels(sandbox, project, task_id, place.name, doing, finished=True, data=text, labels_map=masks)
        return
    comment = None if accept else "Please look at this again."
    review(sandbox, project, task_id, place.name, doing, accept=accept, comment=comment, time_ms=MINUTE_MS // 2)
