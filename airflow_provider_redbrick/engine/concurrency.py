"""Process chunks of tasks concurrently, and call user code in the main thread.

Chunks are processed by a pool of worker threads. User code (a labeler, a reviewer, a selector) need not be thread-safe
and may depend on the thread in which Airflow runs the operator, so worker threads hand their calls to that thread.

Invariants:

1. Results come in the order of the chunks. A chunk is taken from its source only when a worker is free for it, so that
   no more tasks are claimed than are being processed.
2. User code runs in one thread, one call at a time.
3. While user code keeps its thread busy, only two chunks are under way: one is read or applied while user code decides
   about the other. More would hold claims for longer without finishing sooner.
4. When Airflow stops or times out the operator, queued calls are rejected, chunks that have not begun are canceled, and
   the rest get a fixed time to clean up. Airflow kills the process five seconds after SIGTERM.

User code may raise anything, delete its files when it returns, and quote signed URLs in its errors:

5. What a callable raises becomes the failure of one task (``CallableFailedError``). Only ``Exception`` is caught.
6. The answer is taken (copied and validated) before any other user code runs. A generator function yields its answer,
   so that files which it deletes afterwards still exist at that time.
7. A generator is always closed, also when its answer was refused or the work was stopped.
8. Logs and messages contain no signature of a signed URL, and no line of an error can pass for a log line.
"""

from __future__ import annotations

