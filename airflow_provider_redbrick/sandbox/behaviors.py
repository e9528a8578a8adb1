"""What this server is, where the API leaves it open.

A fault happens now and then; a behavior holds until it is changed. A specification is text such as
``conversion=omit``: names and values, separated by commas. What it does not name behaves as by default, which is the
first value of each.
"""

from __future__ import annotations

from typing import Any

KNOWN: dict[str, tuple[str, ...]] = {
    # What the conversion of labels leaves out of its answer without a word.
    "conversion": ("complete", "omit-empty", "omit", "drop-unknown"),
}


def parse(spec: str) -> dict[str, str]:
    """Read a specification; ValueError says what is wrong with it."""
    given: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in spec.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not of the form name=value")
        if name.strip() in given:
            raise ValueError(f"{name.strip()} is given twice")
        given[name.strip()] = value.strip()
    return changed(DEFAULT, given)


def changed(behaviors: dict[str, str], changes: dict[str, Any]) -> dict[str, str]:
    """Give behaviors with some replaced; ValueError names what cannot be."""
    for name, value in changes.items():
        if name not in KNOWN:
            raise ValueError(f"no behavior {name!r}; there are {', '.join(KNOWN)}")
        if value not in KNOWN[name]:
            raise ValueError(f"{name} must be one of {', '.join(KNOWN[name])}, not {value!r}")
    return {**behaviors, **changes}


DEFAULT = {name: values[0] for name, values in KNOWN.items()}
