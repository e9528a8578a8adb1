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
from airflow_provider_redbrick.labels.fields import InputModel, dotted, infinite_places
from airflow_provider_redbrick.labels.strict_json import DEEPEST, BeyondError, check_depth

PathKey = tuple[Any, ...]
"""The keys and indices that lead to a value, such as ``("series", 0, "boundingBoxes", 2, "wNorm")``."""

Take = Callable[[Any, PathKey], "str | None"]
"""Replaces a value that JSON cannot represent with text; None applies the other rules."""

_BYTES_AND_TEXT = (str, bytes, bytearray, memoryview)
# Python refuses to format longer integers (sys.set_int_max_str_digits).
_MAX_INTEGER_BITS = 14_000


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
        # Most values are plain already. An unequal copy was converted: for example, the key 1 became "1".
        if copy == value:
            return copy
    except BeyondError as error:
        raise _refused(error) from None
    except Exception:  # noqa: BLE001, S110 - the walk below finds the error and its place
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
    for place, number in infinite_places(value):
        if isinstance(number, float):
            raise _refused(_problem(place, f"JSON cannot represent the number {number}"))


def place_of(place: PathKey) -> str:
    """Format a place for messages: ``series 0, boundingBoxes[2], wNorm``."""
    in_series = len(place) > 1 and place[0] == "series" and isinstance(place[1], int)
    if not in_series:
        return dotted(place)
    rest = place[2:]
    label = rest[:2] if len(rest) > 1 and (isinstance(rest[1], int) or rest[0] == "segmentMap") else rest[:1]
    label_name = f"{label[0]}[{label[1]}]" if len(label) > 1 else dotted(label)
    return ", ".join(filter(None, (f"series {place[1]}", label_name, dotted(rest[len(label) :]))))


def plain_key(key: Any) -> str | None:
    """Return an object key as JSON text; None if it is not a valid key."""
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
    """Return a model's fields that are not None; None for other values."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if isinstance(value, InputModel):
        # It may contain masks, such as open files, which pydantic would convert.
        return {name: inner for name, inner in value if inner is not None}
    if callable(getattr(kind, "model_dump", None)):
        return value.model_dump(by_alias=True, exclude_none=True)
    if hasattr(kind, "__fields__") and callable(getattr(kind, "dict", None)):
        return value.dict(by_alias=True, exclude_none=True)
    names = _field_names(kind)
    if names is None:
        return None
    values = ((name, getattr(value, name)) for name in names)
    return {name: inner for name, inner in values if inner is not None}


def _field_names(kind: type) -> list[str] | None:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [field.name for field in kind.__attrs_attrs__]
    if hasattr(kind, "__struct_fields__"):
        return list(kind.__struct_fields__)
    return None


# ------------------------------------------------------------------ conversion


def _plain(value: Any, place: PathKey, take: Take | None, levels_left: int) -> Any:
    """Return a copy of a value.

    :param levels_left: the remaining depth; each conversion to another object counts as one level.
    """
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum)):
        return _scalar(value, place)
    if levels_left < 0:
        raise RedBrickInputError(f"it is nested deeper than {DEEPEST} levels")
    replacement = None if take is None else take(value, place)
    if replacement is not None:
        return replacement
    if isinstance(value, Mapping):
        return _object(value, place, take, levels_left)
    if isinstance(value, Sequence) and not isinstance(value, _BYTES_AND_TEXT):
        return [_plain(inner, (*place, i), take, levels_left - 1) for i, inner in enumerate(value)]
    return _plain(_simplified(value, place), place, take, levels_left - 1)


def _scalar(value: Any, place: PathKey) -> Any:
    """Return a scalar as a built-in type; library types may be subclasses."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value)
    number = int(value)
    if number.bit_length() > _MAX_INTEGER_BITS:
        raise _problem(place, "the number is too large")
    return number


def _object(value: Mapping[Any, Any], place: PathKey, take: Take | None, levels_left: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    for key, inner in value.items():
        name = plain_key(key)
        if name is None:
            raise _problem(place, f"a key must be text, not {short_repr(key)} ({_type_name(key)})")
        if name in plain:
            raise _problem(
                place,
                f"the keys {short_repr(keys[name])} and {short_repr(key)} are the same in JSON",
            )
        keys[name] = key
        plain[name] = _plain(inner, (*place, name), take, levels_left - 1)
    return plain


def _simplified(value: Any, place: PathKey) -> Any:
    """Convert a value one step towards plain JSON values.

    :raises RedBrickInputError: if there is no conversion for it.
    """
    try:
        equivalent = _equivalent(value)
    except Exception as error:  # noqa: BLE001 - a user's class may raise any exception
        raise _problem(
            place, f"{_type_name(value)} cannot be converted to JSON: {error or type(error).__name__}"
        ) from None
    if equivalent is None:
        raise _problem(place, f"{_type_name(value)} cannot be converted to JSON")
    return equivalent


def _equivalent(value: Any) -> Any:
    """Return a simpler equivalent of a value; None if none is known."""
    if isinstance(value, type):
        return None
    convert = next((conversion for kind, conversion in _CONVERSIONS if isinstance(value, kind)), None)
    if convert is not None:
        return convert(value)
    if _is_remote_path(value):
        return str(value)
    fields = fields_of(value)
    return _listed(value) if fields is None else fields


def _listed(value: Any) -> Any:
    """Return the values of an array as lists; None if the value is not an array."""
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    return value.__array__().tolist() if callable(getattr(value, "__array__", None)) else None


def _number(value: Decimal) -> int | float:
    return int(value) if value.as_tuple().exponent == 0 else float(value)


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    (Decimal, _number),
    (os.PathLike, os.fsdecode),
)


def _is_remote_path(value: Any) -> bool:
    """Return whether a value is an Airflow object store path (not PathLike)."""
    upath = sys.modules.get("upath")
    return upath is not None and isinstance(value, upath.UPath)


# ------------------------------------------------------------------ messages


def _problem(place: PathKey, message: str) -> RedBrickInputError:
    where = place_of(place)
    return RedBrickInputError(f"{where}: {message}" if where else message)


def _refused(error: Exception) -> RedBrickInputError:
    return RedBrickInputError(f"it cannot be written as JSON: {error}")


def _type_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
