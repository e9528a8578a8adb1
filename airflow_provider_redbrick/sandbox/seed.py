"""The demo organization: people, API key, storage methods and project.

All ids are fixed, so that tests and examples can refer to them.
"""

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
API_KEY = "sandbox-redbrick-key-not-a-secret-000000001"  # 43 characters, like a real key
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
    """A member of the organization.

    `role` is the role in projects. Owners have access to all stages.
    """

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
    """Return a user in the API's format. An API key has an empty email."""
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
    """Return the name of a user on the board: the email, or `API key`."""
    email = next((person.email for person in PEOPLE if person.user_id == user_id), None)
    return email or ("API key" if user_id.startswith("API:") else user_id)


def person_of(name: str) -> Person | None:
    """Find a person by email, in any case, or by user id."""
    wanted = name.strip().lower()
    return next((each for each in PEOPLE if wanted in (each.email, each.user_id)), None)


def stage_access(flow: Flow) -> dict[str, dict[str, bool]]:
    """Return stage access by user id and stage name.

    All people may label. Labelers without `reviews` may not review.
    """
    return {
        person.user_id: {
            stage.name: stage.is_label or person.reviews or person.role != "LABELER" for stage in flow.working_stages
        }
        for person in PEOPLE
    }


def project_document(
    project_id: str, name: str, stages: tuple[Mapping[str, Any], ...], *, consensus: bool, now: str
) -> dict[str, Any]:
    """Return a new project in its stored format.

    :param project_id: id of the project.
    :param name: name of the project.
    :param stages: stages in the format of `stage_from`.
    :param consensus: whether label stages have several assignees per task.
    :param now: time of creation.
    :raises ValueError: if two stages have the same name, or none has work.
    :raises KeyError: if a stage has no name or type.
    :raises RefusalError: if the routes or settings of a stage are invalid.
    """
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
    """Return the demo project in its stored format."""
    return project_document(PROJECT_ID, PROJECT_NAME, DEMO_STAGES, consensus=False, now=EPOCH)
