"""Resolve the assignees of new tasks in each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.project import forget
from airflow_provider_redbrick.batch.people import check_people
from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    from airflow_provider_redbrick.api.models import Member
    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.api.workflow import Stage

PreAssign = Mapping[str, "str | Sequence[str]"]
"""By stage, one email or several."""


@dataclass(frozen=True)
class Assignees:
    """Validate assignees; the project's members are read on first use.

    :param project: the project.
    """

    project: RedBrickProject
    _missing: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def check(self, wanted: PreAssign | None) -> PreAssign | None:
        """Return the assignees with each email as the project spells it.

        :raises RedBrickInputError: for a stage without assignees, or a member who may not work in it.
        """
        if not wanted:
            return None
        return {stage: self._spelled(self._stage(stage), emails) for stage, emails in wanted.items()}

    def _spelled(self, stage: Stage, emails: str | Sequence[str]) -> str | list[str]:
        given = [emails] if isinstance(emails, str) else emails
        try:
            people = list(check_people(self._members, stage, given))
        except RedBrickInputError as error:
            raise RedBrickInputError(f"preAssign, {stage.name}: {error}") from None
        return people[0] if isinstance(emails, str) else people

    def _stage(self, name: str) -> Stage:
        stages = self._stages()
        if name not in stages and name not in self._missing:
            # It may have been added since the project was read, and people with it.
            self._missing.add(name)
            forget(self.project)
            vars(self).pop("_members", None)
            stages = self._stages()
        if name not in stages:
            raise RedBrickInputError(
                f"preAssign: {name!r} is no label or review stage of the project; those are: {', '.join(stages)}."
            )
        return stages[name]

    def _stages(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.project.info.workflow.stages if stage.is_label or stage.is_review}

    @cached_property
    def _members(self) -> list[Member]:
        return self.project.members()
