"""Which projects the page offers."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.plugins.choices import Choice, all_choices, read_choices


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("", []),
        ("redbrick_default", [Choice("redbrick_default")]),
        (" a , b/123 ,a,", [Choice("a"), Choice("b", "123")]),
        ("a/1\n a / 2\n", [Choice("a", "1"), Choice("a", "2")]),
        ("/1", []),
    ],
)
def test_the_option(text, choices):
    assert read_choices(text) == choices


def test_configured_ones_come_first_and_none_twice():
    assert all_choices("b/1,a", ["a", "b", "c"]) == [Choice("b", "1"), Choice("a"), Choice("c")]
