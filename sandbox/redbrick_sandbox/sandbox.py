"""The sandbox: settings, store, clock, behaviors, faults and counters.

`Sandbox` owns all state and applies steps of the state machine to the store. Invariants:

1. Everything runs in the one thread of the server's event loop, and no method awaits. No locks are needed.
2. A mutation is applied completely or not at all: `mutation` wraps it in a savepoint.
3. Work that is due is done before each request (`settle`), in the order of its times, so that no request sees it late.
4. `reset` restores the state of a start with an empty database, including ids and random numbers.
5. Storage URLs are signed. Only URLs that the API returned are accepted.
6. A mutation acts on the present state. A read may see an earlier one (`reader`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from redbrick_sandbox import demo_project, state_machine
from redbrick_sandbox.behaviors import Behaviors, LateDraw
from redbrick_sandbox.clock import Clock, later
from redbrick_sandbox.faults import Faults
from redbrick_sandbox.store import Record, Store, make_id, write
from redbrick_sandbox.transitions import Flow, RefusalError, stage_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass
class Stats:
    """Counters of requests and applied mutations since the start or the last reset."""

    requests: int = 0
    root_fields: Counter[str] = field(default_factory=Counter)
    applied: dict[str, dict[str, int]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the counters in the format of the control route."""
        return {
            "requests": self.requests,
            "root_fields": dict(self.root_fields),
            "applied": {task_id: dict(counts) for task_id, counts in self.applied.items()},
        }


@dataclass(frozen=True)
class Project:
    """A stored project, with its stages parsed for the state machine."""

    project_id: str
    document: dict[str, Any]
    flow: Flow

    @property
    def access(self) -> Mapping[str, Mapping[str, bool]]:
        """Stage access by user id, then stage name."""
        access: Mapping[str, Mapping[str, bool]] = self.document["access"]
        return access

    def role(self, person: demo_project.Person) -> str:
        """Return the role of a person in the project."""
        # Databases from before roles could be changed have none.
        return str((self.document.get("roles") or {}).get(person.user_id, person.role))

    def may_work(self, user_id: str, stage: str) -> bool:
        """Return whether a user has access to a stage.

        :param user_id: the user. The API key has access to all stages.
        :param stage: name of the stage.
        """
        return self.access.get(user_id, {}).get(stage, user_id == demo_project.API_KEY_USER)


