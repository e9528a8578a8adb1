"""The operations of one project."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.aliased import TASKS_PER_READ, read_aliased
from airflow_provider_redbrick.api.answers import identifier, reading, text
from airflow_provider_redbrick.api.calls import Call
from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.api.detail import Detail
from airflow_provider_redbrick.api.files import ProjectFiles
from airflow_provider_redbrick.api.imports import ProjectImports
from airflow_provider_redbrick.api.models import STAYED, Member, OutputEvent, Task, User, holder_before, output_events
from airflow_provider_redbrick.api.pages import pages
from airflow_provider_redbrick.api.remote import RemoteStage
from airflow_provider_redbrick.api.scope import Scope
from airflow_provider_redbrick.api.stage_names import public_stage_name
from airflow_provider_redbrick.api.threads import at_once, read_once
from airflow_provider_redbrick.api.workflow import Stage, Workflow
from airflow_provider_redbrick.exceptions import (
    RedBrickAPIError,
    RedBrickNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_redbrick.api.client import RedBrickClient

MAX_IDS = 50
"""Ids per request that only assigns tasks, or asks where they are; RedBrick's own clients keep to it."""


@dataclass(frozen=True)
class ProjectInfo:
    """What a project is, apart from its tasks."""

    name: str
    url: str | None
    consensus: bool
    workflow: Workflow


@dataclass(frozen=True)
class Name:
    """Which names of tasks are looked for: the one that is given, or all that begin like it; case counts.

    What the server searches is no more than a hint: it matches ids as well as names, and takes a text in double
    quotes for an exact one.

    :param prefix: whether names that begin like it count too.
    """

    text: str
    prefix: bool = False

    @property
    def search(self) -> str | None:
        """What to have the server search for, so that it finds all that fit; None for everything."""
        if not self.prefix:
            return f'"{self.text}"'
        # What the server makes of a quote within a text is not documented.
        return self.text.partition('"')[0] or None

    def fits(self, name: str) -> bool:
        """Whether a task's name is one of them."""
        return name.startswith(self.text) if self.prefix else name == self.text


