"""Renew in a forked child the resources that it must not share with its parent.

A child of ``os.fork`` has one thread and a copy of everything else: thread pools without threads, locks that a thread
of the parent held and that are never released in the child, and sockets on which parent and child would read each
other's responses. Airflow's workers, ``multiprocessing`` and servers with several processes fork.

1. An object that owns a pool, a lock or a socket registers itself with :func:`renew_after_fork` when it is created.
2. In the child, before any other code runs, each living object replaces what it owns.
3. Inherited resources are abandoned, never closed: closing a pool or a session takes locks that may be held.
4. A lock is used as ``with owner.lock:``, which releases the lock that it took, even if the owner was renewed.

A byte of JSON can become a hundred bytes in memory, so a size limit alone does not limit memory.

Airflow's Task SDK reads connections, Variables and XComs over one stream that belongs to the triggerer's event loop.
Below Airflow 3.2.2, a blocking SDK call in a thread starts a second event loop on that stream, unless ``asgiref`` knows
the first one. The two loops then receive each other's answers ("Response read out of order"), and the triggerer ends
with all its triggers. Design note:

1. All blocking code of triggers and notifiers goes through :func:`in_thread`, never through ``asyncio.to_thread``.
2. Code in :func:`in_thread` calls the Task SDK in that same thread: threads of another pool do not know the loop.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


MOST_VALUES = 10_000_000
"""Maximum objects, lists and elements in a text. A large task has some hundred thousand."""


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


if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import ParamSpec

    Parameters = ParamSpec("Parameters")

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


def in_chunks(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split entries into lists of at most ``size``, consuming the input lazily.

    :param entries: the entries; only as many are consumed as were asked for.
    :param size: the maximum length of a list.
    """
    remaining = iter(entries)
    return iter(lambda: list(islice(remaining, size)), [])
