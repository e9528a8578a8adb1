"""Control routes under `/_sandbox/`.

Tests and demos use them for what an API client cannot do: simulate people at work, inject faults, change behaviors and
settings, and create many tasks at once. Each POST takes a JSON object. An invalid request is answered with status 400
and `{"error": message}`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from redbrick_sandbox import actions, demo_project
from redbrick_sandbox.board import StoreBoard
from redbrick_sandbox.creation import Bulk, create_many, study_entries
from redbrick_sandbox.faults import Shot
from redbrick_sandbox.store import make_id
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redbrick_sandbox.sandbox import Project, Sandbox

Body = dict[str, Any]
_CARDS_PER_STAGE = 50


class Control:
    """Implement the control routes.

    Each action takes the JSON body of the request, if it has one, and returns the body of the response.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._reading: dict[str, Callable[[], Body]] = {
            "stats": self.stats,
            "settings": self.settings,
            "faults": self.faults,
            "behavior": self.behavior,
        }
        self._changing: dict[str, Callable[[Body], Body]] = {
            "reset": self.reset,
            "settings": self.change_settings,
            "faults": self.change_faults,
            "behavior": self.change_behavior,
            "humans": self.humans,
            "keys": self.keys,
            "projects": self.projects,
            "stages": self.stages,
            "tasks": self.tasks,
        }

    def handle(self, method: str, name: str, parameters: Mapping[str, str], text: bytes) -> tuple[int, Body]:
        """Answer a request.

        :param method: HTTP method.
        :param name: name of the route.
        :param parameters: parameters of the URL.
        :param text: body of a POST request.
        :return: status and body of the response.
        """
        # What is due is done before, as before a request to the API.
        self._sandbox.settle()
        try:
            if method == "GET" and name == "board":
                project_id = parameters.get("project_id", demo_project.PROJECT_ID)
                return 200, self.board(project_id, int(parameters.get("limit", _CARDS_PER_STAGE)))
            if method == "GET" and name in self._reading:
                return 200, self._reading[name]()
            if method == "POST" and name in self._changing:
                body = json.loads(text or b"{}")
                if not isinstance(body, dict):
                    return 400, {"error": "the body must be an object"}
                return 200, self._changing[name](body)
        except (RefusalError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return 400, {"error": f"{error!s} is missing" if isinstance(error, KeyError) else str(error)}
        return 404, {"error": f"there is no {method} /_sandbox/{name}"}

    def _project(self, body: Body) -> Project:
        return self._sandbox.project(demo_project.ORG_ID, body.get("project_id") or demo_project.PROJECT_ID)

    def stats(self) -> Body:
        """Return the counts of requests, root fields and applied mutations."""
        return self._sandbox.stats.document()

    def settings(self) -> Body:
        """Return all settings."""
        return dict(vars(self._sandbox.settings))

    def change_settings(self, body: Body) -> Body:
        """Change some settings and return all of them."""
        self._sandbox.settings = self._sandbox.settings.changed(body)
        return self.settings()

    def behavior(self) -> Body:
        """Return all behaviors."""
        return self._sandbox.behaviors.document()

    def change_behavior(self, body: Body) -> Body:
        """Change some behaviors and return all of them."""
        self._sandbox.behave(self._sandbox.behaviors.changed(body))
        return self.behavior()

    def faults(self) -> Body:
        """Return the active faults."""
        return self._sandbox.faults.state()

    def change_faults(self, body: Body) -> Body:
        """Replace the specification (`spec`), queue one-shot faults (`once`), or both."""
        shots = [Shot(**shot) for shot in body.get("once") or []]
        if "spec" in body:
            self._sandbox.faults.replace(str(body["spec"]))
        self._sandbox.faults.add(shots)
        return self.faults()

    def reset(self, _body: Body) -> Body:
        """Restore the initial state."""
        self._sandbox.reset()
        return {"ok": True}

    def humans(self, body: Body) -> Body:
        """Let the simulated people work in a stage."""
        return actions.work(
            self._sandbox,
            self._project(body),
            str(body["stage"]),
            limit=int(body.get("limit", 100)),
            accept_ratio=float(body.get("accept_ratio", 1.0)),
            labels=body.get("labels"),
        )

    def projects(self, body: Body) -> Body:
        """Create a project, with the stages of the demo project by default."""
        number = len(self._sandbox.projects()) + 1
        stages = tuple(body.get("stages") or demo_project.DEMO_STAGES)
        project_id = make_id("project", number)
        document = demo_project.project_document(
            project_id,
            str(body.get("name") or f"Sandbox Project {number}"),
            stages,
            consensus=bool(body.get("consensus")),
            now=self._sandbox.clock.now(),
        )
        self._sandbox.save_project(document)
        return {"project_id": project_id}

    def keys(self, body: Body) -> Body:
        """Replace the accepted API keys."""
        keys = [key for key in body["keys"] if isinstance(key, str) and key]
        if len(keys) != len(body["keys"]):
            raise ValueError("each key must be text, and not empty")
        self._sandbox.api_keys = frozenset(keys)
        return {"keys": keys}

    def stages(self, body: Body) -> Body:
        """Replace the stages of a project. Stages that contain tasks must remain."""
        project = self._project(body)
        stages = tuple(body["stages"])
        old = project.document
        new = demo_project.project_document(
            old["projectId"], old["name"], stages, consensus=old["consensus"], now=old["createdAt"]
        )
        names = {stage["stageName"] for stage in new["stages"]}
        summary = StoreBoard(self._sandbox, project.project_id).summary()
        held = [stage["name"] for stage in summary["stages"] if stage["count"] and stage["name"] not in names]
        if held:
            raise ValueError(f"there are tasks in {', '.join(held)}")
        self._sandbox.save_project({**old, "stages": new["stages"], "access": new["access"]})
        return {"stages": sorted(names)}

    def tasks(self, body: Body) -> Body:
        """Create many tasks in any stage."""
        project = self._project(body)
        options = {name: value for name, value in body.items() if name not in ("project_id", "images", "files")}
        options["count"] = int(options["count"])
        if body.get("images"):
            options["files"] = study_entries(self._sandbox, project.project_id, options["count"])
        return {"task_ids": create_many(self._sandbox, project, Bulk(**options))}

    def board(self, project_id: str, limit: int) -> Body:
        """Return the stages with their counts and first cards.

        :param project_id: the project.
        :param limit: maximum number of cards per stage.
        """
        source = StoreBoard(self._sandbox, project_id)
        summary = source.summary()
        for stage in summary["stages"]:
            stage["cards"] = source.cards(stage["name"], limit)
        return summary
