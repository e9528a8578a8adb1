"""Labels of the first generation -> labels of today."""

from __future__ import annotations

import copy
import json
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.annotations.conversion import Labels, read_body
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.legacy import (
    image_bounding_boxes,
    image_classification,
    video_bounding_boxes,
    video_classification,
)
from redbrick_sandbox.conversion import convert

BOX = {"category": [["object", "car"]], "bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}}
ON_FRAME = {**BOX, "frameindex": 7}
CLASS = {"category": [["object", "benign"]]}
NEW_BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "car"}


def only(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the labels of the only kind in the only series."""
    assert body.keys() == {"series"}
    [series] = body["series"]
    assert series.keys() == {key}
    return series[key]


# ---------------------------------------------------------------- boxes


def test_an_image_box():
    label = {
        **BOX,
        "attributes": [{"name": "occluded", "value": True}, {"name": "wheels", "value": 4}],
        "labelid": "one",
    }
    [box] = only(image_bounding_boxes([label]), "boundingBoxes")
    assert box == {**NEW_BOX, "attributes": {"occluded": True, "wheels": 4}, "id": "one"}


def test_boxes_keep_their_order():
    labels = [{**BOX, "labelid": str(i)} for i in range(5)]
    assert [box["id"] for box in only(image_bounding_boxes(labels), "boundingBoxes")] == list("01234")


@pytest.mark.parametrize(
    ("path", "category"),
    [(["object", "car"], "car"), (["object", "vehicle", "car"], ["vehicle", "car"]), (["Thing", "car"], "car")],
)
def test_a_category_loses_the_root_of_its_path(path, category):
    [box] = only(image_bounding_boxes([{**BOX, "category": [path]}]), "boundingBoxes")
    assert box["category"] == category


def test_image_box_null_fields_are_omitted():
    absent = image_bounding_boxes([BOX])
    assert only(absent, "boundingBoxes") == [NEW_BOX]
    for nothing in ({"attributes": []}, {"attributes": None, "labelid": None, "trackid": None, "polygon": None}):
        assert image_bounding_boxes([{**BOX, **nothing}]) == absent


def test_a_video_box():
    label = {**ON_FRAME, "trackid": "t", "keyframe": False, "end": False}
    [box] = only(video_bounding_boxes([label]), "boundingBoxes")
    assert box == {**NEW_BOX, "video": {"frameIndex": 7, "trackId": "t", "keyFrame": False, "endTrack": False}}


def test_a_video_box_is_by_default_a_key_frame_that_ends_a_track_of_its_own():
    videos = [box["video"] for box in only(video_bounding_boxes([ON_FRAME, ON_FRAME]), "boundingBoxes")]
    tracks = {str(uuid.UUID(video.pop("trackId"))) for video in videos}
    assert len(tracks) == 2
    assert videos == [{"frameIndex": 7, "keyFrame": True, "endTrack": True}] * 2


def test_no_boxes():
    assert image_bounding_boxes([]) == video_bounding_boxes([]) == {"series": [{"boundingBoxes": []}]}


# ---------------------------------------------------------------- classifications


def test_an_image_class_becomes_an_attribute():
    assert image_classification([CLASS], attribute="finding") == {
        "classification": {"attributes": {"finding": "benign"}}
    }


def test_its_other_attributes_and_its_id_are_kept():
    label = {**CLASS, "frameclassify": True, "labelid": "c", "attributes": [{"name": "sure", "value": False}]}
    body = image_classification([label], attribute="finding")
    assert body["classification"] == {"id": "c", "attributes": {"finding": "benign", "sure": False}}


def test_a_nested_class_becomes_a_list():
    body = image_classification([{"category": [["object", "tumour", "benign"]]}], attribute="finding")
    assert body["classification"]["attributes"] == {"finding": ["tumour", "benign"]}


def frames(*labels: dict[str, Any]) -> dict[int, str]:
    """Classify a video; the class of each frame."""
    given = [{"category": [["object", label.pop("is_")]], "frameclassify": True, **label} for label in labels]
    found = only(video_classification(given, attribute="phase"), "instanceClassifications")
    assert all(each.keys() == {"fileIndex", "values"} and each["values"].keys() == {"phase"} for each in found)
    assert [each["fileIndex"] for each in found] == sorted(each["fileIndex"] for each in found)
    return {each["fileIndex"]: each["values"]["phase"] for each in found}


def test_video_classes_are_of_their_frames():
    assert frames({"is_": "b", "frameindex": 9}, {"is_": "a", "frameindex": 2}) == {2: "a", 9: "b"}


def test_a_class_that_does_not_end_its_track_holds_until_the_next():
    on = {"end": False}
    assert frames({"is_": "a", "frameindex": 2, **on}, {"is_": "b", "frameindex": 5}) == {
        2: "a",
        3: "a",
        4: "a",
        5: "b",
    }
    # Each track by itself, and labels in any order.
    one, other = {"trackid": "1"}, {"trackid": "2"}
    assert frames(
        {"is_": "b", "frameindex": 3, **one},
        {"is_": "c", "frameindex": 7, **other, **on},
        {"is_": "a", "frameindex": 1, **one, **on},
        {"is_": "d", "frameindex": 9, **other},
    ) == {1: "a", 2: "a", 3: "b", 7: "c", 8: "c", 9: "d"}


def test_video_classification_ignores_frames_that_are_not_key_frames():
    assert frames(
        {"is_": "a", "frameindex": 1, "end": False},
        {"is_": "x", "frameindex": 2, "keyframe": False},
        {"is_": "b", "frameindex": 3},
    ) == {1: "a", 2: "a", 3: "b"}


def test_video_classification_only_the_first_frame_keeps_the_id():
    labels = [{**CLASS, "frameindex": 1, "end": False, "labelid": "one"}, {**CLASS, "frameindex": 3}]
    found = only(video_classification(labels, attribute="phase"), "instanceClassifications")
    assert [each.get("id") for each in found] == ["one", None, None]


# ---------------------------------------------------------------- where they go


@pytest.mark.parametrize(
    "body",
    [
        image_bounding_boxes([BOX]),
        video_bounding_boxes([ON_FRAME]),
        image_classification([CLASS], attribute="finding"),
        video_classification([{**CLASS, "frameindex": 1}], attribute="finding"),
    ],
)
def test_converted_labels_are_accepted_from_a_labeler(body):
    assert read_body(body) == body


def test_video_boxes_accept_numpy_numbers():
    one = np.float32(0.5)
    box = {**dict.fromkeys(BOX["bbox2d"], one), "xnorm": np.array(0.25)}
    label = {"category": [["object", "car"]], "bbox2d": box, "frameindex": np.int64(3), "end": np.bool_(False)}
    [made] = only(video_bounding_boxes([{**label, "trackid": "t"}]), "boundingBoxes")
    assert json.loads(json.dumps(made)) == {
        "pointTopLeft": {"xNorm": 0.25, "yNorm": 0.5},
        "wNorm": 0.5,
        "hNorm": 0.5,
        "category": "car",
        "video": {"frameIndex": 3, "trackId": "t", "keyFrame": True, "endTrack": False},
    }


def test_video_boxes_input_is_not_changed():
    labels = [{**ON_FRAME, "attributes": [{"name": "a", "value": ["b"]}]}]
    before = copy.deepcopy(labels)
    video_bounding_boxes(labels)
    assert labels == before


# ---------------------------------------------------------------- nothing is lost on the way to the server

_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)
_NAMES = st.text(min_size=1, max_size=10)
_VALUES = st.text(max_size=10) | st.booleans() | _NUMBERS | st.lists(_NAMES, max_size=3)
_ATTRIBUTES = st.lists(st.builds(dict, name=_NAMES, value=_VALUES), unique_by=lambda each: each["name"], max_size=4)
_BOXES = st.fixed_dictionaries(
    {
        "category": st.lists(_NAMES, min_size=2, max_size=4).map(lambda path: [["object", *path[1:]]]),
        "bbox2d": st.fixed_dictionaries(dict.fromkeys(BOX["bbox2d"], _NUMBERS)),
    },
    optional={"attributes": _ATTRIBUTES, "labelid": _NAMES},
)
_ON_FRAMES = st.tuples(
    _BOXES,
    st.fixed_dictionaries(
        {"frameindex": st.integers(0, 10**6)},
        optional={"trackid": _NAMES, "keyframe": st.booleans(), "end": st.booleans()},
    ),
).map(lambda parts: {**parts[0], **parts[1]})


def stored(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Have the server convert the labels of a task."""
    answer = convert(json.dumps([Labels("task", body).to_import()]))
    assert answer.error is None
    return answer.converted[0]["labels"]


def as_old(label: dict[str, Any]) -> dict[str, Any]:
    """Return a stored label as it was written then: a category of one name is stored without its path now."""
    category = label["category"]
    path = [["object", category]] if isinstance(category, str) else category
    return {key: value for key, value in {**label, "category": path}.items() if key != "volumeindex"}


@given(st.lists(_BOXES, max_size=4))
def test_image_boxes_are_stored_as_they_were(labels):
    expected = [{"attributes": [], **label} for label in labels]
    assert [as_old(label) for label in stored(image_bounding_boxes(labels))] == expected


@given(st.lists(_ON_FRAMES, max_size=4))
def test_video_boxes_are_stored_as_they_were(labels):
    found = [as_old(label) for label in stored(video_bounding_boxes(labels))]
    own = [label["trackid"] for label, old in zip(found, labels, strict=True) if "trackid" not in old]
    assert len(set(own)) == len(own)
    assert found == [
        {"attributes": [], "keyframe": True, "end": True, "trackid": label["trackid"], **old}
        for label, old in zip(found, labels, strict=True)
    ]


@given(st.dictionaries(st.integers(0, 10**6), st.tuples(_NAMES, _ATTRIBUTES), max_size=4))
def test_video_classes_are_stored_on_their_frames(classes):
    labels = [
        {
            "category": [["object", name]],
            "frameindex": frame,
            "attributes": [a for a in attributes if a["name"] != "is"],
        }
        for frame, (name, attributes) in classes.items()
    ]
    found = stored(video_classification(labels, attribute="is"))
    assert {label["frameindex"]: label["attributes"] for label in found} == {
        label["frameindex"]: [{"name": "is", "value": label["category"][0][1]}, *label["attributes"]]
        for label in labels
    }
    assert all(label["instanceclassify"] for label in found)


# ---------------------------------------------------------------- bad input

NOT_A_PATH = "must be one path from the root, such as [['object', 'car']]"
WRONG = {
    "no list": ("car", "labels must be a list of objects, not str"),
    "nothing": (None, "labels must be a list of objects, not NoneType"),
    "one label": (BOX, "labels must be a list of objects, not dict"),
    "no object": ([BOX, "car"], "labels[1] must be an object, not 'car'"),
    "no category": ([BOX, {"bbox2d": BOX["bbox2d"]}], "labels[1].category is missing"),
    "a name for a path": ([{**BOX, "category": "car"}], f"labels[0].category {NOT_A_PATH}, not 'car'"),
    "a path for a list of paths": ([{**BOX, "category": ["object", "car"]}], f"labels[0].category {NOT_A_PATH}"),
    "only the root": ([{**BOX, "category": [["object"]]}], f"labels[0].category {NOT_A_PATH}"),
    "two paths": ([{**BOX, "category": [["object", "car"], ["object", "bus"]]}], f"labels[0].category {NOT_A_PATH}"),
    "a number for a name": ([{**BOX, "category": [["object", 3]]}], f"labels[0].category {NOT_A_PATH}"),
    "an empty name": ([{**BOX, "category": [["object", ""]]}], f"labels[0].category {NOT_A_PATH}"),
    "no box": ([CLASS], "labels[0].bbox2d is missing"),
    "half a box": ([{**BOX, "bbox2d": {"xnorm": 0, "ynorm": 0, "hnorm": 1}}], "labels[0].bbox2d.wnorm is missing"),
    "text for a number": (
        [{**BOX, "bbox2d": {**BOX["bbox2d"], "wnorm": "1"}}],
        "bbox2d.wnorm must be a finite number, not '1'",
    ),
    "NaN": (
        [{**BOX, "bbox2d": {**BOX["bbox2d"], "xnorm": float("nan")}}],
        "labels[0].bbox2d.xnorm must be a finite number, not nan",
    ),
    "a misspelt key": ([{**BOX, "labelId": "x"}], "labels[0].labelId: unknown key; did you mean 'labelid'?"),
    "a key of videos": ([ON_FRAME], "labels[0].frameindex: unknown key"),
    "attributes by name": (
        [{**BOX, "attributes": {"a": 1}}],
        "labels[0].attributes must be a list of objects, not an object",
    ),
    "a nameless attribute": ([{**BOX, "attributes": [{"value": 1}]}], "labels[0].attributes[0].name is missing"),
    "a valueless attribute": ([{**BOX, "attributes": [{"name": "a"}]}], "labels[0].attributes[0].value is missing"),
    "an object for a value": (
        [{**BOX, "attributes": [{"name": "a", "value": {}}]}],
        "value must be text, a finite number, true or false, or a list of text values, not an object",
    ),
    "an attribute twice": (
        [{**BOX, "attributes": [{"name": "a", "value": 1}, {"name": "a", "value": 2}]}],
        "labels[0].attributes repeats the attribute 'a'",
    ),
    "a number for an id": ([{**BOX, "labelid": 0.4}], "labels[0].labelid must be text, not 0.4"),
}
WRONG_ON_FRAMES = {
    "no frame": ([BOX], "labels[0].frameindex is missing"),
    "a frame before the first": ([{**BOX, "frameindex": -1}], "labels[0].frameindex must be a whole number"),
    "a frame and a half": ([{**BOX, "frameindex": 1.5}], "labels[0].frameindex must be a whole number"),
    "text for a flag": ([{**ON_FRAME, "end": "False"}], "labels[0].end must be true or false, not 'False'"),
    "a number for a track": ([{**ON_FRAME, "trackid": 1}], "labels[0].trackid must be text, not 1"),
}


@pytest.mark.parametrize(("labels", "words"), WRONG.values(), ids=WRONG)
def test_bad_boxes_are_refused_by_index_and_field(labels, words):
    with pytest.raises(RedBrickInputError) as caught:
        image_bounding_boxes(labels)
    assert words in str(caught.value)


@pytest.mark.parametrize(("labels", "words"), WRONG_ON_FRAMES.values(), ids=WRONG_ON_FRAMES)
def test_bad_video_boxes_are_refused_by_index_and_field(labels, words):
    with pytest.raises(RedBrickInputError) as caught:
        video_bounding_boxes(labels)
    assert words in str(caught.value)


WRONG_CLASSES = {
    "no class": (
        image_classification,
        [],
        "labels must be a list of exactly 1 label, since an image has one class, not 0",
    ),
    "two classes": (image_classification, [CLASS, CLASS], "since an image has one class, not 2"),
    "a box": (image_classification, [BOX], "labels[0].bbox2d: unknown key"),
    "no frame": (video_classification, [CLASS], "labels[0].frameindex is missing"),
    "the attribute is taken": (
        image_classification,
        [{**CLASS, "attributes": [{"name": "finding", "value": 1}]}],
        "labels[0].attributes already has 'finding', which receives the category",
    ),
    "two classes on a frame": (
        video_classification,
        [{**CLASS, "frameindex": 3}, {**CLASS, "frameindex": 3}],
        "labels[1].frameindex: frame 3 is already classified",
    ),
    "a class without end": (
        video_classification,
        [{**CLASS, "frameindex": 1}, {**CLASS, "frameindex": 3, "end": False}],
        "labels[1].end is false, but no later label ends its track",
    ),
    "a class of all frames there could be": (
        video_classification,
        [{**CLASS, "frameindex": 0, "end": False}, {**CLASS, "frameindex": 10**12}],
        "labels[0] exceeds the limit of 1000000 classified frames",
    ),
    "two on a frame, the first to hold on": (
        video_classification,
        [{**CLASS, "frameindex": 3, "end": False}, {**CLASS, "frameindex": 3}],
        "labels[1].frameindex: frame 3 is already classified",
    ),
}


@pytest.mark.parametrize(("function", "labels", "words"), WRONG_CLASSES.values(), ids=WRONG_CLASSES)
def test_bad_classes(function, labels, words):
    with pytest.raises(RedBrickInputError) as caught:
        function(labels, attribute="finding")
    assert words in str(caught.value)


@pytest.mark.parametrize("attribute", ["", " ", None, 3])
def test_the_attribute_must_have_a_name(attribute):
    with pytest.raises(RedBrickInputError, match="attribute must be the name"):
        image_classification([CLASS], attribute=attribute)
