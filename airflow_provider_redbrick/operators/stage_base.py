"""What the operators share that work on tasks of one stage: claiming, and which tasks to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pendulum

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.operators.base import RedBrickBaseOperator
from airflow_provider_redbrick.operators.rendering import beside_labels
from airflow_provider_redbrick.operators.tries import retry_since

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage
    from airflow_provider_redbrick.batch.converting import Converter
    from airflow_provider_redbrick.batch.stage_work import StageWork

LABEL_KEYS = frozenset({"series", "classification", "labels"})


class RedBrickStageBaseOperator(RedBrickBaseOperator):
    """Base of the operators that work on tasks where they wait.

    Tasks are claimed (assigned to the API key) a few at a time. Whatever was claimed and not finished is given back,
    so that people can have it.

    :param stage_name: the stage the tasks wait in.
    :param claim: assign tasks that nobody holds to the API key first.
    :param take_from_people: also take given tasks that a person holds. Their unsaved work is lost.
    :param validate: what becomes of labels that are malformed, outside of the image, or not allowed by the project's
        taxonomy: ``strict`` fails their task and sends nothing of it, ``warn`` logs what is wrong and sends them,
        ``off`` does not look.
    """

    template_fields: Sequence[str] = (*RedBrickBaseOperator.template_fields, "stage_name")

    def __init__(
        self,
        *,
        stage_name: str | None,
        claim: bool = True,
        take_from_people: bool = False,
        validate: str = "strict",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage_name = stage_name
        self.claim = claim
        self.take_from_people = take_from_people
        self.validate = validate

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render templates everywhere but in labels: a per cent sign in somebody's comment is no template."""
        if not isinstance(content, Mapping) or not content.keys() & LABEL_KEYS:
            return super().render_template(content, *args, **kwargs)
        render = super().render_template
        return beside_labels(content, LABEL_KEYS, lambda rest: render(rest, *args, **kwargs))

    def get_project(self) -> RedBrickProject:
        """Return the project to work in, once what is to become of bad labels is clear."""
        from airflow_provider_redbrick.batch.checking import MODES

        check.one_of("validate", self.validate, MODES)
        check.flag("claim", self.claim)
        check.flag("take_from_people", self.take_from_people)
        return super().get_project()

    def get_stage(self, project: RedBrickProject, *others: Callable[[], object], labels: bool = False) -> Stage:
        """Return the stage to work in; what else the work needs to know beforehand is read with it.

        :param others: what else is done at the same time.
        :param labels: whether there are labels to check.
        :raises RedBrickInputError: when there is none in which tasks can be worked on.
        """
        from airflow_provider_redbrick.hooks.working import working_stage

        check.text("stage_name", self.stage_name)
        project.open(*others, taxonomy=labels and self.validate != "off")
        return working_stage(project, self.stage_name)

    def converter(self, project: RedBrickProject) -> Converter:
        """Return what makes labels ready to be sent."""
        from airflow_provider_redbrick.hooks.working import label_converter

        return label_converter(project, validate=self.validate)

    def work_on(
        self, context: Context, project: RedBrickProject, stage: Stage, *, claim: bool | None = None, **how: Any
    ) -> StageWork:
        """Return how to work on tasks of the stage.

        :param claim: whether to claim them, where that is not for the user to say.
        :param how: further fields of :class:`StageWork`.
        """
        from airflow_provider_redbrick.batch.stage_work import StageWork

        claim = self.claim if claim is None else claim
        if claim and project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project several people label each task, and claiming one would take it from them: "
                "assign the API key to its tasks in RedBrick, and set claim=False."
            )
        return StageWork(
            project,
            stage,
            self.converter(project),
            claim=claim,
            take_from_people=self.take_from_people,
            since=retry_since(context),
            **how,
        )


class Which(NamedTuple):
    """Which tasks to take: given ones, or so many of the queue; all of it when neither is said."""

    ids: list[str] | None
    limit: int | None


class RedBrickQueueBaseOperator(RedBrickStageBaseOperator):
    """Base of the operators that call a function for each of some given tasks, or of a stage's queue.

    :param task_ids: the tasks to take; without them, unassigned tasks of the stage are taken.
    :param limit: how many to take in all, when no ``task_ids`` are given; all of them by default.
    """

    template_fields: Sequence[str] = (*RedBrickStageBaseOperator.template_fields, "task_ids", "limit")
    work_lists: ClassVar[tuple[str, ...]] = ("task_ids",)

    def __init__(
        self,
        *,
        task_ids: Sequence[str] | XComArg | None = None,
        limit: int | XComArg | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_ids = task_ids
        self.limit = limit

    def which_tasks(self) -> Which:
        """Check the two ways to say which tasks to take, ids or a limit; they exclude each other."""
        limit = check.whole_number("limit", self.limit, low=1)
        if self.is_given("task_ids") and limit is not None:
            raise RedBrickInputError("Give task_ids or limit, not both.")
        listed = self.work_list("task_ids")
        return Which(check.task_ids(listed) if listed else listed, limit)

    def take_up(
        self,
        context: Context,
        project: RedBrickProject,
        stage: Stage,
        which: Which,
        **how: Any,
    ) -> tuple[StageWork, Sequence[str]]:
        """Return how to work on the stage, and the given tasks or some chosen from its queue."""
        from airflow_provider_redbrick.api.detail import Detail
        from airflow_provider_redbrick.batch.queue import candidates

        work = self.work_on(context, project, stage, detail=Detail.FULL, **how)
        if which.ids is not None:
            return work, which.ids
        found = candidates(work, limit=which.limit, now=pendulum.now("UTC"))
        return replace(work, may_hold=found.held), found.task_ids
