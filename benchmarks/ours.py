"""The works as operators do them; run by Airflow's Python."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pendulum

import airflow_provider_redbrick
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator
from benchmarks.labels import labelled
from benchmarks.measuring import serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measuring import Job

# Operators load these when they first work; here they must be there before, as the SDK's own are.
_LOADED_LATER = ("client", "labels", "engine", "assignments", "annotations", "actions", "hooks", "operators")

_OPERATORS: dict[str, Callable[[Job], Any]] = {
    "put_labels": lambda job: RedBrickPutLabelsOperator(
        task_id="put", stage_name="Label", tasks=[labelled(task_id) for task_id in job["task_ids"]]
    ),
    "review": lambda job: RedBrickAutoReviewOperator(
        task_id="review", stage_name="Review_1", task_ids=job["task_ids"], review_result=True
    ),
    "reopen": lambda job: RedBrickReopenGroundTruthOperator(task_id="reopen", task_ids=job["task_ids"]),
    "assign": lambda job: RedBrickBalanceAssignmentsOperator(
        task_id="share", stage_name="Label", emails=job["members"]
    ),
    "list": lambda _job: RedBrickListTasksOperator(task_id="list", stage_name="Label", limit=None),
    "export": lambda job: RedBrickExportTasksOperator(task_id="export", export_path=f"{job['folder']}/ours"),
}


def load() -> None:
    """Load every module that an operator uses."""
    for folder in _LOADED_LATER:
        package = import_module(f"{airflow_provider_redbrick.__name__}.{folder}")
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


def prepare(job: Job) -> Callable[[], int]:
    """Return a function that executes the work's operator."""
    operator = _OPERATORS[job["work"]](job)
    context = {
        "ti": SimpleNamespace(
            dag_id="benchmarks",
            run_id="benchmarks",
            task_id=operator.task_id,
            map_index=-1,
            try_number=1,
            xcom_push=lambda **_: None,
        ),
        "dag_run": SimpleNamespace(start_date=pendulum.now("UTC")),
    }

    def work() -> int:
        made = operator.execute(context)
        if isinstance(made, list):
            return len(made)
        return int(made["counts"]["tasks"] if job["work"] == "export" else made["counts"]["done"])

    return work


def warm_up(_job: Job) -> None:
    """Use everything once: the connection, the transport, the threads."""
    RedBrickListTasksOperator(task_id="warm_up", stage_name="Label", limit=1).execute({})


if __name__ == "__main__":
    load()
    serve(prepare, warm_up)
