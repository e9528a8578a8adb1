"""Mutations applied once each, although the API has no idempotency key."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from threading import Event
from typing import TYPE_CHECKING

from airflow_provider_redbrick.api import stopping
from airflow_provider_redbrick.api.chunks import in_chunks
from airflow_provider_redbrick.batch.change import each_alone, tried
from airflow_provider_redbrick.batch.outcome import Outcome, Status
from airflow_provider_redbrick.batch.parallel import cut_short
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.change import Mutation

ATTEMPTS = 3
# Seconds before each look at a task whose answer was lost: the server may still be busy with the request.
SETTLE = (0.0, 0.5, 1.5)


def apply_all(project: RedBrickProject, mutations: Sequence[Mutation], *, stop: Event | None = None) -> list[Outcome]:
    """Apply mutations of different tasks, several at a time; outcomes come in the order of the mutations.

    :param stop: when it is set, nothing more is sent.
    :raises RedBrickStoppedError: when it was set before all was sent.
    """
    bundles = list(_bundles(mutations, project.client.bundle.size))
    stop = stop or Event()

    def apply(bundle: Sequence[Mutation]) -> list[Outcome]:
        with stopping.until(stop):
            stopping.check()
            return apply_together(project, bundle)

    if min(project.client.max_concurrency, len(bundles)) <= 1:
        return [outcome for bundle in bundles for outcome in apply(bundle)]
    futures = [project.client.threads.submit(apply, bundle) for bundle in bundles]
    try:
        return [outcome for future in futures for outcome in future.result()]
    except BaseException:
        stop.set()
        cut_short(futures)
        raise


def apply_together(
    project: RedBrickProject, mutations: Sequence[Mutation], *, sleep: Callable[[float], None] = time.sleep
) -> list[Outcome]:
    """Apply mutations of one kind; settle lost answers by reading, and send again only what was not applied.

    A refusal is final. An answer that was lost (dropped connection, time-out, 5xx, a body that is not the API's) says
    nothing about the mutation, and there is no idempotency key, so what it was to change is asked. What is sent again
    goes alone: when several were refused together, the one that was meant is not known.
    """
    every = [_Doubt(mutation) for mutation in mutations]
    for attempt in range(ATTEMPTS):
        doubts = [doubt for doubt in every if doubt.outcome is None]
        if not doubts:
            break
        sent = [doubt.mutation for doubt in doubts]
        answers = each_alone(project, sent) if attempt else type(sent[0]).attempt_all(project, sent)
        for doubt, answer in zip(doubts, answers, strict=True):
            doubt.answered(answer)
        _settle(project, [doubt for doubt in doubts if doubt.outcome is None], sleep)
    return [doubt.outcome or doubt.given_up() for doubt in every]


@dataclass
class _Doubt:
    """A mutation until its outcome is known."""

    mutation: Mutation
    outcome: Outcome | None = None
    errors: list[RedBrickAPIError] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether the last error says that sending it again does not help."""
        return isinstance(self.errors[-1], RedBrickRefusedError) or not self.errors[-1].maybe_applied

    def answered(self, answer: Outcome | RedBrickAPIError) -> None:
        """Take the answer to an attempt."""
        if isinstance(answer, Outcome):
            self.outcome = answer
            return
        self.errors.append(answer)
        if not answer.maybe_applied:
            self.outcome = self.mutation.failure(answer)

    def looked(self, seen: Outcome | RedBrickAPIError | None) -> None:
        """Take what was seen after an attempt."""
        if isinstance(seen, RedBrickAPIError):
            undecided = self.mutation.failure(
                f"{self.errors[-1]} Whether it was applied is not known: the task could not be read afterwards "
                f"({seen}). The next try reads it first."
            )
            self.outcome = replace(undecided, status=Status.UNKNOWN)
        else:
            self.outcome = seen

    def given_up(self) -> Outcome:
        """Return the outcome after the last attempt."""
        reason = f"{self.errors[-1]} {self.mutation.unapplied}; given up after {ATTEMPTS} attempts."
        return self.mutation.failure(reason)


def _settle(project: RedBrickProject, doubts: Sequence[_Doubt], sleep: Callable[[float], None]) -> None:
    """Look until all doubts have an outcome, or long enough to say that they were not applied."""
    for number, pause in enumerate(SETTLE):
        # One look is enough after a refusal: nothing is under way any more.
        looking = [doubt for doubt in doubts if doubt.outcome is None and not (doubt.is_final and number)]
        if not looking:
            break
        sleep(pause)
        asked = [(doubt.mutation, doubt.errors) for doubt in looking]
        seen = tried(partial(type(asked[0][0]).look_all, project, asked))
        for i, doubt in enumerate(looking):
            doubt.looked(seen if isinstance(seen, RedBrickAPIError) else seen[i])
    for doubt in doubts:
        if doubt.outcome is None and doubt.is_final:
            doubt.outcome = doubt.mutation.failure(doubt.errors[-1])


def _bundles(mutations: Sequence[Mutation], size: int) -> Iterator[list[Mutation]]:
    """Yield what goes together: mutations of one kind, no more than so many, or one that goes alone."""
    for bundled, group in groupby(mutations, key=lambda one: one.bundled):
        yield from in_chunks(group, size if bundled else 1)
