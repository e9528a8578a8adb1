"""Test label models: as values that a labeler returns, and as the source of the published JSON Schemas."""

from __future__ import annotations

import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from label_samples import BOX, CLASSIFICATION, GOOD, MASKS, PIXEL, VOXEL, listed_in
from pydantic import ValidationError

from airflow_provider_redbrick.actions.task_specs import SeriesSpec, read_new_task
from airflow_provider_redbrick.annotations.conversion import read_body
from airflow_provider_redbrick.annotations.snapshot import plain_body
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.models import (
    BoundingBox,
    ImagePoint,
    Landmark3D,
    Length,
    Segment,
    Series,
    TaskLabels,
)
from airflow_provider_redbrick.labels.plain import to_plain
from airflow_provider_redbrick.labels.schema import KINDS, LISTED, kind_in

DOCS = Path(__file__).resolve().parents[3] / "docs"
SCHEMAS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (DOCS / "schemas").glob("*.json")}
WHOLE = {"series": [{listed_in(kind): [label]} for kind, label in GOOD.items()], "classification": CLASSIFICATION}
WHOLE["series"].append(MASKS)


def box(**changes):
    return BoundingBox(**{**BOX, **changes})


# ------------------------------------------------------------------ values of a labeler


@pytest.mark.parametrize("name", GOOD)
def test_model_has_the_content_of_its_mapping(name):
    key = listed_in(name)
    model = kind_in(key, GOOD[name]).model(**GOOD[name])
    assert json.dumps(to_plain(model), sort_keys=True) == json.dumps(GOOD[name], sort_keys=True)


def test_task_labels_have_the_content_of_their_mapping():
    assert to_plain(TaskLabels(**WHOLE)) == WHOLE


@pytest.mark.parametrize(
    "value",
    [
        TaskLabels(series=[Series(boundingBoxes=[box()])]),
        {"series": [Series(boundingBoxes=[box()])]},
        {"series": [{"boundingBoxes": [box()]}]},
        [Series(boundingBoxes=[box()])],
        [{"boundingBoxes": [box()]}],
    ],
    ids=["task", "mapping of series", "mapping of labels", "list of series", "list of mappings"],
)
def test_read_body_models_and_mappings_are_the_same_labels(value):
    assert to_plain(read_body(value)) == {"series": [{"boundingBoxes": [BOX]}]}


def test_read_body_model_that_names_another_task_is_refused():
    labels = TaskLabels(taskId="6f1c1f34-3b4d-4a52-9d2f-6a0e5f0c0009", series=[])
    with pytest.raises(RedBrickInputError, match="another task"):
        read_body(labels, "6f1c1f34-3b4d-4a52-9d2f-6a0e5f0c0001")


def test_measurement_type_need_not_be_given():
    length = Length(point1=VOXEL, point2=VOXEL, normal=[0, 0, 1], category="diameter")
    assert to_plain(length)["type"] == "length"


def test_model_numpy_numbers_become_numbers():
    point = ImagePoint(xNorm=np.float32(0.5), yNorm=np.float64(0.25))
    made = box(pointTopLeft=point, wNorm=np.float32(0.5), video={"frameIndex": np.int64(3)})
    plain = to_plain(made)
    assert json.dumps([plain["pointTopLeft"], plain["wNorm"], plain["video"]]) == (
        '[{"xNorm": 0.5, "yNorm": 0.25}, 0.5, {"frameIndex": 3}]'
    )


def test_series_segment_may_be_its_category_alone():
    series = Series(segmentations="m.nii", segmentMap={1: "lesion", 2: ["lung", "lesion"], 3: Segment(category=4)})
    segments = {"1": {"category": "lesion"}, "2": {"category": ["lung", "lesion"]}, "3": {"category": 4}}
    assert to_plain(series) == {"segmentations": "m.nii", "segmentMap": segments}


def test_series_of_a_new_task_keeps_its_labels():
    assert to_plain(SeriesSpec(items="a.dcm", boundingBoxes=[box()])) == {"items": "a.dcm", "boundingBoxes": [BOX]}


