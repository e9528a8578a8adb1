"""Distinguish inputs that were left out from inputs that rendered to nothing.

Leaving out an optional input often means everything: all tasks, all times, the connection's project. Therefore:

1. An input was given if its value in the DAG file is not None, or if a mapped task maps it, even to None.
2. An input that was given and renders to nothing is *absent*: an XCom of None, a skipped upstream task, an empty
   Variable. It is never treated as left out; :meth:`CheckedInputs.check_inputs` refuses it.
3. No template is used unrendered. Airflow's templater ignores many types. Of these, paths are rendered here; any other
   value that contains a template is refused, and so is a template in a parameter that is not a template field.
4. Only values of the DAG file are searched for templates. Rendered values and outputs of upstream tasks are data.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from itertools import chain, islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr
from airflow_provider_redbrick.hooks.check import has_template

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
                f"returned nothing or was skipped, or a template rendered to nothing. Nothing was done, because leaving out "
                f"{name} has another meaning."
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
    if isinstance(value, dict):
        parts = list(value)  # Keys are not rendered. Airflow renders the values through render_template.
    elif hasattr(value, "resolve") or hasattr(value, "template_fields"):
        return
    else:
        parts = [value]
    for text in _texts(parts):
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
