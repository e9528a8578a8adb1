"""Tests for retry decisions."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.transport.retry import RetryPolicy, retry_after_seconds, seconds_until_retry

POLICY = RetryPolicy(max_attempts=4, base=0.5, cap=8.0, retry_after_cap=60.0)
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=timezone.utc).timestamp()


def decide(error, *, mutation=False, attempt=1, draw=0.5, policy=POLICY):
    return seconds_until_retry(error, mutation=mutation, attempt=attempt, now=NOW, draw=draw, policy=policy)


def server(status):
    return err.RedBrickServerError("x", status=status, maybe_applied=True)


FINAL = [
    err.RedBrickAuthError("x", status=401),
    err.RedBrickAuthError("x", status=403),
    err.RedBrickNotFoundError("x", status=404),
    err.RedBrickRefusedError("x", status=400),
    err.RedBrickRefusedError("x"),
    err.RedBrickPayloadTooLargeError("x", status=413),
    err.RedBrickAnswerError("x", maybe_applied=True),
    server(500),
    server(501),
    err.RedBrickAPIError("x"),
]
SAFE = [
    err.RedBrickRateLimitError("x", status=429),
    err.RedBrickConnectionError("refused"),
]
LOST = [
    err.RedBrickConnectionError("dropped", maybe_applied=True),
    server(502),
    server(503),
    server(504),
]


def name(error):
    return f"{type(error).__name__}-{error.status}-{error.maybe_applied}"


@pytest.mark.parametrize("error", FINAL, ids=name)
@pytest.mark.parametrize("mutation", [False, True])
def test_permanent_error_is_not_retried(error, mutation):
    assert decide(error, mutation=mutation) is None


@pytest.mark.parametrize("error", SAFE, ids=name)
@pytest.mark.parametrize("mutation", [False, True])
def test_error_of_an_unapplied_request_is_retried(error, mutation):
    assert decide(error, mutation=mutation) == 0.25


@pytest.mark.parametrize("error", LOST, ids=name)
def test_lost_answer_retries_a_read_but_not_a_mutation(error):
    assert decide(error, mutation=False) == 0.25
    assert decide(error, mutation=True) is None


@pytest.mark.parametrize("error", SAFE + LOST, ids=name)
def test_retries_are_limited(error):
    assert [decide(error, attempt=n) is None for n in (1, 2, 3, 4, 5)] == [False, False, False, True, True]


@given(attempt=st.integers(1, 50), draw=st.floats(0, 1, exclude_max=True))
def test_jitter_is_full_and_bounded(attempt, draw):
    policy = RetryPolicy(max_attempts=100, base=0.5, cap=30.0)
    wait = decide(SAFE[1], attempt=attempt, draw=draw, policy=policy)
    assert wait == draw * min(30.0, 0.5 * 2 ** (attempt - 1))
    assert 0 <= wait <= 30.0


def limited(header):
    return err.RedBrickRateLimitError("x", status=429, retry_after=header)


@pytest.mark.parametrize("mutation", [False, True])
def test_retry_after_is_added_to_the_jitter(mutation):
    assert decide(limited("7"), mutation=mutation, draw=0.0) == 7.0
    assert decide(limited("7"), mutation=mutation, draw=0.5) == 7.25


def test_retry_after_is_obeyed_for_503():
    error = err.RedBrickServerError("x", status=503, retry_after="9", maybe_applied=True)
    assert decide(error, draw=0.0) == 9.0
    assert decide(error, draw=0.0, mutation=True) is None


def test_retry_after_over_the_cap_gives_up():
    assert decide(limited("60"), draw=0.0) == 60.0
    assert decide(limited("61")) is None
    assert decide(limited("9" * 400)) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 12 ", 12.0),
        (format_datetime(datetime(2024, 5, 1, 12, 0, 30, tzinfo=timezone.utc), usegmt=True), 30.0),
        ("Wed, 01 May 2024 14:00:30 +0200", 30.0),
        ("Wed, 01 May 2024 12:00:30 -0000", 30.0),
        ("Wed, 01 May 2024 11:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 99 May 2024 12:00:00 GMT", None),
        ("1 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Wed, 01 May 2024 12:00:00 +9999999999", None),
    ],
)
def test_retry_after_parses_seconds_and_dates(header, seconds):
    assert retry_after_seconds(header, now=NOW) == seconds


@given(
    st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,4} [A-Z][a-z]{2} \d{1,12} \d{1,3}:\d{1,3}(:\d+)? .{0,9}")
)
def test_retry_after_never_raises(header):
    seconds = retry_after_seconds(header, now=NOW)
    assert seconds is None or seconds >= 0
