"""Projects, stages, taxonomies and project settings."""

from __future__ import annotations

from typing import Any

from airflow_provider_redbrick.sandbox import documents, seed, shapes
from airflow_provider_redbrick.sandbox.first_taxonomy import FIRST_TAXONOMY
from airflow_provider_redbrick.sandbox.flow import Flow, RefusalError, stage_from
from airflow_provider_redbrick.sandbox.request import Arguments, Request, Resolver, scope
from airflow_provider_redbrick.sandbox.taxonomy import TAXONOMY

_MAX_COPIES = 100


def _project(request: Request, arguments: Arguments) -> dict[str, Any] | None:
    sandbox = request.sandbox
    found = sandbox.find_project(arguments["orgId"], arguments["projectId"])
    return None if found is None else shapes.project(sandbox, found)


def _projects(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    sandbox = request.sandbox
    if arguments["orgId"] != seed.ORG_ID:
        raise RefusalError(f"there is no organization {arguments['orgId']}")
    return [shapes.project(sandbox, found) for found in sandbox.projects()]


def _stages(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    _, project = scope(request, arguments)
    return [shapes.stage(document) for document in project.document["stages"]]


def _taxonomy(_request: Request, arguments: Arguments) -> dict[str, Any] | None:
    asked = {key: arguments.get(key) for key in ("orgId", "taxId", "name", "version")}
    for taxonomy in (TAXONOMY, FIRST_TAXONOMY):
        if all(value in (None, taxonomy[key]) for key, value in asked.items()):
            return taxonomy
    return None


def _taxonomies(_request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    found = [TAXONOMY] if arguments["orgId"] == seed.ORG_ID else []
    rest = found[arguments.get("skip") or 0 :]
    return rest[: arguments.get("first")]


def _setting(key: str, *names: str) -> Resolver:
    """Return the mutation that stores one setting of a project."""

    def change(request: Request, arguments: Arguments) -> dict[str, Any]:
        sandbox, project = scope(request, arguments)
        value: Any = {name: arguments.get(name) for name in names}
        if key == "taskDuplicationCount":
            value = arguments.get(key)
            if value is not None and not 1 <= value <= _MAX_COPIES:
                raise RefusalError(f"taskDuplicationCount must be from 1 to {_MAX_COPIES}")
        settings = {**project.document["settings"], key: value}
        sandbox.save_project({**project.document, "settings": settings})
        return {"ok": True}

    return change


def _update_stage(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    name, config, routing = arguments["stageName"], arguments.get("config"), arguments.get("routing")
    if project.flow.find(name) is None:
        raise RefusalError(f"there is no stage {name!r}")
    changes: dict[str, Any] = {}
    if config is not None:
        changes["stageConfig"] = documents.given(config, "config")
    if routing is not None:
        changes["routing"] = routing
    stages = [{**stage, **changes} if stage["stageName"] == name else stage for stage in project.document["stages"]]
    Flow(tuple(stage_from(stage) for stage in stages)).check()
    sandbox.save_project({**project.document, "stages": stages})
    return {"ok": True, "pipeline": [shapes.stage(stage) for stage in stages]}


def _no_operation(request: Request, arguments: Arguments) -> dict[str, Any]:
    scope(request, arguments)
    return {"ok": True}


QUERIES = {
    "project": _project,
    "projects": _projects,
    "stages": _stages,
    "taxonomy": _taxonomy,
    "taxonomies": _taxonomies,
}
MUTATIONS = {
    "updateLabelValidationSettings": _setting("labelValidation", "enabled", "enforce", "script"),
    "updateHangingProtocolScript": _setting("hangingProtocol", "enabled", "script"),
    "updateWebhookSettings": _setting("webhook", "enabled", "url"),
    "updateProjectTaskDuplication": _setting("taskDuplicationCount"),
    "updateStage": _update_stage,
    "postProcessTrialProject": _no_operation,
}
