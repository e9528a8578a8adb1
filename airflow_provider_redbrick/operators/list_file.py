"""Base class of the operators that can read a list of tasks from a file.

The author of such a file is often not the author of the DAG. Files that it names must therefore be in its own folder,
or in a folder that the DAG allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.operators.base import RedBrickBaseOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.hooks.storage import FilesBeside

    ListedT = TypeVar("ListedT")


class RedBrickListFileBaseOperator(RedBrickBaseOperator):
    """Base of the operators whose tasks may come from a file.

    :param allowed_folders: further folders, as absolute paths or URIs, that files named in the list may be in. Default:
        only the list's own folder and its subfolders. A URI matches with its connection and bucket. Files named in the
        DAG itself may be anywhere.
    """

    def __init__(self, *, allowed_folders: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed_folders = allowed_folders

    def get_project(self) -> RedBrickProject:
        """Validate ``allowed_folders`` and return the project.

        :raises RedBrickInputError: if a parameter is invalid.
        """
        from airflow_provider_redbrick.hooks.folders import check_folders

        check_folders("allowed_folders", self.allowed_folders)
        return super().get_project()

    def tasks_of(self, read: Callable[[], Iterable[ListedT]]) -> Iterable[ListedT]:
        """Return the tasks of a file, or apply ``on_empty`` if it has none.

        Without ``on_empty`` an empty file is a failure, since it may be truncated.

        :param read: parses the open file.
        """
        from airflow_provider_redbrick.operators.given import EmptyFileError

        try:
            return read()
        except EmptyFileError as error:
            return self.nothing(str(error), default="fail")

    def files_beside(self, path: str) -> FilesBeside:
        """Return a callable that opens the files that a list of tasks names.

        :param path: path of the list.
        """
        from airflow_provider_redbrick.hooks.folders import check_folders
        from airflow_provider_redbrick.hooks.storage import FilesBeside

        return FilesBeside(path, check_folders("allowed_folders", self.allowed_folders))
