"""Test the conversion of labels from the import formats to the stored format."""

from __future__ import annotations

import json

import pytest
from label_samples import BOX

from redbrick_sandbox.conversion import convert


def one(series=None, **task):
    given = {"taskId": "t-1", "name": "test", **task}
    if series is not None:
        given["series"] = [{"items": "https://test", **each} for each in series]
    result = convert(json.dumps([given]))
    assert result.error is None, result.error
    return result.converted[0]


def label_of(kind, label):
    labels = one([{kind: [label]}])["labels"]
    assert len(labels) == 1
    return labels[0]


def error_of(series):
    given = {"name": "test", "series": [{"items": "https://test", **series}]}
    result = convert(json.dumps([given]))
    assert result.converted is None
    return result.error


FLAT_BOX = {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}
VOXELS = {"point1": {"i": 1, "j": 2, "k": 3}, "point2": {"i": 4, "j": 5, "k": 6}}

KINDS = [
    ("boundingBoxes", BOX, {"bbox2d": FLAT_BOX}),
    (
        "landmarks",
        {"point": {"xNorm": 0.5, "yNorm": 0.6}, "category": "landmark"},
        {"point": {"xnorm": 0.5, "ynorm": 0.6}},
    ),
    (
        "landmarks3d",
        {"point": {"i": 1, "j": 2, "k": 3}, "absolutePoint": {"x": 0.1, "y": 0.2, "z": 0.3}, "category": "x"},
        {"point3d": {"pointx": 1, "pointy": 2, "pointz": 3, "computedpointworld": [0.1, 0.2, 0.3]}},
    ),
    (
        "measurements",
        {"type": "length", **VOXELS, "normal": [0, 0, 1], "length": 7.5, "category": "diameter"},
        {"length3d": {"point1": [1, 2, 3], "point2": [4, 5, 6], "normal": [0, 0, 1], "computedlength": 7.5}},
    ),
    (
        "measurements",
        {
            "type": "angle",
            **VOXELS,
            "vertex": {"i": 7, "j": 8, "k": 9},
            "normal": [0, 0, 1],
            "angle": 45,
            "category": "bend",
        },
        # The vertex is the second of three points.
        {
            "angle3d": {
                "point1": [1, 2, 3],
                "point2": [7, 8, 9],
                "point3": [4, 5, 6],
                "normal": [0, 0, 1],
                "computedangledeg": 45,
            }
        },
    ),
    (
        "ellipses",
        {
            "pointCenter": {"xNorm": 0.5, "yNorm": 0.6},
            "xRadiusNorm": 0.1,
            "yRadiusNorm": 0.2,
            "rotationRad": 1.5,
            "category": "nodule",
        },
        {"ellipse": {"xcenternorm": 0.5, "ycenternorm": 0.6, "xnorm": 0.1, "ynorm": 0.2, "rot": 1.5}},
    ),
    ("cuboids", {**VOXELS, "category": "volume"}, {"cuboid": {"point1": [1, 2, 3], "point2": [4, 5, 6]}}),
    (
        "polygons",
        {"points": [{"xNorm": x, "yNorm": 0.1} for x in (0.1, 0.2, 0.3)], "category": "region"},
        {"polygon": [{"xnorm": x, "ynorm": 0.1} for x in (0.1, 0.2, 0.3)]},
    ),
    (
        "polylines",
        {"points": [{"xNorm": x, "yNorm": 0.1} for x in (0.1, 0.2)], "category": "vessel"},
        {"polyline": [{"xnorm": x, "ynorm": 0.1} for x in (0.1, 0.2)]},
    ),
]


@pytest.mark.parametrize(("kind", "label", "flat"), KINDS, ids=[next(iter(kind[2])) for kind in KINDS])
def test_convert_each_label_kind(kind, label, flat):
    found = label_of(kind, label)
    category = label["category"]
    assert found == {"volumeindex": 0, "category": category, "attributes": [], **flat}


def test_convert_common_label_fields():
    given = {
        **BOX,
        "id": "label-1",
        "group": "link-1",
        "readOnly": True,
        "comment": "only for the upload",
        "attributes": {"confirmed": True, "score": 0.5, "note": "x", "appearance": ["solid", "calcified"]},
        "stats": {"average": 1.5, "minimum": 0, "maximum": 3, "area": 12.0},
        "video": {"frameIndex": 3, "trackId": "a", "keyFrame": True, "endTrack": False, "seriesFrameIndex": 2},
    }
    found = label_of("boundingBoxes", given)
    assert found == {
        "volumeindex": 0,
        "category": "finding",
        "labelid": "label-1",
        "linkid": "link-1",
        "readonly": True,
        "attributes": [
            {"name": "confirmed", "value": True},
            {"name": "score", "value": 0.5},
            {"name": "note", "value": "x"},
            {"name": "appearance", "value": ["solid", "calcified"]},
        ],
        "stats": {"average": 1.5, "minimum": 0, "maximum": 3, "area": 12.0},
        "bbox2d": FLAT_BOX,
        "frameindex": 3,
        "trackid": "a",
        "keyframe": True,
        "end": False,
        "seriesframeindex": 2,
    }


