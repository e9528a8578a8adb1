"""Threads, forks and iteration: helpers that every layer uses.

Design notes on values that are read once:

1. The first thread that needs a value reads it, and the others wait for it.
2. Each object and value has its own lock: a slow server delays only the threads that need its value.
3. The lock is removed after the read, because an object with a lock cannot be copied.
4. In a forked child the lock is renewed.

Design notes on forks. A child of ``os.fork`` has one thread and a copy of the rest: thread pools without threads,
locks that a thread of the parent held, and sockets on which parent and child would read each other's responses.
Airflow's workers, ``multiprocessing`` and servers with several processes fork.

1. An object that owns a pool, a lock or a socket registers itself with :func:`renew_after_fork` when it is created.
2. In the child, before any other code runs, each living object replaces what it owns.
3. Inherited resources are abandoned, never closed: closing a pool or a session takes locks that may be held.
4. A lock is used as ``with owner.lock:``, which releases the lock that it took, even if the owner was renewed.

Design notes on the triggerer. Airflow's Task SDK reads connections, Variables and XComs over one stream that belongs to
the triggerer's event loop. Below Airflow 3.2.2, a blocking SDK call in a thread starts a second event loop on that
stream, unless ``asgiref`` knows the first one. The two loops then receive each other's answers ("Response read out of
order"), and the triggerer ends with all its triggers.

1. All blocking code of triggers and notifiers goes through :func:`in_thread`, never through ``asyncio.to_thread``.
2. Code in :func:`in_thread` calls the Task SDK in that same thread: threads of another pool do not know the loop.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import ParamSpec, Self

    Parameters = ParamSpec("Parameters")


MOST_VALUES = 10_000_000
"""Maximum objects, lists and elements in a text. A large task has some hundred thousand.

A byte of JSON can become a hundred bytes in memory, so a size limit alone does not limit memory.
"""


def count_values(text: str | bytes) -> int:
    """Return an upper bound of the number of values in JSON text.

    Brackets and commas in strings are counted too.
    """
    if isinstance(text, str):
        return sum(map(text.count, "{[,"))
    return sum(map(text.count, (b"{", b"[", b",")))


def value_count_problem(count: int) -> str | None:
    """Return the problem with a number of values, or ``None`` if it is allowed."""
    return f"it has more than {MOST_VALUES} values" if count > MOST_VALUES else None


Result = TypeVar("Result")


async def in_thread(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call a blocking function in a thread. It may use Airflow's Task SDK.

    :param function: the function to call.
    :param args: its positional arguments.
    :param kwargs: its keyword arguments.
    :return: the function's result.
    """
    # Imported here: every DAG file loads this module, and only triggers and notifiers need asgiref.
    from asgiref.sync import sync_to_async  # noqa: PLC0415

    return await sync_to_async(function, thread_sensitive=False)(*args, **kwargs)


T = TypeVar("T")

_owners: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
# Kept until the child ends, so that no finalizer waits for a lock that a thread of the parent held.
_abandoned: list[object] = []


def renew_after_fork(owner: T, renew: Callable[[T], None]) -> None:
    """Register a callback that renews an object's resources in each forked child.

    :param owner: the object, compared by identity; the registration does not keep it alive.
    :param renew: called with the owner in the child's only thread; must neither block nor connect.
    """
    _owners[owner] = renew


def abandon(*inherited: object) -> None:
    """Keep inherited objects alive and unused instead of closing them."""
    _abandoned.extend(inherited)


def _renew_all() -> None:
    for owner, renew in list(_owners.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def count_tasks(number: int) -> str:
    """Return a number of tasks in words, for messages: ``1 task``, ``2 tasks``."""
    return f"{number} {'task' if number == 1 else 'tasks'}"


def in_chunks(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split entries into lists of at most ``size``, consuming the input lazily.

    :param entries: the entries; only as many are consumed as were asked for.
    :param size: the maximum length of a list.
    """
    remaining = iter(entries)
    return iter(lambda: list(islice(remaining, size)), [])


def run_concurrently(*reads: Callable[[], Any]) -> list[Any]:
    """Run functions concurrently and return their results in order.

    :raises RedBrickAPIError: the error of the first function, in order, that failed.
    """
    pool = ThreadPoolExecutor(len(reads), thread_name_prefix="redbrick-read")
    try:
        return [future.result() for future in [pool.submit(read) for read in reads]]
    finally:
        # A caller that is stopped does not wait for the remaining responses.
        pool.shutdown(wait=False, cancel_futures=True)


class _Reading:
    """Lock for a value that is being read; renewed in a forked child."""

    def __init__(self) -> None:
        self.lock = RLock()
        renew_after_fork(self, _Reading._renew)

    def _renew(self) -> None:
        self.lock = RLock()


class read_once(cached_property[T]):  # noqa: N801 - used like functools.cached_property
    """Cached property that the first thread computes while the others wait.

    Threads wait only for the same object: another object's server may be slow or not answer at all.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        """Return the value, computing it on first use.

        The value is stored in the instance, which then bypasses this descriptor.

        :param instance: the object; ``None`` for access on the class.
        :param owner: the class.
        """
        if instance is None:
            return self
        values, name = vars(instance), str(self.attrname)
        lock_name = f"{name} is being read"
        with values.setdefault(lock_name, _Reading()).lock:
            if name not in values:
                values[name] = self.func(instance)
            # Waiting threads already have the lock. An object with a lock could not be copied.
            values.pop(lock_name, None)
            return values[name]
