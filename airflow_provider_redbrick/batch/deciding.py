"""Asking the user's callable about one task after another, and acting on its answers before many pile up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.calling import CallableFailedError
from airflow_provider_redbrick.batch.labelling import put_all
from airflow_provider_redbrick.batch.outcome import Outcome, failed
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickInputError

if TYPE_CHECKING:
    from airflow_provider_redbrick.batch.change import Change
    from airflow_provider_redbrick.batch.converting import Labels
    from airflow_provider_redbrick.batch.stage_work import StageWork

# Seconds of a callable's work that a crash may cost: older answers are acted on before the next task is asked about.
HELD_BACK = 5.0


@dataclass(frozen=True)
class Labelled:
    """A callable gave labels, and took so many milliseconds."""

    labels: Labels
    elapsed_ms: int


Decide = Callable[[Task], "Change | Outcome | Labelled"]


def decide_in_batches(
    work: StageWork, tasks: Sequence[Task], decide: Decide, *, finished: bool, what: str
) -> Iterator[Sequence[Change | Outcome]]:
    """Yield what is to happen to the tasks, in batches: labels of many tasks are converted in one request.

    What ``decide`` raises for one task is that task's failure and nobody else's.

    :param finished: whether labels are submitted, or saved as drafts.
    :param what: what the labels are, for messages.
    """
    steps: list[Change | Outcome] = []
    labelled: list[tuple[Task, Labels, int]] = []
    since = time.monotonic()
    for task in tasks:
        try:
            step = decide(task)
        except (CallableFailedError, RedBrickInputError, RedBrickAPIError) as error:
            step = failed(task.task_id, error, name=task.name)
        if isinstance(step, Labelled):
            labelled.append((task, step.labels, step.elapsed_ms))
        else:
            steps.append(step)
        if time.monotonic() - since >= HELD_BACK:
            yield [*steps, *put_all(work, labelled, finished=finished, what=what)]
            steps, labelled, since = [], [], time.monotonic()
    yield [*steps, *put_all(work, labelled, finished=finished, what=what)]
