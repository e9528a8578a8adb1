"""Apply each mutation exactly once, although the API has no idempotency key.

A mutation is sent, its effect is read if the answer does not settle it, and it is sent again only if the reads show no
effect.

Invariants:

1. An acknowledged mutation is done. It is neither read nor sent again.
2. An error that excludes that the mutation was applied (`maybe_applied` is false) is final, without a read.
3. Any other error leaves the mutation pending. Its task is read up to three times with growing pauses (`SETTLE`), since
   the server may still be processing the request.
4. A refusal that may follow an earlier, applied request is settled by one read: nothing is under way any more.
5. A pending mutation without a visible effect is sent again, up to `ATTEMPTS` times in total, each in a request of its
   own: when a bundle was refused, the answer does not say which mutation was meant.
6. If its task cannot be read, the outcome is `unknown`, and the next attempt of the Airflow task reads it first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from threading import Event
from typing import TYPE_CHECKING

from airflow_provider_redbrick._utils import in_chunks
from airflow_provider_redbrick.client.transport import http
from airflow_provider_redbrick.engine.concurrency import cancel_or_wait
from airflow_provider_redbrick.engine.mutations import attempt_separately, result_or_error
from airflow_provider_redbrick.engine.outcomes import Outcome, Status
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.mutations import Mutation

ATTEMPTS = 3
# Pause in seconds before each read of a task whose answer was lost: the server may still be processing the request.
SETTLE = (0.0, 0.5, 1.5)


def apply_all(project: RedBrickProject, mutations: Sequence[Mutation], *, stop: Event | None = None) -> list[Outcome]:
    """Apply mutations of different tasks concurrently.

    :param project: the project of the tasks.
    :param mutations: at most one per task.
    :param stop: when it is set, nothing more is sent.
    :return: one outcome per mutation, in the same order.
    :raises RedBrickStoppedError: if `stop` was set before everything was sent.
    """
    bundles = list(_bundles(mutations, project.client.bundle.size))
    stop = stop or Event()

    def apply(bundle: Sequence[Mutation]) -> list[Outcome]:
        with http.until(stop):
            http.check()
            return apply_together(project, bundle)

    if min(project.client.max_concurrency, len(bundles)) <= 1:
        return [outcome for bundle in bundles for outcome in apply(bundle)]
    futures = [project.client.threads.submit(apply, bundle) for bundle in bundles]
    try:
        return [outcome for future in futures for outcome in future.result()]
    except BaseException:
        stop.set()
        cancel_or_wait(futures)
        raise


def apply_together(
    project: RedBrickProject, mutations: Sequence[Mutation], *, sleep: Callable[[float], None] = time.sleep
) -> list[Outcome]:
    """Apply mutations of one class: bundled at first, then one by one.

    :param project: the project of the tasks.
    :param mutations: instances of one class, for different tasks.
    :param sleep: waits before reads of tasks; replaced in tests.
    :return: one outcome per mutation, in the same order.
    """
    all_pending = [PendingMutation(mutation) for mutation in mutations]
    for attempt in range(ATTEMPTS):
        unsettled = [pending for pending in all_pending if pending.outcome is None]
        if not unsettled:
            break
        to_send = [pending.mutation for pending in unsettled]
        send = attempt_separately if attempt else type(to_send[0]).attempt_all
        for pending, answer in zip(unsettled, send(project, to_send), strict=True):
            pending.record_answer(answer)
        _settle(project, [pending for pending in unsettled if pending.outcome is None], sleep)
    return [pending.outcome or pending.exhausted() for pending in all_pending]


@dataclass
class PendingMutation:
    """A mutation and what is known of it so far.

    :param mutation: the mutation.
    :param outcome: None until it is known.
    :param errors: the errors of its attempts, oldest first.
    """

    mutation: Mutation
    outcome: Outcome | None = None
    errors: list[RedBrickAPIError] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether sending the mutation again would not help, by its last error."""
        return isinstance(self.errors[-1], RedBrickRefusedError) or not self.errors[-1].maybe_applied

    def record_answer(self, answer: Outcome | RedBrickAPIError) -> None:
        """Record the result of an attempt."""
        if isinstance(answer, Outcome):
            self.outcome = answer
            return
        self.errors.append(answer)
        if not answer.maybe_applied:
            self.outcome = self.mutation.failure(answer)

    def record_read(self, result: Outcome | RedBrickAPIError | None) -> None:
        """Record the result of a read after an attempt; None if it showed no effect."""
        if isinstance(result, RedBrickAPIError):
            undecided = self.mutation.failure(
                f"{self.errors[-1]} Whether it was applied is not known: the task could not be read afterwards "
                f"({result}). The next attempt reads it first."
            )
            self.outcome = replace(undecided, status=Status.UNKNOWN)
        else:
            self.outcome = result

    def exhausted(self) -> Outcome:
        """Return the outcome after the last attempt without a visible effect."""
        reason = f"{self.errors[-1]} {self.mutation.not_applied_message}. Gave up after {ATTEMPTS} attempts."
        return self.mutation.failure(reason)


def _settle(project: RedBrickProject, unsettled: Sequence[PendingMutation], sleep: Callable[[float], None]) -> None:
    """Read tasks until every mutation is settled, or `SETTLE` is exhausted."""
    for number, pause_s in enumerate(SETTLE):
        # One read is enough after a refusal: no request is under way any more.
        to_read = [pending for pending in unsettled if pending.outcome is None and not (pending.is_final and number)]
        if not to_read:
            break
        sleep(pause_s)
        mutations = [(pending.mutation, pending.errors) for pending in to_read]
        results = result_or_error(partial(type(mutations[0][0]).verify_all, project, mutations))
        for i, pending in enumerate(to_read):
            pending.record_read(results if isinstance(results, RedBrickAPIError) else results[i])
    for pending in unsettled:
        if pending.outcome is None and pending.is_final:
            pending.outcome = pending.mutation.failure(pending.errors[-1])


def _bundles(mutations: Sequence[Mutation], size: int) -> Iterator[list[Mutation]]:
    """Yield the mutations of each request: up to `size` of one class, or a single one."""
    for bundled, group in groupby(mutations, key=lambda mutation: mutation.bundled):
        yield from in_chunks(group, size if bundled else 1)
