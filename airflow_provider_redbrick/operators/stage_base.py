"""Base classes of the operators that work on tasks of one stage.

1. Tasks are claimed (assigned to the API key) in chunks, shortly before they are processed.
2. A claimed task that is not finished is released, also when the operator fails or is stopped.
3. A task that a person holds is taken only if it was given by id and ``take_from_people`` is True.
4. In a consensus project nothing is claimed: several people label each task.
5. An effect found on a task counts as an earlier attempt's only if it happened after the first attempt began.
6. Airflow 3.3 keeps task state across attempts; the time of the first attempt is stored there. Below 3.3, or if the
   state store fails, the start of the DAG run is used. Clearing a run starts it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pendulum

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.operators.base import RedBrickBaseOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline
    from airflow_provider_redbrick.annotations.conversion import Converter
    from airflow_provider_redbrick.client.models.workflow import Stage
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.client.transport.clock import ServerClock

log = logging.getLogger(__name__)

_FIRST_ATTEMPT_KEY = "redbrick_first_attempt_at"
# Added to the uncertainty of the server's clock: its times may be rounded to seconds.
_CLOCK_MARGIN_S = 1.0

LABEL_KEYS = frozenset({"series", "classification", "labels"})


class RedBrickStageBaseOperator(RedBrickBaseOperator):
    """Base of the operators that process tasks of one stage.

    Tasks are claimed (assigned to the API key) in chunks. A claimed task that is not finished is released, so that
    people can work on it.

    :param stage_name: the stage of the tasks.
    :param claim: whether to assign unassigned tasks to the API key before they are processed. False processes only
        tasks that the key already holds. Consensus projects need False.
    :param take_from_people: also take given tasks that a person holds. That person's unsaved work is lost.
    :param validate: how to treat labels that are malformed, outside of the image, or not allowed by the project's
        taxonomy. ``strict`` fails the task and sends nothing for it. ``warn`` logs the problems and sends the labels.
        ``off`` does not validate.
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
        """Render templates, except in labels.

        A ``{{`` in a label's comment is not a template.

        :param content: the value to render.
        :param args: passed to Airflow.
        """
        if not isinstance(content, Mapping) or not content.keys() & LABEL_KEYS:
            return super().render_template(content, *args, **kwargs)
        render = super().render_template
        return render_except_labels(content, LABEL_KEYS, lambda rest: render(rest, *args, **kwargs))

    def get_project(self) -> RedBrickProject:
        """Validate ``validate``, ``claim`` and ``take_from_people``; return the project.

        :raises RedBrickInputError: if a parameter is invalid.
        """
        from airflow_provider_redbrick.annotations.conversion import MODES

        validation.one_of("validate", self.validate, MODES)
        validation.flag("claim", self.claim)
        validation.flag("take_from_people", self.take_from_people)
        return super().get_project()

    def get_stage(self, project: RedBrickProject, *others: Callable[[], object], labels: bool = False) -> Stage:
        """Return the stage, and read what the work needs at the same time.

        :param project: the project of the stage.
        :param others: further reads to run concurrently.
        :param labels: whether labels will be validated, which needs the taxonomy.
        :raises RedBrickInputError: if the stage does not exist or tasks cannot be processed in it.
        """
        from airflow_provider_redbrick.actions.stage_pipeline import working_stage

        stage_name = validation.text("stage_name", self.stage_name)
        project.open(*others, taxonomy=labels and self.validate != "off")
        return working_stage(project, stage_name)

    def converter(self, project: RedBrickProject) -> Converter:
        """Return the converter that prepares labels for the API."""
        from airflow_provider_redbrick.annotations.conversion import Converter
        from airflow_provider_redbrick.hooks.files import open_file

        return Converter.for_project(project, open_file, validate=self.validate)

    def work_on(
        self, context: Context, project: RedBrickProject, stage: Stage, *, claim: bool | None = None, **options: Any
    ) -> StagePipeline:
        """Return a :class:`StagePipeline` for the stage.

        :param context: the Airflow task's context.
        :param project: the project of the stage.
        :param stage: the stage.
        :param claim: whether to claim tasks. Default: the operator's ``claim``.
        :param options: further fields of :class:`StagePipeline`.
        :raises RedBrickInputError: if tasks would be claimed in a consensus project.
        """
        from airflow_provider_redbrick.actions.stage_pipeline import StagePipeline
        from airflow_provider_redbrick.engine.ledger import ledger_of

        claim = self.claim if claim is None else claim
        if claim and project.info.consensus:
            raise RedBrickInputError(
                "In a consensus project several people label each task, and claiming one would take it from them. "
                "Assign the API key to its tasks in RedBrick, and set claim=False."
            )
        return StagePipeline(
            project,
            stage,
            self.converter(project),
            claim=claim,
            take_from_people=self.take_from_people,
            takes_over=True,
            first_attempt_at=first_attempt_at(context, project.client.clock),
            ledger=ledger_of(project.client),
            **options,
        )


class TaskSelection(NamedTuple):
    """The tasks to take.

    :ivar ids: the given tasks; None to take tasks from the stage's queue.
    :ivar limit: maximum number of tasks from the queue; None for all of them.
    """

    ids: list[str] | None
    limit: int | None


