"""Field types of user input, and the messages of their validation.

The models of labels and of task descriptions (pydantic) consist of these types.

1. A field type states in words what it accepts. Its message is ``must be <what it accepts>, not <value>``.
2. Validation does not convert values: the text ``"1"`` is not a number, true is not 1, and 1 stays a whole number.
3. In an object, null is the same as an absent field.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from itertools import chain
from numbers import Integral, Real
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeGuard, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from airflow_provider_redbrick.exceptions import has_line_break
from airflow_provider_redbrick.labels.taxonomy import suggestion

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Loc = tuple[Any, ...]
"""The keys and indices that lead to a value, such as ``("series", 0, "boundingBoxes", 2, "wNorm")``."""

Violation = tuple[Loc, str]
"""A place within a value, and what must change there."""

TOLERANCE = 1e-6
"""How far a coordinate may lie outside of the image, to allow for rounding."""

LARGEST_INSTANCE = 65535

_MAX_SHOWN_CHARACTERS = 60
_REFUSED = "refused"
_NO_OBJECT = {"model_type", "dict_type", "model_attributes_type"}
_NOUNS = {"points": "points", "series": "series", "normal": "numbers"}
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    (str, "text"),
    ((int, float), "a number"),
    ((Mapping, BaseModel), "an object"),
    ((list, tuple), "a list"),
    (type(None), "null"),
)


# ------------------------------------------------------------------ values in messages


def shown(value: object) -> str:
    """Format a value for messages: short scalars as JSON, others by their type."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (str, float)):
        text = repr(value)
        return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a huge number"
    return next((description for kind, description in _KINDS if isinstance(value, kind)), type(value).__name__)


def name_of(key: object) -> str:
    """Format an object key for messages."""
    return key[:_MAX_SHOWN_CHARACTERS] if isinstance(key, str) else shown(key)


def join(place: str, inner: str) -> str:
    """Join a place and a place within it.

    :param place: the outer place, e.g. ``points[1]``.
    :param inner: the inner place, e.g. ``xNorm`` or ``[0]``.
    """
    return f"{place}.{inner}" if place and inner and not inner.startswith("[") else f"{place}{inner}"


def dotted(loc: Loc) -> str:
    """Format the keys and indices of a place for messages: ``points[1].xNorm``."""
    place = ""
    for part in loc:
        is_index = isinstance(part, int) and not isinstance(part, bool)
        place = join(place, f"[{part}]" if is_index else name_of(part))
    return place


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Return whether a value becomes a list in JSON."""
    return isinstance(value, (list, tuple))


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a finite number; booleans are not numbers."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_MASK_VALUE = re.compile(r"[0-9]{1,20}(?:\.0{1,20})?")


def mask_value(key: object) -> int | None:
    """Return the voxel value that a key of a segment map denotes.

    :param key: a whole number of any type, or its text: ``1``, ``1.0``, numpy's 1, ``"1"``, ``"1.0"``.
        Booleans are refused.
    :return: a value from 1 to 65535; None if the key denotes none.
    """
    if isinstance(key, bool):
        return None
    number: Any = 0
    if isinstance(key, str):
        number = key.partition(".")[0] if _MASK_VALUE.fullmatch(key) else 0
    elif isinstance(key, (Real, Decimal)):
        number = key if _is_whole(key) else 0
    value = int(number)
    return value if 1 <= value <= LARGEST_INSTANCE else None


def _is_whole(number: Any) -> bool:
    """Return whether a number of any type has no fraction; False for infinity and NaN."""
    try:
        return bool(number == int(number))
    except (ValueError, OverflowError):
        return False


# ------------------------------------------------------------------ field types


class Expected:
    """A field type: its validation, and what it accepts in words and in JSON Schema.

    :param words: what it accepts, for messages.
    :param schema: its validation.
    :param json_schema: its JSON Schema.
    """

    def __init__(self, words: str, schema: CoreSchema, json_schema: Mapping[str, Any]) -> None:
        self.words, self._schema, self._json_schema = words, schema, json_schema

    def __repr__(self) -> str:
        """Return the words, which describe a field in the documentation."""
        return self.words

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            self._schema, custom_error_type="expected", custom_error_message=f"must be {self.words}"
        )

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self._json_schema)


def accepts(words: str, predicate: Callable[[Any], bool], json_schema: Mapping[str, Any]) -> Expected:
    """Return a field type for values that satisfy a predicate.

    :param words: what it accepts, for messages.
    :param predicate: whether a value is accepted.
    :param json_schema: its JSON Schema.
    """

    def check(value: Any) -> Any:
        if not predicate(value):
            raise ValueError
        return value

    return Expected(words, core_schema.no_info_plain_validator_function(check), json_schema)


def _to_int(value: Any) -> int:
    """Convert a whole number of an array library."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError  # noqa: TRY004 - pydantic raises TypeErrors again
    return int(value)


_LARGEST = int(sys.float_info.max)


