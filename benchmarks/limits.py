"""The arithmetic limit: how long a work must take when nothing but the network does.

That is the round trips it needs, one after the other, times the latency of one: with so many connections, and as many
tasks a request as documented. Requests that depend on nothing of each other share a round trip.
"""

from __future__ import annotations

from math import ceil

from airflow_provider_redbrick.api.exports import LARGEST_PAGE
from airflow_provider_redbrick.api.project import MAX_IDS
from airflow_provider_redbrick.batch.converting import CONVERSIONS_A_REQUEST

CONNECTIONS = 10
MUTATIONS_A_REQUEST = 10
PAGE = 200
PEOPLE = 5

# The project with its taxonomy, and who this key is.
_OPENING = 2
# Neither these nor the project's members need another's answer; what is listed is found by a stage of the project.
_OPENED = 1


def limit_s(work: str, n: int, latency_s: float) -> float:
    """Return the least seconds that ``work`` on ``n`` tasks can take."""
    return _ROUNDS[work](n) * latency_s


def _put_labels(n: int) -> int:
    # Read with the project; then labels are converted, which the taxonomy is needed for; claimed; put.
    converted, read = ceil(n / CONVERSIONS_A_REQUEST), ceil(n / MAX_IDS)
    return _shared(_OPENING + converted + read + ceil(n / MAX_IDS) + ceil(n / MUTATIONS_A_REQUEST), depth=4)


def _review(n: int) -> int:
    # Read with the project; claimed; accepted.
    return _shared(_OPENING + ceil(n / MAX_IDS) + ceil(n / MAX_IDS) + ceil(n / MUTATIONS_A_REQUEST), depth=3)


def _reopen(n: int) -> int:
    # Read with the project; sent back.
    return _shared(_OPENING + ceil(n / MAX_IDS) + ceil(n / MUTATIONS_A_REQUEST), depth=2)


def _assign(n: int) -> int:
    # Who gets what is known when the whole queue has been listed.
    return _list(n) + _shared(PEOPLE * ceil(n / PEOPLE / MAX_IDS), depth=1)


def _list(n: int) -> int:
    # A page is found by the cursor in the one before it.
    return _OPENED + ceil(n / PAGE)


def _export(n: int) -> int:
    # Likewise; these have no masks to fetch.
    return _OPENED + ceil(n / LARGEST_PAGE)


def _shared(requests: int, *, depth: int) -> int:
    """Return the rounds that requests take over all connections, of which ``depth`` wait for one another."""
    return max(depth, ceil(requests / CONNECTIONS))


_ROUNDS = {
    "put_labels": _put_labels,
    "review": _review,
    "reopen": _reopen,
    "assign": _assign,
    "list": _list,
    "export": _export,
}


def sdk_s(work: str, n: int, latency_s: float) -> float:
    """Return about how long the SDK takes: a request a task, 10 at a time, or a page of 10 after the other."""
    sequential = {"assign": n + n / 10, "list": n / 10, "export": n / 10}
    return sequential.get(work, n / 10) * latency_s
