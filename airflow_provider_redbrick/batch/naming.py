"""Look up task ids by name.

One request looks up many names. The server refuses a request as a whole when it cannot look up one of its names; the
names are then looked up one by one, so that only that name fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_redbrick.batch.reading import NOT_ATTEMPTED
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.reading import CircuitBreaker


def find_ids_by_name(
    project: RedBrickProject, names: Sequence[str], breaker: CircuitBreaker
) -> Mapping[str, list[str] | str]:
    """Return the ids of the tasks with each name.

    :param project: the project to search.
    :param names: exact task names.
    :param breaker: circuit breaker of the run; no request is sent while it is open.
    :return: for each name a list of ids (empty if no task has it), or a text that says why it could not be looked up.
    """
    if not names:
        return {}
    if breaker.is_open:
        return dict.fromkeys(names, NOT_ATTEMPTED)
    try:
        ids = project.find_by_name(names)
    except RedBrickRefusedError as error:
        if len(names) == 1:
            return {names[0]: _lookup_failure(error)}
        return {name: answer for one in names for name, answer in find_ids_by_name(project, [one], breaker).items()}
    except RedBrickAPIError as error:
        breaker.record(error)
        return dict.fromkeys(names, _lookup_failure(error))
    breaker.record(None)
    return ids


def _lookup_failure(error: RedBrickAPIError) -> str:
    return f"It could not be looked up, and nothing was sent: {error}"
