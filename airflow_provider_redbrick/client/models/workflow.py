"""A project's workflow: names, kinds and routing of its stages.

DAG files import this module, so it has no other imports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_redbrick.exceptions import RedBrickInputError, short_repr, to_valid_utf8

_PASSED_THROUGH = frozenset({"labelset-input", "feedback"})


@dataclass(frozen=True)
class Stage:
    """One stage of a project's workflow.

    :param name: its name in the workflow, e.g. ``Label``; the output stage's name is usually ``Output``.
    :param kind: RedBrick's ``brickName``; unknown values are accepted.
    :param next_names: the stages that tasks can go to, according to the routing.
    """

    name: str
    kind: str
    next_names: tuple[str, ...] = ()

    @property
    def is_label(self) -> bool:
        """Whether people label in this stage."""
        return self.kind == "manual-labeling"

    @property
    def is_review(self) -> bool:
        """Whether people review in this stage."""
        return self.kind == "expert-review"

    @property
    def is_remote(self) -> bool:
        """Whether programs label in this stage, with the API's first generation."""
        return self.kind == "remote-labeling"

    @property
    def is_passed_through(self) -> bool:
        """Whether tasks leave this stage at once."""
        return self.kind in _PASSED_THROUGH

    @property
    def is_ground_truth(self) -> bool:
        """Whether this is the last stage."""
        return self.kind == "labelset-output"

    @property
    def public_name(self) -> str:
        """The name that users see."""
        return GROUND_TRUTH if self.is_ground_truth else self.name

    @property
    def counting_name(self) -> str:
        """The name in counts, where ground truth has a different one."""
        return END if self.is_ground_truth else self.name

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Stage:
        """Parse a stage. Unknown kinds and routings are accepted."""
        routing = data.get("routing")
        return cls(
            name=to_valid_utf8(str(data.get("stageName") or "")),
            kind=str(data.get("brickName") or ""),
            next_names=_routes(routing) if isinstance(routing, Mapping) else (),
        )


@dataclass(frozen=True)
class Workflow:
    """A project's stages.

    :param stages: the stages in workflow order.
    """

    stages: tuple[Stage, ...]

    @classmethod
    def from_wire(cls, data: Sequence[Mapping[str, Any]] | None) -> Workflow:
        """Parse a project's stages."""
        return cls(tuple(Stage.from_wire(stage) for stage in data or () if stage))

    def find(self, name: str) -> Stage:
        """Return a stage by name.

        ``Ground Truth``, ``Output`` and ``END`` all mean ground truth.

        :raises RedBrickInputError: if there is none; the message lists the stages.
        """
        if not isinstance(name, str):
            raise RedBrickInputError(f"A stage's name must be text, not {short_repr(name)}.")
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
        """Return whether a task can be in a stage of this name.

        Ground truth and ``ARCHIVED`` always count.
        """
        if not isinstance(name, str) or name == ARCHIVED or means_ground_truth(name):
            return True
        return any(stage.name == name for stage in self.stages)

    def position(self, name: str) -> int:
        """Return a stage's index in the workflow; ground truth is the last.

        :return: -1 for an unknown stage, and for one that returns rejected tasks: it leads backwards, wherever it is
            listed.
        """
        if public_stage_name(name) == GROUND_TRUTH:
            return len(self.stages)
        return next((i for i, stage in enumerate(self.stages) if stage.name == name and stage.kind != "feedback"), -1)


def _routes(routing: Mapping[str, Any]) -> tuple[str, ...]:
    single = [routing.get(key) for key in ("nextStageName", "passed", "failed", "feedbackStageName")]
    return tuple(name for name in [*single, *(routing.get("stageNames") or ())] if isinstance(name, str))


GROUND_TRUTH = "Ground Truth"
ARCHIVED = "ARCHIVED"
END = "END"
"""Ground truth in a task's ``currentStageName`` and in counts."""
_GROUND_TRUTH_NAMES = frozenset({"ground truth", "end", "output"})


def public_stage_name(wire_name: str) -> str:
    """Return the name that users see: ``Ground Truth`` in place of ``END``."""
    return GROUND_TRUTH if wire_name == END else wire_name


def means_ground_truth(name: str) -> bool:
    """Return whether a name given by a user means ground truth."""
    return name.strip().lower() in _GROUND_TRUTH_NAMES


def normalize_stage_name(name: str) -> str:
    """Return ``Ground Truth`` for each of its names, and any other name unchanged."""
    return GROUND_TRUTH if means_ground_truth(name) else name
