"""Labels of all kinds, stored, sent and of former times, made of anything."""

from __future__ import annotations

import json

import pytest
from fuzz.promises import promises
from fuzz.values import ANYTHING, JSON, fuzzed, real, spoiled
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.actions.task_specs import read_new_task
from airflow_provider_redbrick.client.models.parsing import flat_labels, reading
from airflow_provider_redbrick.client.operations.remote_labeling import RemoteOutput
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels import legacy
from airflow_provider_redbrick.labels.legacy import label_inputs
from airflow_provider_redbrick.labels.series_format import to_series
from airflow_provider_redbrick.labels.taxonomy import Taxonomy, with_names
from airflow_provider_redbrick.labels.validation import check_labels, check_stored

POINT = {"xNorm": 0.1, "yNorm": 0.2}
VIDEO = {"video": {"frameIndex": 1, "trackId": "t", "keyFrame": True, "endTrack": True, "seriesItemIndex": 0}}
EVERY = {
    "landmarks": [{"point": POINT, "category": "landmark", **VIDEO}],
    "landmarks3d": [{"point": {"i": 1, "j": 2, "k": 3}, "category": "landmark"}],
    "measurements": [
        {"type": "length", "point1": {"i": 1, "j": 2, "k": 3}, "point2": {"i": 1, "j": 2, "k": 4}, "normal": [0, 0, 1]}
    ],
    "boundingBoxes": [
        {"pointTopLeft": POINT, "wNorm": 0.1, "hNorm": 0.1, "category": ["a", "b"], "attributes": {"x": 1}}
    ],
    "ellipses": [
        {"pointCenter": POINT, "xRadiusNorm": 0.1, "yRadiusNorm": 0.1, "rotationRad": 0, "stats": {"area": 1}}
    ],
    "polygons": [{"points": [POINT, POINT, POINT], "category": "region"}],
    "classifications": [{"attributes": {"quality": True}}],
    "instanceClassifications": [{"fileIndex": 0, "fileName": "a", "values": {"x": "y"}}],
    "segmentMap": {"1": "lesion"},
    "segmentations": "mask.nii.gz",
    "heatMaps": [{"name": "x", "item": "y"}],
}
BODY = {"series": [EVERY], "classification": {"attributes": {"quality": "good"}}}
OPTIONS = [{"name": "good", "optionId": "1", "archived": False}, {"name": "bad", "optionId": "2", "archived": True}]
ATTRIBUTES = [
    {"name": "quality", "attrType": "SELECT", "attrId": "1", "archived": False, "options": OPTIONS},
    {"name": "x", "attrType": "NUMBER", "attrId": "2", "minValue": 0, "maxValue": 1.5},
    {"name": "y", "attrType": "MULTISELECT", "attrId": "3", "options": OPTIONS},
    {"name": "z", "attrType": "BOOL", "attrId": "4"},
]
TAXONOMY = {
    "name": "taxonomy",
    "isNew": True,
    "studyClassify": ATTRIBUTES,
    "seriesClassify": ATTRIBUTES,
    "instanceClassify": ATTRIBUTES,
    "objectTypes": [
        {"category": "b", "classId": 1, "labelType": "BBOX", "parents": ["a"], "attributes": ATTRIBUTES},
        {"category": "landmark", "classId": 2, "labelType": "POINT", "archived": True},
    ],
}
STORED = [
    {
        "category": [["object", "finding"]],
        "attributes": [{"name": "x", "value": "true"}],
        "labelid": "l",
        "volumeindex": 0,
    }
    | {"bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.1, "hnorm": 0.1}, "frameindex": 1, "globalitemsindex": 0},
    {"point3d": {"pointx": 1, "pointy": 2, "pointz": 3, "computedpointworld": [1, 2, 3]}, "classid": 1},
    {"length3d": {"point1": [1, 2, 3], "point2": [1, 2, 3], "normal": [0, 0, 1], "computedlength": 1.5}},
    {"polygon": [{"xnorm": 0.1, "ynorm": 0.1}], "stats": {"area": 1}, "attributes": [{"attrid": "1", "optionid": "1"}]},
    {"dicom": {"instanceid": 1, "groupids": [3]}, "category": "lesion"},
    {"instanceclassify": True, "frameindex": 0, "attributes": [{"name": "x", "attrid": "3", "optionid": ["1"]}]},
    {"studyclassify": True, "attributes": [{"name": "quality", "value": "good"}]},
]
INFOS = [{"name": "s", "itemsIndices": [0, 2]}, {"name": None, "itemsIndices": [1]}]
MASKS = [{"labelName": "m.nii", "seriesIndex": 0, "imageIndex": 0}, None]


@pytest.mark.parametrize("of_taxonomy", [False, True], ids=["labels", "taxonomy"])
@fuzzed(60)
@given(data=st.data())
def test_any_labels_are_checked(of_taxonomy, data):
    """Checks find problems; they have none of their own."""
    body, told = (
        (BODY, data.draw(spoiled(TAXONOMY, JSON)))
        if of_taxonomy
        else (data.draw(spoiled(BODY, JSON).filter(lambda body: isinstance(body, dict))), TAXONOMY)
    )
    with promises(seconds=10) as watch:
        taxonomy = Taxonomy.from_wire(told)
        watch.tell(*map(str, check_labels(body, taxonomy)))
        watch.tell(*map(str, check_stored(STORED, taxonomy)))
    assert watch.error is None


@fuzzed(60)
@given(spoiled(STORED, JSON), spoiled(INFOS, JSON), spoiled(MASKS, JSON), st.none() | spoiled(["a", "b"], JSON))
def test_any_stored_labels_become_series(stored, infos, masks, items):
    """Whatever is stored, in whatever shape a task of the API may bring it."""
    lists = [each if isinstance(each, list) else [each] for each in (stored, infos, masks)]
    names = [each for each in items if isinstance(each, str)] if isinstance(items, list) else []
    with promises(seconds=10) as watch:
        flat = flat_labels(json.dumps(lists[0]))
        found = to_series(flat, series_info=lists[1], labels_map=lists[2], items=names)
        assert found.series
        watch.tell(found)
    assert watch.error is None


@fuzzed(40)
@given(spoiled(STORED[:1], JSON), st.sampled_from(["IMAGE_BBOX", "VIDEO_BBOX", "IMAGE_CLASSIFY", ""]))
def test_any_labels_for_a_stage_of_the_first_kind(stored, kind):
    output = RemoteOutput(kind, "t", 1, frozenset({("object", "finding"), ("object", "a", "b")}))
    with promises(seconds=10) as watch:
        watch.tell(
            label_inputs(
                [each for each in stored if isinstance(each, dict)] if isinstance(stored, list) else [], output
            )
        )
    assert watch.error is None or isinstance(watch.error, RedBrickInputError)


BOX = {"category": [["object", "car"]], "bbox2d": {"xnorm": 0, "ynorm": 0, "wnorm": 1, "hnorm": 1}, "labelid": "l"}
FRAME = {"frameindex": 3, "trackid": "t", "keyframe": True, "end": False}
CLASS = {"category": [["object", "car"]], "attributes": [{"name": "a", "value": 1}]}
FORMER = {
    "image_bounding_boxes": ([BOX], {}),
    "video_bounding_boxes": ([{**BOX, **FRAME}], {}),
    "image_classification": ([CLASS], {"attribute": "kind"}),
    "video_classification": (
        [{**CLASS, **FRAME}, {**CLASS, **FRAME, "frameindex": 9, "end": True}],
        {"attribute": "kind"},
    ),
}


@pytest.mark.parametrize("name", list(FORMER))
@fuzzed(50)
@given(data=st.data())
def test_any_labels_of_former_times(name, data):
    labels, options = FORMER[name]
    given_labels, attribute = data.draw(spoiled(labels)), data.draw(st.just("kind") | ANYTHING)
    options = {key: real(attribute) for key in options}
    with promises(seconds=10) as watch:
        json.dumps(getattr(legacy, name)(real(given_labels), **options))
    assert watch.error is None or isinstance(watch.error, RedBrickInputError)


def test_a_class_of_all_frames_there_could_be_is_refused():
    far = [{**CLASS, **FRAME, "frameindex": 0}, {**CLASS, **FRAME, "frameindex": 10**12, "end": True}]
    with promises(seconds=10) as watch:
        legacy.video_classification(far, attribute="kind")
    assert isinstance(watch.error, RedBrickInputError)


NEW = {"name": "n", "series": [{"items": ["a"], "name": "s", "metaData": {"a": "b"}, "heatMaps": [{"item": "x"}]}]}


@fuzzed(50)
@given(
    spoiled({**NEW, "priority": 0.5, "metaData": {"a": "b"}, "preAssign": {"Label": ["a@b"]}, "isGroundTruth": True})
)
def test_any_description_of_a_task(value):
    with promises(seconds=10) as watch:
        new = read_new_task(real(value))
        watch.tell(new, str(new.files), str(new.specifies_labels), str(new.body))
    assert watch.error is None or isinstance(watch.error, RedBrickInputError)


@fuzzed(40)
@given(spoiled(STORED, JSON), spoiled(TAXONOMY, JSON))
def test_names_from_any_taxonomy(stored, taxonomy):
    """Answers of other shapes are errors of the kinds that are taken for those of an answer."""
    labels = [each for each in stored if isinstance(each, dict)] if isinstance(stored, list) else []
    with promises(seconds=10), reading("labels"):
        with_names(labels, taxonomy if isinstance(taxonomy, dict) else {})
