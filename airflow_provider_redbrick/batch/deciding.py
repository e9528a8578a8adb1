"""Asking the user's callable about one task after another, and acting on its answers before many pile up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_redbrick.api.models import Task
from airflow_provider_redbrick.batch.applying import apply_all
from airflow_provider_redbrick.batch.calling import CallableFailedError
from airflow_provider_redbrick.batch.change import Change
from airflow_provider_redbrick.batch.converting import Converted, Labels
from airflow_provider_redbrick.batch.outcome import Outcome, failed
from airflow_provider_redbrick.batch.snapshot import open_mask
from airflow_provider_redbrick.exceptions import NoSuchFileError, RedBrickAPIError, RedBrickInputError

if TYPE_CHECKING:
    from threading import Event

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.converting import Converter
    from airflow_provider_redbrick.batch.masks import OpenFile
    from airflow_provider_redbrick.batch.parallel import Desk

# Seconds of a callable's work that a crash may cost: older answers are acted on before the next task is asked about.
HELD_BACK = 5.0
# Masks of answers that are held at a time: each may be an open file.
MOST_MASKS = 64

Step = Change | Outcome
Put = Callable[[Task, Converted, int], Step]
"""Makes the change that puts labels on a task; the number is the milliseconds that it took to make them."""


@dataclass(frozen=True)
class Labelled:
    """A callable gave labels, and took so many milliseconds."""

    labels: Labels
    elapsed_ms: int


Decide = Callable[[Task], Step | Labelled]


@dataclass(frozen=True)
class Decisions:
    """How a callable's answers become changes.

    What ``decide`` raises for one task is that task's failure and nobody else's.

    :param put: what is done with labels it gives.
    :param what: what those labels are, for messages.
    :param desk: where ``decide`` is called when it runs the user's code; here by default. What it returns is a copy.
    """

    decide: Decide
    converter: Converter
    put: Put
    what: str
    desk: Desk | None = None

    def on(self, tasks: Sequence[Task]) -> Iterator[Sequence[Step]]:
        """Yield what is to happen to the tasks, in batches: labels of many tasks are converted in one request."""
        waiting = deque(tasks)
        while waiting:
            answers = self.desk.ask(partial(self._answers, waiting)) if self.desk else self._answers(waiting)
            steps = [step for _, step in answers if not isinstance(step, Labelled)]
            yield [*steps, *self._put_all([(task, step) for task, step in answers if isinstance(step, Labelled)])]

    def _answers(self, waiting: deque[Task]) -> list[tuple[Task, Step | Labelled]]:
        """Ask about one task after another, until none is left or it is time to act."""
        answers: list[tuple[Task, Step | Labelled]] = []
        since, masks = time.monotonic(), 0
        while waiting and (not answers or (time.monotonic() - since < HELD_BACK and masks < MOST_MASKS)):
            task = waiting.popleft()
            try:
                step = self.decide(task)
                masks += len(step.labels.copies or ()) if isinstance(step, Labelled) else 0
                answers.append((task, step))
            except (CallableFailedError, RedBrickInputError, RedBrickAPIError) as error:
                answers.append((task, failed(task.task_id, error, name=task.name)))
        return answers

    def _put_all(self, labelled: Sequence[tuple[Task, Labelled]]) -> Iterator[Step]:
        converted = self.converter.convert(given.labels for _, given in labelled)
        for task, given in labelled:
            ready = converted[task.task_id]
            if isinstance(ready, str):
                yield failed(task.task_id, f"{self.what} {ready.rstrip('.')}. Nothing was sent.", name=task.name)
            else:
                yield self.put(task, ready, given.elapsed_ms)


def own_copy(labels: Labels, open_file: OpenFile, *, what: str, giver: str) -> Labels:
    """Return a copy of labels that a callable gave, which nothing it does afterwards can change.

    :param what: what the labels are, for messages.
    :param giver: the callable.
    :raises RedBrickInputError: if they cannot be copied.
    """

    def open_now(path: str) -> BinaryIO:
        try:
            file = open_mask(path, open_file)
        except NoSuchFileError:
            file = None
        if file is None:
            raise RedBrickInputError(
                f"there is no such file. If the {giver} deletes its files when it returns, as `with "
                f"TemporaryDirectory()` does, let it yield the labels inside of the `with` block instead, or give the "
                f"mask itself: the bytes of a NIfTI file, a file object or a nibabel image"
            )
        return file

    try:
        return labels.copied(open_now)
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{what} cannot be sent: {str(error).rstrip('.')}. Nothing was sent.") from None


def act(project: RedBrickProject, batches: Iterable[Sequence[Step]], *, stop: Event | None = None) -> Iterator[Outcome]:
    """Apply the changes of each batch as it comes, and yield the outcome of every task.

    :param stop: when it is set, nothing more is sent.
    """
    for steps in batches:
        yield from (step for step in steps if isinstance(step, Outcome))
        yield from apply_all(project, [step for step in steps if isinstance(step, Change)], stop=stop)
