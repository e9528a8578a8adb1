"""Tests for the estimate of the server's clock."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.client.transport.clock import ServerClock, epoch_seconds

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=timezone.utc).timestamp()
ROUNDING_S = 1e-6


class Machines:
    """This machine and a server whose clock is ahead by an offset."""

    def __init__(self, offset_s=0.0):
        self.local_s = NOW
        self.offset_s = offset_s
        self.clock = ServerClock(lambda: self.local_s)

    def exchange(self, *, there_s=0.01, back_s=0.01, header_age_s=0.0, pause_s=0.0):
        """Send a request and observe its answer."""
        self.local_s += pause_s
        sent_at = self.local_s
        self.local_s += there_s
        header = formatdate(math.floor(self.local_s + self.offset_s - header_age_s), usegmt=True)
        self.local_s += back_s
        self.clock.observe(header, sent_at=sent_at, received_at=self.local_s)

    def assert_offset_is_within_bounds(self):
        assert abs(self.clock.offset_s - self.offset_s) <= self.clock.error_s + ROUNDING_S
        assert abs(self.clock.now().timestamp() - (self.local_s + self.offset_s)) <= self.clock.error_s + ROUNDING_S


LATENCY = st.floats(0, 30)
EXCHANGES = st.lists(
    st.fixed_dictionaries(
        {"there_s": LATENCY, "back_s": LATENCY, "header_age_s": st.floats(0, 1), "pause_s": st.floats(0, 3600)}
    ),
    min_size=1,
    max_size=20,
)


@given(offset_s=st.floats(-400, 400), exchanges=EXCHANGES)
def test_true_offset_is_within_bounds_for_any_latency(offset_s, exchanges):
    machines = Machines(offset_s)
    for exchange in exchanges:
        machines.exchange(**exchange)
        machines.assert_offset_is_within_bounds()


@given(jump_s=st.floats(100, 400) | st.floats(-400, -100), exchanges=EXCHANGES)
def test_estimate_follows_a_clock_that_was_set(jump_s, exchanges):
    machines = Machines()
    machines.exchange()
    machines.offset_s += jump_s
    for exchange in exchanges:
        machines.exchange(**exchange)
        machines.assert_offset_is_within_bounds()


@pytest.mark.parametrize("offset_s", [-300.0, 300.0, 0.3, -0.3])
def test_estimate_of_quick_answers_is_within_a_second(offset_s):
    machines = Machines(offset_s)
    for _ in range(50):
        machines.exchange(pause_s=0.07)
    machines.assert_offset_is_within_bounds()
    assert machines.clock.error_s < 1
    assert machines.clock.offset_s == pytest.approx(offset_s, abs=0.6)


def test_slow_answer_does_not_widen_the_bounds():
    machines = Machines(300.0)
    machines.exchange()
    error_s = machines.clock.error_s
    machines.exchange(there_s=29.0)
    assert machines.clock.error_s <= error_s + 0.1


def test_error_grows_while_nothing_is_observed():
    machines = Machines()
    machines.exchange()
    error_s = machines.clock.error_s
    machines.local_s += 3600
    assert machines.clock.error_s == pytest.approx(error_s + 1.8)


@pytest.mark.parametrize(
    "header", [None, "", "soon", "Wed, 99 May 2024 12:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "1714564800"]
)
def test_missing_or_garbled_header_leaves_the_local_clock(header):
    machines = Machines()
    machines.clock.observe(header, sent_at=NOW, received_at=NOW + 1)
    assert (machines.clock.offset_s, machines.clock.error_s) == (0.0, None)
    assert machines.clock.now().timestamp() == NOW


def test_answer_received_before_it_was_sent_is_ignored():
    """The local clock was set back meanwhile."""
    machines = Machines()
    machines.clock.observe(formatdate(NOW, usegmt=True), sent_at=NOW, received_at=NOW - 60)
    assert machines.clock.error_s is None


def test_server_time_is_utc():
    assert Machines().clock.now().timezone_name == "UTC"


@given(
    st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,4} [A-Z][a-z]{2} \d{1,12} \d{1,3}:\d{1,3}(:\d+)? .{0,9}")
)
def test_garbled_date_never_raises(text):
    machines = Machines()
    machines.clock.observe(text, sent_at=NOW, received_at=NOW)
    assert machines.clock.now()
    assert epoch_seconds(text) is None or isinstance(epoch_seconds(text), float)
