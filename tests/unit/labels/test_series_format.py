"""Stored labels -> the `series` format."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.labels.schema import KINDS as LABEL_KINDS
from airflow_provider_redbrick.labels.schema import LISTED
from airflow_provider_redbrick.labels.series_format import MAX_SERIES, SeriesLabels, to_series
from airflow_provider_redbrick.labels.taxonomy import Taxonomy
from redbrick_sandbox.demo_project import TAXONOMY

NO_SPECIAL_MASK = {"binaryMask": False, "semanticMask": False, "pngMask": False}


def one(label: dict[str, Any], **task: Any) -> dict[str, Any]:
    """Convert the only label of a task of one series."""
    result = to_series([label], **task)
    assert result.classification is None
    [series] = result.series
    return series


# ---------------------------------------------------------------- every kind

KNOWN_KEYS = (
    "category classid attributes labelid linkid readonly volumeindex frameindex trackid keyframe end globalitemsindex "
    "seriesframeindex bbox2d point polyline polygon ellipse point3d length3d angle3d cuboid dicom studyclassify "
    "tasklevelclassify seriesclassify multiclassify instanceclassify stats pixel frameclassify taskclassify ocrvalue "
    "confidence bbox3d dummy"
)

KINDS = [
    pytest.param(
        {"bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}},
        {"boundingBoxes": [{"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4}]},
        id="bounding box",
    ),
    pytest.param(
        {"point": {"xnorm": 0, "ynorm": 1}},
        {"landmarks": [{"point": {"xNorm": 0, "yNorm": 1}}]},
        id="landmark",
    ),
    pytest.param(
        {"point3d": {"pointx": 1, "pointy": 2, "pointz": 3, "computedpointworld": [1.5, -2.5, 3.5]}},
        {"landmarks3d": [{"point": {"i": 1, "j": 2, "k": 3}, "absolutePoint": {"x": 1.5, "y": -2.5, "z": 3.5}}]},
        id="landmark in space",
    ),
    pytest.param(
        {"point3d": {"pointx": None, "pointy": None, "pointz": None, "computedpointworld": [1.5, -2.5, 3.5]}},
        {"landmarks3d": [{"absolutePoint": {"x": 1.5, "y": -2.5, "z": 3.5}}]},
        id="landmark in the world only",
    ),
    pytest.param(
        {
            "length3d": {
                "point1": [1, 2, 3],
                "point2": [4, 5, 3],
                "normal": [0, 0, 1],
                "computedpoint1world": [1.0, 2.0, 3.0],
                "computedpoint2world": [4.0, 5.0, 3.0],
                "computedlength": 4.24,
            }
        },
        {
            "measurements": [
                {
                    "type": "length",
                    "point1": {"i": 1, "j": 2, "k": 3},
                    "point2": {"i": 4, "j": 5, "k": 3},
                    "normal": [0, 0, 1],
                    "absolutePoint1": {"x": 1.0, "y": 2.0, "z": 3.0},
                    "absolutePoint2": {"x": 4.0, "y": 5.0, "z": 3.0},
                    "length": 4.24,
                }
            ]
        },
        id="length",
    ),
    pytest.param(
        {
            "angle3d": {
                "point1": [1, 2, 3],
                "point2": [4, 5, 6],
                "point3": [7, 8, 9],
                "normal": [0, 0, 1],
                "computedpoint1world": [0.1, 0.2, 0.3],
                "computedpoint2world": [0.4, 0.5, 0.6],
                "computedpoint3world": [0.7, 0.8, 0.9],
                "computedangledeg": 90,
            }
        },
        {
            "measurements": [
                {
                    "type": "angle",
                    "point1": {"i": 1, "j": 2, "k": 3},
                    "vertex": {"i": 4, "j": 5, "k": 6},
                    "point2": {"i": 7, "j": 8, "k": 9},
                    "normal": [0, 0, 1],
                    "absolutePoint1": {"x": 0.1, "y": 0.2, "z": 0.3},
                    "absoluteVertex": {"x": 0.4, "y": 0.5, "z": 0.6},
                    "absolutePoint2": {"x": 0.7, "y": 0.8, "z": 0.9},
                    "angle": 90,
                }
            ]
        },
        id="angle",
    ),
    pytest.param(
        {"polyline": [{"xnorm": 0.1, "ynorm": 0.2}, {"xnorm": 0.3, "ynorm": 0.4}]},
        {"polylines": [{"points": [{"xNorm": 0.1, "yNorm": 0.2}, {"xNorm": 0.3, "yNorm": 0.4}]}]},
        id="polyline",
    ),
    pytest.param(
        {"polygon": [{"xnorm": 0.1, "ynorm": 0.2}, {"xnorm": 0.3, "ynorm": 0.4}, {"xnorm": 0, "ynorm": 0}]},
        {
            "polygons": [
                {"points": [{"xNorm": 0.1, "yNorm": 0.2}, {"xNorm": 0.3, "yNorm": 0.4}, {"xNorm": 0, "yNorm": 0}]}
            ]
        },
        id="polygon",
    ),
    pytest.param(
        {"ellipse": {"xcenternorm": 0.5, "ycenternorm": 0.6, "xnorm": 0.1, "ynorm": 0.2, "rot": 1.57}},
        {
            "ellipses": [
                {
                    "pointCenter": {"xNorm": 0.5, "yNorm": 0.6},
                    "xRadiusNorm": 0.1,
                    "yRadiusNorm": 0.2,
                    "rotationRad": 1.57,
                }
            ]
        },
        id="ellipse",
    ),
    pytest.param(
        {
            "cuboid": {
                "point1": [1, 2, 3],
                "point2": [4, 5, 6],
                "computedpoint1world": [0.1, 0.2, 0.3],
                "computedpoint2world": [0.4, 0.5, 0.6],
            }
        },
        {
            "cuboids": [
                {
                    "point1": {"i": 1, "j": 2, "k": 3},
                    "point2": {"i": 4, "j": 5, "k": 6},
                    "absolutePoint1": {"x": 0.1, "y": 0.2, "z": 0.3},
                    "absolutePoint2": {"x": 0.4, "y": 0.5, "z": 0.6},
                }
            ]
        },
        id="cuboid",
    ),
    pytest.param(
        {"seriesclassify": True, "attributes": [{"name": "view", "value": "axial"}]},
        {"classifications": [{"attributes": {"view": "axial"}}]},
        id="series classification",
    ),
    pytest.param(
        {"multiclassify": True, "category": [["object", "good"]]},
        {"classifications": [{"category": "good"}]},
        id="series classification of old",
    ),
    pytest.param(
        {"instanceclassify": True, "frameindex": 3, "attributes": [{"name": "sharp", "value": "true"}]},
        {"instanceClassifications": [{"fileIndex": 3, "values": {"sharp": True}}]},
        id="instance classification",
    ),
    pytest.param(
        {"dicom": {"instanceid": 7, "groupids": None}},
        {"segmentMap": {"7": {}}, **NO_SPECIAL_MASK},
        id="segment",
    ),
    pytest.param(
        {"dicom": {"instanceid": 7, "groupids": [9, 10]}},
        {"segmentMap": {"7": {"overlappingGroups": [9, 10]}}, **NO_SPECIAL_MASK},
        id="overlapping segment",
    ),
]


@pytest.mark.parametrize(("stored", "expected"), KINDS)
def test_kinds(stored, expected):
    assert one(stored) == expected


@pytest.mark.parametrize(("stored", "expected"), KINDS)
def test_null_is_the_same_as_absent(stored, expected):
    assert one({**dict.fromkeys(KNOWN_KEYS.split()), **stored}) == expected


@pytest.mark.parametrize("key", ["studyclassify", "tasklevelclassify"])
def test_classification_of_the_task(key):
    stored = {key: True, "labelid": "id", "attributes": [{"name": "finding", "value": ["a", "b"]}], "frameindex": 1}

    assert to_series([stored]) == SeriesLabels([{}], {"id": "id", "attributes": {"finding": ["a", "b"]}})


def test_to_series_uncomputed_fields_are_omitted():
    length = {
        "point1": [1, 2, 3],
        "point2": [4, 5, 3],
        "normal": None,
        "computedpoint1world": None,
        "computedlength": None,
    }
    [measured] = one({"length3d": {**length, "computedpoint2world": []}})["measurements"]
    assert measured.keys() == {"type", "point1", "point2", "normal"}

    assert one({"cuboid": {"point1": [1, 2, 3]}})["cuboids"] == [{"point1": {"i": 1, "j": 2, "k": 3}}]


def test_an_angle_of_0_is_an_angle():
    angle = {"point1": [1, 1, 1], "point2": [2, 2, 2], "point3": [3, 3, 3], "normal": [0, 0, 1], "computedangledeg": 0}

    assert one({"angle3d": angle})["measurements"][0]["angle"] == 0


# ---------------------------------------------------------------- what all kinds share

POINT = {"point": {"xnorm": 0.5, "ynorm": 0.5}}


def landmark(**stored: Any) -> dict[str, Any]:
    """Return a landmark's fields beside its point."""
    [fields] = one({**POINT, **stored})["landmarks"]
    assert fields.pop("point") == {"xNorm": 0.5, "yNorm": 0.5}
    return fields


