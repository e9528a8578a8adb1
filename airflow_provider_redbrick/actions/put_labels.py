"""Put labels on tasks of a stage, as drafts or submitted.

Design. Labels that cannot be sent, or that do not fit the task, must not change or claim the task. Invariants:

1. Labels are validated and converted before their task is claimed.
2. Labels that do not fit the task are refused if something would be lost or never shown: a series or item that the task
   does not have, a mask that is neither a local file nor the stored one, or a stored mask that they do not mention.
3. Files of a task are stored once, however often its mutation is sent.
4. Submitting counts as applied when the task has left the stage. A draft counts as applied when the task has new labels
   by this key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import isclose
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.annotations.conversion import CONVERSIONS_A_REQUEST, Converted, Labels
from airflow_provider_redbrick.annotations.masks import labels_map
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.engine.mutations import Change
from airflow_provider_redbrick.engine.outcomes import Outcome, failed
from airflow_provider_redbrick.engine.task_reader import NOT_ATTEMPTED
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.validation import misplaced, series_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_redbrick.actions.decisions import Put
    from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.client.transport.graphql import Call
    from airflow_provider_redbrick.engine.task_reader import TaskBatch


def put_labels(
    pipeline: StagePipeline, batch: Iterable[Labels], *, finished: bool = True, elapsed_ms: int = 0
) -> Iterator[Outcome]:
    """Put labels on tasks of a stage, and submit them or save drafts.

    :param pipeline: the pipeline of the stage.
    :param batch: labels by task. An entry without labels submits the task with the labels that it has.
    :param finished: submit the tasks; False saves drafts.
    :param elapsed_ms: labeling time per task in milliseconds, reported to RedBrick.
    :return: one outcome per task.
    """
    for chunk in in_chunks(batch, CONVERSIONS_A_REQUEST):
        if pipeline.breaker.is_open:
            yield from (failed(labels.task_id, NOT_ATTEMPTED) for labels in chunk)
        else:
            yield from _put_chunk(pipeline, chunk, finished=finished, elapsed_ms=elapsed_ms)


def _put_chunk(
    pipeline: StagePipeline, chunk: Sequence[Labels], *, finished: bool, elapsed_ms: int
) -> Iterator[Outcome]:
    found, converted = _read_and_convert(pipeline, chunk)
    valid: dict[str, Converted] = {}
    for task_id, stored in converted.items():
        if isinstance(stored, str):
            yield failed(task_id, f"Its labels {stored.rstrip('.')}. Nothing was sent.")
        else:
            valid[task_id] = stored

    def change(task: Task) -> Change | Outcome:
        if task.task_id not in valid:
            return submit_existing(pipeline, task)
        return put(pipeline, task, valid[task.task_id], finished=finished, elapsed_ms=elapsed_ms)

    def objection(task: Task) -> str | None:
        return find_mismatch(valid[task.task_id], task) if task.task_id in valid else None

    wanted = {task_id: task for task_id, task in found.tasks.items() if task_id in valid or task_id not in converted}

    def has_content(task: Task) -> bool | None:
        return content_check(valid[task.task_id], task)(task) if task.task_id in valid else None

    yield from pipeline.work_on(
        replace(found, tasks=wanted),
        lambda tasks: [list(map(change, tasks))],
        objection=objection,
        has_content=has_content,
    )
    pipeline.release_unprocessed(
        [task for task_id, task in found.tasks.items() if task_id not in wanted and isinstance(task, Task)]
    )


def _read_and_convert(
    pipeline: StagePipeline, chunk: Sequence[Labels]
) -> tuple[TaskBatch, Mapping[str, Converted | str]]:
    def read() -> TaskBatch:
        return pipeline.read([labels.task_id for labels in chunk])

    with_body, refused = _to_plain_values(chunk)
    if not any(labels.names_masks for labels in with_body):
        # Reading and converting are independent and take about the same time, so they run concurrently.
        converting = pipeline.project.client.threads.submit(pipeline.converter.convert, with_body)
        return read(), {**refused, **converting.result()}
    found = read()
    # Masks that are stored already are not looked up as local files.
    known = {task_id: task.mask_paths for task_id, task in found.tasks.items() if isinstance(task, Task)}
    labels_with_stored = (labels.with_stored(known.get(labels.task_id, frozenset())) for labels in with_body)
    return found, {**refused, **pipeline.converter.convert(labels_with_stored)}


def _to_plain_values(chunk: Iterable[Labels]) -> tuple[list[Labels], dict[str, Converted | str]]:
    """Return labels as plain values, and by task id why others cannot be sent."""
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


def label_writer(pipeline: StagePipeline, *, finished: bool) -> Put:
    """Return a function that creates the change which puts labels on a task.

    :param pipeline: the pipeline of the stage.
    :param finished: submit the task; False saves a draft.
    """
    return lambda task, converted, elapsed_ms: put(pipeline, task, converted, finished=finished, elapsed_ms=elapsed_ms)


def put(
    pipeline: StagePipeline, task: Task, converted: Converted, *, finished: bool, elapsed_ms: int = 0
) -> Change | Outcome:
    """Return the change that puts converted labels on a task.

    :param pipeline: the pipeline of the stage.
    :param task: the task, with its series and masks.
    :param converted: the labels.
    :param finished: submit the task; False saves a draft.
    :param elapsed_ms: labeling time in milliseconds.
    :return: the change, or a failed outcome if the labels do not fit the task.
    """
    problem = find_mismatch(converted, task)
    if problem is not None:
        return failed(task.task_id, problem, name=task.name)
    stored_labels = label_storer(pipeline.project, task, converted)

    def call() -> Call:
        return pipeline.project.put_labels(
            pipeline.stage, task.task_id, stored_labels(), finished=finished, elapsed_ms=elapsed_ms
        )

    if not finished:
        return relabel_change(
            task,
            call,
            me=pipeline.me,
            has_content=content_check(converted, task),
            keeps_task=not pipeline.release_after_save,
            detail=converted.detail,
        )
    if pipeline.stage.is_review:
        detail = {"decision": "correct", **converted.detail}
        return exit_change(
            pipeline, task, call, verdict=True, has_content=content_check(converted, task), detail=detail
        )
    return exit_change(pipeline, task, call, has_content=content_check(converted, task), detail=converted.detail)


def label_storer(project: RedBrickProject, task: Task, converted: Converted) -> Callable[[], Mapping[str, Any]]:
    """Return a function that uploads labels once and returns them for a mutation.

    :param project: the project, for its file storage.
    :param task: the task, with its series.
    :param converted: the labels.
    """

    @cache
    def stored_labels() -> Mapping[str, Any]:
        masks = labels_map(converted.masks, project.files, task.task_id) if converted.masks else []
        return project.files.label_variables(converted.on_items_of(task.series_info or ()), masks, task_id=task.task_id)

    return stored_labels


def submit_existing(pipeline: StagePipeline, task: Task) -> Change:
    """Return the change that submits a task with its existing labels.

    :param pipeline: the pipeline of the stage.
    :param task: the task.
    """
    return exit_change(pipeline, task, lambda: pipeline.project.submit_existing(pipeline.stage, task.task_id))


def exit_change(
    pipeline: StagePipeline,
    task: Task,
    call: Callable[[], Call],
    *,
    verdict: bool | None = None,
    has_content: Callable[[Task], bool | None] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Change:
    """Return a change that is applied once the task has left the stage.

    A task that is no longer queued, but on its way out, counts as left.

    :param pipeline: the pipeline of the stage.
    :param task: the task as it was read.
    :param call: creates the mutation.
    :param verdict: in a review stage, whether the task is accepted.
    :param has_content: whether a task has the labels that were sent; None if no labels were sent.
    :param detail: additional fields of the report row.
    """
    stage_name = pipeline.stage.public_name
    return Change(
        task,
        call,
        applied=lambda found: not found.is_queued_in(stage_name),
        source_stage=stage_name,
        verdict=verdict,
        has_content=has_content,
        detail=detail or {},
    )


def relabel_change(
    task: Task,
    call: Callable[[], Call],
    *,
    me: str,
    has_content: Callable[[Task], bool | None] | None = None,
    keeps_task: bool = False,
    detail: Mapping[str, Any] | None = None,
) -> Change:
    """Return a change that is applied once the task has new labels by this key.

    :param task: the task as it was read.
    :param call: creates the mutation.
    :param me: the user id of this key.
    :param has_content: whether a task has the labels that were sent.
    :param keeps_task: whether the key keeps the task.
    :param detail: additional fields of the report row.
    """
    return Change(
        task,
        call,
        applied=lambda found: found.relabeled_by(me, task),
        superseded=lambda found: found.labels_id != task.labels_id,
        has_content=has_content,
        keeps_task=keeps_task,
        detail=detail or {},
    )


def content_check(converted: Converted, task: Task) -> Callable[[Task], bool | None]:
    """Return a function that compares a task's labels with those that were sent for it.

    :param converted: the labels that were sent.
    :param task: the task as it was read before, with its series.
    """

    def has_content(found: Task) -> bool | None:
        if found.labels is None or "labels" in found.unread:
            return None
        return contains_labels(found.labels, converted.on_items_of(task.series_info or ()))

    return has_content


def contains_labels(stored: Sequence[Mapping[str, Any]], sent: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether stored labels are those that were sent; the server may add fields and change their order.

    :param stored: the labels as read, in the stored format.
    :param sent: the labels as sent, in the stored format.
    """
    if len(stored) != len(sent):
        return False
    if all(map(_includes, stored, sent)):
        return True
    remaining = list(stored)
    for label in sent:
        match = next((i for i, candidate in enumerate(remaining) if _includes(candidate, label)), None)
        if match is None:
            return False
        del remaining[match]
    return True


