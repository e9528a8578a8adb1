"""Which names in a list lead to files that it may name."""

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
def test_what_is_in_a_folder(name, folder):
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
def test_what_is_not(name, folder):
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
def test_a_list_in_an_object_store_names_nothing_elsewhere(name, monkeypatch):
    opened = []
    monkeypatch.setattr("airflow_provider_redbrick.hooks.files.open_file", opened.append)
    with pytest.raises(RedBrickInputError, match="leads out of the folder of s3://mine@"):
        FilesBeside(LIST)(name)
    assert opened == []


@pytest.mark.parametrize("name", ["images/1.dcm", "x/../images/1.dcm", "s3://mine@scans/day/images/1.dcm"])
def test_what_is_beside_it_is_opened_with_its_connection(name, monkeypatch):
    opened = []
    monkeypatch.setattr("airflow_provider_redbrick.hooks.files.open_file", lambda uri: opened.append(uri) or object())
    FilesBeside(LIST)(name)
    assert opened == ["s3://mine@scans/day/images/1.dcm"]


@pytest.mark.parametrize("value", ["/data", [""], ["data"], [7], [None], ["s3://"], ["s3://me@"], ["s3://b/../c"], 7])
def test_what_is_no_folder_is_refused(value):
    with pytest.raises(RedBrickInputError, match="allowed_folders"):
        check_folders("allowed_folders", value)


def test_a_link_that_is_turned_after_the_look_leads_where_it_led(tmp_path, monkeypatch):
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