def test_id_group_and_read_only():
    assert landmark(labelid="id", linkid="group", readonly=True) == {"id": "id", "group": "group", "readOnly": True}
    assert landmark(readonly=False) == {}


@pytest.mark.parametrize(
    ("stored", "category"),
    [
        ("tumour", "tumour"),
        ([["object", "tumour"]], "tumour"),
        ([["object", "lung", "tumour"]], ["lung", "tumour"]),
        ([["object"]], [["object"]]),
        (["lung", "tumour"], ["lung", "tumour"]),
        ([], []),
        (4, 4),
    ],
)
def test_category(stored, category):
    assert landmark(category=stored) == {"category": category}


def test_attributes():
    values = {"a": "true", "b": "False", "c": "text", "d": 1.5, "e": True, "f": ["x", "true"], "g": None}
    stored = [{"name": name, "value": value, "attrid": 3, "optionid": None} for name, value in values.items()]

    assert landmark(attributes=[*stored, {"name": "h"}]) == {
        "attributes": {
            "a": True,
            "b": False,
            "c": "text",
            "d": 1.5,
            "e": True,
            "f": ["x", "true"],
            "g": None,
            "h": None,
        }
    }
    assert landmark(attributes=[]) == {}


def read_with_taxonomy(**stored):
    found = to_series([stored], taxonomy=lambda: Taxonomy.from_wire(TAXONOMY))
    listed = [value[0] for value in found.series[0].values() if isinstance(value, list)]
    return (listed[0] if listed else found.classification)["attributes"]


