"""Reading documents others wrote: each look at a value checks it, says where it is wrong, and goes on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Problems(list[str]):
    """What has been found wrong, each with the place it was found at."""

    def note(self, at: str, words: str) -> None:
        """Add one finding."""
        self.append(f"{at}: {words}")


class Look:
    """An object (JSON) at a place. Keys nobody has asked for are found wrong by `leftovers`."""

    def __init__(self, value: Any, at: str, problems: Problems) -> None:
        self.at = at
        self.problems = problems
        self._asked: set[str] = set()
        self.value: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            problems.note(at, f"an object is needed, not {describe(value)}")

    def raw(self, key: str) -> Any:
        """Take a value as it is; None when it is absent or null."""
        # Most keys that are asked for are absent.
        if key not in self.value:
            return None
        self._asked.add(key)
        return self.value[key]

    def skip(self, *keys: str) -> None:
        """Allow keys without reading them."""
        self._asked.update(keys)

    def leftovers(self) -> None:
        """Find keys wrong that nobody knows."""
        for key in self.value:
            if key not in self._asked:
                self.problems.note(self.at, f"unknown key {key!r}")

    def of(self, key: str, fits: Callable[[Any], bool], wanted: str, *, required: bool = False) -> Any:
        """Take a value that must fit; None when it is absent, or does not."""
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
        """Take a finite number."""
        return self.of(key, is_number, "a number", required=required)

    def integer(self, key: str, *, required: bool = False) -> Any:
        """Take a whole number that is not negative."""
        return self.of(key, is_index, "a whole number from 0", required=required)

    def text(self, key: str, *, required: bool = False) -> Any:
        """Take text that is not empty."""
        return self.of(key, is_text, "text", required=required)

    def flag(self, key: str) -> Any:
        """Take true or false."""
        return self.of(key, is_flag, "true or false")

    def inside(self, key: str, *, required: bool = False) -> Look | None:
        """Look into an object; None when it is absent."""
        value = self.raw(key)
        if value is None:
            if required:
                self.problems.note(f"{self.at}.{key}", "missing; an object is needed")
            return None
        return Look(value, f"{self.at}.{key}", self.problems)

    def each(self, key: str) -> list[Look]:
        """Look into every object of a list; none when it is absent."""
        found = self.of(key, is_list, "a list")
        if not found:
            return []
        return [Look(value, f"{self.at}.{key}[{index}]", self.problems) for index, value in enumerate(found)]

    def coordinates(self, key: str, names: tuple[str, ...], *, required: bool = False) -> list[Any] | None:
        """Take a point given by named numbers, as a list in the order of the names."""
        inner = self.inside(key, required=required)
        if inner is None:
            return None
        values = [inner.number(name, required=True) for name in names]
        inner.leftovers()
        return values

    def numbers(self, key: str, count: int, *, required: bool = False) -> Any:
        """Take a list of so many numbers."""
        return self.of(
            key,
            lambda value: isinstance(value, list) and len(value) == count and all(map(is_number, value)),
            f"a list of {count} numbers",
            required=required,
        )


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_index(value: Any) -> bool:
    """Whether a value is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text(value: Any) -> bool:
    """Whether a value is text with something in it."""
    return isinstance(value, str) and bool(value)


def is_flag(value: Any) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Whether a value is a list."""
    return isinstance(value, list)


def is_object(value: Any) -> bool:
    """Whether a value is an object."""
    return isinstance(value, dict)


def is_paths(value: Any) -> bool:
    """Whether a value is one path or a list of some."""
    return is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value)))


def describe(value: Any) -> str:
    """Name a value for a message, without repeating much of it."""
    if value is None:
        return "null"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    words = repr(value)
    return words if len(words) <= 40 else f"{words[:37]}..."
