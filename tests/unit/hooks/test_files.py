"""Which files a list of tasks may name."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks.files import FilesBeside, check_folders, get_path_key, is_within

LIST = "s3://mine@scans/day/tasks.jsonl"


def within(name: str, *folders: str) -> bool:
    return is_within(get_path_key(name), check_folders("allowed_folders", list(folders)))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("s3://bucket/a/1.dcm", "s3://bucket/a"),
        ("s3://bucket/a/b/1.dcm", "s3://bucket/a/"),
        ("s3://bucket/1.dcm", "S3://bucket"),
        ("s3://me@bucket/a/1.dcm", "s3://me@bucket/a"),
        ("/data/a/1.dcm", "/data/a/"),
        ("file:///data/a/1.dcm", "/data/a"),
        ("FILE://me@/data/a/1.dcm", "file:///data"),
        ("/data/a/../a/1.dcm", "/data/a"),
        ("/data/a/1.dcm", "/"),
    ],
)
def test_is_within_path_inside_folder_is_true(name, folder):
    assert within(name, "gs://other", folder)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("s3://bucket/ab/1.dcm", "s3://bucket/a"),
        ("s3://buckets/a/1.dcm", "s3://bucket"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("gs://bucket/a/1.dcm", "s3://bucket/a"),
        # Another connection's credentials.
        ("s3://admin@bucket/a/1.dcm", "s3://bucket/a"),
        ("s3://bucket/a/1.dcm", "s3://me@bucket/a"),
        ("/data/ab/1.dcm", "/data/a"),
        ("/data/a/../b/1.dcm", "/data/a"),
        ("local:///etc/passwd", "/data"),
        ("/bucket/a/1.dcm", "s3://bucket/a"),
    ],
)
def test_is_within_path_outside_folder_is_false(name, folder):
    assert not within(name, folder)


@pytest.mark.parametrize(
    "name",
    [
        "s3://other/day/1.dcm",
        "s3://scans/day/1.dcm",
        "s3://admin@scans/day/1.dcm",
        "s3://mine@scans/dayly/1.dcm",
        "s3://mine@scans/day/../night/1.dcm",
        "s3://mine@scans/day/%2e%2e/night/1.dcm",
        "s3://mine@scans/day/..\\night/1.dcm",
        "../night/1.dcm",
        "%2e%2e/night/1.dcm",
        "a%2f..%2f../night/1.dcm",
        "/etc/passwd",
        "file:///etc/passwd",
        " file:///etc/passwd",
        "simplecache::file:///etc/passwd",
        "s3://mine@scans/day/a.zip::file:///etc/passwd",
        "s3://mine@scans/day/.\t./night/1.dcm",
        "nosuch://a/b",
        "://a",
    ],
)
def test_files_beside_uri_list_refuses_other_locations(name, monkeypatch):
    opened = []
    monkeypatch.setattr("airflow_provider_redbrick.hooks.files.open_file", opened.append)
    with pytest.raises(RedBrickInputError, match="leads out of the folder of s3://mine@"):
        FilesBeside(LIST)(name)
    assert opened == []


@pytest.mark.parametrize("name", ["images/1.dcm", "x/../images/1.dcm", "s3://mine@scans/day/images/1.dcm"])
def test_files_beside_uri_list_keep_connection(name, monkeypatch):
    opened = []
    monkeypatch.setattr("airflow_provider_redbrick.hooks.files.open_file", lambda uri: opened.append(uri) or object())
    FilesBeside(LIST)(name)
    assert opened == ["s3://mine@scans/day/images/1.dcm"]


@pytest.mark.parametrize("value", ["/data", [""], ["data"], [7], [None], ["s3://"], ["s3://me@"], ["s3://b/../c"], 7])
def test_check_folders_invalid_value_is_refused(value):
    with pytest.raises(RedBrickInputError, match="allowed_folders"):
        check_folders("allowed_folders", value)


def test_files_beside_link_changed_after_check_has_no_effect(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "scan").write_text("scan")
    link = folder / "link"
    link.symlink_to("scan")

    def looked(place, folders):
        found = is_within(place, folders)
        link.unlink()
        link.symlink_to(tmp_path / "secret")
        return found

    monkeypatch.setattr("airflow_provider_redbrick.hooks.files.is_within", looked)
    with FilesBeside(str(folder / "tasks.jsonl"))("link") as file:
        assert file.read() == b"scan"
