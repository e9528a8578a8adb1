"""Stage counts, task cards and file contents for the board."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.sandbox import listing, seed
from airflow_provider_redbrick.sandbox.flow import GROUND_TRUTH, OUTPUT, RefusalError
from airflow_provider_redbrick.sandbox.labels import current_labels

if TYPE_CHECKING:
    from airflow_provider_redbrick.sandbox.core import Project, Sandbox
    from airflow_provider_redbrick.sandbox.store import Record


class StoreBoard:
    """Read a project from the store for the board.

    :param sandbox: the sandbox that stores the project.
    :param project_id: the project; the demo project by default.
    """

    def __init__(self, sandbox: Sandbox, project_id: str = seed.PROJECT_ID) -> None:
        self._sandbox = sandbox
        self._project_id = project_id

    def _project(self) -> Project:
        return self._sandbox.project(seed.ORG_ID, self._project_id)

    def summary(self) -> dict[str, Any]:
        """Return the project and its stages, each with its task count and assignees."""
        self._sandbox.settle()
        project = self._project()
        rows = self._sandbox.store.rows(
            "SELECT stage, holders, COUNT(*) AS n FROM tasks WHERE project_id = ? GROUP BY stage, holders",
            (self._project_id,),
        )
        counts: Counter[str] = Counter()
        people: dict[str, Counter[str]] = {}
        for row in rows:
            counts[row["stage"]] += row["n"]
            held = people.setdefault(row["stage"], Counter())
            holders = [each for each in row["holders"].split(",") if each]
            for name in [seed.short_name(each) for each in holders] or ["unassigned"]:
                held[name] += row["n"]
        stages = []
        for stage in project.flow.stages:
            output = stage.brick == OUTPUT
            stored = GROUND_TRUTH if output else stage.name
            stages.append(
                {
                    "name": stage.name,
                    "kind": stage.brick,
                    "title": "Ground Truth" if output else stage.name,
                    "count": counts[stored],
                    "by_person": {} if output else dict(people.get(stored, {})),
                }
            )
        return {
            "project": project.document["name"],
            "project_id": self._project_id,
            "org_id": seed.ORG_ID,
            "stages": stages,
        }

    def cards(self, stage: str, limit: int) -> list[dict[str, Any]]:
        """Return the first tasks of a stage as cards.

        :param stage: name of the stage. The name of the output stage and "END" both mean ground truth. An unknown stage
            has no cards.
        :param limit: maximum number of cards. The `max_page` setting also limits it.
        """
        self._sandbox.settle()
        project = self._project()
        stored = GROUND_TRUTH if stage == project.flow.output else stage
        size = min(limit, self._sandbox.settings.max_page)
        page = listing.page(self._sandbox, listing.in_stage(project, stored), size, None)
        return [self._card(record) for record in page.records]

    def _card(self, record: Record) -> dict[str, Any]:
        store = self._sandbox.store
        row = store.row("SELECT items, body FROM datapoints WHERE dp_id = ?", (record.dp_id,))
        items = json.loads(row["items"]) if row else []
        series = (json.loads(row["body"]).get("seriesInfo") or [{}]) if row else [{}]
        holders = record.task.holders
        return {
            "task_id": record.task.task_id,
            "name": record.name,
            "state": record.task.state,
            "assignee": seed.short_name(holders[0]) if holders else None,
            "labels": self._labels(record),
            "item": items[0] if items else None,
            "data_type": series[0].get("dataType"),
        }

    def _labels(self, record: Record) -> list[dict[str, Any]]:
        try:
            return current_labels(self._sandbox, record.version)
        except RefusalError:
            # The labels file was overwritten with invalid content. The API reports that; the board shows no labels.
            return []

    def blob(self, path: str) -> bytes:
        """Read a stored file.

        :raises KeyError: if the path does not exist.
        """
        row = self._sandbox.store.row("SELECT content FROM files WHERE path = ?", (path,))
        if row is None:
            raise KeyError(path)
        return bytes(row["content"])
