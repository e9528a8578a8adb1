"""Who and what is there at the start: the organisation, its people, the API key, the demo project."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.sandbox.flow import FEEDBACK, INPUT, LABEL, OUTPUT, REVIEW, Flow, stage_from

if TYPE_CHECKING:
    from collections.abc import Mapping

ORG_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000001"
PROJECT_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000002"
TAXONOMY_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000003"
WORKSPACE_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000004"
FIRST_TAXONOMY_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000005"
API_KEY = "sandbox-redbrick-key-not-a-secret-000000001"  # 43 characters, as a real one
API_KEY_USER = "API:0a9c6e10-5b1d-4c8e-9f00-0000000000a0"
SYSTEM_USER = "RB:SYSTEM"

ORG_NAME = "Sandbox Hospital"
PROJECT_NAME = "Sandbox Demo"
EPOCH = "2024-01-01T00:00:00.000000+00:00"

PUBLIC_STORAGE = "11111111-1111-1111-1111-111111111111"
REDBRICK_STORAGE = "22222222-2222-2222-2222-222222222222"
ALTADB_STORAGE = "33333333-3333-3333-3333-333333333333"


@dataclass(frozen=True)
class Person:
    """A member of the organisation. `role` is that in projects; owners may work in every stage."""

    user_id: str
    email: str
    given_name: str
    family_name: str
    role: str = "LABELER"
    org_role: str = "MEMBER"
    reviews: bool = True


PEOPLE = (
    Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b1", "alice@example.com", "Alice", "Adams", reviews=False),
    Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b2", "bob@example.com", "Bob", "Brown"),
    Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b3", "carol@example.com", "Carol", "Clark"),
    Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b0", "olivia@example.com", "Olivia", "Owen", "ADMIN", "OWNER"),
)
LABELERS = tuple(person for person in PEOPLE if person.role == "LABELER")

DEMO_STAGES: tuple[dict[str, Any], ...] = (
    {"stageName": "Input", "brickName": INPUT, "routing": {"nextStageName": "Label"}},
    {
        "stageName": "Label",
        "brickName": LABEL,
        "routing": {"nextStageName": "Review_1"},
        "stageConfig": {"autoAssign": True, "queueSize": 5},
    },
    {
        "stageName": "Review_1",
        "brickName": REVIEW,
        "routing": {"passed": "Output", "failed": "Failed_Review_1"},
        "stageConfig": {"autoAssign": True, "queueSize": 5, "reviewPercent": 1},
    },
    {"stageName": "Failed_Review_1", "brickName": FEEDBACK, "routing": {"feedbackStageName": "Label"}},
    {"stageName": "Output", "brickName": OUTPUT, "routing": {"nextStageName": "END"}},
)


@lru_cache(1000)
def user(user_id: str | None) -> dict[str, Any] | None:
    """Show a user as the API does: by his id, an API key with an empty e-mail."""
    if user_id is None:
        return None
    common = {"mfaSetup": False, "lastSeen": EPOCH, "updatedAt": EPOCH, "idProvider": "COGNITO"}
    if user_id == API_KEY_USER:
        return {"userId": user_id, "email": "", "givenName": "sandbox key", "familyName": "", **common}
    person = next((each for each in PEOPLE if each.user_id == user_id), None)
    if person is None:
        return {"userId": user_id, "email": None, "givenName": None, "familyName": None, **common}
    return {
        "userId": user_id,
        "email": person.email,
        "givenName": person.given_name,
        "familyName": person.family_name,
        **common,
    }


def short_name(user_id: str) -> str:
    """Name a user as the board does: e-mail, or `API key`."""
    found = next((person.email for person in PEOPLE if person.user_id == user_id), None)
    return found or ("API key" if user_id.startswith("API:") else user_id)


def person_of(name: str) -> Person | None:
    """Find a person by e-mail (in any case) or user id."""
    wanted = name.strip().lower()
    return next((each for each in PEOPLE if wanted in (each.email, each.user_id)), None)


def stage_access(flow: Flow) -> dict[str, dict[str, bool]]:
    """Say who may work where: by user id and stage name. Everybody labels; not everybody reviews."""
    return {
        person.user_id: {
            stage.name: stage.is_label or person.reviews or person.role != "LABELER" for stage in flow.working_stages
        }
        for person in PEOPLE
    }


def project_document(
    project_id: str, name: str, stages: tuple[Mapping[str, Any], ...], *, consensus: bool, now: str
) -> dict[str, Any]:
    """Write a project as it is stored; ValueError, KeyError or RefusalError when its stages are not usable."""
    flow = Flow(tuple(stage_from(stage) for stage in stages), consensus)
    names = [stage.name for stage in flow.stages]
    if len(set(names)) != len(names):
        raise ValueError("two stages have the same name")
    flow.check()
    if not flow.working_stages and not any(stage.is_remote for stage in flow.stages):
        raise ValueError("a project needs a label, a review or a remote-labeling stage")
    return {
        "projectId": project_id,
        "name": name,
        "stages": [dict(stage) for stage in stages],
        "consensus": consensus,
        "access": stage_access(flow),
        "roles": {person.user_id: person.role for person in PEOPLE},
        "createdAt": now,
        "settings": {},
    }


def demo_project() -> dict[str, Any]:
    """Write the project every sandbox has."""
    return project_document(PROJECT_ID, PROJECT_NAME, DEMO_STAGES, consensus=False, now=EPOCH)
