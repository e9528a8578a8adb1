"""Cache and coalesce slow reads in a small thread pool."""

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
    """All slots hold unfinished reads."""


class Asking:
    """Run reads in its own threads and keep their results for some seconds.

    All methods are thread-safe. Concurrent callers with the same key share one read. A result is kept for ``keep``
    seconds, and so is an error. The API server's own threads stay free.

    :param keep: seconds that a result is kept.
    :param places: the maximum number of kept results and unfinished reads together.
    :param threads: the maximum number of concurrent reads.
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
        """Return the future result of a read.

        :param key: identifies the read: calls with the same key share one result.
        :param question: the blocking read.
        :raises BusyError: if all slots hold unfinished reads.
        """
        with self._lock:
            known = self._asked.get(key)
            if known is not None and self._is_good(known):
                return known[0]
            self._asked.pop(key, None)
            self._make_room()
            if self._pool is None:
                # Created late, because most servers fork before the first read.
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="redbrick-page")
            future = self._pool.submit(question)
            self._asked[key] = (future, time.monotonic())
        future.add_done_callback(lambda _: self._answered(key, future))
        return future

    def _renew(self) -> None:
        # The parent's threads do not exist in this process.
        abandon(self._pool, self._asked)
        self._lock, self._pool, self._asked = Lock(), None, OrderedDict()

    def _is_good(self, known: tuple[Future[Any], float]) -> bool:
        return not known[0].done() or time.monotonic() - known[1] < self._keep

    def _answered(self, key: Hashable, future: Future[Any]) -> None:
        """Start the result's lifetime when the read ends."""
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
