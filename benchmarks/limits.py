"""Compute the minimum time of a work from its sequential round trips.

That is the round trips it needs, one after the other, times the latency of one: with so many connections, and as many
tasks a request as documented. Requests that depend on nothing of each other share a round trip.
"""

from __future__ import annotations

from math import ceil

from airflow_provider_redbrick.annotations.conversion import CONVERSIONS_A_REQUEST
from airflow_provider_redbrick.client.operations.project import MAX_IDS
from airflow_provider_redbrick.client.operations.task_reads import LARGEST_PAGE

CONNECTIONS = 10
MUTATIONS_A_REQUEST = 10
PAGE = 200
PEOPLE = 5

# The project with its taxonomy, and the account of the key.
_OPENING = 2
# These and the project's members are requested concurrently. A listing needs a stage of the project.
_OPENED = 1


def limit_s(work: str, n: int, latency_s: float) -> float:
    """Return the minimum time of a work.

    :param work: the name of the work.
    :param n: number of tasks.
    :param latency_s: response time of the server, in seconds.
    """
    return _ROUNDS[work](n) * latency_s


def _put_labels(n: int) -> int:
    # Tasks are read with the project. Then labels are converted (needs the taxonomy), tasks claimed, and labels put.
    converted, read = ceil(n / CONVERSIONS_A_REQUEST), ceil(n / MAX_IDS)
    return _shared(_OPENING + converted + read + ceil(n / MAX_IDS) + ceil(n / MUTATIONS_A_REQUEST), depth=4)


def _review(n: int) -> int:
    # Tasks are read with the project, claimed, and accepted.
    return _shared(_OPENING + ceil(n / MAX_IDS) + ceil(n / MAX_IDS) + ceil(n / MUTATIONS_A_REQUEST), depth=3)


def _reopen(n: int) -> int:
    # Tasks are read with the project, and reopened.
    return _shared(_OPENING + ceil(n / MAX_IDS) + ceil(n / MUTATIONS_A_REQUEST), depth=2)


def _assign(n: int) -> int:
    # The plan needs the complete listing.
    return _list(n) + _shared(PEOPLE * ceil(n / PEOPLE / MAX_IDS), depth=1)


def _list(n: int) -> int:
    # Each page needs the cursor of the previous page.
    return _OPENED + ceil(n / PAGE)


def _export(n: int) -> int:
    # As above. These tasks have no masks.
    return _OPENED + ceil(n / LARGEST_PAGE)


def _shared(requests: int, *, depth: int) -> int:
    """Return the round trips over all connections, with ``depth`` in sequence."""
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
    """Return the approximate time of the SDK: 10 concurrent requests, or pages of 10.

    :param work: the name of the work.
    :param n: number of tasks.
    :param latency_s: response time of the server, in seconds.
    """
    sequential = {"assign": n + n / 10, "list": n / 10, "export": n / 10}
    return sequential.get(work, n / 10) * latency_s
