"""Test label models as values that a labeler returns."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from label_samples import BOX, CLASSIFICATION, GOOD, MASKS, VOXEL, listed_in
from pydantic import ValidationError

from airflow_provider_redbrick.actions.task_specs import SeriesSpec
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
from airflow_provider_redbrick.labels.schema import LISTED, kind_in

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


# ------------------------------------------------------------------ the table


def test_every_list_of_a_series_has_its_kinds():
    with_labels = {name for name, field in Series.model_fields.items() if "list[airflow" in str(field.annotation)}
    assert with_labels | {"measurements"} == set(LISTED)
