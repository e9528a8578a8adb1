"""Tests for parsing answers of any shape."""

from __future__ import annotations

import json

import pytest

from airflow_provider_redbrick.client.models.parsing import reading
from airflow_provider_redbrick.exceptions import RedBrickAnswerError


@pytest.mark.parametrize("read", [json.loads, lambda answer: answer.encode("ascii"), int])
def test_answer_error_does_not_keep_the_answer(read):
    """Errors are kept until the end of a long run, and error trackers show everything they hold."""
    answer = '{"labels": "' + "ä" * 1_000_000
    with pytest.raises(RedBrickAnswerError) as caught, reading("labels file"):
        read(answer)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert len(str(caught.value)) < 5000
