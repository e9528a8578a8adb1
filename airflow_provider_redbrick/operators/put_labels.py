"""Put finished labels on tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.client import check_uuid
from airflow_provider_redbrick.batch.converting import Labels, read_body
from airflow_provider_redbrick.batch.labelling import put_labels
from airflow_provider_redbrick.batch.outcome import Outcome, failed
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.operators.base import working_stage
from airflow_provider_redbrick.operators.stage_base import RedBrickStageOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_redbrick.api.project import RedBrickProject


_LABEL_KEYS = frozenset({"series", "classification", "labels"})


class RedBrickPutLabelsOperator(RedBrickStageOperator):
    """Put labels on tasks of a stage, and submit them; in a review stage, accept them with the labels as correction.

    Labels replace those the task had. One invalid task does not sink the others. See the base class for
    ``stage_name``, ``claim`` and ``take_from_people``.

    :param tasks: a list of tasks, each naming itself by ``taskId`` or by its exact ``name``, with its labels as
        ``series`` and/or ``classification``, or in the older form as ``labels``. With ``existing_labels`` a plain id
        will do.
    :param finalize: submit; False saves the labels as a draft and leaves the task where it is.
    :param existing_labels: submit the labels the tasks already have; they must not bring any.
    """

    template_fields: Sequence[str] = (*RedBrickStageOperator.template_fields, "tasks")
    operation = "put_labels"

    def __init__(
        self,
        *,
        tasks: Sequence[Mapping[str, Any] | str],
        finalize: bool = True,
        existing_labels: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tasks = tasks
        self.finalize = finalize
        self.existing_labels = existing_labels

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render templates everywhere but in labels: a per cent sign in somebody's comment is no template."""
        if not isinstance(content, Mapping) or not content.keys() & _LABEL_KEYS:
            return super().render_template(content, *args, **kwargs)
        labels = {key: value for key, value in content.items() if key in _LABEL_KEYS and _is_plain(value)}
        rest = {key: value for key, value in content.items() if key not in labels}
        return {**super().render_template(rest, *args, **kwargs), **labels}

    def execute(self, context: Context) -> dict[str, Any]:
        """Put the labels and return the manifest."""
        check.flag("finalize", self.finalize)
        check.flag("existing_labels", self.existing_labels)
        if self.existing_labels and not self.finalize:
            raise RedBrickInputError("existing_labels submits what is there, so it does not go with finalize=False.")
        entries = [_read_entry(entry, i) for i, entry in enumerate(check.sequence("tasks", self.tasks))]
        if self.existing_labels and any(entry.keys() & _LABEL_KEYS for *_, entry in entries):
            raise RedBrickInputError("existing_labels submits what is there, but some of the tasks bring labels.")
        _refuse_twins("taskId", [task_id for task_id, _, _ in entries if task_id])
        _refuse_twins("name", [name for _, name, _ in entries if name])
        project = self.get_project()
        stage = working_stage(project, self.stage_name)
        if self.existing_labels and stage.is_review:
            raise RedBrickInputError(
                f"{stage.name} is a review stage: to accept tasks as they are, use RedBrickAutoReviewOperator."
            )
        labels, outcomes = self._prepare(project, entries)
        work = self.work_on(context, project, stage, saved_counts=not self.finalize)

        def all_outcomes() -> Iterator[Outcome]:
            yield from outcomes
            yield from put_labels(work, labels, finished=self.finalize)

        return self.settle(context, project, stage, all_outcomes())

    def _prepare(
        self, project: RedBrickProject, entries: Sequence[tuple[str, str, Mapping[str, Any]]]
    ) -> tuple[list[Labels], list[Outcome]]:
        """Turn entries into labels by task id; what cannot be is failed before anything is sent."""
        names = [name for _, name, _ in entries if name]
        by_name = project.find_by_name(names) if names else {}
        labels: list[Labels] = []
        outcomes: list[Outcome] = []
        task_ids: list[str] = []
        for given_id, name, entry in entries:
            found = [given_id] if given_id else by_name[name]
            if len(found) != 1:
                many = "no task has" if not found else f"{len(found)} tasks have"
                outcomes.append(failed("", f"{many} the name {name!r}; nothing was sent", name=name))
                continue
            task_ids += found
            try:
                labels.append(Labels(found[0], None if self.existing_labels else read_body(entry)))
            except RedBrickInputError as error:
                outcomes.append(failed(found[0], error, name=name))
        _refuse_twins("task", task_ids)
        return labels, outcomes


def _is_plain(value: object) -> bool:
    """Whether a value is labels themselves, rather than a template or an upstream task's output."""
    return isinstance(value, (Mapping, list, tuple)) or value is None


def _read_entry(entry: object, index: int) -> tuple[str, str, Mapping[str, Any]]:
    """Return an entry's id or name, and the entry."""
    if isinstance(entry, str):
        entry = {"taskId": entry}
    if not isinstance(entry, Mapping):
        raise RedBrickInputError(f"tasks[{index}] must be an object, not {type(entry).__name__}.")
    if entry.get("taskId") is not None:
        return check_uuid(f"tasks[{index}]['taskId']", entry["taskId"]), "", entry
    return "", check.text(f"tasks[{index}] must have a 'taskId' or a 'name': 'name'", entry.get("name")), entry


def _refuse_twins(what: str, values: Sequence[str]) -> None:
    """Refuse to guess which of two sets of labels for one task is meant."""
    twins = sorted(value for value, times in Counter(values).items() if times > 1)
    if twins:
        raise RedBrickInputError(f"Named more than once ({what}): {', '.join(twins[:5])}. Nothing was sent.")
