"""Finding tasks by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_redbrick.batch.reading import NOT_TRIED
from airflow_provider_redbrick.exceptions import RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.project import RedBrickProject
    from airflow_provider_redbrick.batch.reading import CircuitBreaker


def ids_by_name(
    project: RedBrickProject, names: Sequence[str], breaker: CircuitBreaker
) -> Mapping[str, list[str] | str]:
    """Return for each name the ids of the tasks that have it or, as text, why that is not known."""
    if not names:
        return {}
    if breaker.is_open:
        return dict.fromkeys(names, NOT_TRIED)
    try:
        found = project.find_by_name(names)
    except RedBrickRefusedError as error:
        if len(names) == 1:
            return {names[0]: _unknown(error)}
        # A name that the server cannot look up is that name's failure and nobody else's.
        return {name: answer for one in names for name, answer in ids_by_name(project, [one], breaker).items()}
    except RedBrickAPIError as error:
        breaker.saw(error)
        return dict.fromkeys(names, _unknown(error))
    breaker.saw(None)
    return found


def _unknown(error: RedBrickAPIError) -> str:
    return f"It could not be looked up, and nothing was sent: {error}"
