"""Account data: current user, organizations, members, projects and settings."""

from __future__ import annotations

from typing import Any

from airflow_provider_redbrick.sandbox import seed
from airflow_provider_redbrick.sandbox.flow import RefusalError
from airflow_provider_redbrick.sandbox.request import Arguments, Request, scope


def _me(_request: Request, _arguments: Arguments) -> dict[str, Any]:
    return {"userId": seed.API_KEY_USER}


def _organizations(_request: Request, _arguments: Arguments) -> list[dict[str, Any]]:
    return [{"orgId": seed.ORG_ID, "name": seed.ORG_NAME, "role": "ADMIN"}]


def _organization(_request: Request, arguments: Arguments) -> dict[str, Any] | None:
    return {"orgId": arguments["orgId"], "name": seed.ORG_NAME} if arguments["orgId"] == seed.ORG_ID else None


def _check(org_id: str) -> None:
    if org_id != seed.ORG_ID:
        raise RefusalError(f"there is no organization {org_id}")


def _org_member(person: seed.Person) -> dict[str, Any]:
    return {
        "user": seed.user(person.user_id),
        "role": person.org_role,
        "tags": [],
        "active": True,
        "lastSeen": seed.EPOCH,
    }


def _members(_request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    _check(arguments["orgId"])
    return [_org_member(person) for person in seed.PEOPLE]


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
        for person in seed.PEOPLE
        if person.user_id in project.access
    ]


def _api_keys(_request: Request, arguments: Arguments) -> list[dict[str, Any]]:
    _check(arguments["orgId"])
    return [{"keyId": seed.API_KEY_USER, "keyName": "sandbox key"}]


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


def _person(name: str) -> seed.Person:
    person = seed.person_of(name)
    if person is None:
        raise RefusalError(f"there is no member {name}")
    return person


def _remove_members(request: Request, arguments: Arguments) -> dict[str, Any]:
    sandbox, project = scope(request, arguments)
    leaving = {_person(name).user_id for name in arguments["userIds"]}
    access = {user: stages for user, stages in project.access.items() if user not in leaving}
    sandbox.save_project({**project.document, "access": access})
    return {"ok": True}


QUERIES = {
    "me": _me,
    "organizations": _organizations,
    "organization": _organization,
    "members": _members,
    "projectMembers": _project_members,
    "apiKeys": _api_keys,
}
MUTATIONS = {"updateProjectMembership": _update_membership, "removeProjectMembers": _remove_members}