WORDS = ["true", "False", "TRUE"]
FINDING = {"category": "finding", "bbox2d": {"xnorm": 0, "ynorm": 0, "wnorm": 1, "hnorm": 1}}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("label", "text", "flag"),
    [
        (FINDING, "note", "confirmed"),
        ({**FINDING, "category": [["object", "finding"]]}, "side", "confirmed"),
        ({"studyclassify": True}, "impression", "abnormal"),
        ({"seriesclassify": True}, "plane", "usable"),
    ],
)
def test_to_series_boolean_words_follow_the_attribute_type(word, label, text, flag):
    stored = [{"name": text, "value": word}, {"name": flag, "value": word}]
    assert read_with_taxonomy(**label, attributes=stored) == {text: word, flag: word.lower() == "true"}


def test_to_series_boolean_words_of_unknown_attributes_become_booleans():
    assert read_with_taxonomy(**FINDING, attributes=[{"name": "else", "value": "true"}]) == {"else": True}
    odd = {**FINDING, "category": None, "attributes": [{"name": "note", "value": "true"}]}
    assert read_with_taxonomy(**odd) == {"note": True}
    point = {"category": "finding", "point": {"xnorm": 0, "ynorm": 0}}
    assert read_with_taxonomy(**point, attributes=[{"name": "note", "value": "true"}]) == {"note": True}


def test_to_series_reads_the_taxonomy_only_for_boolean_words():
    def refuse():
        raise AssertionError

    values = ["truely", 1, True, None, ["true"], ""]
    stored = {**FINDING, "attributes": [{"name": f"a{i}", "value": value} for i, value in enumerate(values)]}
    (box,) = to_series([stored], taxonomy=refuse).series[0]["boundingBoxes"]
    assert list(box["attributes"].values()) == values


