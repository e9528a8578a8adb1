"""Test that JSON values survive storage and responses unchanged."""

from __future__ import annotations

import json

import pytest

from redbrick_sandbox import store


def nested(depth):
    return [nested(depth - 1)] if depth else []


KEPT = [{"a": [1, 0.5, None, True, "é\0"]}, ["\ud800"], nested(400)]


@pytest.mark.parametrize("value", [*KEPT, {"a": 10**30}])
def test_write_round_trips(value):
    assert json.loads(store.write(value)) == value


@pytest.mark.parametrize("value", KEPT)
def test_read_round_trips(value):
    assert store.read(store.write(value)) == value
