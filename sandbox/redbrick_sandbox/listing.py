"""List tasks with filters, in pages.

A cursor encodes the sort key (priority, then age) of the last task on a page, not an offset. Tasks that leave the list
while a client reads it therefore do not hide others.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import demo_project
from redbrick_sandbox.state_machine import COMPLETED
from redbrick_sandbox.store import Record, record_of
from redbrick_sandbox.transitions import ARCHIVED, GROUND_TRUTH, RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redbrick_sandbox.sandbox import Project, Sandbox

DEFAULT_PAGE = 50


@dataclass(frozen=True)
class Page:
    """Tasks in order, and the cursor of the next page; None on the last page."""

    records: list[Record]
    cursor: str | None


@dataclass(frozen=True)
class Query:
    """Conditions on the tasks table, joined by AND, and their values."""

    conditions: tuple[str, ...]
    values: tuple[Any, ...]

    def where(self, condition: str, *values: Any) -> Query:
        """Return the query with one more condition.

        :param condition: SQL with a placeholder for each value.
        :param values: the values.
        """
        return Query((*self.conditions, condition), (*self.values, *values))


def listed_stage(project: Project, name: str | None) -> str | None:
    """Return the stored name of a stage in `genericTasks`.

    :param project: the project of the stage.
    :param name: name in the query. Ground truth has the name of the output stage. None means all stages.
    :raises RefusalError: if the stage does not exist.
    """
    if name is None:
        return None
    if name == project.flow.output:
        return GROUND_TRUTH
    if name == ARCHIVED or project.flow.find(name) is not None:
        return name
    raise RefusalError(_unknown(project, name, project.flow.output))


def paged_stage(project: Project, name: str | None) -> str | None:
    """Return the stored name of a stage in `tasksPaged` and `moveTasks`.

    :param project: the project of the stage.
    :param name: name in the query. Ground truth is "END". None means all stages.
    :raises RefusalError: if the stage does not exist.
    """
    if name is None or name in (GROUND_TRUTH, ARCHIVED):
        return name
    if name != project.flow.output and project.flow.find(name) is not None:
        return name
    raise RefusalError(_unknown(project, name, GROUND_TRUTH))


def _unknown(project: Project, name: str, ground_truth: str) -> str:
    names = [stage.name for stage in project.flow.stages if stage.name != project.flow.output]
    return f"there is no stage {name!r} here; the stages are {', '.join(map(repr, [*names, ground_truth]))}"


def in_stage(project: Project, stage: str | None) -> Query:
    """Select the tasks of a stage.

    :param project: the project of the stage.
    :param stage: stored name of the stage. None selects all tasks that are not archived.
    """
    everything = Query(("tasks.project_id = ?",), (project.project_id,))
    if stage is None:
        return everything.where("tasks.stage <> ?", ARCHIVED)
    return everything.where("tasks.stage = ?", stage)


def filtered(project: Project, stage: str | None, search: str | None, filters: Mapping[str, Any]) -> Query:
    """Select the tasks that `genericTasks` lists.

    :param project: the project of the tasks.
    :param stage: stored name of the stage. None means all stages.
    :param search: prefix of the name or the task id; in double quotes, an exact match.
    :param filters: filters that the client sent. A null userId selects unassigned tasks.
    """
    completed = bool(filters.get("recentlyCompleted"))
    query = _history(project, stage, filters) if completed else _queued(project, stage, filters)
    if filters.get("taskId") is not None:
        query = query.where("tasks.task_id = ?", filters["taskId"])
    if filters.get("status") is not None:
        query = query.where("tasks.state = ?", filters["status"])
    return _searched(query, search)


def _queued(project: Project, stage: str | None, filters: Mapping[str, Any]) -> Query:
    verdict = filters.get("reviewState")
    place = project.flow.find(stage) if stage else None
    if verdict is not None and place is not None and place.is_review:
        # Reviewed tasks have left the review stage. The filter selects by where they were reviewed, not where they are.
        query = in_stage(project, None).where(
            "(SELECT review_state FROM completions c WHERE c.task_id = tasks.task_id AND c.stage = ?"
            " ORDER BY c.seq DESC LIMIT 1) = ?",
            stage,
            verdict,
        )
    else:
        query = in_stage(project, stage)
        if verdict is not None:
            query = query.where("tasks.review_state = ?", verdict)
    if "userId" not in filters:
        return query
    if filters["userId"] is None:
        return query.where("tasks.holders = ''")
    return query.where("instr(tasks.holders, ?) > 0", f",{_user_id(filters['userId'])},")


def _history(project: Project, stage: str | None, filters: Mapping[str, Any]) -> Query:
    """Select tasks completed in a stage, or in any, that do not wait there again."""
    conditions = ["c.task_id = tasks.task_id"]
    values: list[Any] = []
    wanted = (
        ("c.stage = ?", stage),
        ("c.user = ?", _user_id(filters["userId"]) if filters.get("userId") else None),
        ("c.at >= ?", filters.get("completedAtFrom")),
        ("c.at <= ?", filters.get("completedAtTo")),
        ("c.review_state = ?", filters.get("reviewState")),
    )
    for condition, value in wanted:
        if value is not None:
            conditions.append(condition)
            values.append(value)
    query = in_stage(project, None).where(
        f"EXISTS (SELECT 1 FROM completions c WHERE {' AND '.join(conditions)})",  # noqa: S608 - constants of the code
        *values,
    )
    if stage is None:
        return query
    return query.where("(tasks.stage <> ? OR tasks.state = ?)", stage, COMPLETED)


def _user_id(name: str) -> str:
    person = demo_project.person_of(name)
    return person.user_id if person else name


def _searched(query: Query, search: str | None) -> Query:
    if not search:
        return query
    if len(search) > 1 and search[0] == search[-1] == '"':
        exact = search[1:-1]
        return query.where("(tasks.name = ? OR tasks.task_id = ?)", exact, exact)
    end = search + "\U0010ffff"
    return query.where(
        "((tasks.name >= ? AND tasks.name < ?) OR (tasks.task_id >= ? AND tasks.task_id < ?))",
        search,
        end,
        search,
        end,
    )


def count(sandbox: Sandbox, query: Query) -> int:
    """Count the tasks that a query selects.

    :param sandbox: the sandbox that stores the tasks.
    :param query: the query.
    """
    found = sandbox.store.row(
        f"SELECT COUNT(*) AS n FROM tasks WHERE {' AND '.join(query.conditions)}",  # noqa: S608 - constants of the code
        query.values,
    )
    return int(found["n"]) if found else 0


def page(sandbox: Sandbox, query: Query, first: int | None, after: str | None, *, empty: bool = False) -> Page:
    """Read a page of tasks.

    :param sandbox: the sandbox that stores the tasks.
    :param query: selects the tasks.
    :param first: page size. The default is 50, or the behavior `max_page` if that is less.
    :param after: cursor of the previous page.
    :param empty: return a page without tasks. Its cursor leads to the tasks that it should have contained.
    :raises RefusalError: if the page size or the cursor is invalid.
    """
    size = min(DEFAULT_PAGE, sandbox.behaviors.max_page) if first is None else first
    if size < 0:
        raise RefusalError(f"a page cannot have {size} tasks")
    if size > sandbox.behaviors.max_page:
        raise RefusalError(f"at most {sandbox.behaviors.max_page} tasks a page, not {size}")
    place, was_empty = read_cursor(after)
    if empty and not was_empty:
        return Page([], write_cursor(place, was_empty=True))
    if place is not None:
        query = query.where("(tasks.rank, tasks.seq) > (?, ?)", *place)
    rows = sandbox.store.rows(
        f"SELECT * FROM tasks WHERE {' AND '.join(query.conditions)} ORDER BY tasks.rank, tasks.seq LIMIT ?",  # noqa: S608 - constants of the code
        (*query.values, size + 1),
    )
    more = len(rows) > size
    rows = rows[:size]
    last = (rows[-1]["rank"], rows[-1]["seq"]) if rows else place
    return Page([record_of(row) for row in rows], write_cursor(last) if more and size else None)


def write_cursor(place: tuple[float, int] | None, *, was_empty: bool = False) -> str:
    """Encode a cursor.

    :param place: rank and number of the last task; None at the start of the list.
    :param was_empty: whether the page was left empty by a fault.
    """
    document = json.dumps([*(place or ()), "e"] if was_empty else list(place or ()))
    return base64.urlsafe_b64encode(document.encode()).decode()


def read_cursor(text: str | None) -> tuple[tuple[float, int] | None, bool]:
    """Decode a cursor.

    :return: rank and number of the last task, and whether the previous page was left empty by a fault.
    :raises RefusalError: if the text is not a cursor.
    """
    if text is None:
        return None, False
    try:
        document = json.loads(base64.urlsafe_b64decode(text.encode()))
        was_empty = bool(document) and document[-1] == "e"
        numbers = document[:-1] if was_empty else document
        return ((float(numbers[0]), int(numbers[1])) if numbers else None), was_empty
    except (ValueError, TypeError, IndexError, KeyError, RecursionError, binascii.Error):
        raise RefusalError(f"after: {text!r} is not a cursor of this server") from None