def _includes(stored: Any, sent: Any) -> bool:
    if isinstance(sent, Mapping):
        return isinstance(stored, Mapping) and all(
            value is None or _includes(stored.get(key), value) for key, value in sent.items()
        )
    if isinstance(sent, (list, tuple)):
        return isinstance(stored, (list, tuple)) and len(stored) == len(sent) and all(map(_includes, stored, sent))
    if isinstance(sent, float) and isinstance(stored, (int, float)):
        return isclose(stored, sent, rel_tol=1e-6)
    return bool(stored == sent)


def find_mismatch(converted: Converted, task: Task) -> str | None:
    """Return why labels do not fit a task, or None if they do.

    Labels do not fit if something would be lost or never be shown.

    :param converted: the labels.
    :param task: the task, with its series and masks.
    :raises RedBrickNotReadError: if the series or masks of the task were not read.
    """
    task.require("series_info", "labels_map")
    problem = (
        _series_out_of_range(converted, task)
        or _misplaced_label(converted, task)
        or _unknown_mask(converted, task)
        or _lost_mask(converted, task)
    )
    return f"{problem}; nothing was sent" if problem else None


def _series_out_of_range(converted: Converted, task: Task) -> str | None:
    series = [mask.series for mask in converted.masks]
    series += [label["volumeindex"] for label in converted.labels or () if isinstance(label.get("volumeindex"), int)]
    highest = max(series, default=-1)
    if task.series_info and highest >= len(task.series_info):
        return f"its labels are for series {highest}, but it has {len(task.series_info)}"
    return None


