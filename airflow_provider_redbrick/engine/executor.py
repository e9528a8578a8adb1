"""Apply each mutation exactly once, although the API has no idempotency key.

A mutation whose answer was lost (dropped connection, timeout, 5xx, a body that is not the API's) may have been applied,
or may be applied later. Its effect is read, and it is sent again only if the reads show none.

1. An acknowledged mutation is done. It is neither read nor sent again.
2. An error that excludes that the mutation was applied (`maybe_applied` is false) is final, without a read.
3. Any other error leaves the mutation pending. Its task is read up to three times with growing pauses, since the server
   may still be processing the request.
4. A refusal is settled by one read, unless an earlier request of the mutation is still pending.
5. A pending mutation without a visible effect is sent again, up to `ATTEMPTS` times in total, each in a request of its
   own: when a bundle was refused, the answer does not say which mutation was meant. The server refuses a second submit,
   review, reopening or creation, and the same labels put twice are the same.
6. A mutation that is still pending then, or whose task cannot be read, is postponed in the ledger. Its outcome is
   decided by a read that is sent `settle_s` seconds after its last request. If that read fails, the outcome is
   `unknown`, and the next attempt of the Airflow task reads the task first.
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
from airflow_provider_redbrick.engine.ledger import Evidence, Verdict, Write
from airflow_provider_redbrick.engine.mutations import attempt_separately, result_or_error
from airflow_provider_redbrick.engine.outcomes import Outcome, Status
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_redbrick.client.operations.project import RedBrickProject
    from airflow_provider_redbrick.engine.ledger import Ledger
    from airflow_provider_redbrick.engine.mutations import Mutation

ATTEMPTS = 3
# Tasks whose postponed mutations are read together.
_TASKS_PER_READ = 50


def apply_all(
    project: RedBrickProject, mutations: Sequence[Mutation], *, ledger: Ledger, stop: Event | None = None
) -> list[Outcome]:
    """Apply mutations of different tasks concurrently.

    :param project: the project of the tasks.
    :param mutations: at most one per task.
    :param ledger: the ledger of the run.
    :param stop: when it is set, nothing more is sent.
    :return: one outcome per mutation, in the same order. It is provisional for tasks that are open in the ledger.
    :raises RedBrickStoppedError: if `stop` was set before everything was sent.
    """
    bundles = list(_bundles(mutations, project.client.bundle.size))
    stop = stop or Event()

    def apply(bundle: Sequence[Mutation]) -> list[Outcome]:
        with http.until(stop):
            http.check()
            return apply_together(project, bundle, ledger=ledger)

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
    project: RedBrickProject,
    mutations: Sequence[Mutation],
    *,
    ledger: Ledger,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome]:
    """Apply mutations of one class: bundled at first, then one by one.

    :param project: the project of the tasks.
    :param mutations: instances of one class, for different tasks.
    :param ledger: the ledger of the run. A mutation whose result is not known yet is postponed there.
    :param sleep: waits before reads of tasks; replaced in tests.
    :return: one outcome per mutation, in the same order; a provisional one for a postponed mutation.
    """
    all_pending = [PendingMutation(mutation, Write(ledger.settle_s)) for mutation in mutations]
    for attempt in range(ATTEMPTS):
        # A mutation whose task cannot be read is not sent again.
        unsettled = [pending for pending in all_pending if pending.outcome is None and not pending.is_unreadable]
        if not unsettled:
            break
        to_send = [pending.mutation for pending in unsettled]
        send = attempt_separately if attempt else type(to_send[0]).attempt_all
        sent_at = ledger.now()
        for pending, answer in zip(unsettled, send(project, to_send), strict=True):
            pending.record_answer(answer, sent_at)
        _settle(project, [pending for pending in unsettled if pending.outcome is None], ledger, sleep)
    return [_conclude(pending, ledger) for pending in all_pending]


def _conclude(pending: PendingMutation, ledger: Ledger) -> Outcome:
    """Return the outcome of a mutation after its last attempt, and record what may still happen."""
    if pending.outcome is None:
        ledger.postpone(pending.mutation.key, pending, pending.mutation.before)
        return pending.unknown("Its result is not known yet")
    if pending.outcome.status is Status.DONE:
        pending.mutation.record_success(ledger, pending.outcome)
        if pending.write.pending_since and pending.mutation.before is not None:
            ledger.expect_late_change(pending.mutation.key, pending.mutation.before)
    elif pending.was_refused:
        ledger.doubt_holder(pending.mutation.key)
    return pending.outcome


def settle_postponed(
    project: RedBrickProject, postponed: Iterable[PendingMutation], ledger: Ledger
) -> dict[str, Outcome]:
    """Read the tasks of postponed mutations once more, when a read is conclusive.

    :param project: the project of the tasks.
    :param postponed: the mutations, of any class.
    :param ledger: the ledger of the run.
    :return: one outcome per mutation, by its key.
    """
    by_class: dict[type[Mutation], list[PendingMutation]] = {}
    for pending in postponed:
        by_class.setdefault(type(pending.mutation), []).append(pending)
    outcomes: dict[str, Outcome] = {}
    for mutation_class, group in by_class.items():
        for chunk in in_chunks(group, _TASKS_PER_READ):
            _read_effects(project, mutation_class, chunk, ledger)
            for pending in chunk:
                outcomes[pending.mutation.key] = pending.outcome or pending.exhausted()
                if pending.outcome is not None and pending.outcome.status is Status.DONE:
                    pending.mutation.record_success(ledger, pending.outcome)
    return outcomes


@dataclass
class PendingMutation:
    """A mutation and what is known of it so far.

    :param mutation: the mutation.
    :param write: its requests, and what is known about them.
    :param outcome: None until it is known.
    :param errors: the errors of its attempts, oldest first.
    :param is_unreadable: whether the last read of its task failed.
    """

    mutation: Mutation
    write: Write
    outcome: Outcome | None = None
    errors: list[RedBrickAPIError] = field(default_factory=list)
    is_unreadable: bool = False

    @property
    def conclusive_at(self) -> float:
        """The time from which a read is conclusive."""
        return self.write.conclusive_at

    @property
    def needs_read(self) -> bool:
        """Whether a read may settle the mutation now."""
        return self.outcome is None and not self.is_unreadable

    @property
    def was_refused(self) -> bool:
        """Whether the last request was refused, which the task as it was read does not explain."""
        return (
            self.outcome is not None
            and self.outcome.status is Status.FAILED
            and bool(self.errors)
            and isinstance(self.errors[-1], RedBrickRefusedError)
        )

    @property
    def is_final(self) -> bool:
        """Whether sending the mutation again would not help, by its last error."""
        return isinstance(self.errors[-1], RedBrickRefusedError) or not self.errors[-1].maybe_applied

    def record_answer(self, answer: Outcome | RedBrickAPIError, sent_at: float) -> None:
        """Record the result of an attempt.

        :param answer: the outcome, or the error of the attempt.
        :param sent_at: when the request was sent.
        """
        if isinstance(answer, Outcome):
            self.outcome = answer
            self.write.acknowledge(sent_at)
            return
        self.errors.append(answer)
        if not isinstance(answer, RedBrickRefusedError) and answer.maybe_applied:
            self.write.lose(sent_at)
        elif not answer.maybe_applied and not self.write.pending_since:
            self.outcome = self.mutation.failure(answer)

    def record_read(self, result: Outcome | RedBrickAPIError | None, read_at: float) -> None:
        """Record the result of a read after an attempt.

        :param result: the outcome that the read proves, None if it shows no effect, or the error of the read.
        :param read_at: when the read was sent.
        """
        self.is_unreadable = isinstance(result, RedBrickAPIError)
        if isinstance(result, RedBrickAPIError):
            if read_at >= self.conclusive_at:
                self.outcome = self.unknown(
                    f"Whether it was applied is not known: the task could not be read afterwards ({result})"
                )
        elif result is not None:
            if result.status is Status.DONE:
                self.write.judge(Evidence.EFFECT, read_at)
            self.outcome = result
        elif self.write.judge(Evidence.BEFORE, read_at) is Verdict.NOT_APPLIED and self.is_final:
            self.outcome = self.mutation.failure(self.errors[-1])

    def unknown(self, reason: str) -> Outcome:
        """Return an outcome for a mutation whose result could not be found out.

        :param reason: why, without a final period.
        """
        text = f"{self.errors[-1]} {reason}. The next attempt reads it first."
        return replace(self.mutation.failure(text), status=Status.UNKNOWN)

    def exhausted(self) -> Outcome:
        """Return the outcome after the last attempt without a visible effect."""
        if self.is_final:
            return self.mutation.failure(self.errors[-1])
        reason = f"{self.errors[-1]} {self.mutation.not_applied_message}. Gave up after {len(self.errors)} attempts."
        return self.mutation.failure(reason)


def _settle(
    project: RedBrickProject, unsettled: Sequence[PendingMutation], ledger: Ledger, sleep: Callable[[float], None]
) -> None:
    """Read tasks until every mutation is settled, or the pauses of the ledger are exhausted."""
    for number, pause_s in enumerate(ledger.pauses):
        # One read is enough after a refusal: its own request is not under way any more.
        to_read = [pending for pending in unsettled if pending.needs_read and not (pending.is_final and number)]
        if not to_read:
            break
        sleep(pause_s)
        _read_effects(project, type(to_read[0].mutation), to_read, ledger)


def _read_effects(
    project: RedBrickProject, mutation_class: type[Mutation], pending: Sequence[PendingMutation], ledger: Ledger
) -> None:
    """Read the tasks of mutations of one class, and record what the reads prove."""
    read_at = ledger.now()
    mutations = [(one.mutation, one.errors) for one in pending]
    results = result_or_error(partial(mutation_class.verify_all, project, mutations))
    for i, one in enumerate(pending):
        one.record_read(results if isinstance(results, RedBrickAPIError) else results[i], read_at)


def _bundles(mutations: Sequence[Mutation], size: int) -> Iterator[list[Mutation]]:
    """Yield the mutations of each request: up to `size` of one class, or a single one."""
    for bundled, group in groupby(mutations, key=lambda mutation: mutation.bundled):
        yield from in_chunks(group, size if bundled else 1)