def test_to_series_series_fields_are_read():
    info = {"name": "T1", "metaData": '{"a": "true"}', "imageHeaders": '{"spacing": [1, 2]}', "itemsIndices": [0]}
    blank = {"name": None, "metaData": "{}", "imageHeaders": "no JSON"}
    assert to_series([], series_info=[info, blank, {"metaData": "[1]"}]).series == [
        {"name": "T1", "metaData": {"a": "true"}, "imageHeaders": {"spacing": [1, 2]}},
        {},
        {},
    ]


def test_video():
    stored = {"frameindex": 4, "trackid": "t", "keyframe": False, "end": False, "seriesframeindex": 2}

    assert landmark(**stored) == {
        "video": {"frameIndex": 4, "trackId": "t", "keyFrame": False, "endTrack": False, "seriesFrameIndex": 2}
    }
    assert landmark(frameindex=0) == {"video": {"frameIndex": 0, "trackId": "", "keyFrame": True, "endTrack": True}}
    assert landmark(frameindex=-1, trackid="t") == {}
    assert landmark(trackid="t", keyframe=True) == {}


def test_the_item_a_label_is_on_is_counted_within_its_series():
    info = [{"itemsIndices": [0, 3]}, {"itemsIndices": [4, 2, 1]}]
    first, second = to_series(
        [
            {**POINT, "globalitemsindex": 3},
            {**POINT, "volumeindex": 1, "globalitemsindex": 4},
            {**POINT, "volumeindex": 1, "globalitemsindex": 3},
        ],
        series_info=info,
    ).series

    assert [found["video"].get("seriesItemIndex") for found in first["landmarks"]] == [1]
    assert [found["video"].get("seriesItemIndex") for found in second["landmarks"]] == [2, None]


@pytest.mark.parametrize("info", [(), [{}], [{"itemsIndices": None}], [{"itemsIndices": [0]}, {"itemsIndices": []}]])
def test_without_a_complete_division_all_items_are_in_the_first_series(info):
    stored = [{**POINT, "globalitemsindex": 2}, {**POINT, "globalitemsindex": 2, "volumeindex": 1}]

    for items, expected in (((), 2), (("a", "b", "c"), 2), (("a", "b"), None)):
        first, second = to_series(stored, series_info=info, items=items).series
        assert first["landmarks"][0]["video"].get("seriesItemIndex") == expected
        assert "seriesItemIndex" not in second["landmarks"][0]["video"]


@pytest.mark.parametrize("kind", [kind for kind in LABEL_KINDS if kind.read], ids=lambda kind: kind.stored[0])
def test_which_shapes_have_frames_and_statistics(kind):
    stored = next(param.values[0] for param in KINDS if kind.stored[0] in param.values[0])
    stats = {"average": 1, "minimum": 0, "maximum": 2, "area": None}

    [fields] = one({**stored, "frameindex": 1, "stats": stats})[kind.field]

    assert ("video" in fields) == (kind.field in {"landmarks", "polylines", "ellipses", "boundingBoxes", "polygons"})
    has_stats = kind.field in {"ellipses", "boundingBoxes", "polygons", "cuboids"}
    assert fields.get("stats") == ({"average": 1, "minimum": 0, "maximum": 2} if has_stats else None)


def test_series_classifications_have_frames_too():
    [fields] = one({"seriesclassify": True, "labelid": "id", "frameindex": 1})["classifications"]

    assert fields == {"id": "id", "video": {"frameIndex": 1, "trackId": "", "keyFrame": True, "endTrack": True}}


def test_file_names_of_instance_classifications_are_in_viewing_order():
    info = [{"itemsIndices": [1]}, {"itemsIndices": [2, 0]}]
    stored = [{"instanceclassify": True, "volumeindex": 1, "frameindex": frame} for frame in (0, 1, 2)]

    _, series = to_series(stored, series_info=info, items=["a", "b", "c"]).series

    assert [found["fileName"] for found in series["instanceClassifications"]] == ["c", "a", ""]


# ---------------------------------------------------------------- series


def test_to_series_returns_every_series_that_is_referred_to():
    assert to_series([]).series == [{}]
    assert to_series([], series_info=[{"name": "CT", "dataType": "dicom"}, {"name": None}]).series == [
        {"name": "CT"},
        {},
    ]
    assert to_series([], labels_map=[None, None, None]).series == [{}, {}, {}]
    assert len(to_series([{**POINT, "volumeindex": 3}], series_info=[{}]).series) == 4


