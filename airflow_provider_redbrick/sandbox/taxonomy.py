"""Demo taxonomy, with all types of objects and attributes.

`interpolate` resolves names and ids in labels, as the API does on request.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_redbrick.sandbox.seed import EPOCH, ORG_ID, TAXONOMY_ID

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
