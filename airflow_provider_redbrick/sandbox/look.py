"""Read untrusted documents and collect all their problems.

Each read of a value validates it. An invalid value is noted with its location and read as None, so that one pass finds
all problems.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Problems(list[str]):
    """Problems of a document, each with its location."""

    def note(self, at: str, problem: str) -> None:
        """Add a problem.

        :param at: location of the problem.
        :param problem: description of the problem.
        """
        self.append(f"{at}: {problem}")


class Look:
    """A JSON object at a location in a document.

    :param value: the object. Another type is noted as a problem.
    :param at: its location, for messages.
    :param problems: list to which problems are added.
    """

    def __init__(self, value: Any, at: str, problems: Problems) -> None:
        self.at = at
        self.problems = problems
        self._read_keys: set[str] = set()
        self.value: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            problems.note(at, f"an object is needed, not {describe(value)}")

    def raw(self, key: str) -> Any:
        """Return a value without validation; None if it is absent or null."""
        # Fast path: most keys are absent.
        if key not in self.value:
            return None
        self._read_keys.add(key)
        return self.value[key]

    def skip(self, *keys: str) -> None:
        """Accept keys without reading them."""
        self._read_keys.update(keys)

    def leftovers(self) -> None:
        """Note each key that was neither read nor skipped as unknown."""
        for key in self.value:
            if key not in self._read_keys:
                self.problems.note(self.at, f"unknown key {key!r}")

    def of(self, key: str, fits: Callable[[Any], bool], wanted: str, *, required: bool = False) -> Any:
        """Return a value that passes a check; None if it is absent or invalid.

        :param key: key of the value.
        :param fits: the check.
        :param wanted: description of valid values, for messages.
        :param required: whether an absent value is a problem.
        """
        value = self.raw(key)
        if value is None:
            if required:
                self.problems.note(f"{self.at}.{key}", f"missing; {wanted} is needed")
            return None
        if not fits(value):
            self.problems.note(f"{self.at}.{key}", f"{wanted} is needed, not {describe(value)}")
            return None
        return value

    def number(self, key: str, *, required: bool = False) -> Any:
        """Return a finite number.

        :param key: key of the value.
        :param required: whether an absent value is a problem.
        """
        return self.of(key, is_number, "a number", required=required)

    def integer(self, key: str, *, required: bool = False) -> Any:
        """Return a non-negative integer.

        :param key: key of the value.
        :param required: whether an absent value is a problem.
        """
        return self.of(key, is_index, "a whole number from 0", required=required)

    def text(self, key: str, *, required: bool = False) -> Any:
        """Return non-empty text.

        :param key: key of the value.
        :param required: whether an absent value is a problem.
        """
        return self.of(key, is_text, "text", required=required)

    def flag(self, key: str) -> Any:
        """Return a boolean."""
        return self.of(key, is_flag, "true or false")

    def inside(self, key: str, *, required: bool = False) -> Look | None:
        """Return a nested object; None if it is absent.

        :param key: key of the object.
        :param required: whether an absent object is a problem.
        """
        value = self.raw(key)
        if value is None:
            if required:
                self.problems.note(f"{self.at}.{key}", "missing; an object is needed")
            return None
        return Look(value, f"{self.at}.{key}", self.problems)

    def each(self, key: str) -> list[Look]:
        """Return the objects of a list; none if it is absent."""
        found = self.of(key, is_list, "a list")
        if not found:
            return []
        return [Look(value, f"{self.at}.{key}[{index}]", self.problems) for index, value in enumerate(found)]

    def coordinates(self, key: str, names: tuple[str, ...], *, required: bool = False) -> list[Any] | None:
        """Return the coordinates of a point; None if it is absent.

        :param key: key of the point.
        :param names: names of its coordinates. The result has their order.
        :param required: whether an absent point is a problem.
        """
        inner = self.inside(key, required=required)
        if inner is None:
            return None
        values = [inner.number(name, required=True) for name in names]
        inner.leftovers()
        return values

    def numbers(self, key: str, count: int, *, required: bool = False) -> Any:
        """Return a list of numbers.

        :param key: key of the list.
        :param count: required length.
        :param required: whether an absent list is a problem.
        """
        return self.of(
            key,
            lambda value: isinstance(value, list) and len(value) == count and all(map(is_number, value)),
            f"a list of {count} numbers",
            required=required,
        )


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number. Booleans are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_index(value: Any) -> bool:
    """Return whether a value is a non-negative integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: Any) -> bool:
    """Return whether a value is non-empty text."""
    return isinstance(value, str) and bool(value)


def is_flag(value: Any) -> bool:
    """Return whether a value is a boolean."""
    return isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Return whether a value is a list."""
    return isinstance(value, list)


def is_object(value: Any) -> bool:
    """Return whether a value is an object."""
    return isinstance(value, dict)


def is_paths(value: Any) -> bool:
    """Return whether a value is a path or a non-empty list of paths."""
    return is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value)))


def describe(value: Any) -> str:
    """Describe a value for a message, in at most 40 characters."""
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