def test_order_within_a_kind_is_kept():
    stored = [{**POINT, "labelid": str(number), "volumeindex": number % 2} for number in range(6)]

    even, odd = to_series(stored).series

    assert [found["id"] for found in even["landmarks"]] == ["0", "2", "4"]
    assert [found["id"] for found in odd["landmarks"]] == ["1", "3", "5"]


# ---------------------------------------------------------------- masks


def test_mask_and_segments():
    stored = [
        {"dicom": {"instanceid": 1}, "category": "liver", "labelid": "a", "volumeindex": 1},
        {"dicom": {"instanceid": 2, "groupids": [3]}, "category": "tumour", "volumeindex": 1},
    ]
    labels_map = [None, {"seriesIndex": 1, "imageIndex": None, "labelName": "labels/m.nii.gz"}]

    first, second = to_series(stored, labels_map=labels_map).series

    assert first == {}
    assert second == {
        "segmentations": "labels/m.nii.gz",
        "segmentMap": {
            "1": {"id": "a", "category": "liver", "mask": "labels/m.nii.gz"},
            "2": {"category": "tumour", "mask": "labels/m.nii.gz", "overlappingGroups": [3]},
        },
        **NO_SPECIAL_MASK,
    }


@pytest.mark.parametrize(
    ("labels_map", "paths"),
    [
        ([{"labelName": "m"}], ["m", None]),
        ([None, {"labelName": "m"}], [None, "m"]),
        ([{"seriesIndex": 1, "labelName": "m"}], [None, "m"]),
        ([{"seriesIndex": None, "imageIndex": 2, "labelName": "m"}], [None, "m"]),
        ([{"imageIndex": 9, "labelName": "m"}], ["m", None]),
        ([{"seriesIndex": 0, "labelName": None}], [None, None]),
        ([{"imageIndex": 0, "labelName": "m"}, {"imageIndex": 1, "labelName": "n"}], [["m", "n"], None]),
        ([{"seriesIndex": 0, "labelName": "m"}, {"seriesIndex": 0, "labelName": "m"}], ["m", None]),
        (None, [None, None]),
    ],
)
def test_which_series_a_mask_belongs_to(labels_map, paths):
    result = to_series([], series_info=[{"itemsIndices": [0, 1]}, {"itemsIndices": [2]}], labels_map=labels_map)

    assert [series.get("segmentations") for series in result.series] == paths
    for series, path in zip(result.series, paths, strict=True):
        assert (series != {}) == bool(path)


def test_to_series_segment_without_series_is_in_all():
    stored = [{"dicom": {"instanceid": 1}, "category": "liver"}]

    series = to_series(stored, series_info=[{}, {}]).series

    assert [found["segmentMap"] for found in series] == [{"1": {"category": "liver"}}] * 2


# ---------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"labelid": "id", "category": "x"},
        {"pixel": {"imagesize": [1, 1], "regions": [], "holes": []}},
        {"frameclassify": True, "frameindex": 1, "category": [["object", "x"]]},
        {"bbox2d": {}},
        {"bbox2d": {"xnorm": 0.1, "ynorm": 0.1, "wnorm": 0.1, "hnorm": None}},
        {"bbox2d": [0.1, 0.1, 0.1, 0.1]},
        {"point": {"xnorm": True, "ynorm": 0.1}},
        {"polygon": [None]},
        {"polygon": {"xnorm": 0.1, "ynorm": 0.1}},
        {"length3d": {"point1": [1, 2], "point2": [1, 2, 3], "normal": [0, 0, 1]}},
        {"point3d": {"pointx": 1, "pointy": 2, "pointz": None}},
        {"point3d": {"computedpointworld": None}},
        {"cuboid": {"point1": None}},
        {"dicom": {"instanceid": 0}},
        {"dicom": {"instanceid": [1]}},
        {"instanceclassify": True},
        {"instanceclassify": True, "frameindex": -1},
        {"studyclassify": True, "labelid": "id"},
        {"seriesclassify": True, "labelid": "id"},
        {**POINT, "attributes": [{"attrid": 3, "optionid": 1}]},
        {**POINT, "attributes": "odd"},
        {**POINT, "volumeindex": -1},
        {**POINT, "volumeindex": "1"},
        {**POINT, "volumeindex": MAX_SERIES},
        "not a label",
        None,
    ],
)
def test_to_series_unsupported_label_is_kept_as_stored(stored):
    assert one(stored) == {"unknown": [stored]}