@pytest.mark.parametrize(
    ("category", "flat"),
    [
        ("finding", {"category": "finding"}),
        (7, {"classid": 7}),
        (["finding"], {"category": "finding"}),
        (["organ", "lung"], {"category": [["object", "organ", "lung"]]}),
    ],
)
def test_convert_categories(category, flat):
    found = label_of("boundingBoxes", {**BOX, "category": category})
    assert {key: found[key] for key in ("category", "classid") if key in found} == flat


def test_convert_classifications_at_three_levels():
    task = one(
        [
            {},
            {
                "classifications": [{"attributes": {"usable": True}}],
                "instanceClassifications": [{"fileIndex": 4, "fileName": "4.dcm", "values": {"artifact": False}}],
            },
        ],
        classification={"attributes": {"abnormal": True}},
    )
    assert task["labels"] == [
        {"attributes": [{"name": "abnormal", "value": True}], "studyclassify": True},
        {"volumeindex": 1, "attributes": [{"name": "usable", "value": True}], "seriesclassify": True},
        {
            "volumeindex": 1,
            "attributes": [{"name": "artifact", "value": False}],
            "instanceclassify": True,
            "frameindex": 4,
        },
    ]


def test_convert_segmentations_keeps_series_and_paths():
    task = one(
        [
            {},
            {
                "segmentations": "local/mask.nii.gz",
                "segmentMap": {
                    "1": "lesion",
                    "2": {"category": "organ", "attributes": {"confirmed": True}, "overlappingGroups": [3]},
                },
            },
        ]
    )
    assert task["labelsMap"] == [None, {"labelName": "local/mask.nii.gz", "seriesIndex": 1}]
    assert task["labels"] == [
        {"volumeindex": 1, "category": "lesion", "attributes": [], "dicom": {"instanceid": 1}},
        {
            "volumeindex": 1,
            "category": "organ",
            "attributes": [{"name": "confirmed", "value": True}],
            "dicom": {"instanceid": 2, "groupids": [3]},
        },
    ]


def test_convert_maps_binary_masks_by_instance():
    series = {
        "segmentations": ["a.png", "b.png"],
        "binaryMask": True,
        "pngMask": True,
        "segmentMap": {"1": {"category": "lesion", "mask": "a.png"}, "2": {"category": "organ", "mask": "b.png"}},
    }
    task = one([series])
    assert task["seriesInfo"][0]["masks"] == {"1": "a.png", "2": "b.png"}
    assert task["seriesInfo"][0]["binaryMask"] is True
    assert task["labelsMap"][0]["labelName"] == ["a.png", "b.png"]


def test_convert_preserves_order_ids_items_and_extras():
    tasks = [
        {
            "taskId": f"t-{number}",
            "name": f"n-{number}",
            "priority": 0.5,
            "metaData": {"a": "b"},
            "preAssign": {"Label": "a@example.com"},
            "series": [{"name": "s", "items": ["a", "b"]}, {"items": "c", "metaData": {"x": "y"}}],
        }
        for number in range(25)
    ]
    converted = convert(json.dumps(tasks)).converted
    assert [task["taskId"] for task in converted] == [task["taskId"] for task in tasks]
    assert converted[3]["items"] == ["a", "b", "c"]
    assert converted[3]["seriesInfo"] == [
        {"name": "s", "itemsIndices": [0, 1]},
        {"itemsIndices": [2], "metaData": {"x": "y"}},
    ]
    assert converted[3]["labelsMap"] == []
    assert converted[3]["labels"] == []
    assert converted[3]["preAssign"] == {"Label": "a@example.com"}


def test_convert_older_format_unchanged():
    labels = [{"category": [["object", "finding"]], "attributes": [], "bbox2d": FLAT_BOX, "labelid": "x"}]
    task = one(items=["https://test"], labels=labels)
    assert (task["taskId"], task["items"], task["labels"]) == ("t-1", ["https://test"], labels)


