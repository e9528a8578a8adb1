"""Categories and attributes that a project allows in labels.

Labels can be validated only against taxonomies of the current generation. First-generation taxonomies nest their
categories and do not state label types, so they are not checkable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

MAX_NAMED = 5


@dataclass(frozen=True)
class Attribute:
    """A property of a label, series or task beyond its category.

    :param kind: ``BOOL``, ``TEXT``, ``NUMBER``, ``SELECT`` or ``MULTISELECT``.
    :param options: the selectable options, without archived ones.
    :param archived_options: options that are no longer selectable.
    """

    name: str
    kind: str
    options: tuple[str, ...] = ()
    archived_options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    archived: bool = False

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Attribute:
        """Read an attribute from the API; missing fields do not limit its values."""
        options = [(str(option["name"]), _is_archived(option)) for option in _with_text(data.get("options"), "name")]
        return cls(
            str(data["name"]),
            str(data.get("attrType") or ""),
            tuple(name for name, archived in options if not archived),
            tuple(name for name, archived in options if archived),
            _limit(data.get("minValue")),
            _limit(data.get("maxValue")),
            _is_archived(data),
        )


@dataclass(frozen=True)
class ObjectType:
    """A category for one label type, e.g. ``BBOX``, with its attributes.

    :param parents: the names above a nested category, from the top.
    """

    category: str
    class_id: int | None
    label_type: str
    attributes: tuple[Attribute, ...] = ()
    parents: tuple[str, ...] = ()
    archived: bool = False

    def is_called(self, path: Sequence[str]) -> bool:
        """Return whether a path of names identifies this category."""
        *parents, name = path
        return name == self.category and tuple(parents) == self.parents[len(self.parents) - len(parents) :]

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> ObjectType:
        """Read an object type from the API."""
        class_id = data.get("classId")
        return cls(
            str(data["category"]),
            class_id if isinstance(class_id, int) else None,
            str(data.get("labelType") or ""),
            _attributes(data.get("attributes")),
            tuple(str(name) for name in _sequence(data.get("parents"))),
            _is_archived(data),
        )


@dataclass(frozen=True)
class Taxonomy:
    """The categories of labels, and the attributes of the three classification levels.

    :param checkable: whether labels can be validated; False for a first-generation taxonomy, or none.
    """

    name: str = ""
    checkable: bool = False
    object_types: tuple[ObjectType, ...] = ()
    task_attributes: tuple[Attribute, ...] = ()
    series_attributes: tuple[Attribute, ...] = ()
    instance_attributes: tuple[Attribute, ...] = ()

    @classmethod
    def from_wire(cls, data: object) -> Taxonomy:
        """Read a taxonomy from the API; entries without a name are left out."""
        if not isinstance(data, Mapping):
            return cls()
        return cls(
            str(data.get("name") or ""),
            data.get("isNew") is True,
            tuple(ObjectType.from_wire(object_type) for object_type in _with_text(data.get("objectTypes"), "category")),
            _attributes(data.get("studyClassify")),
            _attributes(data.get("seriesClassify")),
            _attributes(data.get("instanceClassify")),
        )

    def find(self, category: Sequence[str] | int) -> list[ObjectType]:
        """Return the object types with a path of names or a class id."""
        if isinstance(category, int):
            return self._by_class_id.get(category, [])
        return [object_type for object_type in self._by_name.get(category[-1], ()) if object_type.is_called(category)]

    def categories(self, label_type: str) -> tuple[str, ...]:
        """Return the category names that new labels of a type may have."""
        return self._allowed.get(label_type, ())

    @cached_property
    def _by_name(self) -> Mapping[str, list[ObjectType]]:
        by_name: dict[str, list[ObjectType]] = {}
        for object_type in self.object_types:
            by_name.setdefault(object_type.category, []).append(object_type)
        return by_name

    @cached_property
    def _by_class_id(self) -> Mapping[int, list[ObjectType]]:
        by_class_id: dict[int, list[ObjectType]] = {}
        for object_type in self.object_types:
            if object_type.class_id is not None:
                by_class_id.setdefault(object_type.class_id, []).append(object_type)
        return by_class_id

    @cached_property
    def _allowed(self) -> Mapping[str, tuple[str, ...]]:
        allowed: dict[str, tuple[str, ...]] = {}
        for object_type in self.object_types:
            if not object_type.archived:
                allowed[object_type.label_type] = (*allowed.get(object_type.label_type, ()), object_type.category)
        return allowed


def suggestion(word: str, known: Iterable[str], what: str) -> str:
    """Suggest a replacement for an unknown word: the nearest known word, or a list.

    :param word: the unknown word.
    :param known: the known words.
    :param what: the plural noun for known words in the message.
    """
    return _suggestion(word[:100], tuple(dict.fromkeys(known)), what)


@lru_cache(maxsize=1024)
def _suggestion(word: str, known: tuple[str, ...], what: str) -> str:
    by_folded_name = {name.casefold(): name for name in known}
    nearest = difflib.get_close_matches(word.casefold(), by_folded_name, n=1)
    if nearest:
        return f"did you mean {by_folded_name[nearest[0]]!r}?"
    if not known:
        return f"the taxonomy has no {what}"
    more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
    return f"the {what} are {', '.join(map(repr, known[:MAX_NAMED]))}{more}"


def _attributes(data: object) -> tuple[Attribute, ...]:
    return tuple(Attribute.from_wire(attribute) for attribute in _with_text(data, "name"))


def _with_text(data: object, key: str) -> Iterator[Mapping[str, Any]]:
    return (entry for entry in _sequence(data) if isinstance(entry, Mapping) and isinstance(entry.get(key), str))


def _sequence(data: object) -> Sequence[Any]:
    return data if isinstance(data, (list, tuple)) else ()


def _is_archived(data: Mapping[str, Any]) -> bool:
    return data.get("archived") is True


def _limit(value: object) -> float | None:
    """Read a numeric limit; None if the value is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        limit = float(value)
    except (ValueError, OverflowError):
        return None
    return None if limit != limit else limit  # noqa: PLR0124 - only NaN differs from itself


