"""The demo organization: people, API key, storage methods and project.

All ids are fixed, so that tests and examples can refer to them.

`interpolate` resolves names and ids in labels, as the API does on request.

It is a tree of names, which remote-labeling stages use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from redbrick_sandbox.transitions import FEEDBACK, INPUT, LABEL, OUTPUT, REVIEW, Flow, stage_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


ORG_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000001"
PROJECT_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000002"
TAXONOMY_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000003"
WORKSPACE_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000004"
FIRST_TAXONOMY_ID = "0a9c6e10-5b1d-4c8e-9f00-000000000005"
API_KEY = "sandbox-redbrick-key-not-a-secret-000000001"  # 43 characters, like a real key
API_KEY_USER = "API:0a9c6e10-5b1d-4c8e-9f00-0000000000a0"
# Id of the key itself, on a server whose keys act as another user.
API_KEY_ID = "API:0a9c6e10-5b1d-4c8e-9f00-0000000000a1"
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


NAME = "Sandbox Taxonomy"


def _attribute(number: int, name: str, kind: str, *options: str, **more: Any) -> dict[str, Any]:
    choices = [{"name": option, "optionId": index, "archived": False} for index, option in enumerate(options)]
    return {
        "name": name,
        "attrType": kind,
        "attrId": number,
        "options": choices or None,
        "archived": False,
        "parents": [],
        **more,
    }


def _object(number: int, category: str, kind: str, color: str, *attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "category": category,
        "classId": number,
        "labelType": kind,
        "color": color,
        "attributes": list(attributes),
        "archived": False,
        "parents": [],
    }


CONFIRMED = "confirmed"

TAXONOMY: dict[str, Any] = {
    "orgId": ORG_ID,
    "taxId": TAXONOMY_ID,
    "name": NAME,
    "version": 1,
    "createdAt": EPOCH,
    "archived": False,
    "isNew": True,
    "studyClassify": [
        _attribute(0, "abnormal", "BOOL"),
        _attribute(1, "impression", "TEXT"),
        _attribute(2, "urgency", "SELECT", "routine", "soon", "now"),
    ],
    "seriesClassify": [
        _attribute(0, "usable", "BOOL"),
        _attribute(1, "plane", "SELECT", "axial", "coronal", "sagittal"),
    ],
    "instanceClassify": [
        _attribute(0, "artifact", "BOOL"),
        _attribute(1, "visible", "MULTISELECT", "heart", "lung", "liver"),
    ],
    "objectTypes": [
        _object(
            0,
            "finding",
            "BBOX",
            "#e4572e",
            _attribute(0, CONFIRMED, "BOOL"),
            _attribute(1, "note", "TEXT"),
            _attribute(2, "score", "NUMBER", minValue=0, maxValue=1, stepValue=0.01),
            _attribute(3, "side", "SELECT", "left", "right", "both"),
            _attribute(4, "appearance", "MULTISELECT", "solid", "calcified", "spiculated"),
        ),
        _object(1, "volume", "CUBOID", "#17bebb", _attribute(0, CONFIRMED, "BOOL")),
        _object(2, "landmark", "POINT", "#ffc914", _attribute(0, CONFIRMED, "BOOL")),
        _object(3, "vessel", "POLYLINE", "#2e86ab", _attribute(0, CONFIRMED, "BOOL")),
        _object(4, "region", "POLYGON", "#76b041", _attribute(0, CONFIRMED, "BOOL")),
        _object(5, "nodule", "ELLIPSE", "#a23b72", _attribute(0, CONFIRMED, "BOOL")),
        _object(6, "lesion", "SEGMENTATION", "#f18f01", _attribute(0, CONFIRMED, "BOOL")),
        _object(7, "organ", "SEGMENTATION", "#3b1f2b", _attribute(0, CONFIRMED, "BOOL")),
        _object(8, "diameter", "LENGTH", "#5f0f40", _attribute(0, CONFIRMED, "BOOL")),
        _object(9, "bend", "ANGLE", "#0f4c5c", _attribute(0, CONFIRMED, "BOOL")),
    ],
    "categories": [],
    "attributes": [],
    "taskCategories": [],
    "taskAttributes": [],
    "colorMap": [],
}

_BY_CATEGORY = {each["category"]: each for each in TAXONOMY["objectTypes"]}
_BY_CLASS = {each["classId"]: each for each in TAXONOMY["objectTypes"]}
_LEVELS = {
    "studyclassify": TAXONOMY["studyClassify"],
    "seriesclassify": TAXONOMY["seriesClassify"],
    "instanceclassify": TAXONOMY["instanceClassify"],
}


def interpolate(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the missing name or id to each label.

    Names unknown to the taxonomy are left unchanged.
    """
    return [_filled(label) for label in labels]


def _filled(label: dict[str, Any]) -> dict[str, Any]:
    category = label.get("category")
    kind = _BY_CATEGORY.get(category) if isinstance(category, str) else None
    if kind is None and isinstance(label.get("classid"), int):
        kind = _BY_CLASS.get(label["classid"])
    filled = dict(label)
    if kind is not None:
        filled["category"] = kind["category"]
        filled["classid"] = kind["classId"]
    known = next((each for level, each in _LEVELS.items() if label.get(level)), None)
    if known is None:
        known = kind["attributes"] if kind else []
    if label.get("attributes"):
        filled["attributes"] = [_attribute_filled(each, known) for each in label["attributes"]]
    return filled


def _attribute_filled(given: dict[str, Any], known: list[dict[str, Any]]) -> dict[str, Any]:
    for attribute in known:
        if given.get("name") == attribute["name"] or (
            given.get("name") is None and given.get("attrid") == attribute["attrId"]
        ):
            break
    else:
        return given
    filled = {**given, "name": attribute["name"], "attrid": attribute["attrId"]}
    options = {option["name"]: option["optionId"] for option in attribute["options"] or []}
    value = given.get("value")
    if attribute["attrType"] == "SELECT" and isinstance(value, str) and value in options:
        filled["optionid"] = options[value]
    elif attribute["attrType"] == "MULTISELECT" and isinstance(value, list):
        filled["optionid"] = [options[each] for each in value if each in options]
    return filled


Node = dict[str, Any]

# Objects of the current taxonomy that are grouped. The others are children of the root.
_GROUPS = {"anatomy": ("vessel", "organ"), "measurement": ("diameter", "bend")}


def _tree() -> Node:
    leaves = {
        each["category"]: {"name": each["category"], "classId": each["classId"], "children": []}
        for each in TAXONOMY["objectTypes"]
    }
    groups = [
        {"name": group, "classId": number, "children": [leaves.pop(name) for name in names]}
        for number, (group, names) in enumerate(_GROUPS.items(), len(leaves))
    ]
    return {"name": "object", "children": [*leaves.values(), *groups]}


FIRST_TAXONOMY: dict[str, Any] = {
    **TAXONOMY,
    "taxId": FIRST_TAXONOMY_ID,
    "name": "Sandbox First Taxonomy",
    "isNew": False,
    "categories": [_tree()],
    "studyClassify": None,
    "seriesClassify": None,
    "instanceClassify": None,
    "objectTypes": None,
}


def _paths(nodes: list[Node], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for node in nodes:
        path = (*above, node["name"])
        yield from _paths(node["children"], path) if node["children"] else [path]


# All paths from the root to a leaf.
PATHS = frozenset(_paths(FIRST_TAXONOMY["categories"]))
