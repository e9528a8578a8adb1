"""Concurrent reads, and values that are read once for all threads.

Design notes on cached values:

1. The first thread that needs a value reads it, and the others wait for it.
2. Each object and value has its own lock: a slow server delays only the threads that need its value.
3. The lock is removed after the read, because an object with a lock cannot be copied.
4. In a forked child the lock is renewed; see ``forks``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar, overload

from airflow_provider_redbrick.api.forks import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

T = TypeVar("T")


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
