"""Account data: current user, organizations, members, projects, settings and storage methods."""

from __future__ import annotations

from typing import Any

from redbrick_sandbox import demo_project, presenters, store
from redbrick_sandbox.demo_project import FIRST_TAXONOMY, TAXONOMY
from redbrick_sandbox.sandbox import Arguments, Request, Resolver, scope
from redbrick_sandbox.transitions import Flow, RefusalError, stage_from


def _me(request: Request, _arguments: Arguments) -> dict[str, Any]:
    return {"userId": _key_id(request)}


def _key_id(request: Request) -> str:
    """Return the id of the key, which another behavior distinguishes from the id of its user."""
    return demo_project.API_KEY_USER if request.sandbox.behaviors.key_identity == "same" else demo_project.API_KEY_ID


def _organizations(_request: Request, _arguments: Arguments) -> list[dict[str, Any]]:
    return [{"orgId": demo_project.ORG_ID, "name": demo_project.ORG_NAME, "role": "ADMIN"}]


def _organization(_request: Request, arguments: Arguments) -> dict[str, Any] | None:
    return (
        {"orgId": arguments["orgId"], "name": demo_project.ORG_NAME}
        if arguments["orgId"] == demo_project.ORG_ID
        else None
    )


def _check(org_id: str) -> None:
    if org_id != demo_project.ORG_ID:
        raise RefusalError(f"there is no organization {org_id}")


def _org_member(person: demo_project.Person) -> dict[str, Any]:
    return {
        "user": demo_project.user(person.user_id),
        "role": person.org_role,
        "tags": [],
        "active": True,
        "lastSeen": demo_project.EPOCH,
    }


def _members(_request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    _check(arguments["orgId"])
    return [_org_member(person) for person in demo_project.PEOPLE]


def _project_members(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    _, project = scope(request, arguments)
    return [
        {
            "member": _org_member(person),
            "role": project.role(person),
            "stageAccess": [
                {"stageName": stage, "access": access} for stage, access in project.access[person.user_id].items()
            ],
        }
        for person in demo_project.PEOPLE
        if person.user_id in project.access
    ]


def _api_keys(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    _check(arguments["orgId"])
    return [{"keyId": _key_id(request), "keyName": "sandbox key"}]


def _update_membership(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    access, roles = dict(project.access), dict(project.document.get("roles") or {})
    for change in arguments["memberAccess"]:
        person = _person(change["userId"])
        stages = {stage.name: change["role"] != "LABELER" for stage in project.flow.working_stages}
        given = {each["stageName"]: each["access"] for each in change.get("stageAccess") or []}
        unknown = sorted(set(given) - set(stages))
        if unknown:
            raise RefusalError(f"there is no label or review stage {unknown[0]!r}")
        access[person.user_id] = {**stages, **given}
        roles[person.user_id] = change["role"]
    sandbox.save_project({**project.document, "access": access, "roles": roles})
    return {"ok": True}


def _person(name: str) -> demo_project.Person:
    person = demo_project.person_of(name)
    if person is None:
        raise RefusalError(f"there is no member {name}")
    return person


def _remove_members(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    leaving = {_person(name).user_id for name in arguments["userIds"]}
    access = {user: stages for user, stages in project.access.items() if user not in leaving}
    sandbox.save_project({**project.document, "access": access})
    return {"ok": True}


_MAX_COPIES = 100


def _project(request: Request, arguments: Arguments) -> dict[str, Any] | None:
    sandbox = request.sandbox
    found = sandbox.find_project(arguments["orgId"], arguments["projectId"])
    return None if found is None else presenters.project(sandbox, found)


def _projects(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    sandbox = request.sandbox
    if arguments["orgId"] != demo_project.ORG_ID:
        raise RefusalError(f"there is no organization {arguments['orgId']}")
    return [presenters.project(sandbox, found) for found in sandbox.projects()]


def _stages(request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    _, project = scope(request, arguments)
    return [presenters.stage(document) for document in project.document["stages"]]


def _taxonomy(_request: Request, arguments: Arguments) -> dict[str, Any] | None:
    asked = {key: arguments.get(key) for key in ("orgId", "taxId", "name", "version")}
    for taxonomy in (TAXONOMY, FIRST_TAXONOMY):
        if all(value in (None, taxonomy[key]) for key, value in asked.items()):
            return taxonomy
    return None


def _taxonomies(_request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    found = [TAXONOMY] if arguments["orgId"] == demo_project.ORG_ID else []
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
        changes["stageConfig"] = store.given(config, "config")
    if routing is not None:
        changes["routing"] = routing
    stages = [{**stage, **changes} if stage["stageName"] == name else stage for stage in project.document["stages"]]
    Flow(tuple(stage_from(stage) for stage in stages)).check()
    sandbox.save_project({**project.document, "stages": stages})
    return {"ok": True, "pipeline": [presenters.stage(stage) for stage in stages]}


def _no_operation(request: Request, arguments: Arguments) -> dict[str, Any]:
    scope(request, arguments)
    return {"ok": True}


_STORAGES = (demo_project.PUBLIC_STORAGE, demo_project.REDBRICK_STORAGE)


def _label_storage(request: Request, arguments: Arguments) -> dict[str, Any]:
    _, project = scope(request, arguments)
    default = {"storageId": demo_project.REDBRICK_STORAGE, "path": "labels"}
    return dict(project.document["settings"].get("labelStorage") or default)


def _update_label_storage(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    settings = {
        **project.document["settings"],
        "labelStorage": {"storageId": arguments["storageId"], "path": arguments["path"]},
    }
    sandbox.save_project({**project.document, "settings": settings})
    return {"ok": True}


def _methods(_request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    return [presenters.storage(each) for each in _STORAGES] if arguments["orgId"] == demo_project.ORG_ID else []


def _method(_request: Request, arguments: Arguments) -> dict[str, Any] | None:
    return (
        presenters.storage(arguments["storageId"])
        if arguments["orgId"] == demo_project.ORG_ID and arguments["storageId"] in _STORAGES
        else None
    )


QUERIES = {
    "me": _me,
    "organizations": _organizations,
    "organization": _organization,
    "members": _members,
    "projectMembers": _project_members,
    "apiKeys": _api_keys,
    "project": _project,
    "projects": _projects,
    "stages": _stages,
    "taxonomy": _taxonomy,
    "taxonomies": _taxonomies,
    "getLabelStorage": _label_storage,
    "storageMethods": _methods,
    "storageMethod": _method,
}

MUTATIONS = {
    "updateProjectMembership": _update_membership,
    "removeProjectMembers": _remove_members,
    "updateLabelValidationSettings": _setting("labelValidation", "enabled", "enforce", "script"),
    "updateHangingProtocolScript": _setting("hangingProtocol", "enabled", "script"),
    "updateWebhookSettings": _setting("webhook", "enabled", "url"),
    "updateProjectTaskDuplication": _setting("taskDuplicationCount"),
    "updateStage": _update_stage,
    "postProcessTrialProject": _no_operation,
    "updateLabelStorage": _update_label_storage,
}
