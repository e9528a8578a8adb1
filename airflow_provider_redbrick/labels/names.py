"""Names for labels that refer to taxonomy entries by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LEVELS = {"studyclassify": "studyClassify", "seriesclassify": "seriesClassify", "instanceclassify": "instanceClassify"}


def with_names(labels: Sequence[Mapping[str, Any]], taxonomy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add the names of categories, attributes and options to stored labels.

    The labels in a labels file refer to these by id alone. Taxonomies of the first generation have no such ids.

    :param labels: the flat list of stored labels.
    :param taxonomy: the taxonomy as returned by the API.
    :return: copies of the labels; ids that the taxonomy does not contain stay unnamed.
    """
    if taxonomy.get("isNew") is not True:
        return [dict(label) for label in labels]
    types = {each.get("classId"): each for each in taxonomy.get("objectTypes") or ()}
    levels = {mark: _by_id(taxonomy.get(key), "attrId") for mark, key in _LEVELS.items()}
    return [_with_names(label, types, levels) for label in labels]


def _with_names(
    label: Mapping[str, Any], types: Mapping[Any, Mapping[str, Any]], levels: Mapping[str, Mapping[Any, Any]]
) -> dict[str, Any]:
    named = dict(label)
    level = next((mark for mark in levels if label.get(mark)), None)
    if level is not None:
        known = levels[level]
    else:
        kind = types.get(label.get("classid"), {})
        known = _by_id(kind.get("attributes"), "attrId")
        if kind.get("category"):
            named["category"] = kind["category"]
    if label.get("attributes"):
        named["attributes"] = [_attribute(each, known.get(each.get("attrid"))) for each in label["attributes"]]
    return named


def _attribute(given: Mapping[str, Any], known: Mapping[str, Any] | None) -> dict[str, Any]:
    attribute = dict(given)
    if known is None:
        return attribute
    attribute["name"] = known.get("name")
    options = {number: option.get("name") for number, option in _by_id(known.get("options"), "optionId").items()}
    chosen = given.get("optionid")
    if known.get("attrType") == "SELECT":
        attribute["value"] = options.get(chosen)
    elif known.get("attrType") == "MULTISELECT" and isinstance(chosen, list):
        values = [options.get(each) for each in chosen]
        if None not in values:
            attribute["value"] = values
    return attribute


def _by_id(entries: Any, key: str) -> dict[Any, Mapping[str, Any]]:
    return {each.get(key): each for each in entries or () if isinstance(each, Mapping)}
