"""Simulate people who label and review tasks.

Tasks that the API key holds are left alone. Tasks that people hold come first, then unassigned ones.
"""

from __future__ import annotations

import json
from math import ceil
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import actions, demo_project, state_machine
from redbrick_sandbox.labels import corrected, current_labels, current_map, drawn_by_hand
from redbrick_sandbox.store import Record, record_of
from redbrick_sandbox.transitions import RefusalError, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redbrick_sandbox.sandbox import Project, Sandbox

MINUTE_MS = 60_000


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
    actions.assign(sandbox, project, [record.task.task_id], [person], sandbox.doing(person))
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
        actions.put_labels(
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
        actions.put_labels(sandbox, project, task_id, place.name, doing, finished=True, data=text, labels_map=masks)
        return
    comment = None if accept else "Please look at this again."
    actions.review(sandbox, project, task_id, place.name, doing, accept=accept, comment=comment, time_ms=MINUTE_MS // 2)
