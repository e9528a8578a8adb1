"""What is measured: the same work, done by an operator and by the public SDK."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Work:
    """A work.

    :param words: what it is, for people.
    :param tasks: the tasks it is done on, as the sandbox makes them.
    :param for_sdk: what is different about the SDK's: what it has no call for is done before.
    :param mutation: what must have been applied once to every task by then.
    :param growth: whether it is also measured with very many tasks.
    """

    name: str
    words: str
    tasks: Mapping[str, Any] = field(default_factory=dict)
    for_sdk: Mapping[str, Any] = field(default_factory=dict)
    mutation: str | None = None
    growth: bool = False


_CLAIMED = {"assignee": "API key"}

WORKS = (
    Work("put_labels", "put labels", {"stage": "Label"}, _CLAIMED, mutation="putManualLabelingTaskAndLabels"),
    Work("review", "accept in review", {"stage": "Review_1"}, _CLAIMED, mutation="putExpertReviewTask"),
    Work("reopen", "reopen ground truth", {"ground_truth": True}, mutation="moveTaskToStart"),
    Work("assign", "assign to 5 people", {"stage": "Label"}, mutation="assignTasksMultipleUsers", growth=True),
    Work("list", "list a queue", {"stage": "Label"}, growth=True),
    Work("export", "export ground truth", {"ground_truth": True}),
)

NOTES = (
    "Both begin with nothing open: reading the project is part of the work. Libraries are imported before.",
    "The SDK has no call that claims tasks: those it labels and reviews were claimed before the clock started.",
    "The operators claim theirs themselves.",
    "The SDK assigns as its documentation shows: one call a task, in a loop.",
    "The SDK lists and exports with its default page.",
    "MB is what a process needed beyond what it had with everything imported.",
)