class RedBrickQueueBaseOperator(RedBrickStageBaseOperator):
    """Base of the operators that call a function for each selected task.

    :param task_ids: the tasks to take. Default: unassigned tasks of the stage.
    :param limit: maximum number of tasks without ``task_ids``. Default: no limit.
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

    def resolve_selection(self) -> TaskSelection:
        """Validate ``task_ids`` and ``limit``, and return the selection.

        :raises RedBrickInputError: if one of them is invalid, or both are given.
        """
        limit = validation.whole_number("limit", self.limit, low=1)
        if self.is_given("task_ids") and limit is not None:
            raise RedBrickInputError("Give either task_ids or limit, not both.")
        listed = self.work_list("task_ids")
        return TaskSelection(validation.task_id_list(listed) if listed else listed, limit)

    def take_up(
        self,
        context: Context,
        project: RedBrickProject,
        stage: Stage,
        selection: TaskSelection,
        **options: Any,
    ) -> tuple[StagePipeline, Sequence[str]]:
        """Return the stage work, and the ids of the tasks to process.

        :param context: the Airflow task's context.
        :param project: the project of the stage.
        :param stage: the stage.
        :param selection: the selection.
        :param options: further fields of :class:`StagePipeline`.
        :return: the stage work, and the given ids or those of candidates from the queue.
        """
        from airflow_provider_redbrick.actions.candidates import choose_candidates
        from airflow_provider_redbrick.client.models.task import Detail

        work = self.work_on(context, project, stage, detail=Detail.FULL, **options)
        if selection.ids is not None:
            return work, selection.ids
        found = choose_candidates(work, limit=selection.limit, now=project.client.clock.now())
        return replace(work, resumable_task_ids=found.held), found.task_ids


def render_except_labels(
    content: Mapping[str, Any], keys: Collection[str], render: Callable[[Any], Any]
) -> dict[str, Any]:
    """Render templates in an object, except in its labels.

    A ``{{`` in a label's comment is not a template. Outputs of upstream tasks are resolved everywhere, in labels too.

    :param content: the object.
    :param keys: the keys that hold labels. A value is labels if it is neither text nor an upstream task's output.
    :param render: Airflow's rendering of any value.
    """
    labels = {key: value for key, value in content.items() if key in keys and _is_plain(value)}
    rest = render({key: value for key, value in content.items() if key not in labels})
    return {**rest, **{key: _with_outputs(value, render) for key, value in labels.items()}}


def _is_plain(value: object) -> bool:
    return isinstance(value, (Mapping, list, tuple)) or value is None


def _with_outputs(value: Any, render: Callable[[Any], Any]) -> Any:
    """Resolve upstream tasks' outputs in labels; return labels without any unchanged."""
    try:
        return _resolve(value, render) if _has_output(value) else value
    except RecursionError:
        return value  # Validation refuses labels that are nested too deeply, with a message.


def _has_output(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_output, value.values()))
    return any(map(_has_output, value)) if isinstance(value, (list, tuple)) else _is_output(value)


def _resolve(value: Any, render: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolve(item, render) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item, render) for item in value]
    return render(value) if _is_output(value) else value


def _is_output(value: object) -> bool:
    # Airflow's class of outputs is not public. A value with only one of the two attributes may be a path.
    return hasattr(value, "iter_references") and hasattr(value, "resolve")


def first_attempt_at(context: Context, clock: ServerClock) -> pendulum.DateTime | None:
    """Return when the first attempt began, in the server's time.

    The time is used to find what earlier attempts have changed, by the server's times. It is therefore a little early
    rather than late. A run that is cleared begins anew.

    :param context: the Airflow task's context.
    :param clock: the server's clock, after at least one answer.
    :return: the time in UTC, never before the start of the run; None if this is the first attempt.
    """
    run = context.get("dag_run")
    # Airflow's clock is taken to be this machine's.
    margin_s = (clock.error_s or 0.0) + _CLOCK_MARGIN_S
    to_server = pendulum.duration(seconds=clock.offset_s - margin_s)
    run_started_at = (
        pendulum.instance(run.start_date).in_timezone("UTC") + to_server if run is not None and run.start_date else None
    )
    store = context.get("task_state_store")
    if store is not None:
        try:
            first = store.get(_FIRST_ATTEMPT_KEY)
            if first is None:
                began_at = clock.now() - pendulum.duration(seconds=margin_s)
                store.set(_FIRST_ATTEMPT_KEY, began_at.isoformat())
                return None
            first_attempt = pendulum.parse(str(first))
        except Exception as error:  # noqa: BLE001 - the work does not depend on the store
            log.warning(
                "Airflow's task state store does not respond (%s). The start of the run is used instead.", error
            )
        else:
            if isinstance(first_attempt, pendulum.DateTime):
                return max(first_attempt, run_started_at) if run_started_at is not None else first_attempt
    return run_started_at if is_retry(context) else None


def is_retry(context: Context) -> bool:
    """Return whether Airflow has started this attempt after another one.

    :param context: the Airflow task's context.
    """
    task_instance = context.get("ti")
    return task_instance is not None and task_instance.try_number > 1
