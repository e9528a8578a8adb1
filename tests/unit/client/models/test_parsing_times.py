"""Tests for dates and times."""

from __future__ import annotations

import pendulum
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_redbrick.client.models.parsing import moment

NEARLY_TIMES = st.text("0123456789-:.,+ TZWPDYMHS/", max_size=30) | st.from_regex(
    r"\d{1,6}-\d{1,3}-\d{1,3}(T\d{1,3}:\d{1,3}(:\d{1,3}(\.\d{1,9})?)?(Z|[+-]\d{1,2}:?\d{1,2})?)?(/P\d[DWY])?"
)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T12:00:00.000000+00:00",
        "2024-05-01T12:00:00Z",
        "2024-05-01T12:00:00",
        "2024-05-01 12:00",
        "2024-05-01T14:00:00+02:00",
        "2024-05-01T07:30:00-0430",
        "20240501T120000Z",
    ],
)
def test_moment_parses_every_spelling(text):
    found = moment(text)
    assert found == pendulum.datetime(2024, 5, 1, 12)
    assert found + pendulum.duration(days=31) == pendulum.datetime(2024, 6, 1, 12)


@pytest.mark.parametrize("value", [None, "", 5, {}, True, "yesterday", "P1D", "2024-13-01", "now", "10:00", "2024"])
def test_moment_of_another_value_is_none(value):
    assert moment(value) is None


@pytest.mark.parametrize("text", ["/", "//", "2024-05-01/", "/P1D", "2024-05-01/2024-05-02", "P1W/2024-05-01"])
def test_moment_of_an_interval_is_none(text):
    assert moment(text) is None


@given(st.text(max_size=30) | NEARLY_TIMES)
@example("0-0-0/")
def test_moment_never_raises(text):
    found = moment(text)
    assert found is None or found.in_timezone("UTC") == found
