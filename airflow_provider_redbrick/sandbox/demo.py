"""Demo tasks with real medical images.

The images come from the packages pydicom and nibabel (see `images`). They are written to the sandbox's storage, and a
task is created for each study.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.sandbox import seed
from airflow_provider_redbrick.sandbox.creation import Bulk, create_many

if TYPE_CHECKING:
    from airflow_provider_redbrick.sandbox.core import Sandbox


@lru_cache(1)
def _studies(count: int) -> tuple[Any, ...]:
    # Imported here: a sandbox without demo tasks does not need the image libraries.
    from airflow_provider_redbrick.sandbox.images import demo_studies  # noqa: PLC0415

    return tuple(demo_studies(count))


def populate(sandbox: Sandbox) -> None:
    """Create as many demo tasks as the settings require, named after their studies."""
    count = sandbox.settings.demo_tasks
    if not count:
        return
    project = sandbox.project(seed.ORG_ID, seed.PROJECT_ID)
    entries = study_entries(sandbox, project.project_id, count, named=True)
    create_many(sandbox, project, Bulk(count=len(entries), files=entries))


def study_entries(sandbox: Sandbox, project_id: str, count: int, *, named: bool = False) -> list[dict[str, Any]]:
    """Store the files of demo studies.

    :param sandbox: the sandbox that stores the files.
    :param project_id: the project, which is part of each path.
    :param count: number of studies.
    :param named: whether the tasks keep the names of the studies.
    :return: the value of `Bulk.files`: one entry with items and body per study.
    """
    return [_entry(sandbox, project_id, study, named=named) for study in _studies(count)]


def _entry(sandbox: Sandbox, project_id: str, study: Any, *, named: bool) -> dict[str, Any]:
    paths = []
    for file in study.files:
        path = f"{project_id}/items/{study.name}/{file.filename}"
        sandbox.put_file(path, file.content, "application/octet-stream")
        paths.append(path)
    body = {
        "seriesInfo": [
            {
                "name": study.name,
                "itemsIndices": list(range(len(paths))),
                "dataType": study.data_type,
                "metaData": json.dumps(dict(study.metadata)),
            }
        ],
        "metaData": json.dumps(dict(study.metadata)),
    }
    return {"items": paths, "body": body, **({"name": study.name} if named else {})}
