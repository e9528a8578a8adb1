"""Tests of the projects that the page offers."""

from __future__ import annotations

import pytest

from airflow_provider_redbrick.plugins.access import Choice, all_choices, read_choices

ONE, TWO = "11111111-1111-4111-8111-111111111111", "aaaaaaaa-2222-4222-8222-222222222222"


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("", []),
        ("redbrick_default", [Choice("redbrick_default")]),
        (f" a , b/{ONE} ,a,", [Choice("a"), Choice("b", ONE)]),
        (f"a/{ONE}\n a / {TWO.upper()}\n", [Choice("a", ONE), Choice("a", TWO)]),
    ],
)
def test_read_choices_parses_the_option(text, choices):
    assert read_choices(text) == (choices, [])


@pytest.mark.parametrize("entry", [f"/{ONE}", "a/", "a/1", f"a/b/{ONE}", "two words", '"a"', "a;b", "x" * 251])
def test_read_choices_reports_invalid_entries(entry):
    choices, (problem,) = read_choices(f"first, {entry}, last")
    assert choices == [Choice("first"), Choice("last")]
    assert entry[:150] in problem


def test_all_choices_lists_configured_first_without_duplicates():
    configured, _ = read_choices(f"b/{ONE},a")
    assert all_choices(configured, ["a", "b", "c"]) == [Choice("b", ONE), Choice("a"), Choice("c")]
