"""TaskFlow decorator ``@task.redbrick_prelabel``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick.decorators.for_each_task import ForEachTaskOperator, for_each_task
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import TaskDecorator


class _PrelabelDecoratedOperator(ForEachTaskOperator, RedBrickPrelabelOperator):
    """Prelabel with a decorated function."""

    template_fields: Sequence[str] = (*ForEachTaskOperator.template_fields, *RedBrickPrelabelOperator.template_fields)
    custom_operator_name = "@task.redbrick_prelabel"
    parameter: ClassVar[str] = "labeler"


def redbrick_prelabel_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **options: Any
) -> TaskDecorator:
    """Make a function the labeler of a ``RedBrickPrelabelOperator``.

    :param python_callable: called with a :class:`~airflow_provider_redbrick.api.models.Task`, and with the arguments of
        the call in the DAG. Returns labels, or None to skip the task.
    :param multiple_outputs: also push each entry of the manifest as a separate XCom.
    :param options: the operator's parameters, such as ``project_id`` and ``stage_name``.
    """
    return for_each_task(_PrelabelDecoratedOperator, python_callable, multiple_outputs=multiple_outputs, **options)
