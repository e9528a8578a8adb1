"""Tasks with real pictures: the studies the sandbox knows, put into its storage and made into tasks."""

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
    # Imported here: pictures need libraries that a sandbox without them does not.
    from airflow_provider_redbrick.sandbox.images import demo_studies  # noqa: PLC0415

    return tuple(demo_studies(count))


def populate(sandbox: Sandbox) -> None:
    """Make the demo's tasks, as many as the settings say, with the names of their studies."""
    count = sandbox.settings.demo_tasks
    if not count:
        return
    project = sandbox.project(seed.ORG_ID, seed.PROJECT_ID)
    entries = study_entries(sandbox, project.project_id, count, named=True)
    create_many(sandbox, project, Bulk(count=len(entries), files=entries))


def study_entries(sandbox: Sandbox, project_id: str, count: int, *, named: bool = False) -> list[dict[str, Any]]:
    """Store the files of `count` studies and give what `Bulk.files` needs; `named` keeps the studies' names."""
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
