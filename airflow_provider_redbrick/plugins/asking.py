"""Answers that are kept for seconds, and asked for by one at a time."""

from __future__ import annotations

import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.forks import abandon, renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class BusyError(Exception):
    """All places are taken by questions that were not answered yet."""


class Asking:
    """Asks in threads of its own, which leaves those of the server to others; safe to use from any thread.

    Whoever asks what is being asked already waits for the same answer. What came out, be it an error, is the answer
    for some seconds.

    :param keep: for how many seconds.
    :param places: how many answers are kept, and questions open, at most.
    """

    def __init__(self, *, keep: float, places: int, threads: int) -> None:
        self._keep = keep
        self._places = places
        self._threads = threads
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._asked: OrderedDict[Hashable, tuple[Future[Any], float]] = OrderedDict()
        renew_after_fork(self, Asking._renew)

    def ask(self, key: Hashable, question: Callable[[], Any]) -> Future[Any]:
        """Return the future answer to a question, which ``key`` stands for.

        :raises BusyError: when there is no place for another one.
        """
        with self._lock:
            known = self._asked.get(key)
            if known is not None and self._is_good(known):
                return known[0]
            self._asked.pop(key, None)
            self._make_room()
            if self._pool is None:
                # Not earlier: most servers fork before the first question.
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="redbrick-page")
            future = self._pool.submit(question)
            self._asked[key] = (future, time.monotonic())
        future.add_done_callback(lambda _: self._answered(key, future))
        return future

    def _renew(self) -> None:
        # No thread here will answer what was asked there.
        abandon(self._pool, self._asked)
        self._lock, self._pool, self._asked = Lock(), None, OrderedDict()

    def _is_good(self, known: tuple[Future[Any], float]) -> bool:
        return not known[0].done() or time.monotonic() - known[1] < self._keep

    def _answered(self, key: Hashable, future: Future[Any]) -> None:
        """Count the seconds from the answer on."""
        with self._lock:
            known = self._asked.get(key)
            if known is not None and known[0] is future:
                self._asked[key] = (future, time.monotonic())

    def _make_room(self) -> None:
        if len(self._asked) < self._places:
            return
        answered = next((key for key, (future, _) in self._asked.items() if future.done()), None)
        if answered is None:
            raise BusyError
        del self._asked[answered]