class Sandbox:
    """State and operations behind the HTTP routes.

    `url` is the base URL of the server. It is set once the server listens.

    :param settings: settings at the start and after a reset.
    :param store: the database; in memory by default.
    :param populate: fills the demo project at the start and after a reset; nothing by default.
    :param behaviors: behaviors at the start and after a reset; all defaults by default.
    :param clock: the server's time; the machine's by default.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        store: Store | None = None,
        populate: Callable[[Sandbox], None] | None = None,
        *,
        behaviors: Behaviors | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._populate = populate
        self.initial = settings or Settings()
        self._initial_behaviors = behaviors or Behaviors()
        self.store = store or Store()
        self.clock = clock or Clock()
        self.url = "http://localhost"
        self._start()
        if self.store.row("SELECT 1 FROM projects") is None:
            self._begin()
        self.behave(self._initial_behaviors)

    def reset(self) -> None:
        """Restore the state of a start with an empty database."""
        self.store.stop_copy()
        self.store.clear()
        self._start()
        self._begin()
        self.behave(self._initial_behaviors)

    def _start(self) -> None:
        self._projects: dict[str, Project] = {}
        self._scheduled: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self.settings = self.initial
        self.api_keys = frozenset({demo_project.API_KEY})
        self.stats = Stats()
        self.faults = Faults(self.initial.fault)
        self.random = random.Random(self.initial.seed)
        self.behaviors = Behaviors()
        self.clock.change_offset(self._initial_behaviors.clock_offset)

    def behave(self, behaviors: Behaviors) -> None:
        """Replace the behaviors. What was accepted before is still applied late."""
        self.behaviors = behaviors
        self.late_draw = LateDraw(behaviors.late_apply, self.random)
        self.clock.change_offset(behaviors.clock_offset)
        if behaviors.read_lag:
            self.store.start_copy(self.clock.time)
        else:
            self.store.stop_copy()

    def _begin(self) -> None:
        """Create the demo project and its tasks.

        All or nothing: the next start would take a partial demo for a complete one.
        """
        with self.store.savepoint():
            self.save_project(demo_project.demo_project())
            if self._populate is not None:
                self._populate(self)

    # -- projects ------------------------------------------------------------------------------

    def save_project(self, document: dict[str, Any]) -> None:
        """Create or replace a project."""
        project_id = document["projectId"]
        body = json.dumps(document)
        self.store.run("INSERT OR REPLACE INTO projects (project_id, body) VALUES (?, ?)", (project_id, body))
        self._projects.pop(project_id, None)

    def find_project(self, org_id: str, project_id: str) -> Project | None:
        """Return a project, or None if it does not exist.

        :param org_id: the organization.
        :param project_id: the project.
        """
        if org_id != demo_project.ORG_ID:
            return None
        if project_id not in self._projects:
            found = self.store.row("SELECT body FROM projects WHERE project_id = ?", (project_id,))
            if found is None:
                return None
            document = json.loads(found["body"])
            stages = tuple(stage_from(stage) for stage in document["stages"])
            flow = Flow(stages, bool(document["consensus"]), seed=0)
            self._projects[project_id] = Project(project_id, document, flow)
        return self._projects[project_id]

    def project(self, org_id: str, project_id: str) -> Project:
        """Return a project.

        :param org_id: the organization.
        :param project_id: the project.
        :raises RefusalError: if it does not exist.
        """
        found = self.find_project(org_id, project_id)
        if found is None:
            raise RefusalError(f"there is no project {project_id} in organization {org_id}")
        return found

    def projects(self) -> list[Project]:
        """Return all projects, in order of creation."""
        found = self.store.rows("SELECT project_id FROM projects ORDER BY rowid")
        return [self.project(demo_project.ORG_ID, row["project_id"]) for row in found]

    # -- tasks ---------------------------------------------------------------------------------

    def record(self, project: Project, task_id: str) -> Record:
        """Return a task.

        :param project: the project of the task.
        :param task_id: the task.
        :raises RefusalError: if the project has no such task.
        """
        found = self.store.task(project.project_id, task_id)
        if found is None:
            raise RefusalError(f"there is no task {task_id} in project {project.project_id}")
        return found

    def doing(self, actor: str = demo_project.API_KEY_USER) -> state_machine.Doing:
        """Return the context of an action by `actor` at the current time."""
        now = self.clock.now()
        must_hold = self.behaviors.ownership == "enforced" or actor != demo_project.API_KEY_USER
        return state_machine.Doing(actor, now, later(now, self.settings.transition_ms), must_hold)

    def settle(self) -> None:
        """Do the work whose time has come: late mutations and transitions. Called before each request."""
        moment = self.clock.time()
        while self._scheduled and self._scheduled[0][0] <= moment:
            due, _, work = heappop(self._scheduled)
            with self.clock.at(due):
                self._arrive()
                work()
        self._arrive()
        if self.behaviors.read_lag:
            # Without reads, the writes that are kept would grow without limit.
            self.store.as_of(moment - self.behaviors.read_lag)

    def _arrive(self) -> None:
        """Complete the transitions whose time has come."""
        now = self.clock.now()
        for record in self.store.due(now):
            flow = self.project(demo_project.ORG_ID, record.project_id).flow
            step = state_machine.arrive(flow, record.task, now)
            with self.clock.at(self.clock.machine_time_of(str(record.task.arrives_at))):
                self._write(record, step, record.version)

    def schedule(self, seconds: float, work: Callable[[], object]) -> None:
        """Do work later, before the first request after its time.

        :param seconds: delay.
        :param work: called once, with the clock at its time.
        """
        # Functions cannot be compared: a number breaks ties.
        heappush(self._scheduled, (self.clock.time() + seconds, next(self._order), work))

    @property
    def pending(self) -> int:
        """Number of mutations that are not applied yet."""
        return len(self._scheduled)

    def reader(self) -> Sandbox:
        """Return the sandbox as a read sees it: itself, or as it was `read_lag` seconds ago."""
        behaviors = self.behaviors
        if not behaviors.read_lag:
            return self
        if behaviors.lag_probability < 1 and self.random.random() >= behaviors.lag_probability:
            return self
        past = copy.copy(self)
        past.store = self.store.as_of(self.clock.time() - behaviors.read_lag)
        past._projects = {}
        return past

    def apply(self, project: Project, record: Record, step: state_machine.Step, *, version: str | None = None) -> None:
        """Store a step of the state machine.

        A transition that takes no time is completed at once.

        :param project: the project of the task.
        :param record: the task before the step.
        :param step: the step.
        :param version: tdId of the labels that came with the step. The labels are unchanged by default.
        """
        if self.behaviors.updated_at == "not-labels" and _whereabouts(step.task) == _whereabouts(record.task):
            step = step._replace(task=step.task._replace(updated_at=record.task.updated_at))
        moment = step.task.arrives_at
        if moment is not None and moment <= step.task.updated_at:
            there = state_machine.arrive(project.flow, step.task, moment)
            step = state_machine.Step(there.task, (*step.facts, *there.facts))
        self._write(record, step, version or record.version)

    def _write(self, record: Record, step: state_machine.Step, version: str | None) -> None:
        self.store.write(record._replace(task=step.task, version=version))
        self.store.remember(record.project_id, record.task.task_id, step.facts, version)

    def next_version(self) -> str:
        """Return the tdId of the next label version."""
        return make_id("labels", self.store.next_number("versions"))

    def add_version(
        self,
        task_id: str,
        stage: str,
        doing: state_machine.Doing,
        labels: str,
        *,
        path: str | None = None,
        labels_map: Sequence[Mapping[str, Any] | None] = (),
        sub_name: str | None = None,
    ) -> str:
        """Store a version of a task's labels.

        :param task_id: the task.
        :param stage: the stage in which the labels were made.
        :param doing: the author and the time.
        :param labels: JSON text of the flat list.
        :param path: path of the labels file, if the labels are in a file.
        :param labels_map: segmentation files by series.
        :param sub_name: name of the labels in the first generation of the API. Of several versions the newest counts.
        :return: the tdId of the version.
        """
        td_id = self.next_version()
        row = {
            "td_id": td_id,
            "task_id": task_id,
            "stage": stage,
            "created_at": doing.now,
            "created_by": doing.actor,
            "labels": labels,
            "labels_path": path,
            "labels_map": write(list(labels_map)),
            "sub_name": sub_name,
        }
        self.store.insert("versions", [row])
        return td_id

    @contextmanager
    def mutation(self, name: str | None) -> Iterator[list[str]]:
        """Apply a mutation completely or not at all.

        The caller appends to the list that is yielded the id of each task that the mutation changed.

        :param name: name of the mutation in the statistics. None does not count it.
        """
        touched: list[str] = []
        with self.store.savepoint():
            yield touched
        if name is not None:
            for task_id in touched:
                counts = self.stats.applied.setdefault(task_id, {})
                counts[name] = counts.get(name, 0) + 1

    # -- files ---------------------------------------------------------------------------------

    def upload_url(self, path: str, kind: str, encoding: str | None) -> str:
        """Return a signed URL for one PUT.

        :param path: path of the file.
        :param kind: content type that the client must send.
        :param encoding: content encoding that the client must send, if any.
        """
        asked = {"type": kind} | ({"encoding": encoding} if encoding else {})
        query = urlencode({**asked, "signature": signature("PUT", path, kind, encoding or "")})
        return f"{self.url}/storage/{quote(path)}?{query}"

    def download_url(self, path: str) -> str:
        """Return a signed URL for a GET of a stored file.

        URLs of other servers are returned unchanged.
        """
        if path.startswith(("http://", "https://")):
            return path
        return f"{self.url}/storage/{quote(path)}?signature={signature('GET', path)}"

    def field_url(self, path: str) -> str:
        """Return what a field shows with `presigned: true`: a signed URL, or only the path."""
        return self.download_url(path) if self.behaviors.presigned == "everywhere" else path

    def put_file(self, path: str, content: bytes, kind: str, encoding: str | None = None) -> None:
        """Store a file, or replace the one at the same path.

        :param path: path of the file.
        :param content: the bytes.
        :param kind: content type.
        :param encoding: content encoding, if any.
        """
        self.store.put_file(path, content, kind, encoding)


def _whereabouts(task: state_machine.Task) -> tuple[str, str | None, tuple[str, ...]]:
    return task.stage, task.state, task.holders


def signature(*parts: str) -> str:
    """Return the signature of a storage URL.

    Only URLs that the API returned have a valid one.
    """
    return hashlib.sha256("\n".join((demo_project.API_KEY, *parts)).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Settings:
    """Settings of a sandbox.

    Times are in milliseconds. `seed` determines the random numbers of the behaviors.
    """

    latency_ms: int = 0
    transition_ms: int = 0
    demo_tasks: int = 0
    seed: int = 0
    fault: str = ""

    def changed(self, changes: dict[str, Any]) -> Settings:
        """Return the settings with some values replaced.

        :raises ValueError: if a name is unknown or fixed at the start, or a value has the wrong type.
        """
        names = ("latency_ms", "transition_ms")
        for name, value in changes.items():
            if name not in names:
                raise ValueError(f"no setting {name!r}; the settings are {', '.join(names)}")
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} must be a whole number >= 0")
        return replace(self, **changes)


Arguments = dict[str, Any]


@dataclass
class Request:
    """One request and the faults that affect it.

    `broken` has the aliases of root fields that fail. `not_ok` and `empty_page` are the faults of these names.
    `touched` collects the ids of the tasks that the current mutation changes.
    """

    sandbox: Sandbox
    broken: frozenset[str] = frozenset()
    not_ok: bool = False
    empty_page: bool = False
    touched: list[str] = field(default_factory=list)


# Arguments have the schema's names. Only those that the client sent are present.
Resolver = Callable[[Request, Arguments], Any]


def scope(request: Request, arguments: Arguments) -> tuple[Sandbox, Project]:
    """Return the sandbox and the project of a request.

    :param request: the request.
    :param arguments: arguments with orgId and projectId.
    :raises RefusalError: if the project does not exist.
    """
    return request.sandbox, request.sandbox.project(arguments["orgId"], arguments["projectId"])
