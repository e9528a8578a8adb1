"""Templates in values that Airflow's templater ignores are rendered, or refused with the field's name."""

from __future__ import annotations

from collections import UserDict, deque, namedtuple
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pytest
from airflow import sdk
from airflow.sdk import DAG, ObjectStoragePath
from airflow.sdk.definitions.xcom_arg import XComArg
from fixtures import counts
from label_samples import BOX
from pydantic import BaseModel

from airflow_provider_redbrick.assets.stages import stage_asset
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.operators.auto_review import RedBrickAutoReviewOperator
from airflow_provider_redbrick.operators.balance_assignments import RedBrickBalanceAssignmentsOperator
from airflow_provider_redbrick.operators.export_tasks import RedBrickExportTasksOperator
from airflow_provider_redbrick.operators.list_tasks import RedBrickListTasksOperator
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator
from airflow_provider_redbrick.sensors.stage_queue import RedBrickStageQueueSensor
from airflow_provider_redbrick.triggers.redbrick import RedBrickStageQueueEventTrigger

DS = "{{ ds }}"
ANY = {"org_id": "00000000-0000-4000-8000-000000000001", "project_id": "00000000-0000-4000-8000-000000000002"}
Pair = namedtuple("Pair", "name items")  # noqa: PYI024


@dataclass
class Study:
    name: str


class Model(BaseModel):
    name: str


class Name(Enum):
    STUDY = DS


class Own(PurePosixPath):
    pass


def rendered(operator, **context):
    operator.render_template_fields({"ds": "2026-03-14", "params": {"folder": "a/b"}, **context})
    return operator


def upload(tasks, **options):
    return RedBrickUploadTasksOperator(task_id="upload", tasks=tasks, **options)


class TestPaths:
    @pytest.mark.parametrize("kind", [Path, PurePosixPath, Own, ObjectStoragePath, str])
    @pytest.mark.parametrize("native", [False, True])
    def test_export_path_object_is_rendered(self, sandbox, run, tmp_path, kind, native):
        with DAG("exports", schedule=None, render_template_as_native_obj=native):
            path = kind(f"{tmp_path}/{{{{ params.folder }}}}/{DS}")
            export = RedBrickExportTasksOperator(task_id="export", export_path=path)
        run.try_once(rendered(export))
        assert isinstance(export.export_path, kind)
        assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()] == [
            "a/b/2026-03-14/tasks.jsonl"
        ]

    @pytest.mark.parametrize(
        ("operator", "name"),
        [
            (lambda path: RedBrickListTasksOperator(task_id="one", project_id=path), "project_id"),
            (lambda path: upload([], tasks_path=path), "tasks_path"),
            (lambda path: upload([], allowed_folders=[path]), "allowed_folders"),
            (lambda path: upload([], report_path=path), "report_path"),
            (
                lambda path: RedBrickPutLabelsOperator(task_id="one", stage_name="Label", labels_path=path),
                "labels_path",
            ),
            (
                lambda path: RedBrickPutLabelsOperator(task_id="one", stage_name="Label", tasks={"a": {"b": (path,)}}),
                "tasks",
            ),
        ],
    )
    def test_path_objects_of_all_operators_are_rendered(self, operator, name):
        made = rendered(operator(Path("/data") / DS))
        assert "2026-03-14" in str(getattr(made, name))
        assert "{{" not in str(getattr(made, name))

    def test_unrendered_path_creates_no_folder(self, sandbox, run, tmp_path):
        export = RedBrickExportTasksOperator(task_id="export", export_path=tmp_path / DS)
        with pytest.raises(RedBrickInputError, match="export_path has a template that was not rendered"):
            run.try_once(export)
        assert list(tmp_path.iterdir()) == []


