"""Operations on one project.

Design notes:

1. What rarely changes (name, stages, taxonomy) is read once and cached. It is dropped when a task is in a stage that
   the cache lacks, once per such stage.
2. A listing is not a snapshot: a task that moves between two pages is listed twice by the server, or not at all.
   Duplicates are removed.
3. Search terms of the server are hints (it matches ids too). Names are compared again on the client.
4. Mutations of single tasks are returned as :class:`Call` and sent by :meth:`Scope.send`, several per request.
5. The mutations that assign return the tasks that the server says were changed, with their stages. The caller
   verifies them by reading.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick._utils import in_chunks, read_once, run_concurrently
from airflow_provider_redbrick.client.models.parsing import Name, identifier, reading, text
from airflow_provider_redbrick.client.models.task import (
    STAYED,
    AssigneeChange,
    Detail,
    Member,
    OutputEvent,
    Task,
    assignee_changes,
    output_events,
)
from airflow_provider_redbrick.client.models.workflow import Stage, Workflow, public_stage_name
from airflow_provider_redbrick.client.operations import queries
from airflow_provider_redbrick.client.operations.account import Scope
from airflow_provider_redbrick.client.operations.remote_labeling import RemoteStage
from airflow_provider_redbrick.client.operations.task_reads import TASKS_PER_READ, pages, read_aliased, render_aliased
from airflow_provider_redbrick.client.operations.uploads import ProjectFiles, ProjectImports
from airflow_provider_redbrick.client.transport.graphql import Call
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.client.operations.account import RedBrickClient

MAX_IDS = 50
"""Maximum ids per request that assigns or locates tasks; RedBrick's SDK has the same limit."""


@dataclass(frozen=True)
class ProjectInfo:
    """A project without its tasks.

    :param name: the project's name.
    :param url: its address in RedBrick's web application.
    :param consensus: whether several people label each task.
    :param workflow: its stages.
    """

    name: str
    url: str | None
    consensus: bool
    workflow: Workflow


