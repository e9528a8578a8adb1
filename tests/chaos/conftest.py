"""Bad conditions: what goes wrong how often, and operators that have to work in it."""

from __future__ import annotations

from itertools import count

import pytest
from chaos.scale import SEEDS, TASKS
from chaos.tap import Tap
from chaos.tries import KeptState, Tries
from chaos.works import WORKS, Work
from fixtures import Run, holders, impatient, new_run, quick, run, running_sandbox, sandbox

__all__ = ["holders", "impatient", "new_run", "quick", "run", "running_sandbox", "sandbox"]

# Of all requests; a tenth fails with 5xx. Those with a wait of a second in them are few, or nobody would wait for it.
WEATHER = {
    **dict.fromkeys(("http_500", "http_502", "http_503", "http_504"), 0.025),
    "rate_limit": 0.047,
    "rate_limit_after": 0.003,
    "drop_before": 0.05,
    "drop_after": 0.05,
    "slow": 0.005,
    "gql_error": 0.02,
    "gql_partial": 0.02,
    "not_ok": 0.02,
    "html": 0.02,
    "empty_page": 0.05,
}


def pytest_generate_tests(metafunc):
    """Let a test that asks for a ``seed`` have each of them."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", SEEDS, ids=[f"seed{seed}" for seed in SEEDS])


@pytest.fixture
def work(sandbox):
    """Give an operator something to do: ``work(kind)``, on so many tasks as everywhere or as are said."""

    def make(kind: str, count: int = TASKS) -> Work:
        return WORKS[kind](sandbox, count)

    return make


@pytest.fixture
def storm(work, sandbox, quick):
    """Give an operator something to do, and let everything go wrong: ``storm(kind, seed)``, perhaps with other odds."""

    def make(kind: str, seed: int, **otherwise: float) -> Work:
        given = work(kind)
        given.choosy = True
        odds = {**WEATHER, **otherwise, "seed": seed}
        sandbox.faults(",".join(f"{name}={value}" for name, value in odds.items()))
        return given

    return make


@pytest.fixture
def tap(monkeypatch):
    """What the operators send and are answered."""
    return Tap(monkeypatch)


@pytest.fixture
def tries(sandbox, tap, tmp_path, caplog):
    """Make the tries of a run: of an Airflow that keeps state across them, as 3.3 does, or of one below."""
    numbers = count(1)

    def make(*, kept: bool = False) -> Tries:
        state = {"task_state_store": KeptState(tmp_path / f"state-{next(numbers)}.json")} if kept else {}
        return Tries(Run(**state), sandbox, tap, caplog)

    return make
