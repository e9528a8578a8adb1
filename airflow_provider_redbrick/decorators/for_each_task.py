"""What the decorators share: a function that is called for each RedBrick task, in a task of Airflow's TaskFlow."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import Context, DecoratedOperator, task_decorator_factory

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.inputs import CheckedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airflow.providers.common.compat.sdk import TaskDecorator

    Function = Callable[..., Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_TASK_IDS = inspect.Parameter("task_ids", inspect.Parameter.KEYWORD_ONLY, default=None)
# What TaskFlow fills from Airflow's context. The first parameter may be called ``task``: it is RedBrick's.
_AIRFLOWS_OWN = frozenset(Context.__annotations__) - {"task"}


class ForEachTaskOperator(DecoratedOperator):
    """What makes an operator that takes a function out of a decorated one; it comes before that operator.

    The function's first parameter is the RedBrick task. The others are filled once, as TaskFlow does it: from the
    call in the DAG, rendered, or from Airflow's context. ``task_ids`` can be given in the call too, and so be mapped.
    """

    parameter: ClassVar[str]
    """The operator's parameter that takes the function."""

    def __init__(self, *, python_callable: Function, op_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        _refuse(self.parameter, kwargs)
        arguments = dict(op_kwargs or {})
        if _TASK_IDS.name in arguments:
            if kwargs.get(_TASK_IDS.name) is not None:
                raise RedBrickInputError(
                    "task_ids are given both where the function is decorated and where it is called."
                )
            kwargs[_TASK_IDS.name] = arguments.pop(_TASK_IDS.name)
        kwargs[self.parameter] = python_callable
        super().__init__(python_callable=python_callable, op_kwargs=arguments, **kwargs)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render templates in arguments whatever their names: these are no labels."""
        return CheckedInputs.render_template(cast("CheckedInputs", self), content, *args, **kwargs)

    def execute(self, context: Context) -> Any:
        """Do the operator's work, with the function and its further arguments."""
        function, op_args = self.python_callable, tuple(self.op_args)
        arguments = _arguments(function, op_args, {**context, **self.op_kwargs})
        setattr(self, self.parameter, lambda task: function(task, *op_args, **arguments))
        # Past DecoratedOperator: Airflow 3.0's fails there, and it only looks for assets in what is returned.
        return super(DecoratedOperator, self).execute(context)


def for_each_task(
    operator: type[ForEachTaskOperator], function: Function | None, *, multiple_outputs: bool, **options: Any
) -> TaskDecorator:
    """Return a TaskFlow decorator for an operator, or the decorated function.

    :param multiple_outputs: never inferred from the function's return type, for that is not what the operator returns.
    :param options: the operator's parameters.
    :raises RedBrickInputError: when the function cannot be called for each task, or another one is given.
    """
    _refuse(operator.parameter, options)

    def decorate(function: Function) -> TaskDecorator:
        return task_decorator_factory(
            python_callable=_without_task(function),
            multiple_outputs=multiple_outputs,
            decorated_operator_class=operator,
            **options,
        )

    return decorate if function is None else decorate(function)  # type: ignore[return-value]


def _refuse(parameter: str, options: Iterable[str]) -> None:
    if parameter in options:
        raise RedBrickInputError(f"The decorated function is the {parameter}: give no other one.")


def _without_task(function: Function) -> Function:
    """Return a function whose signature shows what is given where it is called in a DAG.

    That is all but the RedBrick task, and ``task_ids``; so TaskFlow's own checks hold for the rest.
    """
    parameters = list(inspect.signature(function).parameters.values())
    name = getattr(function, "__name__", "The function")
    if not parameters or parameters[0].kind not in _POSITIONAL or parameters[0].name in _AIRFLOWS_OWN:
        raise RedBrickInputError(
            f"{name} takes no RedBrick task: its first parameter must be one, whatever it is called; "
            f"parameters from Airflow's context come after it."
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise RedBrickInputError(f"{name} must not be async: it is called for one task after the other.")
    if any(parameter.name == _TASK_IDS.name for parameter in parameters):
        raise RedBrickInputError(f"{name} must not have a parameter task_ids: these say which tasks it is called for.")

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    last = parameters.pop() if parameters[-1].kind is inspect.Parameter.VAR_KEYWORD else None
    shown = [*parameters[1:], _TASK_IDS, *filter(None, [last])]
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return called


def _arguments(function: Function, op_args: Collection[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a function without its task takes by name, from what was given in the call and the context."""
    signature = inspect.signature(function)
    taken = {
        next(iter(inspect.signature(inspect.unwrap(function)).parameters)),
        *signature.bind_partial(*op_args).arguments,
    }
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
    return {
        name: value
        for name, value in known.items()
        if name not in taken and (takes_all or name in signature.parameters)
    }