class RedBrickProject(Scope):
    """One project, as seen by one client. What rarely changes (its stages) is read once and kept."""

    def __init__(self, client: RedBrickClient, org_id: str, project_id: str) -> None:
        super().__init__(client, org_id, project_id)
        self._not_listed: set[str] = set()

    @read_once
    def files(self) -> ProjectFiles:
        """The project's stored files."""
        return ProjectFiles(self)

    @read_once
    def imports(self) -> ProjectImports:
        """What brings new tasks into the project."""
        return ProjectImports(self)

    # ------------------------------------------------------------------ reads

    def open(self, *others: Callable[[], object], taxonomy: bool = False) -> None:
        """Read at once what is kept and will be needed: the project itself, and whose credential this is.

        :param others: what else is done at the same time.
        :param taxonomy: what labels may be, too; in the same request as the project.
        """
        at_once(self._read_with_taxonomy if taxonomy else lambda: self.info, self.client.me, *others)

    @read_once
    def info(self) -> ProjectInfo:
        """The project's name, link, stages, and whether several people label each task.

        :raises RedBrickNotFoundError: when the project does not exist or this key cannot see it.
        """
        return _info(self._found(documents.PROJECT))

    @read_once
    def taxonomy(self) -> Mapping[str, Any]:
        """What labels may be, as the API tells it; empty when the project has no taxonomy.

        :raises RedBrickNotFoundError: when the project does not exist or this key cannot see it.
        """
        return _taxonomy(self._found(documents.TAXONOMY))

    def stage(self, name: str) -> Stage:
        """Return a stage by any of its names.

        A stage that what was kept of the project does not have may have been added or renamed since: the project is
        read again before the error.

        :raises RedBrickInputError: when the project has no such stage, naming those it has.
        """
        if self._kept_lacks(name):
            forget(self)
        return self.info.workflow.find(name)

    def members(self) -> list[Member]:
        """Return the people in the project."""
        data = self.execute(documents.PROJECT_MEMBERS, {})
        with reading("projectMembers"):
            found = [Member.from_wire(entry) for entry in data["projectMembers"]]
        return [member for member in found if member is not None]

    def remote(self, stage: Stage) -> RemoteStage:
        """Return what only a remote-labeling stage can do."""
        return RemoteStage(self, stage.name)

    def count(self, stage: Stage) -> int:
        """Return how many tasks are in a stage, by the server's own count."""
        return self.counts([stage])[stage.name]

    def counts(self, stages: Sequence[Stage]) -> dict[str, int]:
        """Return for the name of each stage how many tasks are in it, by the server's own count, in one request.

        A ``remote-labeling`` stage takes one of its own.
        """
        counts = {stage.name: self.remote(stage).count() for stage in stages if stage.is_remote}
        others = [stage for stage in stages if not stage.is_remote]
        if others:
            variables = {f"stage{i}": stage.counting_name for i, stage in enumerate(others)}
            data = self.execute(documents.task_counts(len(others)), variables)
            with reading("tasksPaged"):
                counts |= {stage.name: int(data[f"c{i}"]["count"]) for i, stage in enumerate(others)}
        return counts

    def queues(self) -> dict[str, int]:
        """Return for the public name of each stage how many tasks are in it, by the server's own count."""
        stages = self.info.workflow.stages
        counts = self.counts(stages)
        return {stage.public_name: counts[stage.name] for stage in stages}

    def count_by_listing(self, stage: Stage, *, unassigned: bool, stop_at: int) -> int:
        """Count the tasks queued in a stage by listing them, each once, no further than ``stop_at``."""
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
        """Yield tasks page by page, each once; a page that cannot be read is an error, never the end of the list.

        Tasks on their way out of a stage are left out: no one can work on them there any more. A listing is no
        snapshot: a task that changes its place between two pages is shown twice by the server, or not at all.

        :param unassigned: only tasks that nobody holds and anybody may take.
        :param assignee: a user id or e-mail; ``me`` for whoever's credential this is.
        :param state: a task state, e.g. ``STAGED``.
        :param name: only tasks with such a name.
        """
        filters: dict[str, Any] = {}
        if unassigned:
            # An explicit null asks for nobody's tasks; leaving the key out asks for anybody's.
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
            # Nobody holds what is finished or has an open issue, either, and the server lists those as unassigned too.
            is_free = task.assignee is None and task.state not in {None, "COMPLETED", "PROBLEM"}
            if is_free if unassigned else not task.is_leaving:
                seen.add(task.task_id)
                yield task

    def read_tasks(
        self, task_ids: Sequence[str], *, detail: Detail = Detail.STATE
    ) -> dict[str, Task | RedBrickAPIError]:
        """Read tasks by id.

        :return: for each id its task, or why it could not be read (``RedBrickNotFoundError``: there is none).
        """
        parse = partial(Task.from_wire, asked=_ASKED[detail])
        if detail is not Detail.FULL:
            document = documents.task_states if detail is Detail.STATE else documents.task_places
            states = read_aliased(self, document, task_ids, parse, per_request=MAX_IDS)
            self._compare_stages(states)
            return states
        answers = read_aliased(self, documents.tasks_in_full, task_ids, parse)
        for task_id, task in answers.items():
            if isinstance(task, Task) and task.labels_url:
                answers[task_id] = self._with_stored_labels(task, task.labels_url)
        return answers

    def are_labelled(self, task_ids: Sequence[str], *, by: str) -> dict[str, bool | RedBrickAPIError]:
        """Read which tasks have labels, or were found to have none by a user."""

        def is_labelled(data: Mapping[str, Any]) -> bool:
            task = Task.from_wire(data, asked=frozenset({"labels_map", "labels_url", "labels_by"}))
            return task.has_labels or task.saved_by(by)

        return read_aliased(self, documents.tasks_with_labels, task_ids, is_labelled)

    def output_events(self, task_ids: Sequence[str]) -> dict[str, tuple[OutputEvent, ...] | RedBrickAPIError]:
        """Read when each task left which stage, oldest first."""
        return read_aliased(self, documents.task_events, task_ids, output_events)

    def holders_before(self, task_ids: Sequence[str], user_id: str) -> dict[str, User | RedBrickAPIError | None]:
        """Read whom each task was taken from when a user got it last; None when nobody had it."""
        return read_aliased(self, documents.task_holders, task_ids, holder_before(user_id))

    def find_by_name(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return for each exact name the ids of the tasks called so."""
        found: dict[str, list[str]] = {}
        for chunk in in_chunks(dict.fromkeys(names), TASKS_PER_READ):
            variables: dict[str, Any] = {f"name{i}": Name(name).search for i, name in enumerate(chunk)}
            data = self.execute(documents.tasks_by_name(len(chunk)), variables)
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

    # The three that assign return the stage of each task that really changed hands, empty if not told.

    def assign(self, task_ids: Sequence[str], email: str) -> dict[str, str]:
        """Give up to 50 tasks to one person."""
        if not email.strip():
            # Without an e-mail the same mutation unassigns everybody.
            raise ValueError("assign() needs an e-mail; use release() to unassign.")
        return self._assign(task_ids, emails=[email], current_user=False)

    def claim(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Give up to 50 tasks to the API key."""
        return self._assign(task_ids, emails=None, current_user=True)

    def release(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Unassign up to 50 tasks."""
        return self._assign(task_ids, emails=None, current_user=False)

    # Mutations of single tasks are handed out to be sent, for several may go in one request: see :meth:`Scope.send`.

    def put_labels(
        self, stage: Stage, task_id: str, labels: Mapping[str, Any], *, finished: bool, elapsed_ms: int = 0
    ) -> Call:
        """Save labels on a task (``finished=False``), or submit it with them.

        In a review stage submitting means: accepted with these labels as the correction.

        :param labels: what :meth:`ProjectFiles.carry` returned.
        """
        variables = {
            "stageName": stage.name,
            "taskId": task_id,
            "elapsedTimeMs": elapsed_ms,
            "finished": finished,
            **labels,
        }
        return Call(documents.PUT_MANUAL_LABELING_TASK_AND_LABELS, variables, task_id)

    def put_labels_anywhere(
        self, task_id: str, labels: Mapping[str, Any], *, extra: Mapping[str, Any], elapsed_ms: int = 0
    ) -> Call:
        """Replace a task's labels wherever it is and whoever holds it; it stays where it is.

        :param labels: what :meth:`ProjectFiles.carry` returned.
        :param extra: what the audit trail keeps of this, as JSON.
        """
        variables = {
            "taskId": task_id,
            "finalize": False,
            "timeSpentMs": elapsed_ms,
            "extraData": json.dumps({**extra, STAYED: True}),
            **labels,
        }
        return Call(documents.PUT_LABELS, variables, task_id)

    def submit_existing(self, stage: Stage, task_id: str) -> Call:
        """Submit a task with the labels it has."""
        return Call(documents.PUT_MANUAL_LABELING_TASK, {"stageName": stage.name, "taskId": task_id}, task_id)

    def review(
        self, stage: Stage, task_id: str, *, accept: bool, comment: str | None = None, elapsed_ms: int = 0
    ) -> Call:
        """Accept or reject a task in a review stage; its labels stay as they are."""
        variables = {
            "stageName": stage.name,
            "taskId": task_id,
            "reviewVal": accept,
            "comment": comment,
            "elapsedTimeMs": elapsed_ms,
        }
        return Call(documents.PUT_EXPERT_REVIEW_TASK, variables, task_id)

    def move_to_start(self, task_id: str) -> Call:
        """Send a ground-truth task back to the first stage."""
        return Call(documents.MOVE_TASK_TO_START, {"taskId": task_id}, task_id)

    # ---------------------------------------------------------------- private

    def _read_with_taxonomy(self) -> None:
        found = self._found(documents.PROJECT_WITH_TAXONOMY)
        # Where the properties keep them.
        vars(self).update(info=_info(found), taxonomy=_taxonomy(found))

    def _kept_lacks(self, name: str) -> bool:
        kept = vars(self).get("info")
        return kept is not None and not kept.workflow.has(name)

    def _compare_stages(self, answers: Mapping[str, Task | RedBrickAPIError]) -> None:
        """Forget what was kept of the project when a task is in a stage that it lacks; once for each such stage."""
        names = {task.stage_name for task in answers.values() if isinstance(task, Task)}
        lacking = {name for name in names if self._kept_lacks(name)} - self._not_listed
        if lacking:
            self._not_listed |= lacking
            forget(self)

    def _found(self, document: str) -> Mapping[str, Any]:
        """Read something of the project itself."""
        found = self.execute(document, {}).get("project")
        if not found:
            raise RedBrickNotFoundError(
                f"There is no project {self.project_id} in organisation {self.org_id}, or this API key cannot see it."
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
        data = self.execute(documents.ASSIGN_TASKS_MULTIPLE_USERS, variables, task_ids=task_ids)
        operation = "assignTasksMultipleUsers"
        with reading(operation, task_ids=task_ids, maybe_applied=True):
            given = {identifier(entry["taskId"]): text(entry.get("stageName")) for entry in data[operation] or ()}
        # An answer about tasks that were not asked about says nothing of those that were.
        asked = {task_id.lower() for task_id in task_ids}
        return {task_id: public_stage_name(stage) for task_id, stage in given.items() if task_id in asked}

    def _listed(self, variables: Mapping[str, Any], page_size: int) -> Iterator[Task]:
        for entry in pages(
            lambda cursor, first: self._page(variables, cursor, first),
            page_size=min(page_size, self.client.page_size),
        ):
            with reading("genericTasks"):
                task = Task.from_wire(entry, asked=_LISTED)
            yield task

    def _page(self, variables: Mapping[str, Any], cursor: str | None, first: int) -> tuple[list[Any], str | None]:
        data = self.execute(documents.GENERIC_TASKS, {**variables, "first": first, "after": cursor})
        with reading("genericTasks"):
            page = data["genericTasks"]
            return list(page["entries"]), page["cursor"]

    def _with_stored_labels(self, task: Task, url: str) -> Task | RedBrickAPIError:
        """Fetch labels that are too many to come inline."""
        try:
            return replace(task, labels=self.files.labels(url))
        except RedBrickAPIError as error:
            error.task_ids = (task.task_id,)
            return error


# What the selections ask for, and a server may leave out where there is none. Labels are not among them: an answer
# that does not say what they are is not one that says there are none.
_PLACE = frozenset({"state", "assignee", "created_at", "updated_at"})
_STATE = _PLACE - {"created_at"} | {"series_info", "labels_map", "labels_id", "labels_by", "labels_at"}
_ASKED = {
    Detail.PLACE: _PLACE,
    Detail.STATE: _STATE,
    Detail.FULL: _STATE | {"dp_id", "metadata", "priority", "items", "item_urls", "labels_url"},
}
_LISTED = _PLACE | {"dp_id", "metadata", "priority", "assigned_at", "saved_at"}


def forget(project: RedBrickProject) -> None:
    """Drop what was kept of a project: it is read again when it is needed."""
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
