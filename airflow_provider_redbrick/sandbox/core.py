"""The sandbox itself: settings, store, clock, faults and counters in one place, and how a step is written down.

Everything runs in the one thread of the server's event loop; nothing here waits, so nothing needs a lock.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow_provider_redbrick.sandbox import behaviors, documents, seed, workflow
from airflow_provider_redbrick.sandbox.clock import Clock, later
from airflow_provider_redbrick.sandbox.demo import populate
from airflow_provider_redbrick.sandbox.faults import Faults
from airflow_provider_redbrick.sandbox.flow import Flow, RefusalError, stage_from
from airflow_provider_redbrick.sandbox.settings import Settings
from airflow_provider_redbrick.sandbox.store import Record, Store, make_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass
class Stats:
    """What has been asked and what has been applied since the start or the last reset."""

    requests: int = 0
    root_fields: Counter[str] = field(default_factory=Counter)
    applied: dict[str, dict[str, int]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Give the counters as the control route shows them."""
        return {
            "requests": self.requests,
            "root_fields": dict(self.root_fields),
            "applied": {task_id: dict(counts) for task_id, counts in self.applied.items()},
        }


@dataclass(frozen=True)
class Project:
    """A project as stored, and its stages as the state machine reads them."""

    project_id: str
    document: dict[str, Any]
    flow: Flow

    @property
    def access(self) -> Mapping[str, Mapping[str, bool]]:
        """Who may work in which stage: by user id, then stage name."""
        access: Mapping[str, Mapping[str, bool]] = self.document["access"]
        return access

    def role(self, person: seed.Person) -> str:
        """Tell somebody's role in the project."""
        # A file of before roles could be changed has none.
        return str((self.document.get("roles") or {}).get(person.user_id, person.role))

    def may_work(self, user_id: str, stage: str) -> bool:
        """Whether somebody has access to a stage; the API key has to all."""
        return self.access.get(user_id, {}).get(stage, user_id == seed.API_KEY_USER)


