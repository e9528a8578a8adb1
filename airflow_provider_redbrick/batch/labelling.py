"""Putting labels on tasks of a stage."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.change import Change
from airflow_provider_redbrick.batch.converting import CONVERSIONS_A_REQUEST, Converted, Labels
from airflow_provider_redbrick.batch.masks import labels_map
from airflow_provider_redbrick.batch.outcome import Outcome, failed
from airflow_provider_redbrick.batch.reading import NOT_TRIED
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.placing import misplaced, series_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.calls import Call
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.deciding import Put
    from airflow_provider_redbrick.batch.reading import Found
    from airflow_provider_redbrick.batch.stage_work import StageWork


def put_labels(
    work: StageWork, batch: Iterable[Labels], *, finished: bool = True, elapsed_ms: int = 0
) -> Iterator[Outcome]:
    """Put labels on tasks of a stage and submit them, or save them as drafts; yields one outcome a task.

    Labels are converted before their tasks are touched, so that an invalid one claims nothing.
    """
    for chunk in in_chunks(batch, CONVERSIONS_A_REQUEST):
        if work.breaker.is_open:
            yield from (failed(labels.task_id, NOT_TRIED) for labels in chunk)
        else:
            yield from _put_chunk(work, chunk, finished=finished, elapsed_ms=elapsed_ms)


def _put_chunk(work: StageWork, chunk: Sequence[Labels], *, finished: bool, elapsed_ms: int) -> Iterator[Outcome]:
    found, converted = _read_and_converted(work, chunk)
    valid: dict[str, Converted] = {}
    for task_id, stored in converted.items():
        if isinstance(stored, str):
            yield failed(task_id, f"Its labels {stored.rstrip('.')}. Nothing was sent.")
        else:
            valid[task_id] = stored

    def change(task: Task) -> Change | Outcome:
        if task.task_id not in valid:
            return submit_existing(work, task)
        return put(work, task, valid[task.task_id], finished=finished, elapsed_ms=elapsed_ms)

    def objection(task: Task) -> str | None:
        return misfit(valid[task.task_id], task) if task.task_id in valid else None

    wanted = {task_id: task for task_id, task in found.tasks.items() if task_id in valid or task_id not in converted}
    yield from work.work_on(replace(found, tasks=wanted), lambda tasks: [list(map(change, tasks))], objection=objection)
    work.give_up([task for task_id, task in found.tasks.items() if task_id not in wanted and isinstance(task, Task)])


def _read_and_converted(work: StageWork, chunk: Sequence[Labels]) -> tuple[Found, Mapping[str, Converted | str]]:
    def read() -> Found:
        return work.read([labels.task_id for labels in chunk])

    with_body, refused = _plain(chunk)
    if not any(labels.names_masks for labels in with_body):
        # Neither needs the other's answer, and looking at labels takes about as long as being answered.
        converting = work.project.client.threads.submit(work.converter.convert, with_body)
        return read(), {**refused, **converting.result()}
    found = read()
    # Which masks are stored already: those are not looked for here.
    known = {task_id: task.mask_paths for task_id, task in found.tasks.items() if isinstance(task, Task)}
    told = (labels.with_stored(known.get(labels.task_id, frozenset())) for labels in with_body)
    return found, {**refused, **work.converter.convert(told)}


def _plain(chunk: Iterable[Labels]) -> tuple[list[Labels], dict[str, Converted | str]]:
    """Return the labels as plain values, and why those that cannot be sent are not among them."""
    plain: list[Labels] = []
    refused: dict[str, Converted | str] = {}
    for labels in chunk:
        if labels.body is None:
            continue
        try:
            plain.append(labels.plain())
        except RedBrickInputError as error:
            refused[labels.task_id] = f"cannot be sent: {error}"
    return plain, refused


def putting(work: StageWork, *, finished: bool) -> Put:
    """Return a function that makes the change which puts converted labels on a task."""
    return lambda task, converted, elapsed_ms: put(work, task, converted, finished=finished, elapsed_ms=elapsed_ms)


def put(work: StageWork, task: Task, converted: Converted, *, finished: bool, elapsed_ms: int = 0) -> Change | Outcome:
    """Return the change that puts converted labels on a task, and submits it when ``finished``."""
    problem = misfit(converted, task)
    if problem is not None:
        return failed(task.task_id, problem, name=task.name)
    carried = carrier(work.project, task, converted)

    def call() -> Call:
        return work.project.put_labels(work.stage, task.task_id, carried(), finished=finished, elapsed_ms=elapsed_ms)

    if not finished:
        return relabelling(task, call, me=work.me, detail=converted.detail)
    if work.stage.is_review:
        return leaving(work, task, call, verdict=True, detail={"decision": "correct", **converted.detail})
    return leaving(work, task, call, detail=converted.detail)


def carrier(project: RedBrickProject, task: Task, converted: Converted) -> Callable[[], Mapping[str, Any]]:
    """Return a function that gives labels the form mutations take; it stores files once, however often it is called."""

    @cache
    def carried() -> Mapping[str, Any]:
        masks = labels_map(converted.masks, project.files, task.task_id)
        return project.files.carry(converted.on_items_of(task.series_info or ()), masks, task_id=task.task_id)

    return carried


def submit_existing(work: StageWork, task: Task) -> Change:
    """Return the change that submits a task with the labels it has."""
    return leaving(work, task, lambda: work.project.submit_existing(work.stage, task.task_id))


def leaving(
    work: StageWork,
    task: Task,
    call: Callable[[], Call],
    *,
    verdict: bool | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Change:
    """Return a change that takes a task out of the stage: applied when it has left, or is on its way out.

    :param verdict: what a review decides.
    :param detail: what the report says of it.
    """
    stage_name = work.stage.public_name
    return Change(
        task,
        call,
        applied=lambda found: not found.is_queued_in(stage_name),
        leaves=stage_name,
        verdict=verdict,
        detail=detail or {},
    )


def relabelling(task: Task, call: Callable[[], Call], *, me: str, detail: Mapping[str, Any] | None = None) -> Change:
    """Return a change that gives a task new labels where it is: applied when they are new, and this key's.

    :param detail: what the report says of it.
    """
    return Change(
        task,
        call,
        applied=lambda found: found.relabelled_by(me, task),
        overtaken=lambda found: found.labels_id != task.labels_id,
        detail=detail or {},
    )


def misfit(converted: Converted, task: Task) -> str | None:
    """Return why labels cannot go onto a task: something would be lost, or never be shown.

    :raises RedBrickNotReadError: if it was not read what labels must fit to.
    """
    task.require("series_info", "labels_map")
    problem = (
        _beyond(converted, task) or _misplaced(converted, task) or _stray(converted, task) or _lost(converted, task)
    )
    return f"{problem}; nothing was sent" if problem else None


def _beyond(converted: Converted, task: Task) -> str | None:
    series = [mask.series for mask in converted.masks]
    series += [label["volumeindex"] for label in converted.labels or () if isinstance(label.get("volumeindex"), int)]
    highest = max(series, default=-1)
    if task.series_info and highest >= len(task.series_info):
        return f"its labels are for series {highest}, but it has {len(task.series_info)}"
    return None


def _misplaced(converted: Converted, task: Task) -> str | None:
    """Return which label is on an item that its series does not have: it would be put on another series' item."""
    views = series_items(task.series_info or (), task.items or ())
    problem = misplaced(converted.references, views, task.items or ())
    if problem is not None or converted.references:
        return problem
    return next(filter(None, (_on_strange_item(label, views, i) for i, label in enumerate(converted.labels))), None)


