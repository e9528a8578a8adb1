"""Validate the inputs of operators, sensors and notifiers.

Leaving out an optional input often means everything: all tasks, all times, the connection's project. An input that was
left out must therefore not be confused with one that rendered to nothing:

1. An input was given if its value in the DAG file is not None, or if a mapped task maps it, even to None.
2. An input that was given and renders to nothing is *absent*: an XCom of None, a skipped upstream task, an empty
   Variable. It is never treated as left out; :meth:`CheckedInputs.check_inputs` refuses it.
3. No template is used unrendered. Airflow's templater ignores many types. Of these, paths are rendered here; any other
   value that contains a template is refused, and so is a template in a parameter that is not a template field.
4. Only values of the DAG file are searched for templates. Rendered values and outputs of upstream tasks are data.

The validation functions take a parameter's name, for messages, and its value. They return the value with its type:

5. Blank texts, unrendered templates and texts in place of lists are refused.
6. Texts that templates render to numbers and times are parsed. Flags are not: the text ``"False"`` is truthy.
7. All times are in UTC. A value without a date, or "now", is refused: it would change with each attempt.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timezone
from functools import cache
from itertools import chain, islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_redbrick.client.models.parsing import check_uuid, moment
from airflow_provider_redbrick.engine.polling import QueueCondition, TasksCondition
from airflow_provider_redbrick.exceptions import RedBrickInputError, has_line_break, short_repr, to_valid_utf8

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow.sdk.definitions._internal.templater import Templater as _Templater
else:
    _Templater = object

_PACKAGE = __name__.partition(".")[0]
_MAX_VALUES = 10_000
"""How many parts of a value that Airflow's templater ignores are searched for templates."""


