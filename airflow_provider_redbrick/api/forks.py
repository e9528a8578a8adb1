"""Renew in a forked child what it must not share with its parent.

A child of ``os.fork`` has one thread, and a copy of everything else: pools whose threads are gone, locks that a thread
of the parent held at that moment and never releases here, and sockets on which parent and child would read each other's
answers. Airflow's workers, ``multiprocessing`` and servers with several processes fork.

1. An object that owns a pool, a lock or a socket registers itself with :func:`renew_after_fork` when it is made.
2. In the child, before any other code runs, each living object replaces what it owns.
3. What was inherited is abandoned, never closed: to close a pool or a session takes locks that may be held.
4. A lock is used as ``with owner.lock:``, which releases the lock that it took, also when the owner was renewed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_owners: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
# Kept for as long as the child lives, so that no finalizer waits for a lock that a thread of the parent held.
_abandoned: list[object] = []


def renew_after_fork(owner: T, renew: Callable[[T], None]) -> None:
    """Have an object renew what it owns in each child that is forked while it lives.

    :param owner: compared by identity; it is not kept alive by this.
    :param renew: called with the owner in the child's only thread; it must neither block nor connect.
    """
    _owners[owner] = renew


def abandon(*inherited: object) -> None:
    """Keep what a child has inherited, unused, instead of closing it."""
    _abandoned.extend(inherited)


def _renew_all() -> None:
    for owner, renew in list(_owners.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
