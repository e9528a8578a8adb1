"""Working on chunks of tasks, several at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_redbrick.exceptions import RedBrickStoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from threading import Event

T = TypeVar("T")
R = TypeVar("R")

# Seconds that requests under way get when the work is stopped.
LAST_MOMENT = 2.0
# Seconds that all of it gets then, giving back included; five seconds after it has said so Airflow kills for good.
ALL_OF_IT = 4.0
# Chunks worked on at a time where somebody's code is slow: it is asked about one while another is read, or applied.
_FEWEST = 2


class Desk:
    """Where workers bring what the thread that employs them must do itself: calling somebody's code, one at a time.

    A labeler or reviewer need not be safe to call from several threads, nor from any but the one Airflow runs it in.
    """

    def __init__(self) -> None:
        self._orders: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._owner = threading.get_ident()
        self._lock = threading.Lock()
        self._closed = False
        self._busy = self._served = 0.0

    @property
    def has_time(self) -> bool:
        """Whether the thread was idle for most of the time lately."""
        return self._busy < self._served / 2

    def ask(self, function: Callable[[], T]) -> T:
        """Return what a function returns, or raise what it raises, once the desk's thread has called it.

        :raises RedBrickStoppedError: when the work was stopped first.
        """
        if threading.get_ident() == self._owner:
            return function()
        order: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise _stopped()
            self._orders.put((function, order))
        return order.result()

    def serve(self, future: Future[Any]) -> None:
        """Do what is asked until a future is done."""
        if future.done():
            return
        future.add_done_callback(lambda _: self._orders.put(None))
        # What was long ago counts less and less.
        began, self._busy, self._served = time.monotonic(), self._busy / 2, self._served / 2
        while not future.done():
            asked = self._orders.get()
            if asked is not None:
                self._carry_out(*asked)
        self._served += time.monotonic() - began

    def close(self) -> None:
        """Turn away whoever asks, now and later."""
        with self._lock:
            self._closed = True
        while not self._orders.empty():
            asked = self._orders.get()
            if asked is not None:
                asked[1].set_exception(_stopped())

    def _carry_out(self, function: Callable[[], Any], order: Future[Any]) -> None:
        began = time.monotonic()
        try:
            order.set_result(function())
        except Exception as error:  # noqa: BLE001 - it is for whoever asked
            order.set_exception(error)
        except BaseException:
            # Airflow stops or times out this thread: that is for it alone.
            order.set_exception(_stopped())
            raise
        finally:
            self._busy += time.monotonic() - began


def in_parallel(
    chunks: Iterable[T],
    work: Callable[[T], Iterable[R]],
    *,
    workers: int,
    stop: Event,
    desk: Desk | None = None,
    seconds: float = ALL_OF_IT,
) -> Generator[R, None, None]:
    """Yield what ``work`` makes of each chunk, in the chunks' order; no more of them are read than are worked on.

    :param stop: set when the work ends early, which those who are at it look for.
    :param desk: where ``work`` brings what is to be done in this thread. As long as that keeps it busy, two chunks are
        worked on at a time: more would be claimed for longer, and not be done any sooner.
    :param seconds: how long they may then take to end, and to clean up.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick-chunk")
    under_way: deque[Future[list[R]]] = deque()
    at_a_time = workers if desk is None else min(_FEWEST, workers)
    try:
        for chunk in chunks:
            under_way.append(pool.submit(_all_of, work, chunk))
            while len(under_way) >= at_a_time:
                _wait_for(under_way[0], desk)
                yield from under_way.popleft().result()
                if desk is not None:
                    at_a_time = min(at_a_time + 1 if desk.has_time else _FEWEST, workers)
        while under_way:
            _wait_for(under_way[0], desk)
            yield from under_way.popleft().result()
    except BaseException:
        stop.set()
        if desk is not None:
            desk.close()
        cut_short(under_way, seconds=seconds)
        raise
    finally:
        pool.shutdown(wait=False)


def _all_of(work: Callable[[T], Iterable[R]], chunk: T) -> list[R]:
    return list(work(chunk))


def _wait_for(future: Future[Any], desk: Desk | None) -> None:
    if desk is None:
        wait([future])
    else:
        desk.serve(future)


def _stopped() -> RedBrickStoppedError:
    return RedBrickStoppedError("Not asked: the work was stopped.")


def cut_short(futures: Iterable[Future[Any]], *, seconds: float = LAST_MOMENT) -> None:
    """Stop what threads work on, when Airflow has killed or timed out the task.

    What has not begun never will. What is under way gets a moment, no more: Airflow kills for good a few seconds
    later, and there is still to be cleaned up.
    """
    wait([future for future in list(futures) if not future.cancel()], timeout=seconds)