def _whole(least: int, largest: int = _LARGEST) -> CoreSchema:
    exact = core_schema.int_schema(strict=True, ge=least, le=largest)
    other = core_schema.chain_schema([core_schema.no_info_plain_validator_function(_to_int), exact])
    return core_schema.union_schema([exact, other], mode="left_to_right")


def number(words: str, least: float | None = None, largest: float | None = None) -> Expected:
    """Return a field type for finite numbers, of which whole numbers stay whole.

    :param words: what it accepts, for messages.
    :param least: the minimum.
    :param largest: the maximum.
    """
    whole = core_schema.int_schema(
        strict=True,
        ge=-_LARGEST if least is None else math.ceil(least),
        le=_LARGEST if largest is None else math.floor(largest),
    )
    fraction = core_schema.float_schema(strict=True, allow_inf_nan=False, ge=least, le=largest)
    limits = {"minimum": least, "maximum": largest}
    json_schema = {"type": "number", **{key: limit for key, limit in limits.items() if limit is not None}}
    # A union prefers the exact type. The first choice is the fast one: most numbers are fractions.
    return Expected(words, core_schema.union_schema([fraction, whole]), json_schema)


_STRING = core_schema.str_schema(strict=True)
_NAME_LIST = core_schema.list_schema(_STRING, strict=True, min_length=1)
_JSON_TEXT = {"type": "string"}
_JSON_PATH = {"type": "string", "pattern": r"\S"}
_JSON_COUNT = {"type": "integer", "minimum": 0}

Text = Annotated[str, Expected("text", _STRING, _JSON_TEXT)]
Flag = Annotated[bool, Expected("true or false", core_schema.bool_schema(strict=True), {"type": "boolean"})]
Count = Annotated[int, Expected("a whole number of at least 0", _whole(0), _JSON_COUNT)]
Number = Annotated[float, number("a finite number")]
Size = Annotated[float, number("a number of at least 0", 0)]
ImageFraction = Annotated[float, number("a number from 0 to 1 (a fraction of the image)", -TOLERANCE, 1 + TOLERANCE)]
Category = Annotated[
    str | list[str] | int,
    Expected(
        "a name, a list of nested names, or a class id",
        core_schema.union_schema(
            [_STRING, core_schema.int_schema(strict=True), _NAME_LIST],
            mode="left_to_right",
        ),
        {"anyOf": [_JSON_TEXT, {"type": "array", "items": _JSON_TEXT, "minItems": 1}, {"type": "integer"}]},
    ),
]
Comment = Annotated[
    str | Mapping[str, Any],
    accepts(
        "text or an object with text",
        lambda value: isinstance(value.get("text") if isinstance(value, Mapping) else value, str),
        {"anyOf": [_JSON_TEXT, {"type": "object", "properties": {"text": _JSON_TEXT}, "required": ["text"]}]},
    ),
]
Instance = Annotated[
    int,
    accepts(
        f"a whole number from 1 to {LARGEST_INSTANCE}",
        lambda key: mask_value(key) is not None,
        {"type": "string", "pattern": r"^0*[1-9][0-9]{0,4}(\.0+)?$"},
    ),
]


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_mask(value: object) -> bool:
    """Return whether a value names a mask, or is one: bytes, an open file, or an image."""
    if value is None or isinstance(value, (str, int, float, Mapping, list, tuple)):
        return _is_path(value)
    names = ("read", "open", "to_bytes")
    return isinstance(value, (os.PathLike, bytes, bytearray, memoryview)) or any(hasattr(value, name) for name in names)


def _paths(is_one: Callable[[object], bool], *, least: int) -> Expected:
    """Return a field type for one path or a list of paths."""
    return accepts(
        "a path or a list of paths",
        lambda value: len(value) >= least and all(map(is_one, value)) if is_list(value) else is_one(value),
        {"anyOf": [_JSON_PATH, {"type": "array", "items": _JSON_PATH, **({"minItems": least} if least else {})}]},
    )


def _check_line_breaks(value: Any) -> Any:
    for path in value if is_list(value) else [value]:
        if isinstance(path, str) and has_line_break(path):
            refuse(((), f"must be a path or a list of paths without line breaks, not {shown(path)}"))
    return value


_NoLineBreaks = AfterValidator(_check_line_breaks)
ItemPath = Annotated[str, accepts("a path", _is_path, _JSON_PATH), _NoLineBreaks]
ItemPaths = Annotated[str | list[str], _paths(_is_path, least=1), _NoLineBreaks]
Masks = Annotated[Any, _paths(_is_mask, least=0), _NoLineBreaks]
"""Masks of a series; an empty list removes them. Objects are masks themselves, and are replaced by names when sent."""
SegmentMasks = Annotated[Any, _paths(_is_mask, least=1), _NoLineBreaks]


