"""Ask a callable about tasks, and apply its answers in batches.

A callable such as a model may take minutes per task, while converting labels and sending
changes is cheaper for many tasks at once. Answers are therefore collected for at most ``MAX_BUFFER_S`` seconds, then
converted in one request and applied before the next task is asked about. Invariants:

1. A crash loses at most the answers of the last ``MAX_BUFFER_S`` seconds plus one call.
2. At most ``MOST_MASKS`` masks are held at a time (plus those of one answer), because each may be an open file.
3. An error that the callable raises for one task fails this task only.
4. The user's labels are copied before any other code of the user runs, so that later changes to them have no effect.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_redbrick.annotations.conversion import Converted, Labels
from airflow_provider_redbrick.annotations.snapshot import open_mask
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.engine.concurrency import CallableFailedError, MainThreadExecutor
from airflow_provider_redbrick.engine.executor import apply_all
from airflow_provider_redbrick.engine.mutations import Change
from airflow_provider_redbrick.engine.outcomes import (
    Outcome,
    failed,
)
from airflow_provider_redbrick.exceptions import (
    NoSuchFileError,
    RedBrickAPIError,
    RedBrickInputError,
)

if TYPE_CHECKING:
    from threading import Event

    from airflow_provider_redbrick.annotations.conversion import Converter
    from airflow_provider_redbrick.annotations.masks import OpenFile
    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.ledger import Ledger

log = logging.getLogger(__name__)


# Longest time in seconds that answers are buffered before they are applied: a crash loses this much work.
MAX_BUFFER_S = 5.0
# Number of masks at which buffered answers are applied: each may be an open file.
MOST_MASKS = 64

Step = Change | Outcome
Put = Callable[[Task, Converted, int], Step]
"""Returns the change that puts labels on a task; the last argument is the labeling time in milliseconds."""


@dataclass(frozen=True)
class LabeledAnswer:
    """Labels that a callable returned, and the time it took in milliseconds."""

    labels: Labels
    elapsed_ms: int


Decide = Callable[[Task], Step | LabeledAnswer]


@dataclass(frozen=True)
class Decisions:
    """Convert a callable's answers to changes.

    :param decide: returns the change, outcome or labels of one task. An error that it raises fails this task only.
        Labels that it returns must be a copy.
    :param converter: converts labels to the form that is sent.
    :param put: returns the change that puts converted labels on a task.
    :param what: what the labels are, for messages, such as "The prediction".
    :param executor: runs ``decide`` if it calls the user's code; by default it runs in the current thread.
    """

    decide: Decide
    converter: Converter
    put: Put
    what: str
    executor: MainThreadExecutor | None = None

    def on(self, tasks: Sequence[Task]) -> Iterator[Sequence[Step]]:
        """Yield batches of changes and outcomes; each batch is converted in one request."""
        waiting = deque(tasks)
        while waiting:
            answers = self.executor.run(partial(self._answers, waiting)) if self.executor else self._answers(waiting)
            steps = [step for _, step in answers if not isinstance(step, LabeledAnswer)]
            yield [*steps, *self._put_all([(task, step) for task, step in answers if isinstance(step, LabeledAnswer)])]

    def _answers(self, waiting: deque[Task]) -> list[tuple[Task, Step | LabeledAnswer]]:
        """Decide on one task after another until a limit is reached or no task is left."""
        answers: list[tuple[Task, Step | LabeledAnswer]] = []
        started, masks = time.monotonic(), 0
        while waiting and (not answers or (time.monotonic() - started < MAX_BUFFER_S and masks < MOST_MASKS)):
            task = waiting.popleft()
            try:
                step = self.decide(task)
                masks += len(step.labels.copies or ()) if isinstance(step, LabeledAnswer) else 0
                answers.append((task, step))
            except (CallableFailedError, RedBrickInputError, RedBrickAPIError) as error:
                answers.append((task, failed(task.task_id, error, name=task.name)))
        return answers

    def _put_all(self, labeled: Sequence[tuple[Task, LabeledAnswer]]) -> Iterator[Step]:
        converted = self.converter.convert(answer.labels for _, answer in labeled)
        for task, answer in labeled:
            result = converted[task.task_id]
            if isinstance(result, str):
                yield failed(task.task_id, f"{self.what} {result.rstrip('.')}. Nothing was sent.", name=task.name)
            else:
                yield self.put(task, result, answer.elapsed_ms)


def copy_labels(labels: Labels, open_file: OpenFile, *, what: str, source: str) -> Labels:
    """Return a copy of labels that later actions of the callable cannot change.

    :param labels: the labels that the callable returned.
    :param open_file: opens the mask files that the labels name.
    :param what: what the labels are, for messages, such as "The prediction".
    :param source: the kind of callable, for messages, such as "labeler".
    :raises RedBrickInputError: if they cannot be copied.
    """

    def open_now(path: str) -> BinaryIO:
        try:
            file = open_mask(path, open_file)
        except NoSuchFileError:
            file = None
        if file is None:
            raise RedBrickInputError(
                f"there is no such file. If the {source} deletes its files when it returns, as `with "
                f"TemporaryDirectory()` does, yield the labels inside the `with` block instead. Or return the mask "
                f"itself, as the bytes of a NIfTI file, a file object or a nibabel image"
            )
        return file

    try:
        return labels.copied(open_now)
    except RedBrickInputError as error:
        raise RedBrickInputError(f"{what} cannot be sent: {str(error).rstrip('.')}. Nothing was sent.") from None


def act(
    project: RedBrickProject, batches: Iterable[Sequence[Step]], *, ledger: Ledger, stop: Event | None = None
) -> Iterator[Outcome]:
    """Apply batches of changes as they come; yield the outcome of every task.

    :param project: the project to send changes to.
    :param batches: changes and outcomes; outcomes are passed on.
    :param ledger: the ledger of the run.
    :param stop: once set, nothing more is sent.
    """
    for steps in batches:
        yield from (step for step in steps if isinstance(step, Outcome))
        yield from apply_all(project, [step for step in steps if isinstance(step, Change)], ledger=ledger, stop=stop)
