"""Find the stage to work in, and create the label converter for it."""

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
    """Return a stage in which tasks can be processed.

    :param project: the project.
    :param name: name of the stage.
    :raises RedBrickInputError: if the stage does not exist, is Ground Truth, or tasks only pass through it.
    """
    stage = project.stage(check.text("stage_name", name))
    if stage.is_ground_truth:
        raise RedBrickInputError("Tasks in Ground Truth are finished. To change their labels, reopen them first.")
    if stage.is_passed_through:
        # Its queue is always empty, so that processing it would label_check like success.
        known = ", ".join(known.name for known in project.info.workflow.stages if known.is_label or known.is_review)
        raise RedBrickInputError(f"Tasks only pass through {stage.name!r}. They wait in: {known or 'no stage'}.")
    return stage


def label_converter(project: RedBrickProject, *, validate: str) -> Converter:
    """Return the converter that prepares labels for the API.

    :param project: the project, whose taxonomy labels are validated against.
    :param validate: ``strict``, ``warn`` or ``off``.
    """
    label_check = None if validate == "off" else LabelCheck(project, strict=validate == "strict")
    return Converter(project.client, open_file, label_check)