class CheckedInputs(_Templater):
    """Mixin that validates template fields of operators, sensors and notifiers.

    It must precede Airflow's own class in the bases.
    """

    _absent_inputs: frozenset[str] = frozenset()

    def check_inputs(self, *, besides: Collection[str] = ()) -> None:
        """Refuse inputs that were given and are absent.

        :param besides: names of inputs that may be absent.
        :raises RedBrickInputError: if another input is absent.
        """
        for name in sorted(self.absent_inputs - set(besides)):
            raise RedBrickInputError(
                f"{name} was given, but its value is {short_repr(getattr(self, name, None))}. An upstream task "
                f"returned nothing or was skipped, or a template rendered to nothing. Nothing was done, because "
                f"leaving out {name} has another meaning."
            )

    @property
    def absent_inputs(self) -> frozenset[str]:
        """Names of the inputs that were given and are absent."""
        return self._absent_inputs

    def is_given(self, name: str) -> bool:
        """Return whether an input was given. It may still be absent."""
        return name in self.absent_inputs or getattr(self, name) is not None

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render templates, in paths too, and refuse those that would not render.

        :param content: the value to render.
        :param args: passed to Airflow.
        :raises RedBrickInputError: if ``content`` contains a template that Airflow would not render.
        """
        seen = kwargs.get("seen_oids") or (args[2] if len(args) > 2 else None)
        if seen and id(content) in seen:
            return content  # the output of an upstream task
        if isinstance(content, PurePath):
            return self._render_path(content, *args, **kwargs)
        _refuse_unrenderable(content)
        rendered = super().render_template(content, *args, **kwargs)
        is_path = isinstance(content, os.PathLike) or hasattr(content, "storage_options")
        if is_path and has_template(str(content)) and str(rendered) == str(content):
            raise _UnrenderedTemplateError(content)
        return rendered

    def _render_path(self, path: PurePath, *args: Any, **kwargs: Any) -> Any:
        text = str(path)
        if not has_template(text):
            return path
        rendered = super().render_template(text, *args, **kwargs)
        # A path of an empty text would be the current folder.
        return rendered if _is_absent(text, rendered) else type(path)(str(rendered))

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """Render the fields one by one, and record which inputs are absent."""
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        absent = set()
        for name in template_fields:
            given = getattr(self, name, None)
            try:
                super()._do_render_template_fields(parent, (name,), context, jinja_env, seen_oids)
            except _UnrenderedTemplateError as error:
                raise RedBrickInputError(f"{name}: {error}") from None
            if name in _provider_fields(type(self).__mro__) and _is_absent(given, getattr(self, name)):
                absent.add(name)
        self._absent_inputs = frozenset(absent)


class CheckedOperatorInputs(CheckedInputs):
    """Mixin for operators and sensors, which can be mapped.

    It also records inputs that a mapped task maps to None, and refuses templates in parameters that are not rendered.
    """

    _given_inputs: frozenset[str] = frozenset()
    _mapped_to_none: frozenset[str] = frozenset()

    @property
    def absent_inputs(self) -> frozenset[str]:
        """Names of the inputs that were given and are absent, for any reason."""
        given = self._given_inputs & _provider_fields(type(self).__mro__)
        none = {name for name in given if getattr(self, name, None) is None}
        return self._absent_inputs | self._mapped_to_none | none

    def __new__(cls, *_: Any, **kwargs: Any) -> Any:
        """Record the inputs that are mapped to None.

        The arguments of a mapped task are visible only here.
        """
        made = super().__new__(cls)
        if kwargs.get("_airflow_from_mapped"):
            names = _mapped_to_none(kwargs) & _provider_parameters(cls.__mro__)
            object.__setattr__(made, "_mapped_to_none", frozenset(names))
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        """Record which template fields are given.

        :raises RedBrickInputError: if a parameter that is not a template field gets a template.
        """
        unrendered = isinstance(value, str) and has_template(value) and name not in self.template_fields
        if unrendered and name in _provider_parameters(type(self).__mro__):
            raise RedBrickInputError(
                f"{name} is not a template field, so the template {short_repr(value)} would not be rendered."
            )
        super().__setattr__(name, value)
        if name in self.template_fields:
            self._record(name, value)

    def _record(self, name: str, value: object) -> None:
        """Record a field as given. Only the constructor can mark it as left out."""
        if value is not None:
            object.__setattr__(self, "_given_inputs", self._given_inputs | {name})
        elif not getattr(self, "_BaseOperator__instantiated", False):
            object.__setattr__(self, "_given_inputs", self._given_inputs - {name})


class _UnrenderedTemplateError(RedBrickInputError):
    """Raised for a template that would not be rendered."""

    def __init__(self, value: object, text: object = None) -> None:
        shown = short_repr(value if text is None else text)
        super().__init__(
            f"the template {shown} would not be rendered in a {type(value).__name__}. Use a text, list, or the values "
            f"of a dict. If it is not a template, use airflow.sdk.literal(...)."
        )


def _mapped_to_none(kwargs: Mapping[str, Any]) -> set[str]:
    """Return the arguments that a mapped task maps to None.

    A None in ``partial`` leaves an input out, as it does in an operator that is not mapped.
    """
    task = kwargs["dag"].task_dict.get(kwargs["task_id"]) if kwargs.get("dag") is not None else None
    fixed = getattr(task, "partial_kwargs", {})
    mapped = {name for name, value in kwargs.items() if value is None and fixed.get(name, ...) is not None}
    called, fixed_call = kwargs.get("op_kwargs") or {}, fixed.get("op_kwargs") or {}
    return mapped | {name for name, value in called.items() if value is None and fixed_call.get(name, ...) is not None}


@cache
def _provider_fields(classes: tuple[type, ...]) -> frozenset[str]:
    """Return the template fields declared by this provider's own classes."""
    return frozenset(chain.from_iterable(vars(base).get("template_fields", ()) for base in _provider_classes(classes)))


@cache
def _provider_parameters(classes: tuple[type, ...]) -> frozenset[str]:
    """Return the keyword parameters of this provider's own classes."""
    inits = (vars(base)["__init__"] for base in _provider_classes(classes) if "__init__" in vars(base))
    found = chain.from_iterable(inspect.signature(init).parameters.values() for init in inits)
    return frozenset(parameter.name for parameter in found if parameter.kind is parameter.KEYWORD_ONLY)


def _provider_classes(classes: tuple[type, ...]) -> list[type]:
    return [base for base in classes if base.__module__.partition(".")[0] == _PACKAGE]


def _is_absent(given: object, rendered: object) -> bool:
    """Return whether rendering turned a given value into nothing."""
    if given is None or (isinstance(rendered, str) and rendered == given):
        return False
    if isinstance(rendered, str):
        text = rendered.strip()
        # A template that renders to text renders None as "None".
        return not text or (text == "None" and isinstance(given, (str, PurePath)) and has_template(str(given)))
    # With native rendering, an unknown name stays an Undefined object of Jinja.
    return rendered is None or any(kind.__name__ == "Undefined" for kind in type(rendered).__mro__)


def _refuse_unrenderable(value: Any) -> None:
    """Refuse a template in a value that Airflow's templater does not search.

    :raises _UnrenderedTemplateError: if there is one.
    """
    if isinstance(value, (str, list, tuple, set)) or value is None:
        return  # Airflow renders their elements one by one, through render_template.
    if not isinstance(value, dict) and (hasattr(value, "resolve") or hasattr(value, "template_fields")):
        return
    # Airflow renders the values of a dict through render_template, but not its keys.
    for text in _texts(list(value) if isinstance(value, dict) else [value]):
        if has_template(text):
            raise _UnrenderedTemplateError(value, text)


