"""TaskFlow decorators that call a function for each RedBrick task.

``@task.redbrick_prelabel`` makes the decorated function the labeler, ``@task.redbrick_auto_review`` the reviewer. The
first parameter of the function receives the RedBrick task. TaskFlow must not see this parameter: it binds the arguments
of the call in the DAG to the signature, and fills missing ones from Airflow's context. The function is therefore
wrapped with a signature that has no first parameter and has ``task_ids`` in addition.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import Context, DecoratedOperator, task_decorator_factory

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.validation import CheckedInputs
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import TaskDecorator

    Function = Callable[..., Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_TASK_IDS = inspect.Parameter("task_ids", inspect.Parameter.KEYWORD_ONLY, default=None)
# Names that TaskFlow fills from Airflow's context. The first parameter may be named ``task``: it is the RedBrick task.
_CONTEXT_NAMES = frozenset(Context.__annotations__) - {"task"}


class ForEachTaskOperator(DecoratedOperator):
    """Mixin that turns an operator with a callable into a decorated operator.

    It precedes the operator among the base classes. The first parameter of the function receives the RedBrick task.
    TaskFlow fills the others once, from the rendered arguments of the call in the DAG or from Airflow's context. The
    call may also pass ``task_ids``, which makes them mappable.

    :param python_callable: the decorated function.
    :param op_kwargs: keyword arguments of the call in the DAG, including ``task_ids`` if the call passes them.
    :raises RedBrickInputError: if ``task_ids`` are passed twice, or the operator's callable is passed as well.
    """

    parameter: ClassVar[str]
    """Name of the operator's parameter that takes the function."""

    def __init__(self, *, python_callable: Function, op_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        _refuse_callable_argument(self.parameter, kwargs)
        arguments = dict(op_kwargs or {})
        if _TASK_IDS.name in arguments:
            if kwargs.get(_TASK_IDS.name) is not None:
                raise RedBrickInputError(
                    "task_ids are given both to the decorator and to the call of the function. Remove one of them."
                )
            kwargs[_TASK_IDS.name] = arguments.pop(_TASK_IDS.name)
        kwargs[self.parameter] = python_callable
        super().__init__(python_callable=python_callable, op_kwargs=arguments, **kwargs)

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render templates in all arguments, also in those whose names suggest labels.

        :param content: the value to render.
        :param args: further positional arguments of Airflow's method.
        :param kwargs: further keyword arguments of Airflow's method.
        """
        return CheckedInputs.render_template(cast("CheckedInputs", self), content, *args, **kwargs)

    def execute(self, context: Context) -> Any:
        """Run the operator with the function bound to its arguments."""
        function, op_args = self.python_callable, tuple(self.op_args)
        arguments = _keyword_arguments(function, op_args, {**context, **self.op_kwargs})
        setattr(self, self.parameter, lambda task: function(task, *op_args, **arguments))
        # Skips DecoratedOperator.execute, which fails on Airflow 3.0 and only searches the returned value for assets.
        return super(DecoratedOperator, self).execute(context)


def for_each_task(
    operator: type[ForEachTaskOperator], function: Function | None, *, multiple_outputs: bool, **options: Any
) -> TaskDecorator:
    """Return a TaskFlow decorator for an operator, or the decorated function.

    :param operator: the decorated operator's class.
    :param function: the function, if the decorator is used without parentheses.
    :param multiple_outputs: also push each entry of the manifest as a separate XCom. It is not inferred from the
        function's return type, since the operator returns the manifest.
    :param options: the operator's parameters.
    :raises RedBrickInputError: if the function cannot be called for each task, or the operator's callable is passed.
    """
    _refuse_callable_argument(operator.parameter, options)

    def decorate(function: Function) -> TaskDecorator:
        return task_decorator_factory(
            python_callable=_hide_task_parameter(function),
            multiple_outputs=multiple_outputs,
            decorated_operator_class=operator,
            **options,
        )

    return decorate if function is None else decorate(function)  # type: ignore[return-value]


def _refuse_callable_argument(parameter: str, options: Iterable[str]) -> None:
    if parameter in options:
        raise RedBrickInputError(f"The decorated function is the {parameter}. Remove the argument {parameter!r}.")


def _hide_task_parameter(function: Function) -> Function:
    """Return a wrapper whose signature has the parameters of the call in the DAG.

    These are all parameters but the first, plus ``task_ids``. TaskFlow checks the call against them.
    """
    parameters = list(inspect.signature(function).parameters.values())
    name = getattr(function, "__name__", "The function")
    if not parameters or parameters[0].kind not in _POSITIONAL or parameters[0].name in _CONTEXT_NAMES:
        raise RedBrickInputError(
            f"{name} takes no RedBrick task. Its first parameter must be positional and receives the task. "
            f"Parameters from Airflow's context come after it."
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise RedBrickInputError(f"{name} must not be async, since it is called for one task at a time.")
    if any(parameter.name == _TASK_IDS.name for parameter in parameters):
        raise RedBrickInputError(
            f"{name} must not have a parameter 'task_ids', which selects the tasks that it is called for."
        )

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    last = parameters.pop() if parameters[-1].kind is inspect.Parameter.VAR_KEYWORD else None
    parameters_of_call = [*parameters[1:], _TASK_IDS, *filter(None, [last])]
    wrapper.__signature__ = inspect.Signature(parameters_of_call)  # type: ignore[attr-defined]
    return wrapper


def _keyword_arguments(function: Function, op_args: Collection[Any], available: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a function, without its task."""
    signature = inspect.signature(function)
    bound = {
        next(iter(inspect.signature(inspect.unwrap(function)).parameters)),
        *signature.bind_partial(*op_args).arguments,
    }
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    return {
        name: value
        for name, value in available.items()
        if name not in bound and (takes_all or name in signature.parameters)
    }


class _AutoReviewDecoratedOperator(ForEachTaskOperator, RedBrickAutoReviewOperator):
    """Review with a decorated function."""

    template_fields: Sequence[str] = (*ForEachTaskOperator.template_fields, *RedBrickAutoReviewOperator.template_fields)
    custom_operator_name = "@task.redbrick_auto_review"
    parameter: ClassVar[str] = "reviewer"


def redbrick_auto_review_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **options: Any
) -> TaskDecorator:
    """Make a function the reviewer of a ``RedBrickAutoReviewOperator``.

    :param python_callable: called with a
        :class:`~airflow_provider_redbrick.client.models.task.Task` that includes its labels, and with the
        arguments of the call in the DAG. Returns True, False or a ``Review``.
    :param multiple_outputs: also push each entry of the manifest as a separate XCom.
    :param options: the operator's parameters, such as ``project_id`` and ``stage_name``.
    """
    return for_each_task(_AutoReviewDecoratedOperator, python_callable, multiple_outputs=multiple_outputs, **options)


class _PrelabelDecoratedOperator(ForEachTaskOperator, RedBrickPrelabelOperator):
    """Prelabel with a decorated function."""

    template_fields: Sequence[str] = (*ForEachTaskOperator.template_fields, *RedBrickPrelabelOperator.template_fields)
    custom_operator_name = "@task.redbrick_prelabel"
    parameter: ClassVar[str] = "labeler"


def redbrick_prelabel_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **options: Any
) -> TaskDecorator:
    """Make a function the labeler of a ``RedBrickPrelabelOperator``.

    :param python_callable: called with a
        :class:`~airflow_provider_redbrick.client.models.task.Task`, and with the arguments of the call in
        the DAG. Returns labels, or None to skip the task.
    :param multiple_outputs: also push each entry of the manifest as a separate XCom.
    :param options: the operator's parameters, such as ``project_id`` and ``stage_name``.
    """
    return for_each_task(_PrelabelDecoratedOperator, python_callable, multiple_outputs=multiple_outputs, **options)
