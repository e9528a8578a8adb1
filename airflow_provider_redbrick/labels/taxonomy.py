"""The categories and attributes that a project's labels may have.

Only taxonomies of the current generation are read. Those of the first generation nest their categories and do not
state label types.
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
        """Read an attribute; missing fields do not limit its values."""
        options = [(str(each["name"]), _is_archived(each)) for each in _named(data.get("options"), "name")]
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
        *above, name = path
        return name == self.category and tuple(above) == self.parents[len(self.parents) - len(above) :]

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> ObjectType:
        """Read an object type."""
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
        """Read a taxonomy; entries without a name are left out."""
        if not isinstance(data, Mapping):
            return cls()
        return cls(
            str(data.get("name") or ""),
            data.get("isNew") is True,
            tuple(ObjectType.from_wire(each) for each in _named(data.get("objectTypes"), "category")),
            _attributes(data.get("studyClassify")),
            _attributes(data.get("seriesClassify")),
            _attributes(data.get("instanceClassify")),
        )

    def find(self, category: Sequence[str] | int) -> list[ObjectType]:
        """Return the object types with a path of names or a class id."""
        if isinstance(category, int):
            return self._by_class_id.get(category, [])
        return [each for each in self._by_name.get(category[-1], ()) if each.is_called(category)]

    def categories(self, label_type: str) -> tuple[str, ...]:
        """Return the category names that new labels of a type may have."""
        return self._allowed.get(label_type, ())

    @cached_property
    def _by_name(self) -> Mapping[str, list[ObjectType]]:
        found: dict[str, list[ObjectType]] = {}
        for each in self.object_types:
            found.setdefault(each.category, []).append(each)
        return found

    @cached_property
    def _by_class_id(self) -> Mapping[int, list[ObjectType]]:
        found: dict[int, list[ObjectType]] = {}
        for each in self.object_types:
            if each.class_id is not None:
                found.setdefault(each.class_id, []).append(each)
        return found

    @cached_property
    def _allowed(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for each in self.object_types:
            if not each.archived:
                found[each.label_type] = (*found.get(each.label_type, ()), each.category)
        return found


def suggestion(word: str, known: Iterable[str], what: str) -> str:
    """Suggest a replacement for an unknown word: the nearest known word, or a list.

    :param word: the unknown word.
    :param known: the known words.
    :param what: the plural noun for known words in the message.
    """
    return _suggestion(word[:100], tuple(dict.fromkeys(known)), what)


@lru_cache(maxsize=1024)
def _suggestion(word: str, known: tuple[str, ...], what: str) -> str:
    folded = {name.casefold(): name for name in known}
    nearest = difflib.get_close_matches(word.casefold(), folded, n=1)
    if nearest:
        return f"did you mean {folded[nearest[0]]!r}?"
    if not known:
        return f"the taxonomy has no {what}"
    more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
    return f"the {what} are {', '.join(map(repr, known[:MAX_NAMED]))}{more}"


def _attributes(data: object) -> tuple[Attribute, ...]:
    return tuple(Attribute.from_wire(each) for each in _named(data, "name"))


def _named(data: object, key: str) -> Iterator[Mapping[str, Any]]:
    return (each for each in _sequence(data) if isinstance(each, Mapping) and isinstance(each.get(key), str))


def _sequence(data: object) -> Sequence[Any]:
    return data if isinstance(data, (list, tuple)) else ()


def _is_archived(data: Mapping[str, Any]) -> bool:
    return data.get("archived") is True


def _limit(value: object) -> float | None:
    """Read a numeric limit; None for a value that is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        limit = float(value)
    except (ValueError, OverflowError):
        return None
    return None if limit != limit else limit  # noqa: PLR0124 - only NaN differs from itself


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
