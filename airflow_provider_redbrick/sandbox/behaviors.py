"""Variants of server behavior that the API contract leaves open.

A fault affects single requests. A behavior holds until it is changed. A specification is text such as
`conversion=omit`: comma-separated names and values. A behavior that is not named has its default, the first value
in `KNOWN`.
"""

from __future__ import annotations

from typing import Any

KNOWN: dict[str, tuple[str, ...]] = {
    # What the label conversion silently omits from its response.
    "conversion": ("complete", "omit-empty", "omit", "drop-unknown"),
}


def parse(spec: str) -> dict[str, str]:
    """Parse a behavior specification.

    :raises ValueError: if a part is not of the form name=value, a name is repeated, or a name or value is unknown.
    """
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
    """Return behaviors with some values replaced.

    :param behaviors: current value of each behavior.
    :param changes: new values by name.
    :raises ValueError: if a name or value is unknown.
    """
    for name, value in changes.items():
        if name not in KNOWN:
            raise ValueError(f"no behavior {name!r}; the behaviors are {', '.join(KNOWN)}")
        if value not in KNOWN[name]:
            raise ValueError(f"{name} must be one of {', '.join(KNOWN[name])}, not {value!r}")
    return {**behaviors, **changes}


DEFAULT = {name: values[0] for name, values in KNOWN.items()}
