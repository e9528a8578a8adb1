"""Distribute a queue evenly among people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, single_line
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.operators.base import RedBrickBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.actions.balance import QueuePlan
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.outcomes import Outcome


class RedBrickBalanceAssignmentsOperator(RedBrickBaseOperator):
    """Assign a stage's unassigned tasks so that people's queues become even.

    Tasks that a person already holds in the stage count toward that person's queue. The plan is deterministic: the same
    queue and people give the same plan. It is logged as a table before and after. A retry plans again with what is
    left.

    :param stage_name: the stage whose queue is distributed.
    :param emails: the people. Each must be a member of the project with access to the stage.
    :param weights: relative share by email. Default 1 for each person; 0 assigns nothing new.
    :param ceiling: maximum length of a person's queue in the stage. Default: no limit.
    :param rebalance: also move tasks that one of these people holds and has not started. A task that a person has
        labeled counts as started, also after a reviewer has rejected it.
    """

    template_fields: Sequence[str] = (
        *RedBrickBaseOperator.template_fields,
        "stage_name",
        "emails",
        "weights",
        "ceiling",
    )
    operation = "balance_assignments"
    work_lists = ("emails",)

    def __init__(
        self,
        *,
        stage_name: str,
        emails: Sequence[str] | XComArg,
        weights: Mapping[str, float] | XComArg | str | None = None,
        ceiling: int | XComArg | str | None = None,
        rebalance: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage_name = stage_name
        self.emails = emails
        self.weights = weights
        self.ceiling = ceiling
        self.rebalance = rebalance

    def execute(self, context: Context) -> dict[str, Any]:
        """Distribute the queue and return the manifest.

        :param context: the Airflow task's context.
        :return: the manifest: what happened to the tasks, with counts by status.
        :raises RedBrickInputError: if a parameter is invalid, or the project uses consensus.
        :raises RedBrickTasksFailedError: if tasks failed and ``fail_on`` says that they fail the Airflow task.
        """
        from airflow_provider_redbrick._utils import run_concurrently
        from airflow_provider_redbrick.actions.balance import SharingRules, plan_queue
        from airflow_provider_redbrick.actions.stage_pipeline import working_stage
        from airflow_provider_redbrick.assignments.assign import check_people

        self.check_inputs()
        listed = self.work_list("emails") if self.is_given("emails") else validation.sequence("emails", None)
        emails = [validation.text(f"emails[{i}]", entry) for i, entry in enumerate(listed or ())]
        weights = _weights(self.weights, emails)
        ceiling = validation.whole_number("ceiling", self.ceiling)
        validation.flag("rebalance", self.rebalance)
        stage_name = validation.text("stage_name", self.stage_name)
        project = self.get_project()
        _, members = run_concurrently(lambda: project.info, project.members)
        stage = working_stage(project, stage_name)
        if project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project several people label each task. Balancing would overwrite their assignments."
            )
        if not emails:
            return self.settle(context, project, stage, (), total=0)
        people = check_people(members, stage, emails)
        rules = SharingRules(people, weights, ceiling, rebalance=self.rebalance)
        shared = plan_queue(project, stage, rules)
        self.log.info("Plan for %s:\n%s", single_line(stage.name), shared.plan.table())
        total = len(shared.plan.moves) + len(shared.plan.left_over)
        return self.settle(context, project, stage, self._carry_out(project, shared), total=total)

    def _carry_out(self, project: RedBrickProject, shared: QueuePlan) -> Iterator[Outcome]:
        """Yield the outcomes of the plan, then log the resulting queues."""
        from airflow_provider_redbrick.actions.balance import apply_plan
        from airflow_provider_redbrick.engine.outcomes import Status

        planned = shared.plan
        given = set()
        for outcome in apply_plan(project, shared):
            if outcome.status is Status.DONE:
                given.add(outcome.task_id)
            yield outcome
        after = dict(planned.before)
        for move in planned.moves:
            if move.task_id in given:
                after[move.to] += 1
                if move.source is not None:
                    after[move.source] -= 1
        moves = tuple(move for move in planned.moves if move.task_id in given)
        self.log.info("Result:\n%s", replace(planned, moves=moves, after=after).table())


def _weights(value: object, emails: Sequence[str]) -> dict[str, float]:
    """Return the weights as numbers by email.

    :raises RedBrickInputError: if a weight is not a number, or names a person twice or one who is not in ``emails``.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RedBrickInputError(f"weights must map emails to numbers, not {type(value).__name__}.")
    known = {email.lower() for email in emails}
    unknown = [str(email) for email in value if str(email).lower() not in known]
    if unknown:
        raise RedBrickInputError(f"weights name people who are not in emails: {', '.join(unknown)}.")
    duplicates = sorted(
        str(email) for email in value if [str(other).lower() for other in value].count(str(email).lower()) > 1
    )
    if duplicates:
        raise RedBrickInputError(f"weights name a person more than once: {', '.join(duplicates)}.")
    try:
        return {str(email): float(weight) for email, weight in value.items()}
    except (TypeError, ValueError) as error:
        raise RedBrickInputError(f"weights must be numbers: {error}.") from None
