"""Tests of the report that operators write."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.operators.base import open_report


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{}/folder", "it is a folder, not a file"),
        ("file://{}/folder", "it is a folder, not a file"),
        ("{}/lost", "is a link to 'gone/file', which does not exist"),
        ("{}/lost-folder/report.jsonl", "is a link to 'gone', which does not exist"),
        ("{}/file/report.jsonl", "file' is a file, not a folder"),
    ],
)
def test_open_report_unwritable_path_names_reason(folder, path, words):
    with pytest.raises(RedBrickInputError, match="report_path") as caught, open_report(path.format(folder), {}):
        pass
    assert words in str(caught.value)