def test_to_series_unsupported_label_stays_in_its_series():
    stored = {"volumeindex": 1, "ocrvalue": "12", "stats": None}

    assert to_series([stored]).series == [{}, {"unknown": [stored]}]


def test_to_series_replaced_label_is_kept():
    segments = [{"dicom": {"instanceid": 1}, "category": category, "volumeindex": 0} for category in ("old", "new")]
    classes = [{"studyclassify": True, "category": category} for category in ("old", "new")]

    result = to_series([*segments, *classes])

    assert result.classification == {"category": "new"}
    [series] = result.series
    assert series["segmentMap"] == {"1": {"category": "new"}}
    assert series["unknown"] == [segments[0], classes[0]]


@pytest.mark.parametrize(
    "entry",
    [
        {"seriesIndex": -1, "labelName": "m"},
        {"seriesIndex": 0, "labelName": 3},
        {"seriesIndex": "x", "labelName": "m"},
        "m",
    ],
)
def test_to_series_unsupported_mask_is_kept(entry):
    assert to_series([], labels_map=[entry]).series == [{"unknown": [entry]}]


SCALARS = st.none() | st.booleans() | st.integers(-3, 40) | st.floats(allow_nan=False) | st.text(max_size=3)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
GEOMETRY_KEYS = (
    "xnorm ynorm wnorm hnorm xcenternorm ycenternorm rot pointx pointy pointz computedpointworld point1 point2 point3 "
    "normal computedpoint1world computedpoint2world computedpoint3world computedlength computedangledeg "
    "instanceid groupids name value area"
)
GEOMETRY = st.dictionaries(
    st.sampled_from(GEOMETRY_KEYS.split()), JSON | st.lists(st.integers(), min_size=3, max_size=3), max_size=8
)
GOOD_LABELS = st.sampled_from([param.values[0] for param in KINDS])
ODD_LABELS = st.dictionaries(
    st.sampled_from(KNOWN_KEYS.split()), JSON | GEOMETRY | st.lists(GEOMETRY, max_size=3), max_size=8
)
INDEX = st.fixed_dictionaries({}, optional={"volumeindex": st.none() | st.integers(-1, 3), "frameindex": SCALARS})
LABELS = st.lists(
    st.builds(lambda index, odd, good: {**index, **odd, **good}, INDEX, ODD_LABELS, GOOD_LABELS | st.just({})),
    max_size=8,
)
INFO = st.lists(
    st.none()
    | st.fixed_dictionaries({}, optional={"name": SCALARS, "itemsIndices": JSON | st.lists(st.integers(0, 9))}),
    max_size=3,
)
MASKS = st.lists(
    st.none()
    | st.fixed_dictionaries(
        {}, optional={"seriesIndex": SCALARS, "imageIndex": SCALARS, "labelName": st.text(max_size=2)}
    ),
    max_size=3,
)
LISTS = {"unknown", *LISTED}


@given(LABELS, INFO, MASKS, st.lists(st.text(max_size=2), max_size=5))
def test_to_series_never_raises_or_changes_input(flat, info, labels_map, items):
    before = copy.deepcopy((flat, info, labels_map))

    result = to_series(flat, series_info=info, labels_map=labels_map, items=items)

    assert (flat, info, labels_map) == before
    assert len(result.series) >= max(1, len(info))
    json.dumps([result.series, result.classification])


@given(LABELS, INFO)
def test_to_series_each_label_appears_once(flat, info):
    # Segments that name no series count once a series, and are looked at in a test of their own.
    flat = [
        label if "dicom" not in label else {**label, "volumeindex": label.get("volumeindex") or 0} for label in flat
    ]

    result = to_series(flat, series_info=info)

    found = int(result.classification is not None)
    for series in result.series:
        found += sum(len(series[key]) for key in LISTS & series.keys()) + len(series.get("segmentMap", ()))
        assert series.keys() <= {*LISTS, "name", "segmentMap", "binaryMask", "semanticMask", "pngMask"}
    assert found == len(flat)
