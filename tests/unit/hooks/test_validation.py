"""Validation of parameters."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.sdk import ObjectStoragePath
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.hooks import validation

A = "11111111-1111-1111-1111-11111111111a"
B = "22222222-2222-2222-2222-222222222222"


def refused(words):
    return pytest.raises(RedBrickInputError, match=words)


def test_text_valid_is_returned():
    assert validation.text("stage_name", "Label") == "Label"


@pytest.mark.parametrize("value", ["", "  ", "\n", None])
def test_text_blank_is_refused(value):
    with refused("stage_name must not be empty"):
        validation.text("stage_name", value)


@pytest.mark.parametrize("value", [5, ["Label"], True, Path("Label")])
def test_text_of_other_type_is_refused(value):
    with refused("stage_name must be text, not "):
        validation.text("stage_name", value)


@pytest.mark.parametrize("value", ["/data/x", Path("/data/x"), ObjectStoragePath("/data/x")])
def test_path_accepts_path_objects(value):
    assert validation.path("report_path", value) == "/data/x"


def test_path_expands_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert validation.path("report_path", "~/x") == "/home/me/x"
    assert validation.path("report_path", ObjectStoragePath("s3://me@bucket/~x")) == "s3://me@bucket/~x"
    with refused("report_path must be text"):
        validation.path("report_path", 5)


@pytest.mark.parametrize("value", ["/data/{{ ds }}", Path("/data/{% if x %}y{% endif %}"), "s3://bucket/{{ ds }}"])
def test_path_with_template_is_refused(value):
    with refused("report_path has a template that was not rendered"):
        validation.path("report_path", value)


def test_sequence_valid_is_returned_as_list():
    assert validation.sequence("tasks", ("a", "b")) == ["a", "b"]


def test_sequence_of_rendered_text_names_solution():
    with refused("render_template_as_native_obj=True"):
        validation.sequence("task_ids", f"['{A}']")


@pytest.mark.parametrize("value", [None, 5, {"a": 1}, {A}, iter([A])])
def test_sequence_of_other_type_is_refused(value):
    with refused("task_ids must be a list, not"):
        validation.sequence("task_ids", value)


@pytest.mark.parametrize("value", [[], ()])
def test_sequence_empty_is_refused(value):
    with refused("task_ids is empty"):
        validation.sequence("task_ids", value)


def test_task_id_list_is_normalized_and_deduplicated():
    assert validation.task_id_list([A.upper(), B, A, B.replace("-", "")]) == [A, B]


@pytest.mark.parametrize("bad", ["", None, "{{ ti.xcom_pull() }}", "study-1", 5, A + "0"])
def test_task_id_list_invalid_id_names_position(bad):
    with refused(r"task_ids\[1\] must be a UUID"):
        validation.task_id_list([A, bad])


@pytest.mark.parametrize(("value", "read"), [(None, None), (0, 0), (7, 7), ("7", 7), (" 7 ", 7)])
def test_whole_number_valid_is_parsed(value, read):
    assert validation.whole_number("limit", value) == read


@pytest.mark.parametrize("value", [-1, "-1", 1.5, "1.5", 3.0, "", "many", True, False, [1], float("nan")])
def test_whole_number_invalid_is_refused(value):
    with refused("limit must be a whole number of at least 0"):
        validation.whole_number("limit", value)


def test_whole_number_below_low_is_refused():
    assert validation.whole_number("limit", 1, low=1) == 1
    with refused("at least 1, not 0"):
        validation.whole_number("limit", 0, low=1)


@pytest.mark.parametrize(
    "value",
    [
        "2024-05-01T12:00:00",
        "2024-05-01T14:00:00+02:00",
        "2024-05-01 12:00:00Z",
        datetime(2024, 5, 1, 12, tzinfo=timezone.utc),
        datetime(2024, 5, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        datetime(2024, 5, 1, 12),  # noqa: DTZ001
        pendulum.datetime(2024, 5, 1, 12),
    ],
)
def test_time_without_zone_is_utc(value):
    assert validation.time("updated_after", value) == pendulum.datetime(2024, 5, 1, 12)


def test_time_in_repeated_hour_keeps_order():
    zone = ZoneInfo("Europe/Berlin")
    summer, winter = (validation.time("t", datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=fold)) for fold in (0, 1))
    assert (summer.to_iso8601_string(), winter.to_iso8601_string()) == ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z")
    later = validation.time("t", pendulum.datetime(2026, 10, 25, 1, 15).in_timezone("Europe/Berlin"))
    assert summer < later < winter


@pytest.mark.parametrize("value", ["2024-05-01", "20240501", date(2024, 5, 1), pendulum.date(2024, 5, 1)])
def test_time_of_date_is_utc_midnight(value):
    assert validation.time("updated_after", value) == pendulum.datetime(2024, 5, 1)


def test_time_none_is_none():
    assert validation.time("updated_after", None) is None


@pytest.mark.parametrize(
    "value",
    [
        *["", "  ", "yesterday", "{{ data_interval_start }}", "None", "P1D", 5, 1714521600.0, 20240501],
        *["now", "today", "10:00", "T10:00", "2024", "2024-05", "2024-W18", "2024-W18-3", "2024-122", "1714521600"],
        *["/", "2024-05-01/", "/2024-05-01", "2024-05-01/P1D", "2024-05-01/2024-05-02", "P1W/2024-05-01"],
    ],
)
def test_time_invalid_is_refused(value):
    with refused("updated_after must"):
        validation.time("updated_after", value)


@given(st.text(max_size=30) | st.from_regex(r"\d{1,6}-\d{1,3}-\d{1,3}(T\d{1,3}:\d{1,3})?(/P\d[DWY])?"))
def test_time_of_any_text_raises_only_input_error(text):
    try:
        found = validation.time("updated_after", text)
    except RedBrickInputError:
        return
    assert isinstance(found, pendulum.DateTime)


@pytest.mark.parametrize("value", ["a\nb", "a\n", "s3://b/a\u2028", "a\x85b"])
def test_path_with_line_break_is_refused(value):
    with refused("report_path must be a path without line breaks"):
        validation.path("report_path", value)


def test_one_of_allowed_value_is_returned():
    assert validation.one_of("fail_on", "any", ("any", "all")) == "any"


@pytest.mark.parametrize("value", ["Any", "", None, [], {}])
def test_one_of_other_value_names_allowed_values(value):
    with refused("fail_on must be one of 'any', 'all'"):
        validation.one_of("fail_on", value, ("any", "all"))
