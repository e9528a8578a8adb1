"""Files are published together when all are complete; otherwise nothing is left."""

from __future__ import annotations

import io
import uuid

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.operators.staged_directory import StagedDirectory

INDEX = "index.jsonl"


class Stopped(BaseException):
    """Stand-in for a kill or timeout, which can occur at any moment."""


@pytest.fixture(params=["path", "file://", "memory://"])
def place(request, tmp_path):
    """A missing folder: local, or in a store without folders and renames."""
    if request.param == "path":
        return str(tmp_path / "new" / "folder")
    if request.param == "file://":
        return f"file://{tmp_path}/new/folder"
    attach("memory", fs=MemoryFileSystem())
    return f"memory://{uuid.uuid4().hex}/folder"


def files_in(place):
    """Return all files below a folder by relative path."""
    directory = StagedDirectory(place)
    fs, top = directory._fs, directory._folder
    found = fs.find(top) if fs.exists(top) else []
    return {path.partition(f"{top}/")[2]: fs.cat_file(path) for path in found}


def write(directory, content, **others):
    for name, text in others.items():
        directory.add(f"masks/{name}", io.BytesIO(text))
    with directory.open(INDEX) as file:
        file.write(content)


def publish(place, content, **others):
    with StagedDirectory(place) as directory:
        write(directory, content, **others)
        directory.publish(INDEX, workers=3)


def test_files_before_publish_are_hidden(place):
    with StagedDirectory(place) as directory:
        write(directory, b"x", a=b"1")
        assert not set(files_in(place)) & {INDEX, "masks/a"}
        assert all(name.startswith(".") for name in files_in(place))


def test_publish_moves_files_and_leaves_nothing_else(place):
    publish(place, b"old", a=b"1", b=b"2")
    assert files_in(place) == {INDEX: b"old", "masks/a": b"1", "masks/b": b"2"}


def test_publish_replaces_existing_files(place):
    publish(place, b"old", a=b"1", b=b"2")
    publish(place, b"new", a=b"3")
    assert files_in(place) == {INDEX: b"new", "masks/a": b"3", "masks/b": b"2"}


def test_add_same_name_twice_keeps_last(place):
    with StagedDirectory(place) as directory:
        write(directory, b"x", a=b"1")
        write(directory, b"y", a=b"2")
        directory.publish(INDEX, workers=3)
    assert files_in(place) == {INDEX: b"y", "masks/a": b"2"}


def test_add_copies_from_start_of_file(place):
    file = io.BytesIO(b"whole")
    file.read(3)
    with StagedDirectory(place) as directory, directory.open(INDEX):
        directory.add("masks/a", file)
        assert not file.closed
        directory.publish(INDEX, workers=1)
    assert files_in(place)["masks/a"] == b"whole"


@pytest.mark.parametrize("problem", [OSError, Stopped])
def test_exit_without_publish_leaves_target_unchanged(place, problem):
    publish(place, b"old", a=b"1")

    def interrupted():
        with StagedDirectory(place) as directory:
            write(directory, b"new", a=b"2", b=b"3")
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert files_in(place) == {INDEX: b"old", "masks/a": b"1"}


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_publish_with_failed_move_leaves_no_index(place, fails_at, monkeypatch):
    publish(place, b"old", a=b"1", c=b"1")
    with StagedDirectory(place) as directory:
        write(directory, b"new", a=b"2", b=b"3")
        move, left = directory._fs.mv, [None] * fails_at

        def sometimes(*args):
            if not left:
                raise PermissionError("the store says no")
            left.pop()
            move(*args)

        monkeypatch.setattr(directory._fs, "mv", sometimes)
        with pytest.raises(PermissionError, match="the store says no"):
            directory.publish(INDEX, workers=1)
    found = files_in(place)
    assert INDEX not in found
    assert b"2" not in found.values()
    assert b"3" not in found.values()


def test_publish_of_index_alone_keeps_old_index_on_failure(place, monkeypatch):
    publish(place, b"old")
    with StagedDirectory(place) as directory:
        write(directory, b"new")
        monkeypatch.setattr(directory._fs, "mv", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            directory.publish(INDEX, workers=1)
    assert files_in(place) == {INDEX: b"old"}


def test_concurrent_publications_do_not_interfere(place):
    with StagedDirectory(place) as one, StagedDirectory(place) as other:
        write(one, b"one", a=b"1")
        write(other, b"other", a=b"2")
        other.publish(INDEX, workers=1)
        one.publish(INDEX, workers=1)
    assert files_in(place) == {INDEX: b"one", "masks/a": b"1"}


def test_unsupported_uri_is_refused():
    with pytest.raises(RedBrickInputError, match="nowhere"):
        StagedDirectory("nowhere://bucket/folder")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{}/file", "file' is a file, not a folder"),
        ("{}/file/below", "file' is a file, not a folder"),
        ("{}/lost-folder", "is a link to 'gone', which does not exist"),
    ],
)
def test_staged_directory_unwritable_path_names_reason(folder, path, words):
    def export():
        with StagedDirectory(path.format(folder)) as directory:
            directory.open("tasks.jsonl")

    with pytest.raises(RedBrickInputError, match="Nothing can be written") as caught:
        export()
    assert words in str(caught.value)
