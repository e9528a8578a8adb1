"""Labels for tasks: from what users hand in to what the server stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.batch.change import Change
from airflow_provider_redbrick.batch.outcome import Outcome, failed
from airflow_provider_redbrick.batch.reading import NOT_TRIED
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickInputError,
    RedBrickPayloadTooLargeError,
    RedBrickRefusedError,
)

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.client import RedBrickClient
    from airflow_provider_redbrick.api.models import Task
    from airflow_provider_redbrick.batch.checking import LabelCheck
    from airflow_provider_redbrick.batch.stage_work import StageWork

# The import format insists on names and items; labels do not depend on them.
_ITEM = "https://test"
_NOT_LABELS = frozenset({"name", "items", "imageHeaders", "metaData"})
_CONVERSIONS_A_REQUEST = 25


@dataclass(frozen=True, repr=False)
class Labels:
    """Labels for one task, as handed in; the repr shows none of them.

    :param body: ``series`` and/or ``classification``, or the older ``labels``; None submits what the task has.
    """

    task_id: str
    body: Mapping[str, Any] | None

    def plain(self) -> Labels:
        """Return the same labels as plain JSON values: models hand out numbers of their own kinds.

        :raises RedBrickInputError: when there is something that JSON has no word for.
        """
        try:
            return Labels(self.task_id, json.loads(json.dumps(self.body, default=_plain_value)))
        except (TypeError, ValueError, RecursionError) as error:
            raise RedBrickInputError(f"its labels cannot be written as JSON: {error}") from None

    def to_import(self) -> dict[str, Any]:
        """Return the task in the server's import format.

        :raises RedBrickInputError: when the labels have no shape that can be sent.
        """
        body = self.body or {}
        task: dict[str, Any] = {"taskId": self.task_id, "name": self.task_id}
        if "labels" in body:
            if "series" in body or "classification" in body:
                raise RedBrickInputError("it has both the older 'labels' and 'series' or 'classification'")
            task.update(items=[_ITEM], labels=_list_of_objects(body["labels"], "labels"))
        else:
            given = body.get("series")
            # No series and none that hold anything are the same: a task has at least one.
            series = _list_of_objects([] if given is None else given, "series") or [{}]
            task["series"] = [_series(element, i) for i, element in enumerate(series)]
            if body.get("classification") is not None:
                task["classification"] = body["classification"]
        try:
            json.dumps(task, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RedBrickInputError(f"its labels cannot be written as JSON: {error}") from None
        return task


def read_body(value: object) -> Mapping[str, Any]:
    """Read what a labeler returned: an object in the ``series`` format, or just the list of series.

    :raises RedBrickInputError: when it is neither.
    """
    if isinstance(value, Mapping):
        body = {key: value[key] for key in ("series", "classification", "labels") if value.get(key) is not None}
        if body:
            return body
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and value:
        return {"series": list(value)}
    raise RedBrickInputError(
        "labels must be an object with 'series', 'classification' or the older 'labels', or a list of series, "
        f"not {type(value).__name__}" + (f" with {sorted(map(str, value))}" if isinstance(value, Mapping) else "")
    )


def convert(
    client: RedBrickClient, batch: Sequence[Labels], check: LabelCheck | None = None
) -> dict[str, Mapping[str, Any] | str]:
    """Have labels converted to what the server stores; for each id the result, or why there is none.

    :param check: looks at labels first, and raises for those that must not be sent.
    """
    result: dict[str, Mapping[str, Any] | str] = {}
    sendable = []
    for given in batch:
        try:
            labels = given.plain()
            if check is not None and labels.body is not None:
                check(labels.task_id, labels.body)
            sendable.append((labels.task_id, labels.to_import()))
        except RedBrickInputError as error:
            result[given.task_id] = f"cannot be sent: {error}"
        except RedBrickAPIError as error:
            result[given.task_id] = f"could not be checked: {error}"
    entries = iter(sendable)
    while chunk := list(islice(entries, _CONVERSIONS_A_REQUEST)):
        result.update(_convert_chunk(client, chunk))
    return result


def put_labels(
    work: StageWork, batch: Iterable[Labels], *, finished: bool = True, elapsed_ms: int = 0
) -> Iterator[Outcome]:
    """Put labels on tasks of a stage and submit them, or save them as drafts; yields one outcome a task.

    Labels are converted before their tasks are touched, so that an invalid one claims nothing.
    """
    entries = iter(batch)
    while chunk := list(islice(entries, _CONVERSIONS_A_REQUEST)):
        if work.breaker.is_open:
            yield from (failed(labels.task_id, NOT_TRIED) for labels in chunk)
            continue
        converted = convert(work.project.client, [labels for labels in chunk if labels.body is not None], work.check)
        for task_id, stored in converted.items():
            if isinstance(stored, str):
                yield failed(task_id, f"Its labels {stored.rstrip('.')}. Nothing was sent.")
        valid = {task_id: stored for task_id, stored in converted.items() if not isinstance(stored, str)}
        bodiless = {labels.task_id for labels in chunk if labels.body is None}

        def plan(
            tasks: Sequence[Task], valid: Mapping[str, Any] = valid, bodiless: set[str] = bodiless
        ) -> list[list[Change | Outcome]]:
            return [
                [
                    submit_existing(work, task)
                    if task.task_id in bodiless
                    else put(work, task, valid[task.task_id], finished=finished, elapsed_ms=elapsed_ms)
                    for task in tasks
                ]
            ]

        wanted = [labels.task_id for labels in chunk if labels.task_id in bodiless or labels.task_id in valid]
        yield from work.run(wanted, plan)


def put_all(
    work: StageWork, labelled: Sequence[tuple[Task, Labels, int]], *, finished: bool, what: str
) -> Iterator[Change | Outcome]:
    """Convert the labels that a callable gave to tasks, and yield for each the change that puts them there.

    :param labelled: tasks, their labels, and the milliseconds it took to make them.
    :param what: what the labels are, for messages.
    """
    converted = convert(work.project.client, [labels for _, labels, _ in labelled], work.check)
    for task, _, elapsed_ms in labelled:
        stored = converted[task.task_id]
        if isinstance(stored, str):
            yield failed(task.task_id, f"{what} {stored.rstrip('.')}. Nothing was sent.", name=task.name)
        else:
            yield put(work, task, stored, finished=finished, elapsed_ms=elapsed_ms)


def put(
    work: StageWork, task: Task, stored: Mapping[str, Any], *, finished: bool, elapsed_ms: int = 0
) -> Change | Outcome:
    """Return the change that puts converted labels on a task, and submits it when ``finished``."""
    if task.has_masks and not stored.get("labelsMap"):
        # Labels replace all that is there, and masks cannot be sent along yet.
        reason = "it has segmentation masks, which these labels would remove; nothing was sent"
        return failed(task.task_id, reason, name=task.name)
    beyond = _series_beyond(stored, task)
    if beyond is not None:
        reason = f"its labels are for series {beyond}, but it has {len(task.series_info)}; nothing was sent"
        return failed(task.task_id, reason, name=task.name)

    def send() -> None:
        work.project.put_labels(work.stage, task.task_id, stored, finished=finished, elapsed_ms=elapsed_ms)

    if not finished:
        return Change(task, send, _has_new_labels(work, task))
    return leaving(work, task, send, verdict=True if work.stage.is_review else None)


def submit_existing(work: StageWork, task: Task) -> Change:
    """Return the change that submits a task with the labels it has."""
    return leaving(work, task, lambda: work.project.submit_existing(work.stage, task.task_id))


def leaving(work: StageWork, task: Task, send: Callable[[], None], *, verdict: bool | None = None) -> Change:
    """Return a change that takes a task out of the stage: applied when it has left, or is on its way out.

    :param verdict: what a review decides.
    """
    stage_name = work.stage.public_name
    return Change(
        task,
        send,
        applied=lambda found: not found.is_queued_in(stage_name),
        leaves=stage_name,
        verdict=verdict,
    )


def _has_new_labels(work: StageWork, before: Task) -> Callable[[Task], bool]:
    """Return whether a task, read again, has labels that this key saved after ``before`` was read."""
    return lambda task: task.labels_id != before.labels_id and task.saved_by(work.me)


def _convert_chunk(
    client: RedBrickClient, chunk: Sequence[tuple[str, dict[str, Any]]]
) -> dict[str, Mapping[str, Any] | str]:
    """Convert several tasks at once; halve a list that is refused until the invalid ones stand alone."""
    try:
        converted = client.convert_labels([task for _, task in chunk])
    except (RedBrickInputError, RedBrickRefusedError, RedBrickPayloadTooLargeError) as error:
        if len(chunk) == 1:
            return {chunk[0][0]: f"cannot be sent: {error}"}
    except RedBrickAPIError as error:
        return {task_id: f"could not be checked: {error}" for task_id, _ in chunk}
    else:
        return {task_id: stored for (task_id, _), stored in zip(chunk, converted, strict=True)}
    middle = len(chunk) // 2
    return {**_convert_chunk(client, chunk[:middle]), **_convert_chunk(client, chunk[middle:])}


def _series(element: Mapping[str, Any], index: int) -> dict[str, Any]:
    masks = [key for key in ("segmentations", "segmentMap") if element.get(key)]
    if masks:
        # Better refused than submitted without its masks.
        raise RedBrickInputError(f"series {index} has {' and '.join(masks)}: masks cannot be uploaded yet")
    if element.get("unknown"):
        raise RedBrickInputError(f"series {index} has labels of an unknown kind, which would be lost")
    kept = {key: value for key, value in element.items() if key not in _NOT_LABELS and value is not None}
    kept.pop("unknown", None)
    return {**kept, "name": f"{index}", "items": _ITEM}


def _list_of_objects(value: object, what: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(element, Mapping) for element in value):
        raise RedBrickInputError(f"its {what!r} must be a list of objects")
    return list(value)


def _series_beyond(stored: Mapping[str, Any], task: Task) -> int | None:
    """Return a series that labels are for and the task does not have: nobody would ever see them."""
    labels = stored.get("labels") or ()
    indices = (label.get("volumeindex") for label in labels if isinstance(label, dict))
    highest = max((index for index in indices if isinstance(index, int)), default=-1)
    return highest if task.series_info and highest >= len(task.series_info) else None


def _plain_value(value: Any) -> Any:
    """Turn an array library's number or array into a plain one."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return value.tolist()