_CLASSIFICATION_FLAGS = {
    "studyclassify": "studyClassify",
    "seriesclassify": "seriesClassify",
    "instanceclassify": "instanceClassify",
}


def with_names(labels: Sequence[Mapping[str, Any]], taxonomy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add the names of categories, attributes and options to stored labels.

    The labels in a labels file refer to these by id alone. Taxonomies of the first generation have no such ids.

    :param labels: the flat list of stored labels.
    :param taxonomy: the taxonomy as returned by the API.
    :return: copies of the labels; ids that the taxonomy does not contain stay unnamed.
    """
    if taxonomy.get("isNew") is not True:
        return [dict(label) for label in labels]
    object_types = {object_type.get("classId"): object_type for object_type in taxonomy.get("objectTypes") or ()}
    attributes_by_level = {flag: _by_id(taxonomy.get(key), "attrId") for flag, key in _CLASSIFICATION_FLAGS.items()}
    return [_with_names(label, object_types, attributes_by_level) for label in labels]


def _with_names(
    label: Mapping[str, Any],
    object_types: Mapping[Any, Mapping[str, Any]],
    attributes_by_level: Mapping[str, Mapping[Any, Any]],
) -> dict[str, Any]:
    result = dict(label)
    flag = next((flag for flag in attributes_by_level if label.get(flag)), None)
    if flag is not None:
        known = attributes_by_level[flag]
    else:
        object_type = object_types.get(label.get("classid"), {})
        known = _by_id(object_type.get("attributes"), "attrId")
        if object_type.get("category"):
            result["category"] = object_type["category"]
    if label.get("attributes"):
        result["attributes"] = [
            _attribute(attribute, known.get(attribute.get("attrid"))) for attribute in label["attributes"]
        ]
    return result


def _attribute(stored: Mapping[str, Any], known: Mapping[str, Any] | None) -> dict[str, Any]:
    attribute = dict(stored)
    if known is None:
        return attribute
    attribute["name"] = known.get("name")
    options = {number: option.get("name") for number, option in _by_id(known.get("options"), "optionId").items()}
    selected = stored.get("optionid")
    if known.get("attrType") == "SELECT":
        attribute["value"] = options.get(selected)
    elif known.get("attrType") == "MULTISELECT" and isinstance(selected, list):
        values = [options.get(option_id) for option_id in selected]
        if None not in values:
            attribute["value"] = values
    return attribute


def _by_id(entries: Any, key: str) -> dict[Any, Mapping[str, Any]]:
    return {entry.get(key): entry for entry in entries or () if isinstance(entry, Mapping)}
