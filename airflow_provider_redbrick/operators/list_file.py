"""What operators share that read a list of tasks from a file, which names further files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.operators.base import RedBrickBaseOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.hooks.storage import FilesBeside

    Listed = TypeVar("Listed")


class RedBrickListFileBaseOperator(RedBrickBaseOperator):
    """Base of the operators whose tasks may come from a file.

    :param allowed_folders: folders, as absolute paths or URIs, that files named in such a file may come from besides
        its own folder and the folders in it. A URI's connection and bucket count. What is named in the DAG itself may
        come from anywhere.
    """

    def __init__(self, *, allowed_folders: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed_folders = allowed_folders

    def get_project(self) -> RedBrickProject:
        """Return the project to work in, once it is clear where files may come from."""
        from airflow_provider_redbrick.hooks.folders import check_folders

        check_folders("allowed_folders", self.allowed_folders)
        return super().get_project()

    def tasks_of(self, read: Callable[[], Iterable[Listed]]) -> Iterable[Listed]:
        """Return the tasks that a file lists; of one that lists none, do what ``on_empty`` says.

        A file that is empty may have been cut short: without ``on_empty``, it is a failure.

        :param read: opens the list.
        """
        from airflow_provider_redbrick.operators.given import EmptyFileError

        try:
            return read()
        except EmptyFileError as error:
            return self.nothing(str(error), default="fail")

    def files_beside(self, path: str) -> FilesBeside:
        """Return what opens the files that a list of tasks names."""
        from airflow_provider_redbrick.hooks.folders import check_folders
        from airflow_provider_redbrick.hooks.storage import FilesBeside

        return FilesBeside(path, check_folders("allowed_folders", self.allowed_folders))