def _texts(values: list[Any]) -> Iterator[str]:
    """Yield the texts in values, up to a maximum number of parts."""
    for _ in range(_MAX_VALUES):
        if not values:
            return
        value = values.pop()
        if isinstance(value, (str, PurePath)):
            yield str(value)
        elif isinstance(value, (bytes, bytearray)):
            yield value.decode("utf-8", "replace")
        else:
            values.extend(islice(_parts(value), _MAX_VALUES))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return chain(value.keys(), value.values())
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, range):
        return value
    if isinstance(value, enum.Enum):
        return (value.value,)
    if isinstance(value, type):
        return ()
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    kind: Any = type(value)
    of_attrs = [field.name for field in getattr(kind, "__attrs_attrs__", None) or ()]
    return [getattr(value, name, None) for name in of_attrs or list(getattr(kind, "model_fields", None) or ())]


LARGEST_NUMBER = 2**31 - 1
"""The largest integer that the API accepts: GraphQL's Int has 32 bits."""

TASK_STATES = ("UNASSIGNED", "ASSIGNED", "IN_PROGRESS", "STAGED", "SKIPPED", "PROBLEM")

_TEMPLATE_MARKS = ("{{", "{%", "{#")


def has_template(value: str) -> bool:
    """Return whether a text contains a Jinja template."""
    return any(mark in value for mark in _TEMPLATE_MARKS)


def text(name: str, value: object) -> str:
    """Validate a text that must not be blank.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not a text, is blank, or has characters that cannot be sent or stored.
    """
    if value is not None and not isinstance(value, str):
        raise RedBrickInputError(f"{name} must be text, not {short_repr(value)}.")
    if not isinstance(value, str) or not value.strip():
        raise RedBrickInputError(f"{name} must not be empty (an unrendered template?), got {short_repr(value)}.")
    if value != to_valid_utf8(value):
        raise RedBrickInputError(f"{name} has characters that cannot be sent or stored: {value[:60]!a}.")
    return value


def plain_text(name: str, value: object) -> str:
    """Validate a text that no templates are rendered in.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not a text, is blank, or contains a template.
    """
    result = text(name, value)
    if has_template(result):
        raise RedBrickInputError(f"{name} contains a template, but it is not rendered here: {short_repr(result)}.")
    return result


def path(name: str, value: object) -> str:
    """Validate a local path or URI.

    :param name: the parameter, for messages.
    :param value: a text, or an object such as ``pathlib.Path`` or Airflow's ``ObjectStoragePath``.
    :return: the path as text, with ``~`` expanded as the shell does.
    :raises RedBrickInputError: if it is no path, or contains a template or line break.
    """
    # Airflow's ObjectStoragePath is not an os.PathLike in all releases.
    is_path_object = isinstance(value, os.PathLike) or hasattr(value, "storage_options")
    result = text(name, str(value) if is_path_object else value)
    if has_line_break(result):
        raise RedBrickInputError(f"{name} must be a path without line breaks, not {short_repr(result)}.")
    if has_template(result):
        raise RedBrickInputError(f"{name} has a template that was not rendered: {short_repr(result)}.")
    return result if "://" in result else os.path.expanduser(result)  # noqa: PTH111 - a Path would change what it names


def sequence(name: str, value: object) -> list[Any]:
    """Validate a list that must not be empty.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not a list or is empty.
    """
    if isinstance(value, str):
        raise RedBrickInputError(
            f"{name} must be a list, not the text {value[:60]!r}. Pass the upstream task's `.output`, or set "
            f"render_template_as_native_obj=True on the DAG."
        )
    if not isinstance(value, Sequence):
        raise RedBrickInputError(f"{name} must be a list, not {type(value).__name__}.")
    if not value:
        raise RedBrickInputError(
            f"{name} is empty. If that is expected, skip this task upstream. Dynamic task mapping does so."
        )
    return list(value)


def task_id_list(value: object, name: str = "task_ids") -> list[str]:
    """Validate a list of task ids that must not be empty.

    :param value: its value.
    :param name: the parameter, for messages.
    :return: the ids without duplicates, in their order.
    :raises RedBrickInputError: if it is not a list, is empty, or has an entry that is not a UUID.
    """
    ids = [check_uuid(f"{name}[{i}]", entry) for i, entry in enumerate(sequence(name, value))]
    return list(dict.fromkeys(ids))


