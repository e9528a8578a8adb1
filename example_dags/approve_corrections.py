"""Ask a person before implausible ground truth is reopened for paid correction.

Airflow's approval step needs Airflow 3.1 or newer. On older versions, the step `approve` fails with a message
that says so, and nothing is reopened.
"""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from airflow.sdk import Param, dag, task
from threshold_model import too_large

from airflow_provider_redbrick.links import RedBrickProjectLink
from airflow_provider_redbrick.notifications.queue import RedBrickQueueNotifier
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.reopen_ground_truth import RedBrickReopenGroundTruthOperator

IMPLAUSIBLE = "ti.xcom_pull(task_ids='find_implausible')"
QUESTION = f"""
* {{{{ {IMPLAUSIBLE} | length }}}} of {{{{ ti.xcom_pull(task_ids='export')['counts']['tasks'] }}}} tasks that were
  finished or corrected within a week have a box that is too large.
* Their labels are in `{{{{ ti.xcom_pull(task_ids='export')['uri'] }}}}`; the first ones:
  {{{{ {IMPLAUSIBLE}[:5] | join(', ') }}}}
* [The project]({{{{ ti.xcom_pull(task_ids='export', key='{RedBrickProjectLink().xcom_key}') }}}})

*Approve* reopens exactly these. *Reject*, or no answer for five days, changes nothing.
"""


def approval(*, response_timeout: timedelta, **options: Any) -> Any:
    """Return Airflow's approval step, or a step that reports the required version.

    :param response_timeout: how long to wait for an answer.
    :param options: the parameters of ``ApprovalOperator``.
    """
    try:
        # Not at module level: Airflow 3.0 imports the modules found there in advance, and its DAG processor exits when
        # this import fails.
        from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
    except (ImportError, AirflowOptionalProviderFeatureException) as error:
        return not_available(str(error))
    # Before apache-airflow-providers-standard 1.12.2 execution_timeout limits the time for the answer.
    parameters = inspect.signature(HITLOperator.__init__).parameters
    limit = "response_timeout" if "response_timeout" in parameters else "execution_timeout"
    return ApprovalOperator(task_id="approve", **{limit: response_timeout}, **options)


@task(task_id="approve")
def not_available(reason: str) -> None:
    """Fail without a retry, because no retry provides the approval step."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    raise AirflowFailException(f"The approval step needs Airflow 3.1 or newer, with its standard provider: {reason}")


@dag(
    # Trigger it when a person can answer: the run waits for the answer.
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    max_active_runs=1,
    default_args={"retries": 2},
    params={"folder": Param("/data/corrections", type="string", description="A local folder, or e.g. s3://bucket/key")},
    tags=["redbrick"],
)
def approve_corrections(project_id: str = "0a9c6e10-5b1d-4c8e-9f00-000000000002") -> None:
    """Export a week of ground truth, ask about implausible tasks, and reopen these.

    Airflow shows the question under "Required Actions". Pass a notifier as `send` to receive it as a message.
    """
    export = RedBrickExportTasksOperator(
        task_id="export",
        project_id=project_id,
        export_path="{{ params.folder }}/{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}",
        updated_after="{{ (dag_run.run_after - macros.timedelta(days=7)).isoformat() }}",
        masks=False,
    )

    @task
    def find_implausible(exported: dict[str, Any]) -> list[str]:
        """Return the ids of implausible tasks, or skip the question if there are none."""
        from airflow.providers.common.compat.sdk import AirflowSkipException
        from airflow.sdk import ObjectStoragePath

        rows = [json.loads(line) for line in ObjectStoragePath(exported["uri"]).read_text().splitlines()]
        implausible = [row["taskId"] for row in rows if too_large(SimpleNamespace(series=row["series"]))]
        if not implausible:
            raise AirflowSkipException("No task is implausible.")
        return implausible

    implausible_ids = find_implausible(export.output)
    approve = approval(
        subject=f"Reopen {{{{ {IMPLAUSIBLE} | length }}}} ground-truth tasks?",
        body=QUESTION,
        defaults="Reject",
        response_timeout=timedelta(days=5),
        notifiers=RedBrickQueueNotifier(message="Corrections wait for approval.", project_id=project_id),
    )
    reopen = RedBrickReopenGroundTruthOperator(task_id="reopen", project_id=project_id, task_ids=implausible_ids)
    implausible_ids >> approve >> reopen


approve_corrections()
