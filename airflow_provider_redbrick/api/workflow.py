"""A project's stages: what they are called, what they do, where they lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_redbrick.api.stage_names import ARCHIVED, END, GROUND_TRUTH, means_ground_truth, public_stage_name
from airflow_provider_redbrick.exceptions import RedBrickInputError, storable, told

_PASSED_THROUGH = frozenset({"labelset-input", "feedback"})


@dataclass(frozen=True)
class Stage:
    """One stage of a project's workflow.

    :param name: its name in the workflow, e.g. ``Label``; the output stage's is normally ``Output``.
    :param kind: RedBrick's ``brickName``; anything is accepted.
    :param next_names: where tasks go from here, as far as the routing says.
    """

    name: str
    kind: str
    next_names: tuple[str, ...] = ()

    @property
    def is_label(self) -> bool:
        """Whether people label here."""
        return self.kind == "manual-labeling"

    @property
    def is_review(self) -> bool:
        """Whether people review here."""
        return self.kind == "expert-review"

    @property
    def is_remote(self) -> bool:
        """Whether programs label here, by root fields of the API's first generation."""
        return self.kind == "remote-labeling"

    @property
    def is_passed_through(self) -> bool:
        """Whether tasks stay here for no longer than it takes to leave."""
        return self.kind in _PASSED_THROUGH

    @property
    def is_ground_truth(self) -> bool:
        """Whether tasks end here."""
        return self.kind == "labelset-output"

    @property
    def public_name(self) -> str:
        """The name users see."""
        return GROUND_TRUTH if self.is_ground_truth else self.name

    @property
    def counting_name(self) -> str:
        """The name counts want: ground truth has another one there."""
        return END if self.is_ground_truth else self.name

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Stage:
        """Read a stage of any name, brick and routing."""
        routing = data.get("routing")
        return cls(
            name=storable(str(data.get("stageName") or "")),
            kind=str(data.get("brickName") or ""),
            next_names=_routes(routing) if isinstance(routing, Mapping) else (),
        )


@dataclass(frozen=True)
class Workflow:
    """A project's stages in workflow order."""

    stages: tuple[Stage, ...]

    @classmethod
    def from_wire(cls, data: Sequence[Mapping[str, Any]] | None) -> Workflow:
        """Read a project's stages."""
        return cls(tuple(Stage.from_wire(stage) for stage in data or () if stage))

    def find(self, name: str) -> Stage:
        """Return the stage of this name; ``Ground Truth``, ``Output`` and ``END`` all mean ground truth.

        :raises RedBrickInputError: when there is none, naming those there are.
        """
        if not isinstance(name, str):
            raise RedBrickInputError(f"A stage has a name, and {told(name)} is none.")
        for stage in self.stages:
            if stage.name == name:
                return stage
        if means_ground_truth(name):
            for stage in self.stages:
                if stage.is_ground_truth:
                    return stage
            return Stage(name="Output", kind="labelset-output")
        known = ", ".join(stage.public_name for stage in self.stages) or "none"
        raise RedBrickInputError(f"The project has no stage {name!r}; its stages are: {known}.")

    def has(self, name: str) -> bool:
        """Return whether there is a stage of this name, or a task can be in what it means: finished or archived."""
        if not isinstance(name, str) or name == ARCHIVED or means_ground_truth(name):
            return True
        return any(stage.name == name for stage in self.stages)

    def position(self, name: str) -> int:
        """Return how far along the workflow a stage is; ground truth is the furthest.

        -1 for an unknown stage, and for one that sends rejected tasks back: wherever it is listed, it leads backwards.
        """
        if public_stage_name(name) == GROUND_TRUTH:
            return len(self.stages)
        return next((i for i, stage in enumerate(self.stages) if stage.name == name and stage.kind != "feedback"), -1)


def _routes(routing: Mapping[str, Any]) -> tuple[str, ...]:
    single = [routing.get(key) for key in ("nextStageName", "passed", "failed", "feedbackStageName")]
    return tuple(name for name in [*single, *(routing.get("stageNames") or ())] if isinstance(name, str))
