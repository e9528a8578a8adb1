"""Remember the versions of tasks that were read in the overlap of two watermarks.

Design notes on reading every change once, although a listing may show the state of ``settle_seconds`` ago:

1. A watermark is the server's time before a listing, less ``settle_seconds`` and a margin. A change before it is in
   that listing or in an earlier one. The next listing starts there, so it overlaps with this one.
2. Versions read after a watermark are remembered, and left out of the next listing. Older ones need no memory.
3. A version older than the remembered one comes from a stale read, and is left out too: versions of a task are read in
   their order.
4. A task without `updatedAt` has no version. It is never left out: it is read at least once.
5. Some servers do not move `updatedAt` when labels change. A version is as new as the newer of the two times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_provider_redbrick.client.models.parsing import moment

if TYPE_CHECKING:
    import pendulum
    from typing_extensions import Self

    from airflow_provider_redbrick.client.models.task import Task


def get_version(task: Task) -> pendulum.DateTime | None:
    """Return when a task or its labels last changed; ``None`` if the server does not say."""
    if task.updated_at is None or task.labels_at is None:
        return task.updated_at
    return max(task.updated_at, task.labels_at)


class Overlap:
    """The newest version of each task that was read after a watermark.

    :param versions: times by task id.
    """

    def __init__(self, versions: Mapping[str, pendulum.DateTime] | None = None) -> None:
        self._versions = dict(versions or {})

    def __len__(self) -> int:
        return len(self._versions)

    def is_new(self, task_id: str, version: pendulum.DateTime | None) -> bool:
        """Return whether a version is newer than the one that was read.

        :param task_id: the task.
        :param version: its version; None is always new.
        """
        known = self._versions.get(task_id)
        return version is None or known is None or version > known

    def add(self, task_id: str, version: pendulum.DateTime | None) -> None:
        """Remember a version that was read, unless a newer one is known.

        :param task_id: the task.
        :param version: its version; None is not remembered.
        """
        if version is not None and self.is_new(task_id, version):
            self._versions[task_id] = version

    def union(self, other: Overlap) -> Overlap:
        """Return the newest versions of both."""
        both = Overlap(self._versions)
        for task_id, version in other._versions.items():
            both.add(task_id, version)
        return both

    def since(self, watermark: pendulum.DateTime) -> Overlap:
        """Return the versions at or after a watermark."""
        return Overlap({task_id: at for task_id, at in self._versions.items() if at >= watermark})

    def within(self, read: Overlap) -> Overlap:
        """Return the versions that another read contains too, in this or a newer version."""
        return Overlap({task_id: at for task_id, at in self._versions.items() if not read.is_new(task_id, at)})

    def newest(self, most: int) -> Overlap:
        """Return at most a number of versions. The oldest ones are forgotten, and may be read again."""
        if len(self._versions) <= most:
            return self
        return Overlap(dict(sorted(self._versions.items(), key=lambda item: item[1])[-most:]))

    def oldest(self) -> pendulum.DateTime:
        """Return the time of the oldest version.

        :raises ValueError: if there is none.
        """
        return min(self._versions.values())

    def to_json(self) -> dict[str, str]:
        """Return the versions as a JSON object."""
        return {task_id: at.isoformat() for task_id, at in self._versions.items()}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Parse what :meth:`to_json` returned. Anything else is ignored: a forgotten version is read again."""
        parsed = {task_id: moment(at) for task_id, at in value.items()} if isinstance(value, Mapping) else {}
        return cls({task_id: at for task_id, at in parsed.items() if at is not None})