class TestRefused:
    @pytest.mark.parametrize(
        "value",
        [
            frozenset([DS]),
            deque([DS]),
            Study(DS),
            Model(name=DS),
            Name.STUDY,
            b"{{ ds }}",
            bytearray(b"{% if ds %}x{% endif %}"),
            {DS: "a"},
            {"a": {DS: 1}},
            deque([[{"a": frozenset([DS])}]]),
            Study(Study(Path("/data") / DS)),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("place", [lambda it: it, lambda it: [it], lambda it: [{"metaData": (it,)}]])
    def test_template_in_unsearched_type_is_refused(self, sandbox, run, value, place):
        with pytest.raises(RedBrickInputError, match=r"tasks: the template .* would not be rendered in a"):
            rendered(upload(place(value)))

    @pytest.mark.parametrize("value", [MappingProxyType({"a@b.c": DS}), UserDict({"a@b.c": DS})])
    def test_template_in_mapping_is_rendered_only_beside_labels(self, value):
        assert rendered(upload([value])).tasks == [{"a@b.c": "2026-03-14"}]
        with pytest.raises(RedBrickInputError, match="weights: the template"):
            rendered(
                RedBrickBalanceAssignmentsOperator(task_id="one", stage_name="Label", emails=["a@b.c"], weights=value)
            )

    @pytest.mark.parametrize(
        "value", [frozenset(["a"]), deque(["a"]), Study("a"), Model(name="a"), b"a", range(10**9), {"a": 1}, object]
    )
    def test_unsearched_type_without_template_is_accepted(self, value):
        assert rendered(upload([value])).tasks == [value]

    def test_rendered_value_is_not_searched_again(self):
        tasks = [Pair(DS, [DS]), {DS}, ({"a": DS},)]
        assert rendered(upload(tasks)).tasks == [
            Pair("2026-03-14", ["2026-03-14"]),
            {"2026-03-14"},
            ({"a": "2026-03-14"},),
        ]

    @pytest.mark.skipif(not hasattr(sdk, "literal"), reason="this Airflow has no literal()")
    def test_literal_value_is_accepted(self):
        assert rendered(upload([{"metaData": sdk.literal({DS: frozenset([DS])})}])).tasks == [
            {"metaData": {DS: frozenset([DS])}}
        ]

    def test_upstream_output_is_not_searched_for_templates(self):
        class Output(XComArg):
            def __init__(self):
                pass

            def resolve(self, context, *args):
                return [{"name": DS, "metaData": {DS: frozenset([DS])}}]

            def iter_references(self):
                return iter(())

        assert rendered(upload(Output())).tasks == [{"name": DS, "metaData": {DS: frozenset([DS])}}]

    def test_labels_are_not_searched_for_templates(self, sandbox, run):
        (task_id,) = sandbox.seed_tasks(1)
        box = {**BOX, "comment": "{{ as it is }} {% too %}"}
        put = RedBrickPutLabelsOperator(
            task_id="put", stage_name="Label", tasks=[{"taskId": task_id, "series": [{"boundingBoxes": [box]}]}]
        )
        assert run.try_once(rendered(put))["counts"] == counts(done=1)


class TestFieldsWithoutTemplates:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            (RedBrickPrelabelOperator, "overwrite"),
            (RedBrickPrelabelOperator, "write"),
            (RedBrickPrelabelOperator, "labeler"),
            (RedBrickPrelabelOperator, "claim"),
            (RedBrickPrelabelOperator, "validate"),
            (RedBrickPrelabelOperator, "fail_on"),
            (RedBrickPrelabelOperator, "on_empty"),
            (RedBrickAutoReviewOperator, "review_result"),
            (RedBrickBalanceAssignmentsOperator, "rebalance"),
            (RedBrickExportTasksOperator, "masks"),
            (RedBrickStageQueueSensor, "count_by"),
            (RedBrickStageQueueSensor, "unassigned"),
            (RedBrickStageQueueSensor, "deferrable"),
            (RedBrickStageQueueSensor, "start_from_trigger"),
        ],
    )
    def test_template_in_non_template_field_is_refused(self, kind, name):
        needed = {
            RedBrickPrelabelOperator: {"labeler": print},
            RedBrickAutoReviewOperator: {"stage_name": "Review_1"},
            RedBrickBalanceAssignmentsOperator: {"stage_name": "Label", "emails": []},
            RedBrickExportTasksOperator: {"export_path": "/tmp/x"},
            RedBrickStageQueueSensor: {"stage_name": "Label"},
        }.get(kind, {})
        with pytest.raises(RedBrickInputError, match=f"{name} (is not a template field|must be True or False)"):
            kind(task_id="one", **{**needed, name: "{{ params.x }}"})

    def test_airflow_parameters_are_not_checked(self):
        assert RedBrickListTasksOperator(task_id="one", doc_md="{{ x }}").doc_md == "{{ x }}"

    def test_templates_in_assets_and_triggers_are_refused(self):
        with pytest.raises(RedBrickInputError, match="stage_name contains a template, but it is not rendered here"):
            stage_asset(**ANY, stage_name="{{ params.stage }}")
        for options in ({"stage_name": DS}, {"stage_name": "Label", "redbrick_conn_id": DS}):
            with pytest.raises(RedBrickInputError, match="contains a template, but it is not rendered here"):
                RedBrickStageQueueEventTrigger(at_least=1, **ANY, **options)
