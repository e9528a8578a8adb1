"""Fixtures of the chaos suite: fault rates, and operators that have to work under them."""

from __future__ import annotations

from itertools import count

import pytest
from chaos.scale import SEEDS, TASKS
from chaos.tap import Tap
from chaos.tries import Attempts, KeptState
from chaos.works import WORKS, Work
from fixtures import Run, holders, impatient, new_run, quick, run, running_sandbox, sandbox

__all__ = ["holders", "impatient", "new_run", "quick", "run", "running_sandbox", "sandbox"]

# Share of all requests; a tenth fails with 5xx. Faults that wait a second are rare, so that the suite stays fast.
FAULT_RATES = {
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
    """Parametrize tests with a ``seed`` argument by all seeds."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", SEEDS, ids=[f"seed{seed}" for seed in SEEDS])


@pytest.fixture
def work(sandbox):
    """Create the work of an operator: ``work(kind)``, with the default or a given number of tasks."""

    def make(kind: str, count: int = TASKS) -> Work:
        return WORKS[kind](sandbox, count)

    return make


@pytest.fixture
def storm(work, sandbox, quick):
    """Create the work of an operator and inject faults: ``storm(kind, seed)``, with overridden rates."""

    def make(kind: str, seed: int, **overrides: float) -> Work:
        created = work(kind)
        created.choosy = True
        rates = {**FAULT_RATES, **overrides, "seed": seed}
        sandbox.faults(",".join(f"{name}={value}" for name, value in rates.items()))
        return created

    return make


@pytest.fixture
def tap(monkeypatch):
    """Observe the requests and answers of operators."""
    return Tap(monkeypatch)


@pytest.fixture
def attempts(sandbox, tap, tmp_path, caplog):
    """Create the attempts of a run, with state kept across them (Airflow 3.3) or without."""
    numbers = count(1)

    def make(*, kept: bool = False) -> Attempts:
        state = {"task_state_store": KeptState(tmp_path / f"state-{next(numbers)}.json")} if kept else {}
        return Attempts(Run(**state), sandbox, tap, caplog)

    return make