@pytest.mark.parametrize("mask", [b"mask", io.BytesIO(b"mask")], ids=["bytes", "file"])
def test_series_mask_may_be_an_object(mask):
    series = Series(segmentations=mask, segmentMap={1: "lesion"})
    body, copies = plain_body({"series": [series]})
    (copy,) = copies.values()
    assert copy.file.read() == b"mask"
    assert body["series"][0]["segmentations"] == next(iter(copies))[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: box(catgory="finding"), "catgory\n  unknown key; did you mean 'category'?"),
        (lambda: box(wNorm="0.5"), "wNorm\n  must be a number of at least 0, not '0.5'"),
        (lambda: box(wNorm=None), "wNorm\n  is missing; it must be a number of at least 0"),
        (lambda: Series(boundingBoxes=[{**BOX, "hNorm": -1}]), "boundingBoxes.0.hNorm\n  must be a number of at least"),
        (lambda: box(wNorm=0.95), "the box leaves the image: xNorm plus wNorm must be at most 1, not 1.05"),
        (lambda: Landmark3D(category="landmark"), "needs point, or absolutePoint"),
        (lambda: Series(segmentMap={1: "lesion"}), "requires a mask, but segmentations is missing"),
        (lambda: Series(segmentations=1), "must be a path or a list of paths"),
        (lambda: Series(segmentations="m.nii", segmentMap={0: "lesion"}), "must be a whole number from 1 to 65535"),
        (
            lambda: Series(measurements=[{"type": "w"}]),
            "measurements.0.type\n  must be one of 'length', 'angle', not 'w'",
        ),
        (lambda: Series(measurements=[{"normal": [1]}]), "measurements.0.type\n  is missing"),
        (
            lambda: Series(measurements=[{**GOOD["angle"], "normal": [1]}]),
            "measurements.0.normal\n  must have 3 numbers, not 1",
        ),
        (lambda: TaskLabels(sereis=[]), "sereis\n  unknown key; did you mean 'series'?"),
    ],
)
def test_model_invalid_labels_are_refused_where_they_are_made(make, message):
    with pytest.raises(ValidationError) as caught:
        make()
    assert message in str(caught.value)


# ------------------------------------------------------------------ the table, and JSON Schema


def test_every_list_of_a_series_has_its_kinds():
    with_labels = {name for name, field in Series.model_fields.items() if "list[airflow" in str(field.annotation)}
    assert with_labels | {"measurements"} == set(LISTED)


def test_documented_table_has_every_kind():
    page = (DOCS / "labels.md").read_text(encoding="utf-8")
    for kind in KINDS[1:]:
        assert re.search(
            rf"^\| `{kind.field}`.* \| `{kind.model.__name__}` \| .*`{kind.stored[0]}`", page, re.MULTILINE
        )
        assert f"`{kind.label_type}`" in page or not kind.label_type


def test_json_schemas_are_current():
    """Run `make schemas` after a change of a model."""
    spec = importlib.util.spec_from_file_location("json_schemas", DOCS / "json_schemas.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.SCHEMAS.keys() == SCHEMAS.keys()
    for name, model in generator.SCHEMAS.items():
        assert json.loads(generator.json_schema(model)) == SCHEMAS[name]


def is_valid(name, value):
    return Draft202012Validator(SCHEMAS[name]).is_valid(json.loads(json.dumps(value)))


def test_json_schema_accepts_valid_labels():
    Draft202012Validator.check_schema(SCHEMAS["labels.json"])
    assert is_valid("labels.json", WHOLE)
    assert is_valid("labels.json", {"taskId": "t", "currentStageName": "Label", "series": [{"polygons": None}]})
    assert is_valid("labels.json", {"series": [{"segmentations": ["a"], "segmentMap": {"1": "lesion", "2": 4}}]})


@pytest.mark.parametrize(
    "series",
    [
        {"boundingBox": []},
        {"boundingBoxes": [{**BOX, "catgory": "finding"}]},
        {"boundingBoxes": [{**BOX, "wNorm": "0.5"}]},
        {"boundingBoxes": [{**BOX, "pointTopLeft": {"xNorm": 2, "yNorm": 0}}]},
        {"polygons": [{"category": "region", "points": [PIXEL] * 2}]},
        {"measurements": [{key: value for key, value in GOOD["length"].items() if key != "type"}]},
        {"segmentations": "m.nii", "segmentMap": {"lesion": 1}},
    ],
)
def test_json_schema_refuses_invalid_labels(series):
    assert not is_valid("labels.json", {"series": [series]})


@pytest.mark.parametrize(
    ("task", "valid"),
    [
        ({"name": "n", "items": ["a"], "preAssign": {"Label": ["a@b"]}, "priority": 0.5}, True),
        ({"name": "n", "series": [{"items": "a", **WHOLE["series"][0]}], "taskId": "t"}, True),
        ({"items": ["a"]}, False),
        ({"name": "n", "items": ["a"], "priority": 2}, False),
        ({"name": "n", "series": []}, False),
        ({"name": "n", "items": ["a"], "metaData": {"a": 1}}, False),
    ],
)
def test_json_schema_of_tasks_accepts_what_is_read(task, valid):
    assert is_valid("task.json", task) == valid
    if valid:
        assert read_new_task(task).name == "n"
    else:
        with pytest.raises(RedBrickInputError):
            read_new_task(task)