import inspect
import logging
import textwrap
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_redbrick.client.transport.redaction import strip_signatures
from airflow_provider_redbrick.exceptions import (
    RedBrickInputError,
    RedBrickStoppedError,
    single_line,
    truncate_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from threading import Event

    from airflow_provider_redbrick.client.models.task import Task

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

# Seconds that requests under way get after a stop.
REQUEST_GRACE_S = 2.0
# Seconds that chunks get to end after a stop, including the release of claims. Airflow kills the process five seconds
# after SIGTERM.
SHUTDOWN_BUDGET_S = 4.0
# Chunks under way while user code is the bottleneck: it decides about one while the other is read or applied.
_MIN_CHUNKS = 2


class MainThreadExecutor:
    """Run user callables serially in the thread that created this object.

    Worker threads submit calls with :meth:`run`; the owner executes them in :meth:`run_until_done`.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._owner = threading.get_ident()
        self._lock = threading.Lock()
        self._closed = False
        self._busy_s = self._served_s = 0.0

    @property
    def has_time(self) -> bool:
        """Whether the thread was idle for more than half of the recent time."""
        return self._busy_s < self._served_s / 2

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in the owner's thread and return its result.

        Exceptions of the function propagate to the caller.

        :raises RedBrickStoppedError: if the work was stopped before the call.
        """
        if threading.get_ident() == self._owner:
            return function()
        result: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise _stopped()
            self._calls.put((function, result))
        return result.result()

    def run_until_done(self, future: Future[Any]) -> None:
        """Execute submitted calls until a future is done."""
        if future.done():
            return
        future.add_done_callback(lambda _: self._calls.put(None))
        # Halve the history at each call, so that recent load dominates.
        began = time.monotonic()
        self._busy_s, self._served_s = self._busy_s / 2, self._served_s / 2
        while not future.done():
            call = self._calls.get()
            if call is not None:
                self._execute(*call)
        self._served_s += time.monotonic() - began

    def close(self) -> None:
        """Reject queued and future calls with RedBrickStoppedError."""
        with self._lock:
            self._closed = True
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None:
                call[1].set_exception(_stopped())

    def _execute(self, function: Callable[[], Any], result: Future[Any]) -> None:
        began = time.monotonic()
        try:
            result.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised again in the calling thread
            result.set_exception(error)
        except BaseException:
            # Airflow's stop or timeout is meant for this thread; the caller only learns that the work was stopped.
            result.set_exception(_stopped())
            raise
        finally:
            self._busy_s += time.monotonic() - began


def in_parallel(
    chunks: Iterable[T],
    work: Callable[[T], Iterable[R]],
    *,
    workers: int,
    stop: Event,
    executor: MainThreadExecutor | None = None,
    seconds: float = SHUTDOWN_BUDGET_S,
) -> Generator[R, None, None]:
    """Process chunks concurrently and yield their results in order.

    :param chunks: read lazily, one chunk per free worker.
    :param work: processes one chunk in a worker thread.
    :param workers: most chunks under way.
    :param stop: set by this function when the work ends early; `work` is expected to observe it.
    :param executor: executes the user code that `work` submits, in the calling thread. While that keeps the thread
        busy, two chunks are under way at a time.
    :param seconds: how long chunks under way may take to end and clean up after a stop.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="redbrick-chunk")
    under_way: deque[Future[list[R]]] = deque()
    chunk_limit = workers if executor is None else min(_MIN_CHUNKS, workers)
    try:
        for chunk in chunks:
            under_way.append(pool.submit(_process, work, chunk))
            while len(under_way) >= chunk_limit:
                _wait_for(under_way[0], executor)
                yield from under_way.popleft().result()
                if executor is not None:
                    chunk_limit = min(chunk_limit + 1 if executor.has_time else _MIN_CHUNKS, workers)
        while under_way:
            _wait_for(under_way[0], executor)
            yield from under_way.popleft().result()
    except BaseException:
        stop.set()
        if executor is not None:
            executor.close()
        cancel_or_wait(under_way, seconds=seconds)
        raise
    finally:
        pool.shutdown(wait=False)


def _process(work: Callable[[T], Iterable[R]], chunk: T) -> list[R]:
    return list(work(chunk))


def _wait_for(future: Future[Any], executor: MainThreadExecutor | None) -> None:
    if executor is None:
        wait([future])
    else:
        executor.run_until_done(future)


def _stopped() -> RedBrickStoppedError:
    return RedBrickStoppedError("Not called because the work was stopped.")


def cancel_or_wait(futures: Iterable[Future[Any]], *, seconds: float = REQUEST_GRACE_S) -> None:
    """Cancel futures that have not begun and wait a limited time for the others.

    Called when Airflow has stopped or timed out the operator: the process is killed a few seconds later, and claims
    still have to be released.

    :param futures: may include futures that are done.
    :param seconds: longest wait for those that are running.
    """
    wait([future for future in list(futures) if not future.cancel()], timeout=seconds)


class CallableFailedError(Exception):
    """The user's callable raised; the message names what it raised."""


def call(function: Callable[[Task], Any], task: Task, *, what: str, take: Callable[[Any], T]) -> tuple[T, int]:
    """Call a labeler, reviewer or selector and take its answer.

    A generator function yields its answer, so that files which it deletes afterwards exist while the answer is taken.

    :param function: the user's callable.
    :param task: the task, in the form that callables receive.
    :param what: the kind of callable, for messages, such as "labeler".
    :param take: converts the answer to a value that the user's code cannot change; called before any other of it runs.
    :return: the taken answer, and the callable's run time in milliseconds.
    :raises CallableFailedError: if the callable raised.
    :raises RedBrickInputError: if it yields more than one answer, or ``take`` refuses the answer.
    """
    started = time.monotonic()
    with _errors_of_callable(task, what):
        answer = function(task)
        generator = cast("Generator[Any, None, Any]", answer) if inspect.isgenerator(answer) else None
        if generator is not None:
            answer = _next(generator)
    elapsed_ms = int((time.monotonic() - started) * 1000)
    try:
        taken = take(answer)
        if generator is not None:
            _finish(generator, task, what)
    finally:
        if generator is not None:
            # Run the generator's cleanup also if its answer was refused or the work was stopped.
            with _errors_of_callable(task, what):
                generator.close()
    return taken, elapsed_ms


def _next(generator: Generator[Any, None, Any]) -> Any:
    """Return the first value that a generator yields, or else its return value."""
    try:
        return next(generator)
    except StopIteration as end:
        return end.value


def _finish(generator: Generator[Any, None, Any], task: Task, what: str) -> None:
    """Run a generator to its end after its answer; refuse a second answer."""
    with _errors_of_callable(task, what):
        try:
            next(generator)
        except StopIteration:
            return
    raise RedBrickInputError(f"the {what} must yield one answer for a task, but yielded a second one")


@contextmanager
def _errors_of_callable(task: Task, what: str) -> Iterator[None]:
    """Convert any exception of the user's code to the failure of one task."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        raise _log_and_summarize(error, task, what) from None


def _log_and_summarize(error: Exception, task: Task, what: str) -> CallableFailedError:
    """Log a callable's exception and return a short error for the task."""
    # HTTP libraries quote the URL that failed, and a signed URL grants access by itself.
    urls = (*(task.item_urls or ()), task.labels_url)
    subject = (what, task.task_id, single_line(task.name))
    raised = "".join(traceback.format_exception(error))
    shown = "\n".join(map(single_line, strip_signatures(raised, urls).split("\n")))
    if shown == raised and all("\n" not in _message_of(each) for each in _chain(error)):
        log.error("The %s raised for task %s (%s)", *subject, exc_info=error)
    else:
        # Indented, so that no line of an error message can pass for a log line.
        log.error("The %s raised for task %s (%s)\n%s", *subject, textwrap.indent(shown, "  "))
    summary = f"The {what} raised {type(error).__name__}: {_message_of(error)}"
    return CallableFailedError(truncate_message(strip_signatures(summary, urls)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - `__str__` of the user's exception may raise anything
        return "its message cannot be read"
