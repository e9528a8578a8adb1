"""Define and validate label fields with composable rules.

A rule takes a value and yields one pair for each violation: the place within the value (``points[1].xNorm``, or an
empty string for the value itself) and what must change. A rule yields nothing for a valid value and never raises.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from airflow_provider_redbrick.exceptions import has_line_break
from airflow_provider_redbrick.labels.taxonomy import suggestion

Violations = Iterator[tuple[str, str]]
Rule = Callable[[Any], Violations]

TOLERANCE = 1e-6
"""How far past the edge of the image arithmetic may put a coordinate."""

_LONGEST = 60
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    (str, "text"),
    ((int, float), "a number"),
    (Mapping, "an object"),
    ((list, tuple), "a list"),
    (type(None), "null"),
)


def shown(value: object) -> str:
    """Return a short value as it is, and the kind of any other."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (str, float)):
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a huge number"
    return next((words for kind, words in _KINDS if isinstance(value, kind)), type(value).__name__)


def name_of(key: object) -> str:
    """Return a key of an object as text, which it is in JSON."""
    return key[:_LONGEST] if isinstance(key, str) else shown(key)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that JSON can hold; true and false are none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and not _is_infinite(value)


def is_whole(number: Any) -> bool:
    """Whether a number of any type has no fraction; infinity and NaN are not whole."""
    try:
        return bool(number == int(number))
    except (ValueError, OverflowError):
        return False


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list in JSON."""
    return isinstance(value, (list, tuple))


def join(place: str, inner: str) -> str:
    """Join a place and a place within it.

    :param place: the outer place, e.g. ``points[1]``.
    :param inner: the inner place, e.g. ``xNorm`` or ``[0]``.
    """
    return f"{place}.{inner}" if place and inner and not inner.startswith("[") else f"{place}{inner}"


# ------------------------------------------------------------------ single values


def must_be(words: str, fits: Callable[[Any], bool]) -> Rule:
    """Return a rule for values that satisfy a predicate.

    :param words: the expected value, for messages.
    :param fits: the predicate.
    """

    def rule(value: Any) -> Violations:
        if not fits(value):
            yield "", f"must be {words}, not {shown(value)}"

    return rule


def number(value: Any) -> Violations:
    """Check a number, which is neither infinity nor NaN."""
    if _is_infinite(value):
        yield "", f"must be finite, not {shown(value)}"
    elif not is_number(value):
        yield "", f"must be a number, not {shown(value)}"


def share(value: Any) -> Violations:
    """Check a coordinate, which is a share of the image's width or height."""
    if not is_number(value):
        yield from number(value)
    elif not -TOLERANCE <= value <= 1 + TOLERANCE:
        yield "", f"must be from 0 to 1, a share of the image, not {shown(value)}"


def size(value: Any) -> Violations:
    """Check a width, a height or a radius."""
    if not is_number(value):
        yield from number(value)
    elif value < 0:
        yield "", f"must not be negative, but is {shown(value)}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _of_paths(words: str, fits: Callable[[Any], bool]) -> Rule:
    """Return a rule for the names of files."""
    kind = must_be(words, fits)

    def rule(value: Any) -> Violations:
        wrong = list(kind(value))
        yield from wrong
        for name in () if wrong else [value] if isinstance(value, str) else value:
            if has_line_break(name):
                yield "", f"must be {words} without line breaks, not {shown(name)}"

    return rule


text = must_be("text", lambda value: isinstance(value, str))
flag = must_be("true or false", lambda value: isinstance(value, bool))
count = must_be("a whole number of at least 0", _is_count)
mapping = must_be("an object", lambda value: isinstance(value, Mapping))
path = _of_paths("a path", _is_path)
paths_or_none = _of_paths("a path or a list of paths", lambda v: _is_path(v) or (is_list(v) and all(map(_is_path, v))))
paths = _of_paths(
    "a path or a list of paths", lambda v: _is_path(v) or (is_list(v) and bool(v) and all(map(_is_path, v)))
)
comment = must_be(
    "text or an object with text", lambda v: isinstance(v.get("text") if isinstance(v, Mapping) else v, str)
)


def anything(_value: Any) -> Violations:
    """Check nothing: another rule does."""
    return iter(())


def finite(value: Any) -> Violations:
    """Check that the numbers in anything are finite."""
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        place, value = left.pop()
        if isinstance(value, Mapping):
            left.extend((join(place, name_of(key)), inner) for key, inner in value.items())
        elif is_list(value):
            left.extend((join(place, f"[{i}]"), inner) for i, inner in enumerate(value))
        elif _is_infinite(value):
            yield place, f"must be finite, not {shown(value)}"


# ------------------------------------------------------------------ values made of values


def each(rule: Rule, *, least: int = 0, exactly: int | None = None, what: str = "entries") -> Rule:
    """Return a rule for lists whose elements follow one rule.

    :param rule: the rule of an element.
    :param least: the minimum length.
    :param exactly: the exact length; None for any.
    :param what: the plural noun for elements in messages.
    """

    def of_list(value: Any) -> Violations:
        if not is_list(value):
            yield "", f"must be a list, not {shown(value)}"
            return
        if exactly is not None and len(value) != exactly:
            yield "", f"must have {exactly} {what}, not {len(value)}"
        elif len(value) < least:
            yield "", f"must have at least {least} {what}, not {len(value)}"
        for i, element in enumerate(value):
            for place, words in rule(element):
                yield join(f"[{i}]", place), words

    return of_list


def record(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    """Return a rule for objects with these keys and no others; null means absent.

    :param required: the rules of required keys.
    :param optional: the rules of optional keys.
    """
    rules = {**required, **(optional or {})}

    def of_object(value: Any) -> Violations:
        if not isinstance(value, Mapping):
            yield "", f"must be an object, not {shown(value)}"
            return
        for key in required:
            if value.get(key) is None:
                yield key, "is missing"
        for key, inner in value.items():
            if key not in rules:
                yield unknown_key(key, rules)
            elif inner is not None:
                for place, words in rules[key](inner):
                    yield join(key, place), words

    return of_object


def unknown_key(key: object, known: Mapping[str, Any]) -> tuple[str, str]:
    """Return the place of an unknown key, and a message with a suggestion.

    :param key: the unknown key.
    :param known: the known keys.
    """
    return name_of(key), f"unknown key; {suggestion(name_of(key), known, 'keys')}"


def _is_infinite(value: object) -> bool:
    """Whether a value is a number beyond those that computers calculate with."""
    if isinstance(value, int):
        return abs(value) > sys.float_info.max
    return isinstance(value, float) and not math.isfinite(value)
