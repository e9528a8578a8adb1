"""Stages of a project and the routes between them.

All functions are pure: no task is changed here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

GROUND_TRUTH = "END"
ARCHIVED = "ARCHIVED"

INPUT = "labelset-input"
LABEL = "manual-labeling"
REVIEW = "expert-review"
FEEDBACK = "feedback"
MODEL = "model"
REMOTE = "remote-labeling"
OUTPUT = "labelset-output"

# Stage types where tasks wait until a person or a program completes them. Tasks pass through all other types.
RESTING = frozenset({LABEL, REVIEW, MODEL, REMOTE})


class RefusalError(Exception):
    """The API refuses a request.

    The message is sent to the client. Nothing was changed.
    """


@dataclass(frozen=True)
class Stage:
    """A stage: its name, its type (`brick`), its routing and its settings."""

    name: str
    brick: str
    routing: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_label(self) -> bool:
        """Whether people label here."""
        return self.brick == LABEL

    @property
    def is_review(self) -> bool:
        """Whether people review labels here."""
        return self.brick == REVIEW

    @property
    def is_remote(self) -> bool:
        """Whether a program labels here, as in the first generation of the API.

        The program reads tasks of the stage. It never holds one.
        """
        return self.brick == REMOTE

    @property
    def can_be_passed(self) -> bool:
        """Whether tasks can pass through without work."""
        if self.brick == OUTPUT:
            return False
        return self.brick not in RESTING or (self.is_review and self.review_share < 1)

    @property
    def review_share(self) -> float:
        """Share of tasks that are reviewed here, from 0 to 1. The default is 1."""
        share = self.config.get("reviewPercent")
        return 1.0 if share is None else float(share)

    @property
    def exits(self) -> tuple[str, ...]:
        """All stages that a task can go to from here."""
        named = [self.routing.get(key) for key in ("passed", "failed", "nextStageName", "feedbackStageName")]
        return tuple(str(name) for name in (*named, *(self.routing.get("stageNames") or ())) if name)

    def leads_to(self, verdict: bool | None = None) -> str | None:
        """Return the stage that a task goes to from here.

        :param verdict: the result of the review; None if there was none.
        """
        if verdict is False and self.routing.get("failed"):
            return str(self.routing["failed"])
        several = self.routing.get("stageNames") or [None]
        for name in (
            self.routing.get("passed"),
            self.routing.get("nextStageName"),
            self.routing.get("feedbackStageName"),
            several[0],
        ):
            if name:
                return str(name)
        return None


@dataclass(frozen=True)
class Flow:
    """The stages of a project, in order.

    `seed` selects the tasks that a sampled review takes.
    """

    stages: tuple[Stage, ...]
    consensus: bool = False
    seed: int = 0

    @cached_property
    def _named(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.stages}

    def find(self, name: str) -> Stage | None:
        """Return the stage with this name, or None."""
        return self._named.get(name)

    def get(self, name: str) -> Stage:
        """Return the stage with this name.

        :raises RefusalError: if it does not exist.
        """
        found = self.find(name)
        if found is None:
            names = ", ".join(repr(each.name) for each in self.stages)
            raise RefusalError(f"there is no stage {name!r}; the project has {names}")
        return found

    def remote(self, name: str) -> Stage:
        """Return the remote-labeling stage with this name.

        :raises RefusalError: if there is none.
        """
        found = self.get(name)
        if not found.is_remote:
            raise RefusalError(f"stage {name!r} is not a {REMOTE} stage but {found.brick}")
        return found

    @property
    def entry(self) -> str:
        """Name of the stage in which tasks are created."""
        return next((stage.name for stage in self.stages if stage.brick == INPUT), "Input")

    @property
    def output(self) -> str:
        """Name of ground truth in listings."""
        return next((stage.name for stage in self.stages if stage.brick == OUTPUT), "Output")

    @property
    def working_stages(self) -> tuple[Stage, ...]:
        """Label and review stages, in order."""
        return tuple(stage for stage in self.stages if stage.is_label or stage.is_review)

    @property
    def start(self) -> str:
        """Stage to which a reopened task returns.

        It is the first label stage, or else the first review or remote-labeling stage.
        """
        for kind in (LABEL, REVIEW, REMOTE):
            for stage in self.stages:
                if stage.brick == kind:
                    return stage.name
        raise RefusalError("the project has no stage a task could be sent back to")

    def check(self) -> None:
        """Check that each task reaches a stage where it can rest.

        :raises RefusalError: if a route leads to an unknown stage or in a circle without work, or a review share is not
            a number from 0 to 1.
        """
        for stage in self.stages:
            for name in stage.exits:
                if name not in (GROUND_TRUTH, ARCHIVED) and self.find(name) is None:
                    raise RefusalError(f"stage {stage.name!r} leads to {name!r}, which does not exist")
            share = stage.config.get("reviewPercent")
            number = isinstance(share, int | float) and not isinstance(share, bool)
            if share is not None and not (number and 0 <= share <= 1):
                raise RefusalError(f"stage {stage.name!r}: reviewPercent must be a number from 0 to 1")
        for stage in self.stages:
            place: Stage | None = stage
            for _ in self.stages:
                place = self.find(place.leads_to() or GROUND_TRUTH) if place and place.can_be_passed else None
            if place and place.can_be_passed:
                raise RefusalError(f"stage {stage.name!r} leads in a circle without work")

    def begin(self) -> str:
        """Return the stage that follows the input stage."""
        entry = next((stage for stage in self.stages if stage.brick == INPUT), None)
        return (entry.leads_to() if entry else None) or self.start

    def rest(self, name: str | None, task_id: str) -> str:
        """Return the first place from a stage on where a task rests.

        :param name: the stage to start from. None means ground truth.
        :param task_id: the task. A sampled review takes it or not, depending on its id.
        :return: name of a stage, "END" (ground truth) or "ARCHIVED".
        :raises RefusalError: if the route leads to an unknown stage or in a circle.
        """
        for _ in range(2 * len(self.stages) + 2):
            if name is None or name == GROUND_TRUTH:
                return GROUND_TRUTH
            if name == ARCHIVED:
                return ARCHIVED
            stage = self.find(name)
            if stage is None:
                raise RefusalError(f"the workflow leads to a stage {name!r} that does not exist")
            if stage.brick == OUTPUT:
                return GROUND_TRUTH
            if stage.brick in RESTING and not (stage.is_review and self._passes_unseen(stage, task_id)):
                return name
            name = stage.leads_to()
        raise RefusalError("the workflow leads in a circle without work")

    def _passes_unseen(self, stage: Stage, task_id: str) -> bool:
        if stage.review_share >= 1:
            return False
        # A generator per task: the same task is always sampled, or never.
        return random.Random(f"{self.seed}:{stage.name}:{task_id}").random() >= stage.review_share


def stage_from(document: Mapping[str, Any]) -> Stage:
    """Parse a stage in the format of the control route and of the demo project.

    The keys are stageName, brickName, routing and stageConfig.
    """
    name = str(document["stageName"])
    routing, config = document.get("routing") or {}, document.get("stageConfig") or {}
    if not isinstance(routing, Mapping) or not isinstance(config, Mapping):
        raise RefusalError(f"stage {name!r}: routing and stageConfig must be objects")
    return Stage(name=name, brick=str(document["brickName"]), routing=dict(routing), config=dict(config))
