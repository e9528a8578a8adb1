"""Renew in a forked child the resources that it must not share with its parent.

A child of ``os.fork`` has one thread and a copy of everything else: thread pools without threads, locks that a thread
of the parent held and that are never released in the child, and sockets on which parent and child would read each
other's responses. Airflow's workers, ``multiprocessing`` and servers with several processes fork.

1. An object that owns a pool, a lock or a socket registers itself with :func:`renew_after_fork` when it is created.
2. In the child, before any other code runs, each living object replaces what it owns.
3. Inherited resources are abandoned, never closed: closing a pool or a session takes locks that may be held.
4. A lock is used as ``with owner.lock:``, which releases the lock that it took, even if the owner was renewed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

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
