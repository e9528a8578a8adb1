"""Files are published together when all are complete; otherwise nothing is left."""

from __future__ import annotations

import io
import os
import uuid
from datetime import datetime, timedelta, timezone

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


# ------------------------------------------------------------------ leftovers of killed processes


def killed(place, *, owner="", attempt=1, hours=0.0):
    """Leave the files of a process that was killed some hours ago. Returns the name of the folder."""
    directory = StagedDirectory(place, owner=owner, attempt=attempt)
    write(directory, b"partial", a=b"partial")
    fs, folder = directory._fs, directory._hidden
    for path in fs.find(folder):
        changed = datetime.now(timezone.utc) - timedelta(hours=hours)
        if isinstance(fs, MemoryFileSystem):
            fs.store[path].modified = changed
        else:
            os.utime(path, (changed.timestamp(), changed.timestamp()))
    return folder.rpartition("/")[2]


def leftovers(place):
    return {name.partition("/")[0] for name in files_in(place) if name.startswith(".")}


def publish_as(place, owner, attempt=1):
    with StagedDirectory(place, owner=owner, attempt=attempt) as directory:
        write(directory, b"new", a=b"1")
        directory.publish(INDEX, workers=3)


def test_enter_removes_folders_of_earlier_attempts_at_once(place):
    for attempt in (1, 2):
        killed(place, owner="mine", attempt=attempt)
    with StagedDirectory(place, owner="mine", attempt=3):
        assert files_in(place) == {}


def test_enter_keeps_folders_of_others_and_of_later_attempts(place):
    names = {killed(place, owner="other"), killed(place), killed(place, owner="mine", attempt=2)}
    with StagedDirectory(place, owner="mine", attempt=2):
        assert leftovers(place) == names


def test_publish_removes_folders_unchanged_for_a_day(place):
    killed(place, owner="other", hours=25)
    killed(place, hours=25)
    publish_as(place, "mine")
    assert files_in(place) == {INDEX: b"new", "masks/a": b"1"}


def test_publish_keeps_a_folder_with_a_recent_file(place):
    """A long export writes its index while old masks are beside it."""
    name = killed(place, owner="other", hours=23)
    live = StagedDirectory(place, owner="live")
    write(live, b"partial")
    publish_as(place, "mine")
    assert leftovers(place) == {name, live._hidden.rpartition("/")[2]}


def test_exit_without_publish_keeps_folders_of_others(place):
    name = killed(place, owner="other", hours=25)
    with StagedDirectory(place, owner="mine", attempt=2) as directory:
        write(directory, b"new")
    assert leftovers(place) == {name}


def test_clean_keeps_files_with_similar_names(place):
    with StagedDirectory(place) as directory:
        for name in (".unfinished-notes", ".unfinished", "unfinished-" + "a" * 32):
            directory.add(f"{name}/x", io.BytesIO(b"kept"))
        directory.add(INDEX, io.BytesIO(b"x"))
        directory.publish(INDEX, workers=1)
    before = files_in(place)
    publish_as(place, "mine", attempt=2)
    assert {name for name in files_in(place) if "unfinished" in name} == {n for n in before if "unfinished" in n}


def test_publish_succeeds_where_the_store_permits_no_listing(place, monkeypatch, caplog):
    with StagedDirectory(place, owner="mine") as directory:
        monkeypatch.setattr(directory._fs, "ls", lambda *_, **__: 1 / 0)
        write(directory, b"new")
        directory.publish(INDEX, workers=1)
    monkeypatch.undo()
    assert files_in(place) == {INDEX: b"new"}
    assert "could not be removed" in caplog.text


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
