"""Copy user values to plain JSON values.

1. The result shares nothing with the input: lists, objects and arrays are copied at every depth.
2. Values that JSON cannot represent are refused with their place: series, label and field.
3. Two keys with the same text are refused, since one of the two values would be lost.

NaN and infinity are copied, because label validation reports them. :func:`check_finite` refuses them before sending.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from typing import Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr
from airflow_provider_redbrick.labels.schema import join, name_of
from airflow_provider_redbrick.labels.strict_json import DEEPEST, BeyondError, check_depth

PathKey = tuple[Any, ...]
"""Where a value is: the keys and indices that lead to it, such as ``("series", 0, "boundingBoxes", 2, "wNorm")``."""

Take = Callable[[Any, PathKey], "str | None"]
"""Takes a value that JSON cannot hold, and returns the text to put in its place; None leaves it to the other rules."""

_NO_LISTS = (str, bytes, bytearray, memoryview)
# Python itself refuses to write longer whole numbers.
_MOST_BITS = 14_000


def to_plain(value: Any, take: Take | None = None) -> Any:
    """Return a copy made only of dict, list, str, int, float, bool and None.

    Also accepted: numbers and arrays of array libraries (with ``tolist`` or ``__array__``), dataclasses, models of
    pydantic, attrs and msgspec, ``Decimal``, ``Enum`` and paths. Model fields that are None are left out.

    :param value: the value to copy.
    :param take: replaces values that JSON cannot represent, see :data:`Take`.
    :raises RedBrickInputError: if JSON cannot represent a value; the message names its place.
    """
    try:
        text = json.dumps(value)
        check_depth(text.encode())
        copy = json.loads(text)
        # Most values are plain already. What is not equal has been changed on the way: 1 became "1", a tuple a list.
        if copy == value:
            return copy
    except BeyondError as error:
        raise _refused(error) from None
    except Exception:  # noqa: BLE001, S110 - the walk below says what is wrong, and where
        pass
    try:
        plain = _plain(value, (), take, DEEPEST)
        check_depth(json.dumps(plain).encode())
    except (RedBrickInputError, BeyondError) as error:
        raise _refused(error) from None
    return plain


def check_finite(value: Any) -> None:
    """Refuse NaN and infinity, which JSON cannot represent.

    :raises RedBrickInputError: for the first of them, with its place.
    """
    found = _infinite(value, ())
    if found is not None:
        place, number = found
        raise _refused(_problem(place, f"{number} is not a number that JSON can hold"))


def place_of(place: PathKey) -> str:
    """Format a place for messages: ``series 0, boundingBoxes[2], wNorm``."""
    in_series = len(place) > 1 and place[0] == "series" and isinstance(place[1], int)
    if not in_series:
        return _joined(place)
    rest = place[2:]
    label = rest[:2] if len(rest) > 1 and (isinstance(rest[1], int) or rest[0] == "segmentMap") else rest[:1]
    label_name = f"{label[0]}[{label[1]}]" if len(label) > 1 else _joined(label)
    return ", ".join(filter(None, (f"series {place[1]}", label_name, _joined(rest[len(label) :]))))


def plain_key(key: Any) -> str | None:
    """Return an object key as JSON text; None if it is no valid key."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bool):
        return None
    if isinstance(key, Integral):
        return str(int(key))
    number = float(key) if isinstance(key, (Real, Decimal)) else math.nan
    return str(int(number)) if number.is_integer() else None


