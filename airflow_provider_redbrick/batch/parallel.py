"""Working on chunks of tasks, several at a time."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from threading import Event

T = TypeVar("T")
R = TypeVar("R")

# Seconds that requests under way get when the work is stopped.
LAST_MOMENT = 2.0


def in_parallel(
    chunks: Iterable[T], work: Callable[[T], R], *, workers: int, stop: Event, seconds: float = LAST_MOMENT
) -> Generator[R, None, None]:
    """Yield what ``work`` makes of each chunk, in the chunks' order; no more of them are read than are worked on.

    The first is worked on alone: a server that is down, or refuses everything, is not asked by all workers at once.

    :param stop: set when the work ends early, which those who are at it look for.
    :param seconds: how long they may then clean up.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick-chunk")
    under_way: deque[Future[R]] = deque()
    at_a_time = 1
    try:
        for chunk in chunks:
            under_way.append(pool.submit(work, chunk))
            if len(under_way) >= at_a_time:
                yield under_way.popleft().result()
                at_a_time = workers
        while under_way:
            yield under_way.popleft().result()
    except BaseException:
        stop.set()
        cut_short(pool, under_way, seconds=seconds)
        raise
    finally:
        pool.shutdown(wait=False)


def cut_short(pool: ThreadPoolExecutor, futures: Iterable[Future[Any]], *, seconds: float = LAST_MOMENT) -> None:
    """Stop what a pool works on, when Airflow has killed or timed out the task.

    What has not begun never will. What is under way gets a moment, no more: Airflow kills for good a few seconds
    later, and there is still to be cleaned up.
    """
    pool.shutdown(wait=False, cancel_futures=True)
    wait([future for future in futures if not future.cancelled()], timeout=seconds)