class RedBrickProject(Scope):
    """One project. What rarely changes, such as its stages, is read once and cached.

    :param client: the account.
    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :raises RedBrickInputError: if an id is not a UUID.
    """

    def __init__(self, client: RedBrickClient, org_id: str, project_id: str) -> None:
        super().__init__(client, org_id, project_id)
        self._not_listed: set[str] = set()

    @read_once
    def files(self) -> ProjectFiles:
        """The project's stored files."""
        return ProjectFiles(self)

    @read_once
    def imports(self) -> ProjectImports:
        """Operations that create tasks."""
        return ProjectImports(self)

    # ------------------------------------------------------------------ reads

    def open(self, *others: Callable[[], object], taxonomy: bool = False) -> None:
        """Read concurrently what will be needed: the project and the credential's user.

        :param others: functions to run at the same time.
        :param taxonomy: also read the taxonomy, in the same request as the project.
        """
        run_concurrently(self._read_with_taxonomy if taxonomy else lambda: self.info, self.client.me, *others)

    @read_once
    def info(self) -> ProjectInfo:
        """The project's name, URL, stages, and whether consensus is enabled.

        :raises RedBrickNotFoundError: if the project does not exist or the key cannot see it.
        """
        return _info(self._found(queries.PROJECT))

    @read_once
    def taxonomy(self) -> Mapping[str, Any]:
        """The taxonomy in the API's format; empty if the project has none.

        :raises RedBrickNotFoundError: if the project does not exist or the key cannot see it.
        """
        return _taxonomy(self._found(queries.TAXONOMY))

    def stage(self, name: str) -> Stage:
        """Return a stage by any of its names.

        A stage that the cached project lacks may be new or renamed, so the project is read again before the error is
        raised.

        :raises RedBrickInputError: if the project has no such stage; the message lists its stages.
        """
        if self._cache_lacks(name):
            forget(self)
        return self.info.workflow.find(name)

    def members(self) -> list[Member]:
        """Return the people in the project."""
        data = self.execute(queries.PROJECT_MEMBERS, {})
        with reading("projectMembers"):
            found = [Member.from_wire(entry) for entry in data["projectMembers"]]
        return [member for member in found if member is not None]

    def remote(self, stage: Stage) -> RemoteStage:
        """Return the operations of a remote-labeling stage."""
        return RemoteStage(self, stage.name)

    def count(self, stage: Stage) -> int:
        """Return the number of tasks in a stage, as counted by the server."""
        return self.counts([stage])[stage.name]

    def counts(self, stages: Sequence[Stage]) -> dict[str, int]:
        """Return the server's number of tasks by stage name, in one request.

        Each ``remote-labeling`` stage takes a request of its own.
        """
        counts = {stage.name: self.remote(stage).count() for stage in stages if stage.is_remote}
        others = [stage for stage in stages if not stage.is_remote]
        if others:
            variables = {f"stage{i}": stage.counting_name for i, stage in enumerate(others)}
            data = self.execute(render_aliased(queries.TASK_COUNTS, len(others)), variables)
            with reading("tasksPaged"):
                counts |= {stage.name: int(data[f"c{i}"]["count"]) for i, stage in enumerate(others)}
        return counts

    def queues(self) -> dict[str, int]:
        """Return the server's number of tasks by public stage name."""
        stages = self.info.workflow.stages
        counts = self.counts(stages)
        return {stage.public_name: counts[stage.name] for stage in stages}

    def count_by_listing(self, stage: Stage, *, unassigned: bool, stop_at: int) -> int:
        """Count the tasks queued in a stage by listing them.

        :param stage: the stage.
        :param unassigned: count only tasks without an assignee.
        :param stop_at: the number at which counting stops.
        """
        listed = self.list_tasks(stage, unassigned=unassigned, page_size=max(1, stop_at))
        return sum(1 for _ in islice(listed, stop_at))

    def list_tasks(
        self,
        stage: Stage | None = None,
        *,
        unassigned: bool = False,
        assignee: str | None = None,
        state: str | None = None,
        name: Name | None = None,
        page_size: int | None = None,
    ) -> Iterator[Task]:
        """Yield tasks page by page, each once.

        Tasks that are leaving their stage are omitted: they can no longer be worked on there. A listing is not a
        snapshot: the server lists a task that moves between two pages twice, or not at all.

        :param stage: the stage; ``None`` for all stages.
        :param unassigned: only tasks that have no assignee and can be claimed.
        :param assignee: a user id or email; ``me`` for the credential's user.
        :param state: a task state, e.g. ``STAGED``.
        :param name: only tasks with a matching name.
        :param page_size: tasks per page; ``None`` for the client's setting.
        :raises RedBrickAPIError: if a page cannot be read; the listing is then incomplete.
        """
        filters: dict[str, Any] = {}
        if unassigned:
            # An explicit null selects unassigned tasks; without the key, the assignee does not matter.
            filters["userId"] = None
        elif assignee:
            filters["userId"] = self.client.me() if assignee == "me" else assignee
        if state:
            filters["status"] = state
        variables = {
            "stageName": stage.name if stage else None,
            "taskSearch": name.search if name else None,
            "manualLabelingFilters": filters,
        }
        seen: set[str] = set()
        for task in self._listed(variables, page_size or self.client.page_size):
            if task.task_id in seen or (name is not None and not name.fits(task.name)):
                continue
            # The server also lists finished tasks and tasks with an open issue as unassigned.
            is_free = task.assignee is None and task.state not in {None, "COMPLETED", "PROBLEM"}
            if is_free if unassigned else not task.is_leaving:
                seen.add(task.task_id)
                yield task

    def read_tasks(
        self, task_ids: Sequence[str], *, detail: Detail = Detail.STATE
    ) -> dict[str, Task | RedBrickAPIError]:
        """Read tasks by id.

        :param task_ids: the tasks.
        :param detail: how much is read of each.
        :return: by task id, the task or the error that says why it could not be read (``RedBrickNotFoundError`` if it
            does not exist).
        """
        parse = partial(Task.from_wire, asked=_ASKED[detail])
        if detail is not Detail.FULL:
            query = queries.TASK_STATES if detail is Detail.STATE else queries.TASK_PLACES
            states = read_aliased(self, query, task_ids, parse, per_request=MAX_IDS)
            self._compare_stages(states)
            return states
        answers = read_aliased(self, queries.TASKS_IN_FULL, task_ids, parse)
        for task_id, task in answers.items():
            if isinstance(task, Task) and task.labels_url:
                answers[task_id] = self._with_stored_labels(task, task.labels_url)
        return answers

    def are_labeled(self, task_ids: Sequence[str], *, by: str) -> dict[str, bool | RedBrickAPIError]:
        """Read which tasks have labels, or were saved without labels by a user.

        :param task_ids: the tasks.
        :param by: the user's id.
        :return: by task id, the answer or the error that says why it is unknown.
        """

        def is_labelled(data: Mapping[str, Any]) -> bool:
            task = Task.from_wire(data, asked=frozenset({"labels_map", "labels_url", "labels_by"}))
            return task.has_labels or task.saved_by(by)

        return read_aliased(self, queries.TASKS_WITH_LABELS, task_ids, is_labelled)

    def output_events(self, task_ids: Sequence[str]) -> dict[str, tuple[OutputEvent, ...] | RedBrickAPIError]:
        """Read when each task left which stage, oldest first."""
        return read_aliased(self, queries.TASK_EVENTS, task_ids, output_events)

    def assignee_changes(self, task_ids: Sequence[str]) -> dict[str, tuple[AssigneeChange, ...] | RedBrickAPIError]:
        """Read when each task changed hands, oldest first."""
        return read_aliased(self, queries.TASK_HOLDERS, task_ids, assignee_changes)

    def find_by_name(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return, by exact name, the ids of the tasks with that name."""
        found: dict[str, list[str]] = {}
        for chunk in in_chunks(dict.fromkeys(names), TASKS_PER_READ):
            variables: dict[str, Any] = {f"name{i}": Name(name).search for i, name in enumerate(chunk)}
            data = self.execute(render_aliased(queries.TASKS_BY_NAME, len(chunk)), variables)
            for i, name in enumerate(chunk):
                with reading("genericTasks"):
                    page = dict(data[f"n{i}"])
                    tasks: Iterable[Task] = [Task.from_wire(entry) for entry in list(page["entries"])]
                if page.get("cursor"):
                    variables = {"stageName": None, "taskSearch": Name(name).search, "manualLabelingFilters": {}}
                    tasks = self._listed(variables, self.client.page_size)
                found[name] = list(dict.fromkeys(task.task_id for task in tasks if task.name == name))
        return found

    # -------------------------------------------------------------- mutations

    def assign(self, task_ids: Sequence[str], email: str) -> dict[str, str]:
        """Assign up to 50 tasks to one person.

        :param task_ids: the tasks.
        :param email: the person's email.
        :return: the stage of each task whose assignee changed, empty if the server does not say.
        :raises ValueError: if the email is blank, or the number of tasks is out of range.
        """
        if not email.strip():
            # Without an email the same mutation unassigns the tasks.
            raise ValueError("assign() needs an email. Use release() to unassign tasks.")
        return self._assign(task_ids, emails=[email], current_user=False)

    def claim(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Assign up to 50 tasks to the API key.

        :return: the stage of each task whose assignee changed, empty if the server does not say.
        """
        return self._assign(task_ids, emails=None, current_user=True)

    def release(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Unassign up to 50 tasks.

        :return: the stage of each task whose assignee changed, empty if the server does not say.
        """
        return self._assign(task_ids, emails=None, current_user=False)

    # These methods return a Call and send nothing, so that several can share a request: see Scope.send().

    def put_labels(
        self, stage: Stage, task_id: str, labels: Mapping[str, Any], *, finished: bool, elapsed_ms: int = 0
    ) -> Call:
        """Return the mutation that saves labels on a task, or submits the task with them.

        In a review stage, submitting accepts the task with these labels as the correction.

        :param stage: the stage that the task is in.
        :param task_id: the task.
        :param labels: the return value of :meth:`ProjectFiles.label_variables`.
        :param finished: submit (``True``) or save as a draft (``False``).
        :param elapsed_ms: the time spent, in milliseconds.
        """
        variables = {
            "stageName": stage.name,
            "taskId": task_id,
            "elapsedTimeMs": elapsed_ms,
            "finished": finished,
            **labels,
        }
        return Call(queries.PUT_MANUAL_LABELING_TASK_AND_LABELS, variables, task_id)

    def put_labels_anywhere(
        self, task_id: str, labels: Mapping[str, Any], *, extra: Mapping[str, Any], elapsed_ms: int = 0
    ) -> Call:
        """Return the mutation that replaces a task's labels in place.

        It does not matter who holds the task.

        :param task_id: the task; it stays in its stage.
        :param labels: the return value of :meth:`ProjectFiles.label_variables`.
        :param extra: what the audit trail stores with the event, JSON-serializable.
        :param elapsed_ms: the time spent, in milliseconds.
        """
        variables = {
            "taskId": task_id,
            "finalize": False,
            "timeSpentMs": elapsed_ms,
            "extraData": json.dumps({**extra, STAYED: True}),
            **labels,
        }
        return Call(queries.PUT_LABELS, variables, task_id)

    def submit_existing(self, stage: Stage, task_id: str) -> Call:
        """Return the mutation that submits a task with its current labels.

        :param stage: the stage that the task is in.
        :param task_id: the task.
        """
        return Call(queries.PUT_MANUAL_LABELING_TASK, {"stageName": stage.name, "taskId": task_id}, task_id)

    def review(
        self, stage: Stage, task_id: str, *, accept: bool, comment: str | None = None, elapsed_ms: int = 0
    ) -> Call:
        """Return the mutation that accepts or rejects a task, without changing its labels.

        :param stage: the review stage that the task is in.
        :param task_id: the task.
        :param accept: accept (``True``) or reject (``False``).
        :param comment: a comment for the labeler.
        :param elapsed_ms: the time spent, in milliseconds.
        """
        variables = {
            "stageName": stage.name,
            "taskId": task_id,
            "reviewVal": accept,
            "comment": comment,
            "elapsedTimeMs": elapsed_ms,
        }
        return Call(queries.PUT_EXPERT_REVIEW_TASK, variables, task_id)

    def move_to_start(self, task_id: str) -> Call:
        """Return the mutation that moves a ground-truth task to the first stage."""
        return Call(queries.MOVE_TASK_TO_START, {"taskId": task_id}, task_id)

    # ---------------------------------------------------------------- private

    def _read_with_taxonomy(self) -> None:
        found = self._found(queries.PROJECT_WITH_TAXONOMY)
        # The cached properties store their values here.
        vars(self).update(info=_info(found), taxonomy=_taxonomy(found))

    def _cache_lacks(self, name: str) -> bool:
        cached = vars(self).get("info")
        return cached is not None and not cached.workflow.has(name)

    def _compare_stages(self, answers: Mapping[str, Task | RedBrickAPIError]) -> None:
        """Drop the cached project if a task is in an unknown stage; once per such stage."""
        names = {task.stage_name for task in answers.values() if isinstance(task, Task)}
        lacking = {name for name in names if self._cache_lacks(name)} - self._not_listed
        if lacking:
            self._not_listed |= lacking
            forget(self)

    def _found(self, document: str) -> Mapping[str, Any]:
        """Read fields of the project itself."""
        found = self.execute(document, {}).get("project")
        if not found:
            raise RedBrickNotFoundError(
                f"There is no project {self.project_id} in organization {self.org_id}, or this API key cannot see it."
            )
        with reading("project"):
            return dict(found)

    def _assign(self, task_ids: Sequence[str], *, emails: list[str] | None, current_user: bool) -> dict[str, str]:
        if not 0 < len(task_ids) <= MAX_IDS:
            raise ValueError(f"One request assigns 1 to {MAX_IDS} tasks, not {len(task_ids)}.")
        variables = {
            "taskIds": list(task_ids),
            "emails": emails,
            "currentUser": current_user,
            "refresh": True,
        }
        data = self.execute(queries.ASSIGN_TASKS_MULTIPLE_USERS, variables, task_ids=task_ids)
        operation = "assignTasksMultipleUsers"
        with reading(operation, task_ids=task_ids, maybe_applied=True):
            assigned = {identifier(entry["taskId"]): text(entry.get("stageName")) for entry in data[operation] or ()}
        # Ignore tasks in the answer that were not part of the request.
        requested = {task_id.lower() for task_id in task_ids}
        return {task_id: public_stage_name(stage) for task_id, stage in assigned.items() if task_id in requested}

    def _listed(self, variables: Mapping[str, Any], page_size: int) -> Iterator[Task]:
        for entry in pages(
            lambda cursor, first: self._page(variables, cursor, first),
            page_size=min(page_size, self.client.page_size),
        ):
            with reading("genericTasks"):
                task = Task.from_wire(entry, asked=_LISTED)
            yield task

    def _page(self, variables: Mapping[str, Any], cursor: str | None, first: int) -> tuple[list[Any], str | None]:
        data = self.execute(queries.GENERIC_TASKS, {**variables, "first": first, "after": cursor})
        with reading("genericTasks"):
            page = data["genericTasks"]
            return list(page["entries"]), page["cursor"]

    def _with_stored_labels(self, task: Task, url: str) -> Task | RedBrickAPIError:
        """Fetch labels that do not fit inline."""
        try:
            return replace(task, labels=self.files.labels(url))
        except RedBrickAPIError as error:
            error.task_ids = (task.task_id,)
            return error


# Fields that the selections request, and that a server may omit if they are empty. Labels are not among them:
# an answer without labels does not say that there are none.
_PLACE = frozenset({"state", "assignee", "created_at", "updated_at"})
_STATE = _PLACE - {"created_at"} | {"series_info", "labels_map", "labels_id", "labels_by", "labels_at"}
_ASKED = {
    Detail.PLACE: _PLACE,
    Detail.STATE: _STATE,
    Detail.FULL: _STATE | {"dp_id", "metadata", "priority", "items", "item_urls", "labels_url"},
}
_LISTED = _PLACE | {"dp_id", "metadata", "priority", "assigned_at", "saved_at"}


def forget(project: RedBrickProject) -> None:
    """Drop the cached project data; it is read again when it is needed."""
    for name in ("info", "taxonomy"):
        vars(project).pop(name, None)


def _info(found: Mapping[str, Any]) -> ProjectInfo:
    with reading("project"):
        consensus = (found.get("consensusSettings") or {}).get("enabled") is True
        return ProjectInfo(
            str(found.get("name") or ""), found.get("projectUrl"), consensus, Workflow.from_wire(found["stages"])
        )


def _taxonomy(found: Mapping[str, Any]) -> Mapping[str, Any]:
    with reading("project"):
        return dict(found["taxonomy"] or {})