def _misplaced_label(converted: Converted, task: Task) -> str | None:
    """Return which label is on an item that is not in its series, or None."""
    views = series_items(task.series_info or (), task.items or ())
    problem = misplaced(converted.references, views, task.items or ())
    if problem is not None or converted.references:
        return problem
    return next(filter(None, (_misplaced_by_index(label, views, i) for i, label in enumerate(converted.labels))), None)


def _misplaced_by_index(label: Mapping[str, Any], views: Sequence[Sequence[int]], index: int) -> str | None:
    """Return which item of an older-format label is wrong, or None."""
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
        f"labels[{index}], globalitemsindex: {item} is no item of series {series}, which has {len(view)} of the items"
    )


def _unknown_mask(converted: Converted, task: Task) -> str | None:
    for mask in converted.masks:
        if mask.file is None and mask.stored != task.masks.get(mask.series):
            return f"series {mask.series}: {mask.stored!r} is not a local file, and not the stored mask of the task"
    return None


def _lost_mask(converted: Converted, task: Task) -> str | None:
    masked = {mask.series for mask in converted.masks}
    lost = sorted(task.masks.keys() - masked - converted.unmasked)
    if lost:
        return (
            f"series {lost[0]} has a segmentation mask, which these labels would remove. Add its segmentations and "
            f"segmentMap to keep it, or 'segmentations': [] to remove it"
        )
    return None
