"""Reading in several threads: different things at the same time, and one thing once."""

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


def at_once(*reads: Callable[[], Any]) -> list[Any]:
    """Return what each read returns; they are done at the same time.

    :raises RedBrickAPIError: what the first of them raises that does not succeed.
    """
    pool = ThreadPoolExecutor(len(reads), thread_name_prefix="redbrick-read")
    try:
        return [future.result() for future in [pool.submit(read) for read in reads]]
    finally:
        # Whoever is stopped meanwhile waits for no answer.
        pool.shutdown(wait=False, cancel_futures=True)


class _Reading:
    """The lock of one value that is being read; a forked child has one that no thread of its parent holds."""

    def __init__(self) -> None:
        self.lock = RLock()
        renew_after_fork(self, _Reading._renew)

    def _renew(self) -> None:
        self.lock = RLock()


class read_once(cached_property[T]):  # noqa: N801 - used like the one it is made of
    """A cached property that is read by the first thread that asks, while the others wait for it.

    Only those wait that ask the same object: another one's server may be slower, or not answer at all.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        """Return the value, which nobody will ask for here again."""
        if instance is None:
            return self
        values, name = vars(instance), str(self.attrname)
        lock_name = f"{name} is being read"
        with values.setdefault(lock_name, _Reading()).lock:
            if name not in values:
                values[name] = self.func(instance)
            # Whoever waits for the lock has it already; an object that has a lock could not be copied.
            values.pop(lock_name, None)
            return values[name]
