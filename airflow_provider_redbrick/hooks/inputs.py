"""Inputs as they were given, and what rendering makes of them.

Leaving an optional input out often means everything: all tasks, all times, the connection's own project. Therefore:

1. An input was given if its value in the DAG file is not None, or if a mapped task maps it, even to None.
2. An input that was given and that rendering turns into nothing is absent: an XCom of None, an upstream task that was
   skipped, an empty Variable. It never counts as left out: :meth:`CheckedInputs.check_inputs` refuses it.
3. No template reaches the work unrendered. Airflow's templater leaves many types alone: of these, paths are rendered
   here, and any other value with a template in it is refused, and so is a template in a field that has none.
4. Only what the DAG file says is searched for templates. Rendered values and outputs of upstream tasks are data.
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

from airflow_provider_redbrick.exceptions import RedBrickInputError, told
from airflow_provider_redbrick.hooks.check import has_template

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow.sdk.definitions._internal.templater import Templater as _Templater
else:
    _Templater = object

_PACKAGE = __name__.partition(".")[0]
_MAX_VALUES = 10_000
"""How many values are searched for templates, of one that Airflow's templater leaves alone."""


class CheckedInputs(_Templater):
    """Mixin for what has template fields: an operator, a sensor or a notifier. It comes before Airflow's own class."""

    _absent_inputs: frozenset[str] = frozenset()

    def check_inputs(self, *, besides: Collection[str] = ()) -> None:
        """Refuse inputs that were given and are absent.

        :param besides: names of inputs that may be absent.
        :raises RedBrickInputError: if there is another one.
        """
        for name in sorted(self.absent_inputs - set(besides)):
            raise RedBrickInputError(
                f"{name} was given, but it is {told(getattr(self, name, None))} now: an upstream task returned nothing "
                f"or was skipped, or a template found no value. That is not the same as leaving {name} out, so nothing "
                f"was done."
            )

    @property
    def absent_inputs(self) -> frozenset[str]:
        """The names of the inputs that were given and are absent."""
        return self._absent_inputs

    def is_given(self, name: str) -> bool:
        """Return whether an input was given; it may be absent all the same."""
        return name in self.absent_inputs or getattr(self, name) is not None

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render templates, in paths too; refuse them where Airflow would leave them as they are."""
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
        # An empty text as a path would be the current folder.
        return rendered if _is_absent(text, rendered) else type(path)(str(rendered))

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """Render one field after the other, and remember which of those that were given are absent now."""
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
    """Mixin for operators and sensors: inputs of mapped tasks too, and parameters that are no template fields."""

    _given_inputs: frozenset[str] = frozenset()
    _mapped_to_none: frozenset[str] = frozenset()

    @property
    def absent_inputs(self) -> frozenset[str]:
        """The names of the inputs that were given and are absent, however they came to be."""
        given = self._given_inputs & _provider_fields(type(self).__mro__)
        none = {name for name in given if getattr(self, name, None) is None}
        return self._absent_inputs | self._mapped_to_none | none

    def __new__(cls, *_: Any, **kwargs: Any) -> Any:
        """Remember which inputs a mapped task was mapped to None for; only here is told which arguments there were."""
        made = super().__new__(cls)
        if kwargs.get("_airflow_from_mapped"):
            names = _mapped_to_none(kwargs) & _provider_parameters(cls.__mro__)
            object.__setattr__(made, "_mapped_to_none", frozenset(names))
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        """Remember which fields are given, and refuse a template in a parameter that is not rendered."""
        unrendered = isinstance(value, str) and has_template(value) and name not in self.template_fields
        if unrendered and name in _provider_parameters(type(self).__mro__):
            raise RedBrickInputError(f"{name} is not a template field: {told(value)} would be used as it is.")
        super().__setattr__(name, value)
        if name in self.template_fields:
            self._note(name, value)

    def _note(self, name: str, value: object) -> None:
        """Note a field as given; the constructor alone can leave it out again."""
        if value is not None:
            object.__setattr__(self, "_given_inputs", self._given_inputs | {name})
        elif not getattr(self, "_BaseOperator__instantiated", False):
            object.__setattr__(self, "_given_inputs", self._given_inputs - {name})


class _UnrenderedTemplateError(RedBrickInputError):
    """A template that nothing would render."""

    def __init__(self, value: object, text: object = None) -> None:
        shown = told(value if text is None else text)
        super().__init__(
            f"the template {shown} would not be rendered in a {type(value).__name__}. Use text, a list or a dict (not "
            f"its keys), or airflow.sdk.literal(...) if it is meant as it is."
        )


def _mapped_to_none(kwargs: Mapping[str, Any]) -> set[str]:
    """Return the names that a mapped task has mapped to None, from the arguments that it is made with.

    A None that the DAG file has in ``partial`` leaves an input out, as it does in an operator that is not mapped.
    """
    task = kwargs["dag"].task_dict.get(kwargs["task_id"]) if kwargs.get("dag") is not None else None
    fixed = getattr(task, "partial_kwargs", {})
    mapped = {name for name, value in kwargs.items() if value is None and fixed.get(name, ...) is not None}
    called, fixed_call = kwargs.get("op_kwargs") or {}, fixed.get("op_kwargs") or {}
    return mapped | {name for name, value in called.items() if value is None and fixed_call.get(name, ...) is not None}


@cache
def _provider_fields(classes: tuple[type, ...]) -> frozenset[str]:
    """Return the template fields that this provider's own classes declare, without those of classes derived from it."""
    return frozenset(chain.from_iterable(vars(base).get("template_fields", ()) for base in _of_provider(classes)))


@cache
def _provider_parameters(classes: tuple[type, ...]) -> frozenset[str]:
    """Return the parameters that this provider's own classes have."""
    inits = (vars(base)["__init__"] for base in _of_provider(classes) if "__init__" in vars(base))
    found = chain.from_iterable(inspect.signature(init).parameters.values() for init in inits)
    return frozenset(parameter.name for parameter in found if parameter.kind is parameter.KEYWORD_ONLY)


def _of_provider(classes: tuple[type, ...]) -> list[type]:
    return [base for base in classes if base.__module__.partition(".")[0] == _PACKAGE]


def _is_absent(given: object, rendered: object) -> bool:
    """Return whether rendering has turned a value that was given into nothing."""
    if given is None or (isinstance(rendered, str) and rendered == given):
        return False
    if isinstance(rendered, str):
        text = rendered.strip()
        # What a template makes of None, where it renders to text.
        return not text or (text == "None" and isinstance(given, (str, PurePath)) and has_template(str(given)))
    # A name that a template does not know stays one of Jinja's own, where it renders to native objects.
    return rendered is None or any(kind.__name__ == "Undefined" for kind in type(rendered).__mro__)


def _refuse_unrenderable(value: Any) -> None:
    """Refuse a value if Airflow's templater does not look into it, and there is a template in it.

    :raises _UnrenderedTemplateError: then.
    """
    if isinstance(value, (str, list, tuple, set)) or value is None:
        return  # their elements come here themselves
    if isinstance(value, dict):
        parts = list(value)  # its keys are not rendered; its values come here themselves
    elif hasattr(value, "resolve") or hasattr(value, "template_fields"):
        return
    else:
        parts = [value]
    for text in _texts(parts):
        if has_template(text):
            raise _UnrenderedTemplateError(value, text)


def _texts(values: list[Any]) -> Iterator[str]:
    """Yield the texts in values of types that the templater leaves alone; a value with very many parts only in part."""
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
