"""What can be done to tasks, by the API key or by people: the state machine's steps, checked and written down.

Each function refuses with `RefusalError` before anything is changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.sandbox import seed, workflow
from airflow_provider_redbrick.sandbox.flow import GROUND_TRUTH, RefusalError
from airflow_provider_redbrick.sandbox.labels import incoming
from airflow_provider_redbrick.sandbox.store import Record, make_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.sandbox.core import Project, Sandbox


def people_by_email(project: Project, emails: Sequence[str]) -> list[seed.Person]:
    """Find members of the project by e-mail, or refuse with those that are none."""
    found = [(email, seed.person_of(email) if "@" in email else None) for email in emails]
    unknown = [email for email, person in found if person is None or person.user_id not in project.access]
    if unknown:
        raise RefusalError(f"no member of the project has the e-mail {', '.join(map(repr, unknown))}")
    return [person for _, person in found if person is not None]


def assign(
    sandbox: Sandbox,
    project: Project,
    task_ids: Sequence[str],
    users: Sequence[str],
    doing: workflow.Doing,
    *,
    refresh: bool = True,
) -> list[tuple[Record, bool]]:
    """Give tasks to users (none: release them).

    Answers the tasks that are as wished now, each with whether it had to be changed for it. Tasks that are not
    there, or not where they could be assigned, are missing in the answer.
    """
    records = [sandbox.store.task(project.project_id, task_id) for task_id in dict.fromkeys(task_ids)]
    steps: list[tuple[Record, workflow.Step]] = []
    for record in records:
        step = workflow.assign(project.flow, record.task, users, doing, refresh=refresh) if record else None
        if record is None or step is None:
            continue
        for user in users:
            if not project.may_work(user, record.task.stage):
                name = seed.short_name(user)
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
    doing: workflow.Doing,
    *,
    finished: bool,
    data: str | None = None,
    path: str | None = None,
    labels_map: Sequence[Mapping[str, Any] | None] = (),
    time_ms: int = 0,
) -> None:
    """Save a draft or submit, with new labels (JSON text or a file's path) or, when both are None, the old ones."""
    record = sandbox.record(project, task_id)
    labels = incoming(sandbox, data, path)
    version = record.version if labels is None else sandbox.next_version()
    # The step comes first: labels of a refused step must leave no version behind.
    if finished:
        step = workflow.submit(project.flow, record.task, stage, doing, time_ms=time_ms, version=version)
    else:
        step = workflow.save(project.flow, record.task, stage, doing, version=version)
    if labels is not None:
        sandbox.add_version(task_id, stage, doing, labels[0], path=labels[1], labels_map=labels_map)
    sandbox.apply(project, record, step, version=version)


def submit_as_is(sandbox: Sandbox, project: Project, task_id: str, stage: str, doing: workflow.Doing) -> None:
    """Submit a task in a label stage with the labels it has."""
    place = project.flow.find(stage)
    if place is not None and not place.is_label:
        raise RefusalError(f"stage {stage!r} is not a label stage")
    put_labels(sandbox, project, task_id, stage, doing, finished=True)


def overwrite_labels(
    sandbox: Sandbox,
    project: Project,
    task_id: str,
    doing: workflow.Doing,
    *,
    data: str | None,
    path: str | None,
    labels_map: Sequence[Mapping[str, Any] | None],
    finalize: bool,
    time_ms: int,
    extra: str | None,
) -> None:
    """Write labels to a task wherever it is, whoever holds it; `finalize` also submits it in its stage.

    `extra` (JSON text) goes into the audit trail.
    """
    record = sandbox.record(project, task_id)
    labels = incoming(sandbox, data, path)
    stage = project.flow.find(record.task.stage)
    free = workflow.Doing(doing.actor, doing.now, doing.arrival, must_hold=False)
    version = record.version
    if labels is not None:
        version = sandbox.add_version(
            task_id, record.task.stage, doing, labels[0], path=labels[1], labels_map=labels_map
        )
    if finalize and stage is not None and (stage.is_label or stage.is_review):
        step = workflow.submit(project.flow, record.task, stage.name, free, time_ms=time_ms, version=version)
    else:
        step = workflow.Step(record.task._replace(updated_at=doing.now))
    sandbox.apply(project, record, _explained(step, record.task, doing, time_ms, extra), version=version)


def _explained(
    step: workflow.Step, before: workflow.Task, doing: workflow.Doing, time_ms: int, extra: str | None
) -> workflow.Step:
    """Put `extra` into the trail: beside the way out of the stage or, when the task stays, by itself."""
    if any(fact.kind == "output" for fact in step.facts):
        facts = [
            fact._replace(data={**fact.data, "extraData": extra}) if fact.kind == "output" else fact
            for fact in step.facts
        ]
        return step._replace(facts=tuple(facts))
    # Labels replaced in ground truth are an output of END; in a queue the trail knows of them only by `extra`.
    in_truth = before.stage == GROUND_TRUTH
    if extra is None and not in_truth:
        return step
    edited = {
        "currentStageName": before.stage,
        # Whoever takes an output for leaving a stage must see that this one leads nowhere else.
        "nextStageName": None if in_truth else before.stage,
        "cycleCount": before.cycle,
        "timeSpentMs": time_ms,
        "extraData": extra,
    }
    return step._replace(facts=(*step.facts, workflow.Fact("output", doing.now, doing.actor, edited)))


def review(
    sandbox: Sandbox,
    project: Project,
    task_id: str,
    stage: str,
    doing: workflow.Doing,
    *,
    accept: bool,
    comment: str | None = None,
    pin: Mapping[str, Any] | None = None,
    time_ms: int = 0,
) -> None:
    """Accept or reject a task in a review stage; a comment is kept with it."""
    record = sandbox.record(project, task_id)
    step = workflow.review(project.flow, record.task, stage, doing, accept=accept, time_ms=time_ms)
    if comment:
        add_comment(sandbox, record, stage, doing, comment, pin=pin, issue=not accept)
    sandbox.apply(project, record, step)


def add_comment(
    sandbox: Sandbox,
    record: Record,
    stage: str | None,
    doing: workflow.Doing,
    text: str,
    *,
    pin: Mapping[str, Any] | None = None,
    issue: bool = False,
    label_id: str | None = None,
    reply_to: str | None = None,
) -> dict[str, Any]:
    """Write a comment into a task's trail and answer it as the API shows it."""
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
    return {**data, "createdAt": doing.now, "createdBy": seed.user(doing.actor), "replies": []}
