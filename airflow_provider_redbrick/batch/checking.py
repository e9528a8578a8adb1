"""Validate labels before they are sent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.threads import read_once
from airflow_provider_redbrick.exceptions import RedBrickInputError, truncate_message
from airflow_provider_redbrick.labels.checks import check_labels, check_stored
from airflow_provider_redbrick.labels.taxonomy import Taxonomy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.project import RedBrickProject

log = logging.getLogger(__name__)

MODES = ("strict", "warn", "off")
_NAMED = 5


@dataclass(frozen=True)
class LabelCheck:
    """Validate labels against a project's taxonomy, which is read on first use.

    :param project: the project.
    :param strict: refuse invalid labels; otherwise only log a warning.
    """

    project: RedBrickProject
    strict: bool = True

    def __call__(self, task_id: str, body: Mapping[str, Any]) -> None:
        """Validate the labels of one task.

        :param task_id: the task's name in messages.
        :param body: the labels as plain values.
        :raises RedBrickInputError: if they are invalid and ``strict`` is set.
        """
        if "labels" in body:
            labels = body["labels"]
            self.judge(task_id, check_stored(labels, self._taxonomy) if isinstance(labels, list) else ())
        else:
            self.judge(task_id, check_labels(body, self._taxonomy))

    def judge(self, task_id: str, problems: Sequence[object]) -> None:
        """Refuse labels with problems, or log a warning.

        :param task_id: the task's name in messages.
        :param problems: the validation errors of its labels.
        :raises RedBrickInputError: if there are problems and ``strict`` is set.
        """
        if not problems:
            return
        named = [str(problem) for problem in problems[:_NAMED]]
        more = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
        words = truncate_message("; ".join([*named, *more]))
        if self.strict:
            raise RedBrickInputError(words)
        log.warning(
            "The labels for task %s are sent although something is wrong with them: %s",
            task_id,
            truncate_message(words),
        )

    @read_once
    def _taxonomy(self) -> Taxonomy:
        taxonomy = Taxonomy.from_wire(self.project.taxonomy)
        if not taxonomy.checkable:
            log.warning(
                "Labels are not checked: the project has no taxonomy, or one of the first kind: %r", taxonomy.name
            )
        return taxonomy