class InputModel(BaseModel):
    """An object with known fields and no others."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _refusal(error.title, _violations(type(self), error)) from None

    # As in pydantic's own classes: validation of nested values need not call the constructor.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


# ------------------------------------------------------------------ violations


def refuse(*violations: Violation) -> NoReturn:
    """Refuse a value in a validator of a model.

    :param violations: the places within the value, and what must change.
    """
    raise _refusal("labels", violations)


def _refusal(title: str, violations: Iterable[Violation]) -> ValidationError:
    errors = ((loc, PydanticCustomError(_REFUSED, "{message}", {"message": text})) for loc, text in violations)
    details = [InitErrorDetails(type=error, loc=loc, input=None) for loc, error in errors]
    return ValidationError.from_exception_data(title, details, hide_input=True)


def infinite_places(value: object) -> Iterator[tuple[Loc, int | float]]:
    """Yield the numbers within a value that are infinite, NaN, or beyond the range of floats.

    :param value: a value made of objects, lists and scalars, nested at any depth.
    """
    pending: list[tuple[Loc, object]] = [((), value)]
    while pending:
        loc, value = pending.pop()
        if isinstance(value, (dict, Mapping)):
            entries = list(value.items())
        elif is_list(value):
            entries = list(enumerate(value))
        else:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not is_number(value):
                yield loc, value
            continue
        # Most values are finite numbers and text: without a place for each of them, this takes a third of the time.
        pending.extend(
            ((*loc, key), inner) for key, inner in reversed(entries) if not (isinstance(inner, str) or is_number(inner))
        )


def find_violations(model: type[BaseModel], value: object) -> Iterator[Violation]:
    """Yield each place in a value that violates a model, and what must change.

    :param model: the model.
    :param value: plain values, or a model.
    """
    try:
        model.__pydantic_validator__.validate_python(value)
    except ValidationError as error:
        yield from _violations(model, error)


def _violations(model: type[BaseModel], error: ValidationError) -> Iterator[Violation]:
    for details in error.errors(include_url=False):
        yield _violation(model, details)


def _violation(model: type[BaseModel], details: Mapping[str, Any]) -> Violation:
    """Return the place and the message of an error that pydantic reports."""
    kind, loc = details["type"], details["loc"]
    if loc[-1:] == ("[key]",) and kind != "extra_forbidden":
        # Pydantic marks the place of an invalid key with an entry of its own.
        loc = (*loc[:-2], details["input"])
    loc, owner, field = _locate(model, loc)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        loc = (*loc, "type")
    return loc, details["msg"] if kind == _REFUSED else _message(details, loc[-1] if loc else "", owner, field)


def _message(details: Mapping[str, Any], name: Any, owner: type[BaseModel] | None, field: FieldInfo | None) -> str:
    kind, value = details["type"], details["input"]
    if kind in {"extra_forbidden", "invalid_key"}:
        return f"unknown key; {suggestion(name_of(name), field_names(owner) if owner else (), 'keys')}"
    if kind in {"missing", "union_tag_not_found"} or (value is None and field is not None):
        words = next((entry.words for entry in field.metadata if isinstance(entry, Expected)), "") if field else ""
        return f"is missing; it must be {words}" if words else "is missing"
    if kind in {"too_short", "too_long"}:
        return f"must have {_length(field)} {_NOUNS.get(name, 'entries')}, not {details['ctx']['actual_length']}"
    if kind == "union_tag_invalid":
        return f"must be one of {details['ctx']['expected_tags']}, not {shown(details['ctx']['tag'])}"
    if kind == "list_type":
        expected = "must be a list of objects" if field and _inner_models(field.annotation) else "must be a list"
    else:
        expected = "must be an object" if kind in _NO_OBJECT else details["msg"]
    return f"{expected}, not {shown(value)}"


def _length(field: FieldInfo | None) -> str:
    """Return the length that a field requires, in words."""
    least, most = (
        next((getattr(entry, name) for entry in (field.metadata if field else ()) if hasattr(entry, name)), None)
        for name in ("min_length", "max_length")
    )
    return str(most) if least == most else f"at least {least}"


def _locate(model: type[BaseModel], raw_loc: Loc) -> tuple[Loc, type[BaseModel] | None, FieldInfo | None]:
    """Return a place without the types that pydantic adds, the model that has its last key, and that field.

    Model and field are None if the key is in an object without a model.
    """
    loc: list[Any] = []
    owner, field = None, None
    models: tuple[type[BaseModel], ...] = (model,)
    for part in raw_loc:
        of_type = [each for each in models if each.model_fields["type"].default == part] if len(models) > 1 else []
        if of_type:
            models = tuple(of_type)
            continue
        loc.append(part)
        owner = models[0] if models else None
        field = owner.model_fields.get(part) if owner and isinstance(part, str) else None
        if field is not None:
            models = _inner_models(field.annotation)
    return tuple(loc), owner, field


def _inner_models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the models within an annotation, such as those of a list."""
    inner = get_args(annotation)
    if not inner and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    return tuple(chain.from_iterable(map(_inner_models, inner)))


@cache
def field_names(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of a model's fields: its own first, then those that it shares with others."""
    names = dict.fromkeys(name for kind in model.__mro__ for name in inspect.get_annotations(kind))
    return tuple(name for name in names if name in model.model_fields)
