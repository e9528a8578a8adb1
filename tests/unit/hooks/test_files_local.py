"""Local files, and paths that lead to something else."""

from __future__ import annotations

import gzip
import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_redbrick.exceptions import NoSuchFileError, RedBrickInputError
from airflow_provider_redbrick.hooks.files import (
    FilesBeside,
    check_folders,
    find_items,
    local_path,
    open_file,
    open_input,
)

TROUBLE = {
    "folder": "it is a folder, not a file",
    "folder/": "it is a folder, not a file",
    ".": "it is a folder, not a file",
    "~/folder": "it is a folder, not a file",
    "lost": "'lost' is a link to 'gone/file', which does not exist",
    "lost-folder/file": "'lost-folder' is a link to 'gone', which does not exist",
    "round": "Too many levels of symbolic links",
    "file/below": "'file' is a file, not a folder",
    "pipe": "it is a pipe or a device, not a file",
    "x\0y": "its name has characters that are invalid in file names",
    "x" * 300: "File name too long",
}


@pytest.mark.parametrize("path", TROUBLE)
def test_open_file_of_non_file_names_reason(folder, path):
    with pytest.raises(RedBrickInputError) as caught:
        open_file(path)
    assert str(caught.value) == TROUBLE[path]
    assert not isinstance(caught.value, NoSuchFileError)


@pytest.mark.parametrize("path", ["folder", "lost", "lost-folder/file", "round", "file/below", "pipe"])
def test_open_file_of_local_uri_to_non_file_names_reason(folder, path):
    with pytest.raises(OSError, match=re.escape(TROUBLE[path].split("'")[-1])):
        open_file(f"file://{folder}/{path}")


@pytest.mark.parametrize("path", ["file", "link", "~/file", "./folder/../file", "file://{}/file"])
def test_open_file_opens_local_paths_and_uris(folder, path):
    with open_file(path.format(folder)) as file:
        assert file.read() == b"x"


def test_open_file_prefers_existing_tilde_name(folder):
    (folder / "~").mkdir()
    (folder / "~" / "file").write_bytes(b"y")
    with open_file("~/file") as file:
        assert file.read() == b"y"


def test_open_file_of_missing_file_names_searched_folder(folder):
    for path, words in (
        ("gone", f"there is no such file in the working directory '{folder}'"),
        (f"{folder}/gone", "there is no such file"),
        ("~/gone", "there is no such file"),
        ("~not-a-user/x", "there is no such file, nor a home directory of '~not-a-user'"),
    ):
        with pytest.raises(NoSuchFileError) as caught:
            open_file(path)
        assert str(caught.value) == words


@contextmanager
def unprivileged_user():
    """Switch to an unprivileged user, which only root can do."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_open_file_without_permission_is_not_called_missing(folder):
    (folder / "file").chmod(0o600)
    with unprivileged_user(), pytest.raises(RedBrickInputError, match="permission denied for user 65534") as caught:
        open_file(str(folder / "file"))
    assert not isinstance(caught.value, NoSuchFileError)


@pytest.mark.parametrize("path", TROUBLE)
def test_open_input_of_non_file_names_reason(folder, path):
    with pytest.raises(RedBrickInputError, match=r"tasks_path .* cannot be read: ") as caught:
        open_input("tasks_path", path)
    assert str(caught.value).endswith(f"cannot be read: {TROUBLE[path]}.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!doctype html><html>Sign in</html>", "it looks like an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it looks like a Git LFS pointer"),
        (b"<?xml version='1.0'?><Error/>", "it looks like an XML error message"),
    ],
)
def test_open_input_of_placeholder_is_refused(folder, content, words):
    (folder / "tasks.jsonl").write_bytes(content)
    with pytest.raises(RedBrickInputError, match=words):
        open_input("tasks_path", "tasks.jsonl")


def test_open_input_starts_at_first_byte(folder):
    for content in (b'{"a": 1}\n', b"", gzip.compress(b"{}")):
        (folder / "tasks.jsonl").write_bytes(content)
        with open_input("tasks_path", "tasks.jsonl") as file:
            assert file.read() == content


class TestFilesBeside:
    @pytest.mark.parametrize("path", ["folder", "folder/", "lost", "lost-folder/file", "pipe"])
    def test_non_file_names_reason(self, folder, path):
        with pytest.raises(RedBrickInputError) as caught:
            FilesBeside(str(folder / "tasks.jsonl"))(path)
        assert TROUBLE[path].split("'")[-1] in str(caught.value)
        assert not isinstance(caught.value, NoSuchFileError)

    def test_missing_file_names_list_folder(self, folder):
        with pytest.raises(NoSuchFileError, match=r"there is no such file in the folder of .*tasks\.jsonl"):
            FilesBeside(str(folder / "tasks.jsonl"))("gone")

    def test_home_path_needs_allowed_folder(self, folder):
        (folder / "lists").mkdir()
        path = str(folder / "lists" / "tasks.jsonl")
        with pytest.raises(RedBrickInputError, match="into none of allowed_folders"):
            FilesBeside(path)("~/file")
        with FilesBeside(path, check_folders("allowed_folders", ["~"]))("~/file") as file:
            assert file.read() == b"x"


def test_check_folders_expands_home(folder):
    assert [local_path(place) for place in check_folders("allowed_folders", ["~/folder"])] == [str(folder / "folder")]


class TestFolders:
    def test_find_items_skips_system_files(self, tmp_path, caplog):
        for name in (
            "b.dcm",
            "a.dcm",
            "IM1",
            "._a.dcm",
            ".DS_Store",
            "DICOMDIR",
            "Thumbs.db",
            "desktop.ini",
            ".hidden",
        ):
            (tmp_path / name).write_bytes(b"x")
        (tmp_path / "below").mkdir()
        with caplog.at_level("INFO"):
            found = find_items(str(tmp_path))
        assert [Path(path).name for path in found] == ["IM1", "a.dcm", "b.dcm"]
        assert "left out 6 of 9 files" in caplog.text

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_find_items_of_missing_folder_is_empty(self, tmp_path, scheme):
        assert find_items(f"{scheme}{tmp_path}/gone") == []
