"""Test the comparison of labels before and after the conversion."""

from __future__ import annotations

import json

import pytest
from label_samples import CLASSIFICATION, GOOD, MASKS, SEGMENT, listed_in

from airflow_provider_redbrick.labels.validation import difference
from redbrick_sandbox.conversion import convert

BOX = {"bbox2d": {"xnorm": 0}, "volumeindex": 0}
TASK = {"series": [{"boundingBoxes": [{}, {}], "items": "a"}, {"segmentMap": {"1": "x", "2": "y"}, "items": "b"}]}
SEGMENTS = [{"dicom": {"instanceid": n}, "volumeindex": 1} for n in (1, 2)]


def without_series(label):
    return {key: value for key, value in label.items() if key != "volumeindex"}


def test_difference_equal_labels_give_none():
    assert difference(TASK, {"labels": [BOX, BOX, *SEGMENTS]}) is None
    assert difference({"series": [{}]}, {}) is None
    assert difference({"series": []}, {"labels": None}) is None
    assert difference({"labels": []}, {}) is None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([BOX, *SEGMENTS], "series 0, boundingBoxes: 2 given, 1 converted"),
        ([BOX, BOX, BOX, *SEGMENTS], "series 0, boundingBoxes: 2 given, 3 converted"),
        ([BOX, BOX, SEGMENTS[0]], "series 1, segmentMap[2]: 1 given, 0 converted"),
        (
            [BOX, {**BOX, "volumeindex": 1}, *SEGMENTS],
            "series 0, boundingBoxes: 2 given, 1 converted; series 1, boundingBoxes: 0 given, 1 converted",
        ),
        (
            [BOX, {"ellipse": {"xnorm": 0}, "volumeindex": 0}, *SEGMENTS],
            "series 0, boundingBoxes: 2 given, 1 converted; series 0, ellipses: 0 given, 1 converted",
        ),
        (
            [BOX, {"volumeindex": 0, "odd": 1}, *SEGMENTS],
            "series 0, boundingBoxes: 2 given, 1 converted; series 0, labels of an unknown type: 0 given, 1 converted",
        ),
        ([BOX, BOX, *SEGMENTS, {"studyclassify": True}], "classification: 0 given, 1 converted"),
    ],
)
def test_difference_states_both_counts(labels, words):
    assert difference(TASK, {"labels": labels}) == words


def test_difference_distinguishes_angle_and_length():
    task = {"series": [{"measurements": [{"type": "length"}]}]}
    assert difference(task, {"labels": [{"length3d": {"normal": []}}]}) is None
    assert difference(task, {"labels": [{"angle3d": {"normal": []}}]}) == (
        "series 0, measurements of type length: 1 given, 0 converted; "
        "series 0, measurements of type angle: 0 given, 1 converted"
    )


def test_difference_label_without_series_is_in_the_first():
    assert difference(TASK, {"labels": [without_series(BOX), without_series(BOX), *SEGMENTS]}) is None
    assert difference(TASK, {"labels": [BOX, BOX, SEGMENTS[0], without_series(SEGMENTS[1])]}) == (
        "series 1, segmentMap[2]: 1 given, 0 converted; series 0, segmentMap[2]: 0 given, 1 converted"
    )
    boxes = {"series": [{}, {"boundingBoxes": [{}]}]}
    assert difference(boxes, {"labels": [without_series(BOX)]}) == (
        "series 1, boundingBoxes: 1 given, 0 converted; series 0, boundingBoxes: 0 given, 1 converted"
    )


def test_difference_lists_at_most_five():
    task = {"series": [{"polygons": [{}]} for _ in range(9)]}
    assert difference(task, {}).endswith("series 4, polygons: 1 given, 0 converted; and 4 more")


@pytest.mark.parametrize("key", ["heatMaps", "transforms", "centerline"])
def test_difference_layout_compares_image_fields(key):
    task = {"series": [{}, {key: [{}, {}]}]}
    assert difference(task, {}) is None
    assert difference(task, {}, layout=True) == f"series 1, {key}: 2 given, 0 converted"
    assert difference(task, {key: [{"seriesIndex": 1}, {"seriesIndex": 1}]}, layout=True) is None


def without_drawing(label):
    """A label without the attribute that the conversion takes no value of."""
    attributes = {key: value for key, value in label.get("attributes", {}).items() if key != "drawing"}
    return {**label, "attributes": attributes} if attributes else label


def test_difference_sandbox_converts_valid_labels_completely():
    segment = without_drawing(SEGMENT)
    series = {"items": "a", **MASKS, "segmentMap": {"1": segment, "65535": segment}}
    for kind, label in GOOD.items():
        series.setdefault(listed_in(kind), []).append(without_drawing(label))
    task = {"name": "t", "series": [{"items": "b"}, series], "classification": CLASSIFICATION}
    result = convert(json.dumps([task]))
    assert result.error is None
    assert difference(task, result.converted[0]) is None