def test_convert_accepts_keys_added_by_export():
    task = one(
        [{"boundingBoxes": [BOX]}],
        labelsId="x",
        currentStageName="Label",
        createdAt="2024-01-01",
        updatedBy="a@example.com",
        storageId="y",
        consensus=False,
    )
    assert len(task["labels"]) == 1


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ({"boundingBoxes": [{**BOX, "wNorm": "wide"}]}, "boundingBoxes[0].wNorm: a number is needed, not 'wide'"),
        ({"boundingBoxes": [BOX, {}]}, "boundingBoxes[1].category: missing"),
        ({"boundingBoxes": [{**BOX, "colour": 1}]}, "boundingBoxes[0]: unknown key 'colour'"),
        ({"boundingBox": [BOX]}, "unknown key 'boundingBox'"),
        ({"boundingBoxes": {}}, "boundingBoxes: a list is needed"),
        ({"boundingBoxes": [7]}, "an object is needed, not 7"),
        ({"measurements": [{"type": "area"}]}, "type: 'length' or 'angle' is needed"),
        ({"measurements": [{"type": "length", **VOXELS, "category": "x"}]}, "normal: missing"),
        ({"segmentMap": {"0": "lesion"}}, "from 1 to 65535"),
        ({"segmentMap": {"70000": "lesion"}}, "from 1 to 65535"),
        ({"pngMask": True}, "needs binaryMask"),
        ({"polygons": [{"points": [], "category": "x"}]}, "at least 3 points"),
        ({"landmarks3d": [{"category": "x"}]}, "point or absolutePoint is needed"),
        ({"cuboids": [{"category": "x", "point1": VOXELS["point1"]}]}, "point1 and point2"),
        ({"instanceClassifications": [{"values": {}}]}, "fileIndex: missing"),
        ({"boundingBoxes": [{**BOX, "attributes": {"a": {}}}]}, "attributes['a']"),
        ({"transforms": [{"transform": [[1]]}]}, "4 x 4"),
    ],
)
def test_convert_reports_problem_with_location(series, words):
    assert words in error_of(series)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"series": []}, "at least one series"),
        ({"items": [], "labels": []}, "items"),
        ({"series": [{"items": "x"}], "status": "ASSIGNED"}, "unknown key 'status'"),
        ({"items": ["x"], "labels": [{"box": 1}]}, "labels[0]: unknown key 'box'"),
        ({"series": [{}]}, "series[0].items: missing"),
        ({"series": [{"items": "x"}], "priority": 2}, "priority: a number from 0 to 1"),
    ],
)
def test_convert_invalid_task_is_refused(task, words):
    error = convert(json.dumps([{"name": "test", **task}])).error
    assert words in error


@pytest.mark.parametrize("text", ["{", "{}", "7", "[1]", '[{"name": "x", "series": [{"items": "x", "y": NaN}]}]'])
def test_convert_requires_list_of_tasks(text):
    result = convert(text)
    assert result.converted is None
    assert result.error


def test_convert_error_names_the_task():
    good = {"name": "a", "series": [{"items": "x"}]}
    bad = {"name": "b", "series": [{"items": "x", "boundingBoxes": [{**BOX, "hNorm": None}]}]}
    error = convert(json.dumps([good, bad, good])).error
    assert error == "tasks[1].series[0].boundingBoxes[0].hNorm: missing; a number is needed"


def test_convert_limits_reported_problems():
    bad = {"name": "b", "series": [{"items": "x", "boundingBoxes": [{}] * 100}]}
    assert convert(json.dumps([bad])).error.splitlines()[-1].startswith("and ")


# ------------------------------------------------------------------ behaviors that omit data


def converted(behavior, *series):
    given = [{"name": str(i), "series": [{"items": "a", **each}]} for i, each in enumerate(series)]
    result = convert(json.dumps(given), behavior)
    assert result.error is None, result.error
    return [None if "labels" not in task else len(task["labels"]) for task in result.converted]


@pytest.mark.parametrize(
    ("behavior", "kept"),
    [("complete", [1, 0]), ("omit-empty", [1, None]), ("omit", [None, None]), ("drop-unknown", [1, 0])],
)
def test_omit_behavior_leaves_out_labels(behavior, kept):
    assert converted(behavior, {"boundingBoxes": [BOX]}, {}) == kept


def test_drop_unknown_behavior_leaves_out_newer_kinds():
    cuboid = {"category": "volume", **VOXELS}
    series = {"boundingBoxes": [BOX], "cuboids": [cuboid], "instanceClassifications": [{"fileIndex": 0, "values": {}}]}
    assert converted("complete", series) == [3]
    assert converted("drop-unknown", {**series, "boxes": [BOX]}) == [1]