def fields_of(value: Any) -> Any:
    """Return a model's fields that are not None; None if it is no model."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if callable(getattr(kind, "model_dump", None)):
        return value.model_dump(by_alias=True, exclude_none=True)
    if hasattr(kind, "__fields__") and callable(getattr(kind, "dict", None)):
        return value.dict(by_alias=True, exclude_none=True)
    names = _field_names(kind)
    if names is None:
        return None
    read = ((name, getattr(value, name)) for name in names)
    return {name: inner for name, inner in read if inner is not None}


def _field_names(kind: type) -> list[str] | None:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [field.name for field in kind.__attrs_attrs__]
    if hasattr(kind, "__struct_fields__"):
        return list(kind.__struct_fields__)
    return None


# ------------------------------------------------------------------ the walk


def _plain(value: Any, place: PathKey, take: Take | None, left: int) -> Any:
    """Return a copy of a value.

    :param left: the remaining depth; conversions that produce further objects count too.
    """
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum)):
        return _scalar(value, place)
    if left < 0:
        raise RedBrickInputError(f"it is nested deeper than {DEEPEST} levels")
    taken = None if take is None else take(value, place)
    if taken is not None:
        return taken
    if isinstance(value, Mapping):
        return _object(value, place, take, left)
    if isinstance(value, Sequence) and not isinstance(value, _NO_LISTS):
        return [_plain(inner, (*place, i), take, left - 1) for i, inner in enumerate(value)]
    return _plain(_simpler(value, place), place, take, left - 1)


def _scalar(value: Any, place: PathKey) -> Any:
    """Return a scalar as one of Python's own: those of libraries are subclasses."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value)
    number = int(value)
    if number.bit_length() > _MOST_BITS:
        raise _problem(place, "the number is too large")
    return number


def _object(value: Mapping[Any, Any], place: PathKey, take: Take | None, left: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    for key, inner in value.items():
        name = plain_key(key)
        if name is None:
            raise _problem(place, f"a key must be text, not {short_repr(key)} ({_kind(key)})")
        if name in plain:
            words = (
                f"the keys {short_repr(keys[name])} and {short_repr(key)} are one, so that one of the two would be lost"
            )
            raise _problem(place, words)
        keys[name] = key
        plain[name] = _plain(inner, (*place, name), take, left - 1)
    return plain


def _simpler(value: Any, place: PathKey) -> Any:
    """Return what a value that is none of JSON's stands for.

    :raises RedBrickInputError: if it stands for nothing that JSON has.
    """
    try:
        found = _meaning(value)
    except Exception as error:  # noqa: BLE001 - it is the user's own class, and may raise anything
        raise _problem(place, f"{_kind(value)} is not JSON: {error or type(error).__name__}") from None
    if found is None:
        raise _problem(place, f"{_kind(value)} is not JSON")
    return found


def _meaning(value: Any) -> Any:
    """Return what a value stands for, None where that is not known."""
    if isinstance(value, type):
        return None
    known = next((read for kind, read in _KNOWN if isinstance(value, kind)), None)
    if known is not None:
        return known(value)
    if _is_remote_path(value):
        return str(value)
    fields = fields_of(value)
    return _listed(value) if fields is None else fields


def _listed(value: Any) -> Any:
    """Return an array's values as lists, None for what is no array."""
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    return value.__array__().tolist() if callable(getattr(value, "__array__", None)) else None


def _number(value: Decimal) -> int | float:
    return int(value) if value.as_tuple().exponent == 0 else float(value)


_KNOWN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    (Decimal, _number),
    (os.PathLike, os.fsdecode),
)


def _is_remote_path(value: Any) -> bool:
    """Return whether a value is an Airflow object store path, which is no PathLike."""
    upath = sys.modules.get("upath")
    return upath is not None and isinstance(value, upath.UPath)


def _infinite(value: Any, place: PathKey) -> tuple[PathKey, float] | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else (place, value)
    if isinstance(value, Mapping):
        inside = (_infinite(inner, (*place, key)) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        inside = (_infinite(inner, (*place, i)) for i, inner in enumerate(value))
    else:
        return None
    return next((found for found in inside if found is not None), None)


# ------------------------------------------------------------------ messages


def _problem(place: PathKey, words: str) -> RedBrickInputError:
    where = place_of(place)
    return RedBrickInputError(f"{where}: {words}" if where else words)


def _refused(error: Exception) -> RedBrickInputError:
    return RedBrickInputError(f"it cannot be written as JSON: {error}")


def _joined(place: PathKey) -> str:
    text = ""
    for part in place:
        text = join(text, f"[{part}]" if isinstance(part, int) else name_of(part))
    return text


def _kind(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
