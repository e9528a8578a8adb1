"""The same tasks, read by this provider and by the public SDK."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import requests
from sandbox_calls import PRESIGN

from airflow_provider_redbrick.client.models.task import Detail, Task
from airflow_provider_redbrick.engine.task_reader import with_series_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox_process import SandboxProcess
    from sdk.label_corpus import CorpusTask

    from airflow_provider_redbrick.client.operations.project import RedBrickProject

REDBRICK_STORAGE = "22222222-2222-2222-2222-222222222222"
ABSENT = "(absent)"
CREATE = """mutation ($o: UUID!, $p: UUID!, $storage: UUID!, $name: String!, $items: [String!]!, $truth: Boolean!,
        $info: [SeriesInfoInput!], $labels: String, $path: String, $map: [LabelMapInput]) {
    createDatapoint(orgId: $o, projectId: $p, storageId: $storage, name: $name, items: $items, seriesInfo: $info,
        isGroundTruth: $truth, labelsData: $labels, labelsDataPath: $path, labelsMap: $map) { taskId } }"""
PUT_LABELS = """mutation ($o: UUID!, $p: UUID!, $t: UUID!, $labels: String, $map: [LabelMapInput]) {
    putLabels(orgId: $o, projectId: $p, taskId: $t, labelsData: $labels, labelsMap: $map) { ok } }"""


def _create(sandbox: SandboxProcess, task: CorpusTask, *, ground_truth: bool) -> str:
    ids = {"o": sandbox.org_id, "p": sandbox.project_id}
    labels, path = json.dumps(task.labels), None
    if task.in_file:
        wanted = [f"labels/{task.name.replace(' ', '-')}/data.json"]
        kind = {"files": wanted, "kind": "application/json", "enc": "gzip"}
        [signed] = sandbox.graphql(PRESIGN, {**ids, **kind})["presignUploads"]
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        content = gzip.compress(labels.encode())
        requests.put(signed["presignedUrl"], data=content, headers=headers, timeout=30).raise_for_status()
        labels, path = "[]", signed["filePath"]
    answer = sandbox.graphql(
        CREATE,
        {
            **ids,
            "storage": REDBRICK_STORAGE,
            "name": task.name,
            "items": task.items,
            "truth": ground_truth,
            "info": task.series_info,
            "labels": labels,
            "path": path,
            "map": task.labels_map,
        },
    )
    return str(answer["createDatapoint"]["taskId"])


def _read_ours(project: RedBrickProject, task_ids: list[str]) -> dict[str, Task]:
    read = project.read_tasks(task_ids, detail=Detail.FULL)
    assert [answer for answer in read.values() if not isinstance(answer, Task)] == []
    return {task_id: with_series_labels(project, task) for task_id, task in read.items() if isinstance(task, Task)}


def _differences(theirs: Any, ours: Any, at: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield all differences of two documents. 1 differs from 1.0 and from true; null differs from absent."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [*theirs, *(key for key in ours if key not in theirs)]
        pairs = [(key, theirs.get(key, ABSENT), ours.get(key, ABSENT)) for key in keys]
    elif isinstance(theirs, list) and isinstance(ours, list):
        short = [ABSENT] * abs(len(theirs) - len(ours))
        longer = zip([*theirs, *short], [*ours, *short], strict=False)
        pairs = [(index, *pair) for index, pair in enumerate(longer)]
    else:
        if type(theirs) is not type(ours) or theirs != ours:
            yield at, theirs, ours
        return
    for key, left, right in pairs:
        yield from _differences(left, right, f"{at}.{key}")


def _without_ids(task: Task) -> dict[str, Any]:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key != "id"}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return {"series": without(list(task.series)), "classification": without(task.classification)}
