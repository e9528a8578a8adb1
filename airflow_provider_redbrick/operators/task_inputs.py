"""Tasks with labels as operators accept them: in a list or in a file.

1. Each task names itself by ``taskId`` or by its exact ``name``. Names are resolved to ids in chunks.
2. A list is validated as a whole: one invalid entry refuses it, and nothing is sent.
3. A file is streamed. An invalid entry is the failure of that entry, and the first entry of a task wins.
4. For the duplicates of a file, only ids and positions are kept in memory.

The author of such a file is often not the author of the DAG. Files that it names must therefore be in its own folder,
or in a folder that the DAG allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.models.parsing import check_uuid
from airflow_provider_redbrick.engine.concurrency import in_parallel
from airflow_provider_redbrick.engine.task_reader import CHUNK, find_ids_by_name
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.labels.file_reader import Entry, read_entries
from airflow_provider_redbrick.operators.base import EmptyFileError

if TYPE_CHECKING:
    from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline


@dataclass(frozen=True, repr=False)
class TaskInput:
    """One task of the input. The repr does not show its labels.

    :param task_id: its id; empty until its name is resolved.
    :param name: its name; empty if it was given by id.
    :param entry: the whole input object.
    :param problem: why the task cannot be processed; empty if it can.
    :param place: its position in the file; empty for an entry of a list.
    """

    task_id: str = ""
    name: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    place: str = ""

    def get_valid_id(self) -> str:
        """Return the task's id.

        :raises RedBrickInputError: if the task cannot be processed.
        """
        if self.problem:
            raise RedBrickInputError(self.problem)
        return self.task_id

    def with_place(self, reason: object) -> str:
        """Return a reason prefixed with the entry's position in the file."""
        return f"{self.place}: {reason}" if self.place else str(reason)


def read_task_list(tasks: Sequence[object]) -> list[TaskInput]:
    """Parse a list of tasks.

    :param tasks: objects, or plain task ids.
    :raises RedBrickInputError: for the whole list, if an entry is invalid or a task is repeated.
    """
    listed = []
    for i, entry in enumerate(tasks):
        try:
            listed.append(_read({"taskId": entry} if isinstance(entry, str) else entry))
        except RedBrickInputError as error:
            raise RedBrickInputError(f"tasks[{i}]: {error}") from None
    refuse_duplicates("taskId", [task.task_id for task in listed])
    refuse_duplicates("name", [task.name for task in listed])
    return listed


def read_task_file(file: BinaryIO, *, name: str) -> Iterator[TaskInput]:
    """Yield the tasks of a file lazily. An invalid entry has a ``problem``.

    :param file: the open file.
    :param name: what messages call the file.
    :raises EmptyFileError: immediately, if it has no entries.
    :raises RedBrickInputError: immediately, if it cannot be read or has an unknown format.
    """
    return map(_from_file, read_file_entries(file, name=name))


def read_file_entries(file: BinaryIO, *, name: str) -> Iterator[Entry]:
    """Yield the entries of a file lazily, which must have at least one.

    :param file: the open file.
    :param name: what messages call the file.
    :raises EmptyFileError: immediately, if it has no entries.
    :raises RedBrickInputError: immediately, if it cannot be read or has an unknown format.
    """
    entries = read_entries(file, name=name)
    first = next(entries, None)
    if first is None:
        raise EmptyFileError(f"{name} is empty.")
    return chain([first], entries)


def _from_file(entry: Entry) -> TaskInput:
    if entry.value is None:
        return TaskInput(problem=entry.problem, place=entry.place)
    try:
        return replace(_read(entry.value), place=entry.place)
    except RedBrickInputError as error:
        return TaskInput(problem=str(error), place=entry.place)


def _read(entry: object) -> TaskInput:
    """Parse one entry. Keys that only an export writes are ignored.

    :raises RedBrickInputError: if it has neither ``taskId`` nor ``name``.
    """
    if not isinstance(entry, Mapping):
        raise RedBrickInputError(f"it must be an object, not {type(entry).__name__}.")
    if entry.get("taskId") is not None:
        return TaskInput(check_uuid("'taskId'", entry["taskId"]), entry=entry)
    return TaskInput(
        name=validation.text("it must have a 'taskId' or a 'name': 'name'", entry.get("name")), entry=entry
    )


def resolve_names(work: StagePipeline, entries: Iterable[TaskInput]) -> Iterator[TaskInput]:
    """Yield the tasks with their names resolved to ids, in chunks.

    :param work: the stage work, whose project the names belong to.
    :param entries: the tasks.
    """
    if isinstance(entries, Sequence) and not any(task.name for task in entries):
        return iter(entries)
    workers = work.project.client.max_concurrency
    return in_parallel(in_chunks(entries, CHUNK), partial(_resolve_names, work), workers=workers, stop=Event())


def _resolve_names(work: StagePipeline, batch: Sequence[TaskInput]) -> list[TaskInput]:
    ids = find_ids_by_name(work.project, [task.name for task in batch if task.name], work.breaker)
    return [_with_resolved_id(task, ids[task.name]) if task.name else task for task in batch]


def _with_resolved_id(task: TaskInput, ids: list[str] | str) -> TaskInput:
    if isinstance(ids, str):
        return replace(task, problem=ids)
    if len(ids) == 1:
        return replace(task, task_id=ids[0])
    subject = "no task has" if not ids else f"{len(ids)} tasks have"
    return replace(task, problem=f"{subject} the name {task.name!r}; nothing was sent")


def mark_repeated_tasks(tasks: Iterable[TaskInput]) -> Iterator[TaskInput]:
    """Yield the tasks of a file. A repeated task has a ``problem``.

    :param tasks: the tasks in the order of the file. Only their ids and positions are kept.
    """
    places: dict[str, str] = {}
    for task in tasks:
        first = places.setdefault(task.task_id, task.place) if task.task_id else task.place
        if first == task.place:
            yield task
        else:
            yield replace(task, problem=f"{first} already names this task; only the first entry is used")


def refuse_duplicates(what: str, values: Sequence[str]) -> None:
    """Refuse duplicates: it would be ambiguous which labels to send.

    :param what: the kind of value, for the message.
    :param values: the values; empty ones are ignored.
    :raises RedBrickInputError: if a value occurs more than once.
    """
    duplicates = sorted(value for value, times in Counter(values).items() if value and times > 1)
    if duplicates:
        raise RedBrickInputError(f"Duplicate {what}: {', '.join(duplicates[:5])}. Nothing was sent.")
