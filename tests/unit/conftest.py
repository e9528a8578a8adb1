"""Fixtures that unit tests of several folders use."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with non-files of each type. It is the working directory and the home directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "lost").symlink_to("gone/file")
    (tmp_path / "lost-folder").symlink_to("gone")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path
