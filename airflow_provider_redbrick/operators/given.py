"""Tasks with labels as users give them to an operator: in a list or in a file, each by its id or by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.batch.naming import ids_by_name
from airflow_provider_redbrick.batch.parallel import in_parallel
from airflow_provider_redbrick.batch.reading import CHUNK
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.labels.entries import Entry, read_entries

if TYPE_CHECKING:
    from airflow_provider_redbrick.batch.stage_work import StageWork


class EmptyFileError(RedBrickInputError):
    """A file that should list tasks lists none."""


@dataclass(frozen=True, repr=False)
class Given:
    """One task as it was given; the repr shows none of its labels.

    :param task_id: its id, empty until the task with its name is found.
    :param entry: all that was said of it.
    :param problem: why it cannot be worked on, if so.
    :param place: where in a file it is; in a list, the id or name says enough.
    """

    task_id: str = ""
    name: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    place: str = ""

    def sound_id(self) -> str:
        """Return the task's id.

        :raises RedBrickInputError: when it cannot be worked on.
        """
        if self.problem:
            raise RedBrickInputError(self.problem)
        return self.task_id

    def told(self, reason: object) -> str:
        """Return a reason that says where the task was given."""
        return f"{self.place}: {reason}" if self.place else str(reason)


def in_list(tasks: Sequence[object]) -> list[Given]:
    """Return the tasks of a list, whose elements are objects, or plain ids.

    :raises RedBrickInputError: for the whole list, when something is wrong with any of it.
    """
    listed = []
    for i, entry in enumerate(tasks):
        try:
            listed.append(_read({"taskId": entry} if isinstance(entry, str) else entry))
        except RedBrickInputError as error:
            raise RedBrickInputError(f"tasks[{i}]: {error}") from None
    refuse_twins("taskId", [given.task_id for given in listed])
    refuse_twins("name", [given.name for given in listed])
    return listed


def in_file(file: BinaryIO, *, name: str) -> Iterator[Given]:
    """Return the tasks of a file, read one after the other; what is wrong with one is its problem.

    :param name: what the file is called in messages.
    :raises EmptyFileError: at once, if it has none.
    :raises RedBrickInputError: at once, if it cannot be read or is of another kind.
    """
    return map(_from_file, entries_of(file, name=name))


def entries_of(file: BinaryIO, *, name: str) -> Iterator[Entry]:
    """Return the entries of a file that has some, read one after the other.

    :param name: what the file is called in messages.
    :raises EmptyFileError: at once, if it has none.
    :raises RedBrickInputError: at once, if it cannot be read or is of another kind.
    """
    entries = read_entries(file, name=name)
    first = next(entries, None)
    if first is None:
        raise EmptyFileError(f"{name} is empty.")
    return chain([first], entries)


def _from_file(entry: Entry) -> Given:
    if entry.value is None:
        return Given(problem=entry.problem, place=entry.place)
    try:
        return replace(_read(entry.value), place=entry.place)
    except RedBrickInputError as error:
        return Given(problem=str(error), place=entry.place)


def _read(entry: object) -> Given:
    """Return a task as it names itself; what else an export says of it does not matter.

    :raises RedBrickInputError: when it does not name itself.
    """
    if not isinstance(entry, Mapping):
        raise RedBrickInputError(f"it must be an object, not {type(entry).__name__}.")
    if entry.get("taskId") is not None:
        return Given(check_uuid("'taskId'", entry["taskId"]), entry=entry)
    return Given(name=check.text("it must have a 'taskId' or a 'name': 'name'", entry.get("name")), entry=entry)


def with_ids(work: StageWork, entries: Iterable[Given]) -> Iterator[Given]:
    """Yield tasks with the ids that belong to their names, looked up a few at a time."""
    if isinstance(entries, Sequence) and not any(given.name for given in entries):
        return iter(entries)
    workers = work.project.client.max_concurrency
    return in_parallel(in_chunks(entries, CHUNK), partial(_with_ids, work), workers=workers, stop=Event())


def _with_ids(work: StageWork, batch: Sequence[Given]) -> list[Given]:
    ids = ids_by_name(work.project, [given.name for given in batch if given.name], work.breaker)
    return [_found(given, ids[given.name]) if given.name else given for given in batch]


def _found(given: Given, ids: list[str] | str) -> Given:
    if isinstance(ids, str):
        return replace(given, problem=ids)
    if len(ids) == 1:
        return replace(given, task_id=ids[0])
    many = "no task has" if not ids else f"{len(ids)} tasks have"
    return replace(given, problem=f"{many} the name {given.name!r}; nothing was sent")


def once_each(tasks: Iterable[Given]) -> Iterator[Given]:
    """Yield the tasks of a file; one that is named again has a problem there. Remembers ids and places alone."""
    places: dict[str, str] = {}
    for given in tasks:
        first = places.setdefault(given.task_id, given.place) if given.task_id else given.place
        if first == given.place:
            yield given
        else:
            yield replace(given, problem=f"{first} names this task already, and only the first counts")


def refuse_twins(what: str, values: Sequence[str]) -> None:
    """Refuse to guess which of two sets of labels for one task is meant; empty values are not looked at.

    :raises RedBrickInputError: when a value is there twice.
    """
    twins = sorted(value for value, times in Counter(values).items() if value and times > 1)
    if twins:
        raise RedBrickInputError(f"Named more than once ({what}): {', '.join(twins[:5])}. Nothing was sent.")