def _on_strange_item(label: Mapping[str, Any], views: Sequence[Sequence[int]], index: int) -> str | None:
    """Return what is wrong with a label of the older format, which counts all items of the task."""
    item, series = label.get("globalitemsindex"), label.get("volumeindex")
    if not isinstance(item, int) or not views:
        return None
    if series is None:
        count = 1 + max(map(max, views))
        return None if item < count else f"labels[{index}], globalitemsindex: {item}, but the task has {count} items"
    view = views[series] if series < len(views) else ()
    if not view or item in view:
        return None
    return (
        f"labels[{index}], globalitemsindex: {item} is no item of series {series}, which has {len(view)} of the task's"
    )


def _stray(converted: Converted, task: Task) -> str | None:
    for mask in converted.masks:
        if mask.file is None and mask.stored != task.masks.get(mask.series):
            return f"series {mask.series}: {mask.stored!r} is no file here, and not the mask the task has"
    return None


def _lost(converted: Converted, task: Task) -> str | None:
    masked = {mask.series for mask in converted.masks}
    lost = sorted(task.masks.keys() - masked - converted.unmasked)
    if lost:
        return (
            f"series {lost[0]} has a segmentation mask, which these labels would remove: give its segmentations and "
            f"segmentMap too, or say 'segmentations': [] to remove it"
        )
    return None