def whole_number(name: str, value: object, *, low: int = 0) -> int | None:
    """Validate an optional whole number.

    :param name: the parameter, for messages.
    :param value: an integer, or its text, since templates render to text.
    :param low: the smallest permitted value.
    :return: the number; None if ``value`` is None.
    :raises RedBrickInputError: if it is not a whole number or out of range.
    """
    if value is None:
        return None
    number = _whole(value)
    if number is None or not low <= number <= LARGEST_NUMBER:
        bounds = f"of at least {low}" if number is None or number < low else f"of at most {LARGEST_NUMBER}"
        raise RedBrickInputError(f"{name} must be a whole number {bounds}, not {short_repr(value)}.")
    return number


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else int(value) if isinstance(value, str) else operator.index(value)
    except (ValueError, TypeError):
        return None


def time(name: str, value: object) -> pendulum.DateTime | None:
    """Validate an optional time.

    Times are converted to UTC because those of one zone would be compared by its local clock, which repeats an hour
    when daylight saving time ends.

    :param name: the parameter, for messages.
    :param value: a ``datetime``, a ``date`` (its midnight in UTC), or ISO-8601 text, in UTC if it names no zone.
    :return: the time in UTC; None if ``value`` is None.
    :raises RedBrickInputError: if it is not a time, has no date, or is relative such as "now".
    """
    if value is None:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    result = _instance(value) if isinstance(value, datetime) else moment(value)
    if result is None:
        raise RedBrickInputError(f"{name} must be a date and time, or a date, not {short_repr(value)}.")
    return result.in_timezone("UTC")


def _instance(value: datetime) -> pendulum.DateTime | None:
    try:
        result = pendulum.instance(value, tz="UTC")
        result.in_timezone("UTC")  # A time outside of UTC's calendar can be neither sent nor compared.
    except (ValueError, TypeError, OverflowError):
        return None
    return result


def flag(name: str, value: object) -> bool:
    """Validate a boolean.

    A text such as ``"False"`` (from a Variable, say) is truthy and is refused.

    :param name: the parameter, for messages.
    :param value: its value.
    :raises RedBrickInputError: if it is not True or False.
    """
    if not isinstance(value, bool):
        raise RedBrickInputError(f"{name} must be True or False, not {short_repr(value)}.")
    return value


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """Validate one of several permitted texts.

    :param name: the parameter, for messages.
    :param value: its value.
    :param allowed: the permitted texts.
    :raises RedBrickInputError: if it is not one of them.
    """
    if not isinstance(value, str) or value not in allowed:
        raise RedBrickInputError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {short_repr(value)}.")
    return value


def task_state(name: str, value: object) -> str | None:
    """Validate an optional task state.

    :param name: the parameter, for messages.
    :param value: one of :data:`TASK_STATES`, or None.
    :raises RedBrickInputError: if it is not a task state.
    """
    return None if value is None else one_of(name, value, TASK_STATES)


COUNT_BY = ("count", "listing")


def queue_condition(
    *, stage_name: Any, at_least: Any, at_most: Any, unassigned: Any = False, count_by: Any = "count"
) -> QueueCondition:
    """Return the condition of a stage-queue sensor.

    :param stage_name: the stage.
    :param at_least: the smallest count that meets the condition; None for no lower bound.
    :param at_most: the largest count that meets it; None for no upper bound. One of the two must be given.
    :param unassigned: whether to count only unassigned tasks.
    :param count_by: ``count`` uses the server's count; ``listing`` lists the tasks.
    :raises RedBrickInputError: if a parameter is invalid, or no count can meet the condition.
    """
    low = whole_number("at_least", at_least)
    high = whole_number("at_most", at_most)
    if low is None and high is None:
        raise RedBrickInputError("Give at_least, at_most, or both.")
    if low is not None and high is not None and low > high:
        raise RedBrickInputError(f"No count is at least {low} and at most {high}.")
    by_listing = one_of("count_by", count_by, COUNT_BY) == "listing"
    name = text("stage_name", stage_name)
    return QueueCondition(name, low, high, flag("unassigned", unassigned), by_listing=by_listing)


def tasks_condition(*, task_ids: Any, left_stage: Any, reached_stage: Any) -> TasksCondition:
    """Return the condition of a tasks sensor.

    :param task_ids: the tasks.
    :param left_stage: the stage that all of them must have left.
    :param reached_stage: the stage that all of them must have reached. Exactly one of the two stages must be given.
    :raises RedBrickInputError: if a parameter is invalid.
    """
    if (left_stage is None) == (reached_stage is None):
        raise RedBrickInputError("Give either left_stage or reached_stage.")
    left = None if left_stage is None else text("left_stage", left_stage)
    reached = None if reached_stage is None else text("reached_stage", reached_stage)
    return TasksCondition(task_id_list(task_ids), left, reached)
