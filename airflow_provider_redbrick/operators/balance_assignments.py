"""Share a queue evenly among people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, one_line
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.operators.base import RedBrickBaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.balance import Share
    from airflow_provider_redbrick.batch.outcome import Outcome


class RedBrickBalanceAssignmentsOperator(RedBrickBaseOperator):
    """Give a stage's unassigned tasks to people so that their total queues end up as even as possible.

    What each already holds in the stage counts. The same queue and people always give the same plan; it is logged as
    a table before and after. A retry looks again and shares what is left.

    :param stage_name: the stage whose queue is shared.
    :param emails: the people, members of the project with access to the stage.
    :param weights: the share of each relative to the others, by e-mail; 1 when not named, 0 for nothing new.
    :param ceiling: how long anybody's queue in the stage may become.
    :param rebalance: also move tasks that one of these people holds and has not started. A person who has
        labeled a task has started it, also when a reviewer has sent it back.
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
        """Share the queue and return the manifest."""
        from airflow_provider_redbrick.api.threads import at_once
        from airflow_provider_redbrick.batch.balance import SharingRules, share
        from airflow_provider_redbrick.batch.people import check_people
        from airflow_provider_redbrick.hooks.working import working_stage

        self.check_inputs()
        listed = self.work_list("emails") if self.is_given("emails") else check.sequence("emails", None)
        emails = [check.text(f"emails[{i}]", entry) for i, entry in enumerate(listed or ())]
        weights = _weights(self.weights, emails)
        ceiling = check.whole_number("ceiling", self.ceiling)
        check.flag("rebalance", self.rebalance)
        check.text("stage_name", self.stage_name)
        project = self.get_project()
        _, members = at_once(lambda: project.info, project.members)
        stage = working_stage(project, self.stage_name)
        if project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project several people label each task: balancing would overwrite who they are."
            )
        if not emails:
            return self.settle(context, project, stage, (), total=0)
        people = check_people(members, stage, emails)
        rules = SharingRules(people, weights, ceiling, rebalance=self.rebalance)
        shared = share(project, stage, rules)
        self.log.info("Plan for %s:\n%s", one_line(stage.name), shared.plan.table())
        total = len(shared.plan.moves) + len(shared.plan.left_over)
        return self.settle(context, project, stage, self._carry_out(project, shared), total=total)

    def _carry_out(self, project: RedBrickProject, shared: Share) -> Iterator[Outcome]:
        """Pass the outcomes on, and log at the end what became of the plan."""
        from airflow_provider_redbrick.batch.balance import carry_out
        from airflow_provider_redbrick.batch.outcome import Status

        planned = shared.plan
        given = set()
        for outcome in carry_out(project, shared):
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
    """Return the weights as numbers; a weight for somebody who is not asked is a typo."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RedBrickInputError(f"weights must map e-mails to numbers, not {type(value).__name__}.")
    known = {email.lower() for email in emails}
    strangers = [str(email) for email in value if str(email).lower() not in known]
    if strangers:
        raise RedBrickInputError(f"weights name people who are not in emails: {', '.join(strangers)}.")
    twins = sorted(
        str(email) for email in value if [str(other).lower() for other in value].count(str(email).lower()) > 1
    )
    if twins:
        raise RedBrickInputError(f"weights name a person more than once: {', '.join(twins)}.")
    try:
        return {str(email): float(weight) for email, weight in value.items()}
    except (TypeError, ValueError) as error:
        raise RedBrickInputError(f"weights must be numbers: {error}.") from None
