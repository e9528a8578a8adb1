"""TaskFlow decorator ``@task.redbrick_auto_review``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_redbrick.decorators.for_each_task import ForEachTaskOperator, for_each_task
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import TaskDecorator


class _AutoReviewDecoratedOperator(ForEachTaskOperator, RedBrickAutoReviewOperator):
    """Review with a decorated function."""

    template_fields: Sequence[str] = (*ForEachTaskOperator.template_fields, *RedBrickAutoReviewOperator.template_fields)
    custom_operator_name = "@task.redbrick_auto_review"
    parameter: ClassVar[str] = "reviewer"


def redbrick_auto_review_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **options: Any
) -> TaskDecorator:
    """Make a function the reviewer of a ``RedBrickAutoReviewOperator``.

    :param python_callable: called with a :class:`~airflow_provider_redbrick.api.models.Task` that includes its labels,
        and with the arguments of the call in the DAG. Returns True, False or a ``Review``.
    :param multiple_outputs: also push each entry of the manifest as a separate XCom.
    :param options: the operator's parameters, such as ``project_id`` and ``stage_name``.
    """
    return for_each_task(_AutoReviewDecoratedOperator, python_callable, multiple_outputs=multiple_outputs, **options)
