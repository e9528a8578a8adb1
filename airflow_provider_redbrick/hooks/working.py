"""What working in a stage begins with: finding it, and what makes labels ready for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_redbrick.batch.checking import LabelCheck
from airflow_provider_redbrick.batch.converting import Converter
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import check
from airflow_provider_redbrick.hooks.storage import open_file

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage


def working_stage(project: RedBrickProject, name: object) -> Stage:
    """Return a stage in which tasks can be worked on.

    :raises RedBrickInputError: for ground truth, a stage that tasks only pass through, or one that is not there.
    """
    stage = project.stage(check.text("stage_name", name))
    if stage.is_ground_truth:
        raise RedBrickInputError(
            "Tasks in Ground Truth are finished. To change their labels, reopen them and work on them in their stage."
        )
    if stage.is_passed_through:
        # Its queue is always empty: waiting for ever would look like success.
        known = ", ".join(known.name for known in project.info.workflow.stages if known.is_label or known.is_review)
        raise RedBrickInputError(f"Tasks only pass through {stage.name}; they wait in: {known or 'no stage'}.")
    return stage


def label_converter(project: RedBrickProject, *, validate: str) -> Converter:
    """Return what makes labels ready to be sent.

    :param validate: ``strict``, ``warn`` or ``off``.
    """
    look = None if validate == "off" else LabelCheck(project, strict=validate == "strict")
    return Converter(project.client, open_file, look)