class Sandbox:
    """All there is behind the routes. `url` is where the server can be reached, known once it listens."""

    def __init__(self, settings: Settings | None = None, store: Store | None = None) -> None:
        self.initial = settings or Settings()
        self.store = store or Store()
        self.clock = Clock()
        self.url = "http://localhost"
        self._projects: dict[str, Project] = {}
        self.settings = self.initial
        self.api_keys = frozenset({seed.API_KEY})
        self.stats = Stats()
        self.faults = Faults(self.initial.fault)
        self.behaviors = behaviors.parse(self.initial.behavior)
        if self.store.row("SELECT 1 FROM projects") is None:
            self._begin()

    def reset(self) -> None:
        """Go back to how it was right after a start with an empty database."""
        self.store.clear()
        self._projects.clear()
        self.settings = self.initial
        self.api_keys = frozenset({seed.API_KEY})
        self.stats = Stats()
        self.faults = Faults(self.initial.fault)
        self.behaviors = behaviors.parse(self.initial.behavior)
        self._begin()

    def _begin(self) -> None:
        """Make the demo's project and tasks; all or nothing, or a start that is cut short would pass for whole."""
        with self.store.savepoint():
            self.save_project(seed.demo_project())
            populate(self)

    # -- projects ------------------------------------------------------------------------------

    def save_project(self, document: dict[str, Any]) -> None:
        """Write a project, new or changed."""
        project_id = document["projectId"]
        body = json.dumps(document)
        self.store.run("INSERT OR REPLACE INTO projects (project_id, body) VALUES (?, ?)", (project_id, body))
        self._projects.pop(project_id, None)

    def find_project(self, org_id: str, project_id: str) -> Project | None:
        """Find a project of the organisation."""
        if org_id != seed.ORG_ID:
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
        """Get a project, or refuse."""
        found = self.find_project(org_id, project_id)
        if found is None:
            raise RefusalError(f"there is no project {project_id} in organisation {org_id}")
        return found

    def projects(self) -> list[Project]:
        """Get all projects, in the order they were made."""
        found = self.store.rows("SELECT project_id FROM projects ORDER BY rowid")
        return [self.project(seed.ORG_ID, row["project_id"]) for row in found]

    # -- tasks ---------------------------------------------------------------------------------

    def record(self, project: Project, task_id: str) -> Record:
        """Get a task of a project, or refuse."""
        found = self.store.task(project.project_id, task_id)
        if found is None:
            raise RefusalError(f"there is no task {task_id} in project {project.project_id}")
        return found

    def doing(self, actor: str = seed.API_KEY_USER) -> workflow.Doing:
        """Say who acts, and when: now."""
        now = self.clock.now()
        must_hold = self.settings.require_ownership or actor != seed.API_KEY_USER
        return workflow.Doing(actor, now, later(now, self.settings.transition_ms), must_hold)

    def settle(self) -> None:
        """Let all tasks arrive whose time has come. Called before every request, so nobody sees them late."""
        now = self.clock.now()
        for record in self.store.due(now):
            flow = self.project(seed.ORG_ID, record.project_id).flow
            step = workflow.arrive(flow, record.task, now)
            self._write(record, step, record.version)

    def apply(self, project: Project, record: Record, step: workflow.Step, *, version: str | None = None) -> None:
        """Write a step down; `version` is the tdId of labels that came with it. Arrives at once if it may."""
        moment = step.task.arrives_at
        if moment is not None and moment <= step.task.updated_at:
            there = workflow.arrive(project.flow, step.task, moment)
            step = workflow.Step(there.task, (*step.facts, *there.facts))
        self._write(record, step, version or record.version)

    def _write(self, record: Record, step: workflow.Step, version: str | None) -> None:
        self.store.write(record._replace(task=step.task, version=version))
        self.store.remember(record.project_id, record.task.task_id, step.facts, version)

    def next_version(self) -> str:
        """Tell the tdId that the next version of labels will have."""
        return make_id("labels", self.store.next_number("versions"))

    def add_version(
        self,
        task_id: str,
        stage: str,
        doing: workflow.Doing,
        labels: str,
        *,
        path: str | None = None,
        labels_map: Sequence[Mapping[str, Any] | None] = (),
        sub_name: str | None = None,
    ) -> str:
        """Store one version of a task's labels (JSON text of the flat list) and answer its tdId.

        `sub_name` is what the first generation of the API calls it; of several the newest counts.
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
            "labels_map": documents.write(list(labels_map)),
            "sub_name": sub_name,
        }
        self.store.insert("versions", [row])
        return td_id

    @contextmanager
    def mutation(self, name: str | None) -> Iterator[list[str]]:
        """Do all of a mutation or nothing; ids put into the list count as tasks it was applied to."""
        touched: list[str] = []
        with self.store.savepoint():
            yield touched
        if name is not None:
            for task_id in touched:
                counts = self.stats.applied.setdefault(task_id, {})
                counts[name] = counts.get(name, 0) + 1

    # -- files ---------------------------------------------------------------------------------

    def upload_url(self, path: str, kind: str, encoding: str | None) -> str:
        """Sign an address for one PUT of exactly this path, content type and encoding."""
        asked = {"type": kind} | ({"encoding": encoding} if encoding else {})
        query = urlencode({**asked, "signature": signature("PUT", path, kind, encoding or "")})
        return f"{self.url}/storage/{quote(path)}?{query}"

    def download_url(self, path: str) -> str:
        """Sign an address to GET a stored file from; addresses from elsewhere stay what they are."""
        if path.startswith(("http://", "https://")):
            return path
        return f"{self.url}/storage/{quote(path)}?signature={signature('GET', path)}"

    def put_file(self, path: str, content: bytes, kind: str, encoding: str | None = None) -> None:
        """Store a file, over one of the same path."""
        self.store.run(
            "INSERT OR REPLACE INTO files (path, content, type, encoding) VALUES (?, ?, ?, ?)",
            (path, content, kind, encoding),
        )


def signature(*parts: str) -> str:
    """Sign the parts of a storage address, so that only addresses the API gave out work."""
    return hashlib.sha256("\n".join((seed.API_KEY, *parts)).encode()).hexdigest()[:24]
