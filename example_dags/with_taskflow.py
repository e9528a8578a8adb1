"""Use decorated functions as the model and the reviewer, with XCom arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import dag, task
from threshold_model import plausible, predict

from airflow_provider_redbrick.operators.auto_review import Review
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator

if TYPE_CHECKING:
    from airflow_provider_redbrick.client.models.task import Task


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args={"retries": 2},
    tags=["redbrick"],
)
def with_taskflow() -> None:
    """Prelabel a queue in chunks, then accept tasks that are plausible and simple."""

    @task
    def max_boxes() -> int:
        """Return a setting that is read once per run."""
        return 2

    @task.redbrick_prelabel(stage_name="Label", overwrite=False)
    def prelabel(scan: Task) -> dict[str, Any] | None:
        """Return labels for one task."""
        return predict(scan)

    @task.redbrick_auto_review(stage_name="Review_1")
    def review(scan: Task, limit: int) -> Review:
        """Return the decision for one task."""
        boxes = [box for series in scan.series for box in series.get("boundingBoxes", [])]
        return Review.accept() if plausible(scan) and len(boxes) <= limit else Review.leave()

    queue = RedBrickListTasksOperator(task_id="list_queue", stage_name="Label", state="UNASSIGNED", chunk_size=100)
    prelabel.expand(task_ids=queue.output) >> review(max_boxes())


with_taskflow()
