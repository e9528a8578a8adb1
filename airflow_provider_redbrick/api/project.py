"""The operations of one project."""

from __future__ import annotations

import gzip
import json
import uuid
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api import documents
from airflow_provider_redbrick.api.answers import reading
from airflow_provider_redbrick.api.client import RedBrickClient, check_uuid
from airflow_provider_redbrick.api.models import Member, OutputEvent, Task, flat_labels, output_events
from airflow_provider_redbrick.api.pages import pages
from airflow_provider_redbrick.api.workflow import Stage, Workflow
from airflow_provider_redbrick.exceptions import (
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickNotFoundError,
    RedBrickRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

MAX_IDS = 50
"""Ids per assigning request, as RedBrick's own clients keep to."""

_TASKS_PER_READ = 25
_INLINE_LABELS = 1000


@dataclass(frozen=True)
class ProjectInfo:
    """What a project is, apart from its tasks."""

    name: str
    url: str | None
    consensus: bool
    workflow: Workflow


class RedBrickProject:
    """One project, as seen by one client. What rarely changes (its stages) is read once and kept."""

    def __init__(self, client: RedBrickClient, org_id: str, project_id: str) -> None:
        self.client = client
        self.org_id = check_uuid("org_id", org_id)
        self.project_id = check_uuid("project_id", project_id)

    # ------------------------------------------------------------------ reads

    @cached_property
    def info(self) -> ProjectInfo:
        """The project's name, link, stages, and whether several people label each task.

        :raises RedBrickNotFoundError: when the project does not exist or this key cannot see it.
        """
        found = self._found(documents.PROJECT)
        with reading("project"):
            consensus = (found.get("consensusSettings") or {}).get("enabled") is True
            return ProjectInfo(
                str(found.get("name") or ""),
                found.get("projectUrl"),
                consensus,
                Workflow.from_wire(found["stages"]),
            )

    @cached_property
    def taxonomy(self) -> Mapping[str, Any]:
        """What labels may be, as the API tells it; empty when the project has no taxonomy.

        :raises RedBrickNotFoundError: when the project does not exist or this key cannot see it.
        """
        found = self._found(documents.TAXONOMY)
        with reading("project"):
            return dict(found["taxonomy"] or {})

    def stage(self, name: str) -> Stage:
        """Return a stage by any of its names.

        :raises RedBrickInputError: when the project has no such stage, naming those it has.
        """
        return self.info.workflow.find(name)

    def members(self) -> list[Member]:
        """Return the people in the project."""
        data = self._execute(documents.PROJECT_MEMBERS, {})
        with reading("projectMembers"):
            found = [Member.from_wire(entry) for entry in data["projectMembers"]]
        return [member for member in found if member is not None]

    def count(self, stage: Stage) -> int:
        """Return how many tasks are in a stage, by the server's own count."""
        data = self._execute(documents.TASKS_PAGED, {"stageName": stage.counting_name, "first": 0})
        with reading("tasksPaged"):
            return int(data["tasksPaged"]["count"])

    def count_by_listing(self, stage: Stage, *, unassigned: bool, stop_at: int) -> int:
        """Count the tasks queued in a stage by listing them, no further than ``stop_at``."""
        listed = self.list_tasks(stage, unassigned=unassigned, page_size=max(1, stop_at))
        return sum(1 for _ in islice(listed, stop_at))

    def list_tasks(
        self,
        stage: Stage | None = None,
        *,
        unassigned: bool = False,
        assignee: str | None = None,
        state: str | None = None,
        search: str | None = None,
        page_size: int | None = None,
    ) -> Iterator[Task]:
        """Yield tasks page by page; a page that cannot be read is an error, never the end of the list.

        Tasks on their way out of a stage are left out: they are nobody's to work on any more.

        :param unassigned: only tasks that nobody holds and anybody may take.
        :param assignee: a user id or e-mail.
        :param state: a task state, e.g. ``STAGED``.
        :param search: the beginning of a name, or an exact name in double quotes.
        """
        filters: dict[str, Any] = {}
        if unassigned:
            # An explicit null asks for nobody's tasks; leaving the key out asks for anybody's.
            filters["userId"] = None
        elif assignee:
            filters["userId"] = assignee
        if state:
            filters["status"] = state
        variables = {
            "stageName": stage.listing_name if stage else None,
            "taskSearch": search,
            "manualLabelingFilters": filters,
        }
        for task in self._listed(variables, page_size or self.client.page_size):
            # Nobody holds what is finished or has an open issue, either, and the server lists those as unassigned too.
            is_free = task.assignee is None and task.state not in {None, "COMPLETED", "PROBLEM"}
            if is_free if unassigned else not task.is_leaving:
                yield task

    def read_tasks(self, task_ids: Sequence[str], *, full: bool = False) -> dict[str, Task | RedBrickAPIError]:
        """Read tasks by id: where they are, who holds them, and when ``full`` their items and labels.

        :return: for each id its task, or why it could not be read (``RedBrickNotFoundError``: there is none).
        """
        document = documents.tasks_in_full if full else documents.task_states
        answers = self._read_aliased(document, task_ids, Task.from_wire)
        if full:
            for task_id, task in answers.items():
                if isinstance(task, Task) and task.labels_url:
                    answers[task_id] = self._with_stored_labels(task, task.labels_url)
        return answers

    def are_labelled(self, task_ids: Sequence[str]) -> dict[str, bool | RedBrickAPIError]:
        """Read which tasks have labels."""
        return self._read_aliased(documents.tasks_with_labels, task_ids, lambda data: Task.from_wire(data).has_labels)

    def output_events(self, task_ids: Sequence[str]) -> dict[str, tuple[OutputEvent, ...] | RedBrickAPIError]:
        """Read when each task left which stage, oldest first."""
        return self._read_aliased(documents.task_events, task_ids, output_events)

    def find_by_name(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return for each exact name the ids of the tasks called so."""
        found: dict[str, list[str]] = {}
        wanted = iter(dict.fromkeys(names))
        while chunk := list(islice(wanted, _TASKS_PER_READ)):
            variables = {f"name{i}": f'"{name}"' for i, name in enumerate(chunk)}
            data = self._execute(documents.tasks_by_name(len(chunk)), variables)
            for i, name in enumerate(chunk):
                with reading("genericTasks"):
                    page = dict(data[f"n{i}"])
                    tasks: Iterable[Task] = [Task.from_wire(entry) for entry in list(page["entries"])]
                if page.get("cursor"):
                    search: dict[str, Any] = {"stageName": None, "taskSearch": f'"{name}"', "manualLabelingFilters": {}}
                    tasks = self._listed(search, self.client.page_size)
                found[name] = [task.task_id for task in tasks if task.name == name]
        return found

    # -------------------------------------------------------------- mutations

    def assign(self, task_ids: Sequence[str], email: str) -> set[str]:
        """Give up to 50 tasks to one person; return the ids that were really given."""
        if not email.strip():
            # Without an e-mail the same mutation unassigns everybody.
            raise ValueError("assign() needs an e-mail; use release() to unassign.")
        return self._assign(task_ids, emails=[email], current_user=False)

    def claim(self, task_ids: Sequence[str]) -> set[str]:
        """Give up to 50 tasks to the API key; return the ids that were really given."""
        return self._assign(task_ids, emails=None, current_user=True)

    def release(self, task_ids: Sequence[str]) -> set[str]:
        """Unassign up to 50 tasks; return the ids that were really released."""
        return self._assign(task_ids, emails=None, current_user=False)

    def put_labels(
        self, stage: Stage, task_id: str, stored: Mapping[str, Any], *, finished: bool, elapsed_ms: int = 0
    ) -> None:
        """Save labels on a task (``finished=False``), or submit it with them.

        In a review stage submitting means: accepted with these labels as the correction.

        :param stored: one element of what :meth:`RedBrickClient.convert_labels` returned.
        """
        labels = stored.get("labels")
        path = None
        if isinstance(labels, list) and len(labels) > _INLINE_LABELS:
            path, labels = self._upload_labels(labels, task_id), []
        variables = {
            "stageName": stage.name,
            "taskId": task_id,
            "elapsedTimeMs": elapsed_ms,
            "finished": finished,
            "labelsData": None if labels is None else json.dumps(labels, separators=(",", ":")),
            "labelsDataPath": path,
            "labelsMap": stored.get("labelsMap") or [],
        }
        self._change(documents.PUT_MANUAL_LABELING_TASK_AND_LABELS, variables, task_id)

    def submit_existing(self, stage: Stage, task_id: str) -> None:
        """Submit a task with the labels it has."""
        self._change(documents.PUT_MANUAL_LABELING_TASK, {"stageName": stage.name, "taskId": task_id}, task_id)

    def review(
        self, stage: Stage, task_id: str, *, accept: bool, comment: str | None = None, elapsed_ms: int = 0
    ) -> None:
        """Accept or reject a task in a review stage; its labels stay as they are."""
        variables = {
            "stageName": stage.name,
            "taskId": task_id,
            "reviewVal": accept,
            "comment": comment,
            "elapsedTimeMs": elapsed_ms,
        }
        self._change(documents.PUT_EXPERT_REVIEW_TASK, variables, task_id)

    def move_to_start(self, task_id: str) -> None:
        """Send a ground-truth task back to the first stage."""
        self._change(documents.MOVE_TASK_TO_START, {"taskId": task_id}, task_id)

    # ---------------------------------------------------------------- private

    def _execute(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> dict[str, Any]:
        ids = {"orgId": self.org_id, "projectId": self.project_id}
        return self.client.transport.execute(document, {**ids, **variables}, task_ids=task_ids)

    def _change(self, document: str, variables: Mapping[str, Any], task_id: str) -> None:
        """Send a mutation on one task and look at what it says."""
        data = self._execute(document, variables, task_ids=[task_id])
        for operation, payload in data.items():
            answer = payload if isinstance(payload, dict) else {}
            if answer.get("ok") is not True or answer.get("message"):
                words = answer.get("message") or f"ok is {answer.get('ok')!r}, without a reason."
                raise RedBrickRefusedError(
                    f"RedBrick did not do it: {words}",
                    operation=operation,
                    task_ids=[task_id],
                    maybe_applied=True,
                )

    def _found(self, document: str) -> Mapping[str, Any]:
        """Read something of the project itself."""
        found = self._execute(document, {}).get("project")
        if not found:
            raise RedBrickNotFoundError(
                f"There is no project {self.project_id} in organisation {self.org_id}, or this API key cannot see it."
            )
        with reading("project"):
            return dict(found)

    def _assign(self, task_ids: Sequence[str], *, emails: list[str] | None, current_user: bool) -> set[str]:
        if not 0 < len(task_ids) <= MAX_IDS:
            raise ValueError(f"One request assigns 1 to {MAX_IDS} tasks, not {len(task_ids)}.")
        variables = {
            "taskIds": list(task_ids),
            "emails": emails,
            "currentUser": current_user,
            "refresh": True,
        }
        data = self._execute(documents.ASSIGN_TASKS_MULTIPLE_USERS, variables, task_ids=task_ids)
        operation = "assignTasksMultipleUsers"
        with reading(operation):
            return {str(entry["taskId"]).lower() for entry in data[operation] or ()}

    def _listed(self, variables: Mapping[str, Any], page_size: int) -> Iterator[Task]:
        for entry in pages(
            lambda cursor, first: self._page(variables, cursor, first),
            page_size=min(page_size, self.client.page_size),
        ):
            with reading("genericTasks"):
                task = Task.from_wire(entry)
            yield task

    def _page(self, variables: Mapping[str, Any], cursor: str | None, first: int) -> tuple[list[Any], str | None]:
        data = self._execute(documents.GENERIC_TASKS, {**variables, "first": first, "after": cursor})
        with reading("genericTasks"):
            page = data["genericTasks"]
            return list(page["entries"]), page["cursor"]

    def _read_aliased(
        self, document: Callable[[int], str], task_ids: Sequence[str], parse: Callable[[Mapping[str, Any]], Any]
    ) -> dict[str, Any]:
        """Read many tasks, several a request. What fails for one task is that task's answer, after a second look."""
        answers: dict[str, Any] = {}
        ids = iter(dict.fromkeys(task_ids))
        while chunk := list(islice(ids, _TASKS_PER_READ)):
            found = self._read_chunk(document, chunk, parse)
            unread = [i for i, answer in found.items() if isinstance(answer, RedBrickRefusedError)]
            if unread and len(unread) < len(chunk):
                found.update(self._read_chunk(document, unread, parse))
            answers.update(found)
        return answers

    def _read_chunk(
        self, document: Callable[[int], str], chunk: Sequence[str], parse: Callable[[Mapping[str, Any]], Any]
    ) -> dict[str, Any]:
        variables: dict[str, Any] = {"orgId": self.org_id, "projectId": self.project_id}
        variables.update((f"id{i}", task_id) for i, task_id in enumerate(chunk))
        answer = self.client.transport.execute_partial(document(len(chunk)), variables, task_ids=chunk)
        general = [issue.message for issue in answer.issues if issue.root is None]
        if general or answer.data is None:
            words = "; ".join(general or [issue.message for issue in answer.issues])
            raise RedBrickRefusedError(f"RedBrick answered with an error: {words}", operation="task", task_ids=chunk)
        failed = {issue.root: issue.message for issue in answer.issues}
        found: dict[str, Any] = {}
        for i, task_id in enumerate(chunk):
            data = answer.data.get(f"t{i}")
            if f"t{i}" in failed:
                words = f"RedBrick answered with an error: {failed[f't{i}']}"
                found[task_id] = RedBrickRefusedError(words, operation="task", task_ids=[task_id])
            elif data is None:
                words = "There is no such task in this project."
                found[task_id] = RedBrickNotFoundError(words, operation="task", task_ids=[task_id])
            else:
                found[task_id] = self._parsed(task_id, data, parse)
        return found

    def _parsed(self, task_id: str, data: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], Any]) -> Any:
        """Read one task's answer; one that makes no sense is that task's failure, not its neighbours'."""
        try:
            with reading("task"):
                return parse(data)
        except RedBrickAnswerError as error:
            error.task_ids = (task_id,)
            return error

    def _with_stored_labels(self, task: Task, url: str) -> Task | RedBrickAPIError:
        """Fetch labels that are too many to come inline."""
        try:
            content = self.client.transport.storage.get(url)
            with reading("labels file"):
                return replace(task, labels=flat_labels(content))
        except RedBrickAPIError as error:
            error.task_ids = (task.task_id,)
            return error

    def _upload_labels(self, labels: Sequence[Any], task_id: str) -> str:
        """Store a long label list as a file and return its path in the label storage."""
        wanted = f"labels/{uuid.uuid4()}/{uuid.uuid4()}/data.json"
        kind = {"fileType": "application/json", "fileEncoding": "gzip"}
        data = self._execute(documents.PRESIGN_UPLOADS, {"files": [wanted], **kind}, task_ids=[task_id])
        with reading("presignUploads"):
            signed = data["presignUploads"][0]
            url, path = str(signed["presignedUrl"]), str(signed["filePath"])
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "x-ms-blob-type": "BlockBlob"}
        self.client.transport.storage.put(url, gzip.compress(json.dumps(labels).encode()), headers=headers)
        return path
