"""Test label validation: structure, taxonomy, and the place in each message."""

from __future__ import annotations

import copy
import json
import random

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from label_samples import CLASSIFICATION, GOOD, MASKS, PIXEL, SEGMENT, STATS, VIDEO, VOXEL, WORLD, listed_in

from airflow_provider_redbrick.labels.series_format import to_series
from airflow_provider_redbrick.labels.taxonomy import Attribute, ObjectType, Taxonomy
from airflow_provider_redbrick.labels.validation import Problem, check_labels, check_stored
from redbrick_sandbox.conversion import convert
from redbrick_sandbox.demo_project import TAXONOMY as SANDBOX_TAXONOMY

NAN, INF = float("nan"), float("inf")
NAMES = "must be a name, a list of nested names, or a class id"
NO_CATEGORY = "is missing; it must be a name, a list of nested names, or a class id"


def attribute(name, kind, *options, **more):
    given_options = [{"name": option, "optionId": i, "archived": False} for i, option in enumerate(options)]
    given_options += [{"name": option, "optionId": 9, "archived": True} for option in more.pop("gone", ())]
    return {"name": name, "attrType": kind, "attrId": 0, "options": given_options or None, **more}


ATTRIBUTES = [
    attribute("confirmed", "BOOL"),
    attribute("note", "TEXT"),
    attribute("score", "NUMBER", minValue=0, maxValue=1),
    attribute("birads", "NUMBER", minValue=0),
    attribute("depth", "NUMBER", maxValue="12.5"),
    attribute("side", "SELECT", "left", "right", "both", gone=["front"]),
    attribute("sure", "SELECT", "True", "False"),
    attribute("look", "MULTISELECT", "solid", "calcified", gone=["cystic"]),
    attribute("old", "TEXT", archived=True),
    attribute("drawing", "CANVAS"),
    attribute("empty", "SELECT"),
]


def category(number, name, kind, *, parents=(), archived=False):
    known = {"category": name, "classId": number, "labelType": kind, "attributes": ATTRIBUTES}
    return {**known, "parents": list(parents), "archived": archived}


WIRE = {
    "name": "Chest",
    "isNew": True,
    "studyClassify": [attribute("abnormal", "BOOL"), attribute("urgency", "SELECT", "routine", "now")],
    "seriesClassify": [attribute("usable", "BOOL"), attribute("plane", "SELECT", "axial", "coronal")],
    "instanceClassify": [attribute("artifact", "BOOL"), attribute("visible", "MULTISELECT", "heart", "lung")],
    "objectTypes": [
        category(0, "finding", "BBOX"),
        category(1, "opacity", "BBOX"),
        category(2, "device", "BBOX", archived=True),
        category(3, "lobe", "BBOX", parents=["lung", "right"]),
        category(4, "landmark", "POINT"),
        category(5, "diameter", "LENGTH"),
        category(6, "bend", "ANGLE"),
        category(7, "nodule", "ELLIPSE"),
        category(8, "region", "POLYGON"),
        category(9, "vessel", "POLYLINE"),
        category(10, "volume", "CUBOID"),
        category(11, "lesion", "SEGMENTATION"),
        category(12, "region", "SEGMENTATION"),
    ],
}
TAXONOMY = Taxonomy.from_wire(WIRE)


def fresh(value):
    """Return a copy whose parts are all its own, also where the original has one part in two places."""
    return json.loads(json.dumps(value))


def changed(label, where, value):
    """Return a copy of a label with one value set, or with ``...`` taken away."""
    label = fresh(label)
    *above, last = where.split(".")
    inner = label
    for name in above:
        inner = inner[int(name) if isinstance(inner, list) else name]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
    return label


def problems(body, taxonomy=TAXONOMY):
    return [str(problem) for problem in check_labels(body, taxonomy)]


# ------------------------------------------------------------------ good labels

VARIANTS = [
    *GOOD.items(),
    ("landmarks", changed(GOOD["landmarks"], "point", {"xNorm": 0, "yNorm": 1})),
    ("landmarks", changed(GOOD["landmarks"], "point", {"xNorm": -1e-9, "yNorm": 1 + 1e-9})),
    ("landmarks3d", {"category": "landmark", "point": VOXEL}),
    ("landmarks3d", {"category": "landmark", "absolutePoint": WORLD, "point": None}),
    ("cuboids", {"category": "volume", "absolutePoint1": WORLD, "absolutePoint2": WORLD}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "wNorm": 0.75 + 9e-7}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "wNorm": 0, "hNorm": 0}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "category": ["finding"]}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "category": 1}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "category": 0}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "category": "lobe"}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "category": ["right", "lobe"]}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "category": ["lung", "right", "lobe"]}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "comment": "see"}),
    ("boundingBoxes", {**GOOD["boundingBoxes"], "video": None, "stats": None, "id": None, "attributes": None}),
    ("polygons", {**GOOD["polygons"], "points": (PIXEL, PIXEL, PIXEL)}),
    ("polygons", {**GOOD["polygons"], "attributes": {}}),
    ("classifications", {}),
    ("classifications", {"category": "anything that a taxonomy of the first kind knew"}),
    ("instanceClassifications", {"fileIndex": 0, "values": {}}),
]


@pytest.mark.parametrize(("kind", "label"), VARIANTS, ids=[kind for kind, _ in VARIANTS])
def test_good_labels(kind, label):
    assert problems({"series": [{}, {listed_in(kind): [label]}]}) == []


@pytest.mark.parametrize(
    "series",
    [
        {},
        MASKS,
        {"segmentations": ["a.nii.gz", "b.nii.gz"], "segmentMap": {"1": "lesion", "2": 11, 3: ["region"]}},
        {"segmentations": "a.nii.gz"},
        {"segmentations": None, "segmentMap": {}, "binaryMask": False, "unknown": []},
        {"binaryMask": True, "pngMask": True, "segmentations": ["a.png"], "segmentMap": {"1": SEGMENT}},
        {"binaryMask": True, "segmentMap": {"1": SEGMENT}},
        {"name": 1, "items": 2, "metaData": 3, "imageHeaders": {"spacing": NAN}, "boxes": None, "polygons": []},
        {"heatMaps": [{"item": "x", "dataRange": [0, 1.5]}], "transforms": [{"transform": [[1.0] * 4] * 4}]},
        {"centerline": [{"name": "c", "centerline": []}]},
    ],
    ids=lambda series: "-".join(series) or "empty",
)
def test_good_series(series):
    assert problems({"series": [series]}) == []


@pytest.mark.parametrize("body", [{}, {"series": None}, {"series": []}, {"classification": CLASSIFICATION}])
def test_good_bodies(body):
    assert problems(body) == []


def test_nothing_is_changed():
    body = {"series": [{listed_in(kind): [label]} for kind, label in GOOD.items()], "classification": CLASSIFICATION}
    before = copy.deepcopy(body)
    assert problems(body) == []
    assert body == before


@pytest.mark.parametrize("kind", GOOD)
def test_check_stored_accepts_converted_valid_labels(kind):
    label = fresh(GOOD[kind])
    label.get("attributes", {}).pop("drawing", None)  # of a kind that only the taxonomy knows
    series = [{"items": ["a.dcm", "b.dcm", "c.dcm"], listed_in(kind): [label]}]
    (stored,) = convert(json.dumps([{"name": "t", "series": series, "classification": CLASSIFICATION}])).converted
    back = to_series(stored["labels"], series_info=stored["seriesInfo"], items=stored["items"])
    assert back.series[0][listed_in(kind)]
    assert problems({"series": back.series, "classification": back.classification}) == []


# ------------------------------------------------------------------ bad labels, one problem each


def not_for(name, its_kind, kind, instead):
    return f"category {name!r} is for {its_kind}, not for {kind}; the {kind} categories are {instead!r}"


def keys(*names, more):
    return f"unknown key; the keys are {', '.join(map(repr, names))} and {more} more"


NUMBER, SIZE, COUNT = "a finite number", "a number of at least 0", "a whole number of at least 0"
SHARE = "a number from 0 to 1 (a fraction of the image)"
NO_NUMBERS = {
    "nan": NAN,
    "inf": INF,
    "-inf": -INF,
    "'0.5'": "0.5",
    "true": True,
    "a list": [0.5],
    "an object": {},
    "a huge number": 10**400,
}
NUMBERS = [
    ("landmarks", "point.xNorm", SHARE),
    ("landmarks3d", "point.k", NUMBER),
    ("landmarks3d", "absolutePoint.y", NUMBER),
    ("length", "point2.i", NUMBER),
    ("length", "length", SIZE),
    ("angle", "vertex.j", NUMBER),
    ("angle", "absoluteVertex.z", NUMBER),
    ("boundingBoxes", "pointTopLeft.yNorm", SHARE),
    ("boundingBoxes", "wNorm", SIZE),
    ("boundingBoxes", "stats.average", NUMBER),
    ("ellipses", "pointCenter.xNorm", SHARE),
    ("ellipses", "rotationRad", NUMBER),
    ("ellipses", "yRadiusNorm", SIZE),
    ("cuboids", "point1.i", NUMBER),
]
# (kind, where in the label, the bad value, what is said, and where if it is written otherwise)
BAD = [
    (kind, where, value, f"must be {expected}, not {shown}")
    for kind, where, expected in NUMBERS
    for shown, value in NO_NUMBERS.items()
]
BAD += [
    ("landmarks", "point.xNorm", 1.5, f"must be {SHARE}, not 1.5"),
    ("landmarks", "point.yNorm", -0.1, f"must be {SHARE}, not -0.1"),
    ("landmarks", "point.yNorm", 512, f"must be {SHARE}, not 512"),
    ("landmarks", "point.xNorm", 1.00001, f"must be {SHARE}, not 1.00001"),
    ("landmarks", "point.xNorm", 10**30, f"must be {SHARE}, not a huge number"),
    ("boundingBoxes", "pointTopLeft.xNorm", -0.2, f"must be {SHARE}, not -0.2"),
    ("boundingBoxes", "pointTopLeft.yNorm", 1.1, f"must be {SHARE}, not 1.1"),
    ("ellipses", "pointCenter.xNorm", 2, f"must be {SHARE}, not 2"),
    ("ellipses", "pointCenter.yNorm", -2, f"must be {SHARE}, not -2"),
    ("polygons", "points.1.xNorm", 1.2, f"must be {SHARE}, not 1.2", "points[1].xNorm"),
    ("polygons", "points.2.yNorm", -1, f"must be {SHARE}, not -1", "points[2].yNorm"),
    ("polygons", "points.0.yNorm", NAN, f"must be {SHARE}, not nan", "points[0].yNorm"),
    ("polylines", "points.0.xNorm", 7, f"must be {SHARE}, not 7", "points[0].xNorm"),
    ("polylines", "points.1.yNorm", INF, f"must be {SHARE}, not inf", "points[1].yNorm"),
]

BBOX = "the BBOX categories are 'finding', 'opacity', 'lobe'"
LEAVES = "the box leaves the image:"
BAD += [
    ("boundingBoxes", "wNorm", 0.8, f"{LEAVES} xNorm plus wNorm must be at most 1, not 1.05"),
    ("boundingBoxes", "hNorm", 0.50001, f"{LEAVES} yNorm plus hNorm must be at most 1, not 1.00001"),
    ("boundingBoxes", "category", 10**4000, f"unknown category a huge number; {BBOX}"),
    ("boundingBoxes", "wNorm", -0.1, f"must be {SIZE}, not -0.1"),
    ("boundingBoxes", "hNorm", -1, f"must be {SIZE}, not -1"),
    ("ellipses", "xRadiusNorm", -0.5, f"must be {SIZE}, not -0.5"),
    ("ellipses", "yRadiusNorm", -1e-9, f"must be {SIZE}, not -1e-09"),
    ("length", "length", -4, f"must be {SIZE}, not -4"),
]

BAD += [
    (kind, where, gone, f"is missing; it must be {expected}" if expected else "is missing")
    for gone in (None, ...)
    for kind, where, expected in [
        ("landmarks", "point", ""),
        ("landmarks", "point.xNorm", SHARE),
        ("landmarks3d", "point.j", NUMBER),
        ("length", "point1", ""),
        ("length", "point2", ""),
        ("length", "normal", ""),
        ("angle", "point1", ""),
        ("angle", "vertex", ""),
        ("angle", "point2", ""),
        ("angle", "normal", ""),
        ("boundingBoxes", "pointTopLeft", ""),
        ("boundingBoxes", "pointTopLeft.yNorm", SHARE),
        ("boundingBoxes", "wNorm", SIZE),
        ("boundingBoxes", "hNorm", SIZE),
        ("ellipses", "pointCenter", ""),
        ("ellipses", "xRadiusNorm", SIZE),
        ("ellipses", "yRadiusNorm", SIZE),
        ("ellipses", "rotationRad", NUMBER),
        ("polygons", "points", ""),
        ("polylines", "points", ""),
        ("cuboids", "point2.k", NUMBER),
        ("instanceClassifications", "fileIndex", COUNT),
        ("instanceClassifications", "values", ""),
    ]
]
BAD += [(kind, "category", gone, NO_CATEGORY) for gone in (None, ...) for kind in GOOD if "lassifications" not in kind]
BAD += [
    ("polygons", "points", [PIXEL] * 2, "must have at least 3 points, not 2"),
    ("polygons", "points", [], "must have at least 3 points, not 0"),
    ("polygons", "points", "0,0", "must be a list of objects, not '0,0'"),
    ("polygons", "points", PIXEL, "must be a list of objects, not an object"),
    ("polygons", "points.1", [0.1, 0.2], "must be an object, not a list", "points[1]"),
    ("polygons", "points.1", None, "must be an object, not null", "points[1]"),
    (
        "polygons",
        "points.1",
        {"xNorm": 0.1, "yNorm": 0.1, "Y": 0},
        "unknown key; the keys are 'xNorm', 'yNorm'",
        "points[1].Y",
    ),
    ("polylines", "points", [PIXEL], "must have at least 2 points, not 1"),
    ("polylines", "points", [], "must have at least 2 points, not 0"),
    ("length", "normal", [0, 1], "must have 3 numbers, not 2"),
    ("length", "normal", 1, "must be a list, not 1"),
    ("length", "normal.2", "1", f"must be {NUMBER}, not '1'", "normal[2]"),
    ("angle", "normal", [0, 0, 0, 1], "must have 3 numbers, not 4"),
    ("angle", "normal.0", NAN, f"must be {NUMBER}, not nan", "normal[0]"),
    ("length", "type", "width", "must be one of 'length', 'angle', not 'width'"),
    ("length", "type", 1, "must be one of 'length', 'angle', not 1"),
    ("angle", "type", ..., "is missing; it must be one of 'length', 'angle'"),
    ("angle", "type", [], "must be one of 'length', 'angle', not a list"),
    ("landmarks", "point", [0.5, 0.5], "must be an object, not a list"),
    ("landmarks", "point", "middle", "must be an object, not 'middle'"),
    (
        "landmarks",
        "point",
        {"x": 0.1, "xNorm": 0.1, "yNorm": 0.1},
        "unknown key; the keys are 'xNorm', 'yNorm'",
        "point.x",
    ),
    ("landmarks3d", "point", [1, 2, 3], "must be an object, not a list"),
    ("cuboids", "point1", ..., "needs point1 and point2, or absolutePoint1 and absolutePoint2", ""),
    ("cuboids", "point2", None, "needs point1 and point2, or absolutePoint1 and absolutePoint2", ""),
    ("cuboids", "absolutePoint1", 3, "must be an object, not 3"),
]

BAD += [
    ("boundingBoxes", "id", 1, "must be text, not 1"),
    ("boundingBoxes", "group", ["g"], "must be text, not a list"),
    ("boundingBoxes", "readOnly", "no", "must be true or false, not 'no'"),
    ("boundingBoxes", "readOnly", 1, "must be true or false, not 1"),
    ("boundingBoxes", "comment", {"pin": {}}, "must be text or an object with text, not an object"),
    ("boundingBoxes", "comment", 5, "must be text or an object with text, not 5"),
    ("boundingBoxes", "catgory", "finding", "unknown key; did you mean 'category'?"),
    ("polylines", "[key]", 1, keys("points", "category", "attributes", "id", "group", more=3)),
    ("boundingBoxes", "attribute", {}, "unknown key; did you mean 'attributes'?"),
    ("boundingBoxes", "width", 0.1, keys("pointTopLeft", "wNorm", "hNorm", "category", "attributes", more=6)),
    ("boundingBoxes", "xnorm", 0.1, "unknown key; did you mean 'wNorm'?"),
    ("polylines", "stats", STATS, keys("points", "category", "attributes", "id", "group", more=3)),
    ("cuboids", "video", VIDEO, keys("point1", "point2", "absolutePoint1", "absolutePoint2", "category", more=6)),
    ("instanceClassifications", "attributes", {}, keys("fileIndex", "values", "fileName", "id", "group", more=2)),
    ("instanceClassifications", "fileIndex", -1, "must be a whole number of at least 0, not -1"),
    ("instanceClassifications", "fileIndex", 1.5, "must be a whole number of at least 0, not 1.5"),
    ("instanceClassifications", "fileIndex", "1", "must be a whole number of at least 0, not '1'"),
    ("instanceClassifications", "fileName", 1, "must be text, not 1"),
    ("instanceClassifications", "values", ["artifact"], "must be an object, not a list"),
    ("boundingBoxes", "video", 3, "must be an object, not 3"),
    ("boundingBoxes", "video.frameIndex", -1, "must be a whole number of at least 0, not -1"),
    ("boundingBoxes", "video.frameIndex", True, "must be a whole number of at least 0, not true"),
    ("polygons", "video.frameIndex", 1.0, "must be a whole number of at least 0, not 1.0"),
    ("ellipses", "video.trackId", 7, "must be text, not 7"),
    ("landmarks", "video.keyFrame", 0, "must be true or false, not 0"),
    ("polylines", "video.endTrack", "true", "must be true or false, not 'true'"),
    ("classifications", "video.seriesItemIndex", "0", "must be a whole number of at least 0, not '0'"),
    ("classifications", "video.frame", 1, "unknown key; did you mean 'keyFrame'?"),
    ("boundingBoxes", "stats.intensityunit", 1, "must be text, not 1"),
    ("boundingBoxes", "stats.mean", 1, keys("average", "minimum", "maximum", "area", "volume", more=1)),
    ("polygons", "stats", [1], "must be an object, not a list"),
    ("cuboids", "stats.volume", INF, f"must be {NUMBER}, not inf"),
]

BAD += [
    ("boundingBoxes", "category", "findng", "unknown category 'findng'; did you mean 'finding'?"),
    ("boundingBoxes", "category", "Finding", "unknown category 'Finding'; did you mean 'finding'?"),
    ("boundingBoxes", "category", "FINDINGS", "unknown category 'FINDINGS'; did you mean 'finding'?"),
    ("boundingBoxes", "category", "opactiy", "unknown category 'opactiy'; did you mean 'opacity'?"),
    ("boundingBoxes", "category", "", f"unknown category ''; {BBOX}"),
    ("boundingBoxes", "category", "xyzzy", f"unknown category 'xyzzy'; {BBOX}"),
    ("boundingBoxes", "category", "x" * 200, f"unknown category '{'x' * 59}...; {BBOX}"),
    ("boundingBoxes", "category", "device", "category 'device' is archived; " + BBOX),
    ("boundingBoxes", "category", 2, "category 2 is archived; " + BBOX),
    ("boundingBoxes", "category", 99, f"unknown category 99; {BBOX}"),
    ("boundingBoxes", "category", -1, f"unknown category -1; {BBOX}"),
    ("boundingBoxes", "category", 4, f"category 4 is for POINT, not for BBOX; {BBOX}"),
    ("boundingBoxes", "category", "landmark", f"category 'landmark' is for POINT, not for BBOX; {BBOX}"),
    ("boundingBoxes", "category", "region", f"category 'region' is for POLYGON and SEGMENTATION, not for BBOX; {BBOX}"),
    ("boundingBoxes", "category", ["left", "lobe"], "unknown category 'left/lobe'; did you mean 'lobe'?"),
    (
        "boundingBoxes",
        "category",
        ["x", "lung", "right", "lobe"],
        "unknown category 'x/lung/right/lobe'; did you mean 'lobe'?",
    ),
    ("boundingBoxes", "category", ["finding", "lobe"], "unknown category 'finding/lobe'; did you mean 'lobe'?"),
    ("boundingBoxes", "category", [], f"{NAMES}, not a list"),
    ("boundingBoxes", "category", [0], f"{NAMES}, not a list"),
    ("boundingBoxes", "category", [["object", "finding"]], f"{NAMES}, not a list"),
    ("boundingBoxes", "category", True, f"{NAMES}, not true"),
    ("boundingBoxes", "category", 1.0, f"{NAMES}, not 1.0"),
    ("boundingBoxes", "category", {"name": "finding"}, f"{NAMES}, not an object"),
    ("landmarks", "category", "landmrk", "unknown category 'landmrk'; did you mean 'landmark'?"),
    ("landmarks", "category", "finding", not_for("finding", "BBOX", "POINT", "landmark")),
    ("landmarks3d", "category", "volume", not_for("volume", "CUBOID", "POINT", "landmark")),
    ("landmarks3d", "category", "landmarks", "unknown category 'landmarks'; did you mean 'landmark'?"),
    ("length", "category", "diametre", "unknown category 'diametre'; did you mean 'diameter'?"),
    ("length", "category", "bend", not_for("bend", "ANGLE", "LENGTH", "diameter")),
    ("angle", "category", "bends", "unknown category 'bends'; did you mean 'bend'?"),
    ("angle", "category", "diameter", not_for("diameter", "LENGTH", "ANGLE", "bend")),
    ("ellipses", "category", "nodul", "unknown category 'nodul'; did you mean 'nodule'?"),
    ("ellipses", "category", 8, "category 8 is for POLYGON, not for ELLIPSE; the ELLIPSE categories are 'nodule'"),
    ("polygons", "category", "regoin", "unknown category 'regoin'; did you mean 'region'?"),
    (
        "polygons",
        "category",
        "lesion",
        "category 'lesion' is for SEGMENTATION, not for POLYGON; did you mean 'region'?",
    ),
    ("polylines", "category", "vesel", "unknown category 'vesel'; did you mean 'vessel'?"),
    ("polylines", "category", "finding", not_for("finding", "BBOX", "POLYLINE", "vessel")),
    ("cuboids", "category", "volumes", "unknown category 'volumes'; did you mean 'volume'?"),
    ("cuboids", "category", "nodule", not_for("nodule", "ELLIPSE", "CUBOID", "volume")),
]

BAD += [
    ("boundingBoxes", "attributes", [], "must be an object, not a list"),
    ("polygons", "attributes", "confirmed", "must be an object, not 'confirmed'"),
    ("classifications", "attributes", True, "must be an object, not true"),
    ("boundingBoxes", "attributes.scor", 1, "unknown attribute 'scor'; did you mean 'score'?"),
    ("boundingBoxes", "attributes.Side", "left", "unknown attribute 'Side'; did you mean 'side'?"),
    (
        "polygons",
        "attributes.xyz",
        1,
        "unknown attribute 'xyz'; the attributes are 'confirmed', 'note', 'score', 'birads', 'depth' and 5 more",
    ),
    ("boundingBoxes", "attributes.old", "x", "attribute 'old' is archived"),
    ("boundingBoxes", "attributes.confirmed", "true", "must be true or false, not 'true'"),
    ("boundingBoxes", "attributes.confirmed", 1, "must be true or false, not 1"),
    ("boundingBoxes", "attributes.confirmed", None, "must be true or false, not null"),
    ("cuboids", "attributes.note", 5, "must be text, not 5"),
    ("cuboids", "attributes.note", ["x"], "must be text, not a list"),
    ("cuboids", "attributes.note", True, "must be text, not true"),
    ("ellipses", "attributes.score", "0.5", f"must be {NUMBER}, not '0.5'"),
    ("ellipses", "attributes.score", True, f"must be {NUMBER}, not true"),
    ("ellipses", "attributes.score", NAN, f"must be {NUMBER}, not nan"),
    ("ellipses", "attributes.score", INF, f"must be {NUMBER}, not inf"),
    ("ellipses", "attributes.score", 1.01, "must be at most 1, not 1.01"),
    ("ellipses", "attributes.score", -0.5, "must be at least 0, not -0.5"),
    ("ellipses", "attributes.birads", -1, "must be at least 0, not -1"),
    ("ellipses", "attributes.depth", 12.75, "must be at most 12.5, not 12.75"),
    ("polylines", "attributes.side", "lft", "unknown option 'lft'; did you mean 'left'?"),
    ("polylines", "attributes.side", "LEFT", "unknown option 'LEFT'; did you mean 'left'?"),
    ("polylines", "attributes.side", "xyzzy", "unknown option 'xyzzy'; the options are 'left', 'right', 'both'"),
    ("polylines", "attributes.side", "front", "option 'front' is archived; the options are 'left', 'right', 'both'"),
    ("polylines", "attributes.side", 0, "must be an option name, not 0"),
    ("polylines", "attributes.side", ["left"], "must be an option name, not a list"),
    ("polylines", "attributes.side", True, "must be an option name, not true"),
    ("polylines", "attributes.empty", "x", "unknown option 'x'; the taxonomy has no options"),
    ("landmarks", "attributes.look", "solid", "must be a list of option names, not 'solid'"),
    ("landmarks", "attributes.look", [1], "must be a list of option names, not a list"),
    ("landmarks", "attributes.look", ["solid", "sold"], "unknown option 'sold'; did you mean 'solid'?"),
    ("landmarks", "attributes.look", ["cystic"], "option 'cystic' is archived; the options are 'solid', 'calcified'"),
    ("classifications", "attributes.usabel", True, "unknown attribute 'usabel'; did you mean 'usable'?"),
    ("classifications", "attributes.plane", "axal", "unknown option 'axal'; did you mean 'axial'?"),
    (
        "classifications",
        "attributes.abnormal",
        True,
        "unknown attribute 'abnormal'; the attributes are 'usable', 'plane'",
    ),
    ("instanceClassifications", "values.artefact", True, "unknown attribute 'artefact'; did you mean 'artifact'?"),
    ("instanceClassifications", "values.artifact", "yes", "must be true or false, not 'yes'"),
    ("instanceClassifications", "values.visible", ["hart"], "unknown option 'hart'; did you mean 'heart'?"),
]


@pytest.mark.parametrize("case", BAD, ids=[f"{case[0]}-{case[1]}-{case[2]!r:.30}" for case in BAD])
def test_a_bad_label(case):
    kind, where, value, words, *written = case
    field = written[0] if written else where
    labels = [GOOD[kind], GOOD[kind], changed(GOOD[kind], where, value), GOOD[kind]]
    key = listed_in(kind)
    found = check_labels({"series": [{}, {key: labels, "name": "ct"}]}, TAXONOMY)
    assert found == [Problem(1, key, 2, field, words)]
    place = f", {field}" if field else ""
    assert str(found[0]) == f"series 1, {key}[2]{place}: {words}"


def test_bad_label_cases_number_at_least_200():
    assert len(BAD) >= 200


@pytest.mark.parametrize("value", [None, 1, "finding", [], [PIXEL], True, NAN])
@pytest.mark.parametrize("key", ["boundingBoxes", "measurements", "classifications"])
def test_a_label_that_is_no_object(key, value):
    shown = {"None": "null", "True": "true", "[]": "a list"}.get(
        str(value), "a list" if value == [PIXEL] else repr(value)
    )
    assert problems({"series": [{key: [value]}]}) == [f"series 0, {key}[0]: must be an object, not {shown}"]


def test_a_label_without_any_point():
    assert problems({"series": [{"landmarks3d": [{"category": "landmark"}]}]}) == [
        "series 0, landmarks3d[0]: needs point, or absolutePoint"
    ]


def test_check_labels_returns_all_errors():
    box = {"pointTopLeft": {"xNorm": 2, "yNorm": 0.1}, "wNorm": -1, "category": "finding", "attributes": {"scor": 1}}
    found = problems({"series": [{"boundingBoxes": [box]}, 7, {"boundingBoxs": []}], "classification": []})
    assert found == [
        "classification: must be an object, not a list",
        f"series 0, boundingBoxes[0], pointTopLeft.xNorm: must be {SHARE}, not 2",
        f"series 0, boundingBoxes[0], wNorm: must be {SIZE}, not -1",
        f"series 0, boundingBoxes[0], hNorm: is missing; it must be {SIZE}",
        "series 0, boundingBoxes[0], attributes.scor: unknown attribute 'scor'; did you mean 'score'?",
        "series 1: must be an object, not 7",
        "series 2, boundingBoxs: unknown key; did you mean 'boundingBoxes'?",
    ]


# ------------------------------------------------------------------ bad series and masks

BAD_SERIES = [
    ({"boundingBox": []}, "boundingBox: unknown key; did you mean 'boundingBoxes'?"),
    ({"boxes": []}, f"boxes: {keys('landmarks', 'landmarks3d', 'measurements', 'boundingBoxes', 'ellipses', more=17)}"),
    ({"Polygons": []}, "Polygons: unknown key; did you mean 'polygons'?"),
    ({"classification": {}}, "classification: unknown key; did you mean 'classifications'?"),
    ({"unknown": [{}]}, "unknown: labels of an unknown type cannot be sent and would be lost"),
    ({"boundingBoxes": GOOD["boundingBoxes"]}, "boundingBoxes: must be a list of objects, not an object"),
    ({"landmarks": "none"}, "landmarks: must be a list of objects, not 'none'"),
    ({"measurements": 0}, "measurements: must be a list of objects, not 0"),
    ({"segmentations": 1}, "segmentations: must be a path or a list of paths, not 1"),
    ({"segmentations": ""}, "segmentations: must be a path or a list of paths, not ''"),
    ({"segmentations": ["a", None]}, "segmentations: must be a path or a list of paths, not a list"),
    ({**MASKS, "binaryMask": "yes"}, "binaryMask: must be true or false, not 'yes'"),
    ({**MASKS, "semanticMask": 1}, "semanticMask: must be true or false, not 1"),
    ({**MASKS, "pngMask": True}, "pngMask: requires binaryMask to be true"),
    ({**MASKS, "segmentMap": []}, "segmentMap: must be an object, not a list"),
    ({**MASKS, "segmentMap": "lesion"}, "segmentMap: must be an object, not 'lesion'"),
    ({"segmentMap": {"1": "lesion"}}, "segmentMap: requires a mask, but segmentations is missing"),
    (
        {"segmentMap": {"1": SEGMENT}, "segmentations": None},
        "segmentMap: requires a mask, but segmentations is missing",
    ),
    (
        {**MASKS, "binaryMask": True, "segmentMap": {"7": "lesion"}},
        "segmentMap[7], mask: is missing; with binaryMask each segment requires its own mask",
    ),
    *(
        (
            {**MASKS, "segmentMap": {key: "lesion"}},
            f"segmentMap, {'true' if key is True else key}: {words}, not {shown}",
        )
        for words in ["must be a whole number from 1 to 65535"]
        for key, shown in [
            ("0", "'0'"),
            ("65536", "'65536'"),
            ("-1", "'-1'"),
            ("1.5", "'1.5'"),
            ("lesion", "'lesion'"),
            ("²", "'²'"),
            ("9" * 50, f"'{'9' * 50}'"),
            (0, "0"),
            (70000, "70000"),
            (True, "true"),
        ]
    ),
    (
        {**MASKS, "segmentMap": {"5": "lessions"}},
        "segmentMap[5], category: unknown category 'lessions'; did you mean 'lesion'?",
    ),
    (
        {**MASKS, "segmentMap": {"5": {"category": "finding"}}},
        f"segmentMap[5], category: {not_for('finding', 'BBOX', 'SEGMENTATION', 'lesion')}, 'region'",
    ),
    (
        {**MASKS, "segmentMap": {"5": None}},
        f"segmentMap[5], category: {NO_CATEGORY}",
    ),
    (
        {**MASKS, "segmentMap": {"5": {**SEGMENT, "mask": 1}}},
        "segmentMap[5], mask: must be a path or a list of paths, not 1",
    ),
    (
        {**MASKS, "segmentMap": {"5": {**SEGMENT, "overlappingGroups": 1}}},
        "segmentMap[5], overlappingGroups: must be a list, not 1",
    ),
    (
        {**MASKS, "segmentMap": {"5": {**SEGMENT, "overlappingGroups": [1, "a"]}}},
        "segmentMap[5], overlappingGroups[1]: must be a whole number of at least 0, not 'a'",
    ),
    (
        {**MASKS, "segmentMap": {"5": {**SEGMENT, "attributes": {"side": "lft"}}}},
        "segmentMap[5], attributes.side: unknown option 'lft'; did you mean 'left'?",
    ),
    (
        {**MASKS, "segmentMap": {"5": {**SEGMENT, "binaryMask": True}}},
        f"segmentMap[5], binaryMask: {keys('mask', 'overlappingGroups', 'category', 'attributes', 'id', more=3)}",
    ),
    ({"heatMaps": {}}, "heatMaps: must be a list, not an object"),
    ({"heatMaps": [1]}, "heatMaps, [0]: must be an object, not 1"),
    ({"heatMaps": [{"dataRange": [0, NAN]}]}, "heatMaps, [0].dataRange[1]: must be finite, not nan"),
    ({"transforms": [{"transform": [[INF]]}]}, "transforms, [0].transform[0][0]: must be finite, not inf"),
    ({"centerline": "c"}, "centerline: must be a list, not 'c'"),
]


@pytest.mark.parametrize(
    ("series", "words"), BAD_SERIES, ids=[f"{i}-{words:.40}" for i, (_, words) in enumerate(BAD_SERIES)]
)
def test_a_bad_series(series, words):
    assert problems({"series": [{}, {}, series]}) == [f"series 2, {words}"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"series": {}}, "series: must be a list of objects, not an object"),
        ({"series": "series"}, "series: must be a list of objects, not 'series'"),
        ({"series": 0}, "series: must be a list of objects, not 0"),
        ({"series": [None]}, "series 0: must be an object, not null"),
        ({"series": [{}, [GOOD["polygons"]]]}, "series 1: must be an object, not a list"),
        ({"classification": []}, "classification: must be an object, not a list"),
        ({"classification": "normal"}, "classification: must be an object, not 'normal'"),
        (
            {"classification": {"abnormal": True}},
            f"classification, abnormal: {keys('category', 'attributes', 'id', 'group', 'readOnly', more=2)}",
        ),
        ({"classification": {"attributes": [True]}}, "classification, attributes: must be an object, not a list"),
        (
            {"classification": {"attributes": {"abnorml": True}}},
            "classification, attributes.abnorml: unknown attribute 'abnorml'; did you mean 'abnormal'?",
        ),
        (
            {"classification": {"attributes": {"usable": True}}},
            "classification, attributes.usable: unknown attribute 'usable'; the attributes are 'abnormal', 'urgency'",
        ),
        (
            {"classification": {"attributes": {"abnormal": "no"}}},
            "classification, attributes.abnormal: must be true or false, not 'no'",
        ),
        (
            {"classification": {"attributes": {"urgency": "Now"}}},
            "classification, attributes.urgency: unknown option 'Now'; did you mean 'now'?",
        ),
        ([], "must be an object, not a list"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_a_bad_body(body, words):
    assert problems(body) == [words]


# ------------------------------------------------------------------ taxonomies


def test_check_labels_sandbox_taxonomy_is_checkable():
    taxonomy = Taxonomy.from_wire(SANDBOX_TAXONOMY)
    assert taxonomy.checkable
    assert taxonomy.categories("SEGMENTATION") == ("lesion", "organ")
    assert taxonomy.find(["finding"])[0].attributes[2] == Attribute("score", "NUMBER", minimum=0, maximum=1)


@pytest.mark.parametrize(
    "data", [None, {}, [], "x", {"isNew": False, "categories": [{"name": "object"}]}, {"isNew": None}]
)
def test_check_labels_without_checkable_taxonomy_returns_nothing(data):
    taxonomy = Taxonomy.from_wire(data)
    assert not taxonomy.checkable
    assert check_labels({"series": [{"boxes": NAN}]}, taxonomy) == []


@pytest.mark.parametrize(
    "data",
    [
        {"objectTypes": None, "studyClassify": None},
        {"objectTypes": [None, {}, {"category": None}, 3]},
        {"objectTypes": "x", "seriesClassify": {"name": "x"}},
    ],
)
def test_from_wire_omits_missing_fields(data):
    taxonomy = Taxonomy.from_wire({"isNew": True, **data})
    assert taxonomy.object_types == taxonomy.task_attributes == taxonomy.series_attributes == ()
    (problem,) = check_labels({"series": [{"polygons": [changed(GOOD["polygons"], "attributes", {})]}]}, taxonomy)
    assert problem.message == "unknown category 'region'; the taxonomy has no POLYGON categories"


def test_entries_are_read_leniently():
    odd = {
        "name": "n",
        "attrType": None,
        "options": [None, {"name": 1}, {"name": "a"}],
        "minValue": "low",
        "maxValue": NAN,
    }
    assert Attribute.from_wire(odd) == Attribute("n", "", ("a",))
    assert ObjectType.from_wire({"category": "c", "classId": "1", "parents": None}) == ObjectType("c", None, "")


# ------------------------------------------------------------------ anything at all

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = sorted(
    {word for label in GOOD.values() for word in label} | {"series", "classification", "segmentMap", "xNorm", *GOOD}
)
KEYS = st.sampled_from(WORDS) | st.text(max_size=6)
JSON = st.recursive(
    SCALARS | st.sampled_from(["finding", "length", "region"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


@given(JSON | st.dictionaries(st.sampled_from(["series", "classification"]), JSON))
def test_check_labels_any_json_does_not_raise(body):
    for problem in check_labels(body, TAXONOMY):
        assert problem.message
        assert str(problem)


@given(JSON)
def test_check_labels_any_taxonomy_does_not_raise(data):
    taxonomy = Taxonomy.from_wire({"isNew": True, "objectTypes": data, "studyClassify": data, "seriesClassify": data})
    check_labels({"series": [{"boundingBoxes": [GOOD["boundingBoxes"]]}], "classification": CLASSIFICATION}, taxonomy)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


WHOLE = {
    "series": [{**MASKS, listed_in(kind): [label]} for kind, label in GOOD.items()],
    "classification": CLASSIFICATION,
}
PLACES = list(places(WHOLE))[1:]


@examples(300)
@given(st.sampled_from(PLACES), JSON)
def test_check_labels_any_value_in_a_label_does_not_raise(place, value):
    body = fresh(WHOLE)
    inner = body
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    found = check_labels(body, TAXONOMY)
    if len(place) > 1 and place[0] == "series":
        assert {problem.series for problem in found} <= {place[1]}


def test_check_labels_deep_nesting_does_not_raise():
    deep: object = NAN
    for _ in range(5000):
        deep = [deep]
    found = check_labels({"series": [{"heatMaps": [{"x": deep}], "boundingBoxes": [deep]}]}, TAXONOMY)
    assert len(found) == 2


def test_many_alike_take_little_time():
    names = [f"finding {i:04}" for i in range(500)]
    taxonomy = Taxonomy.from_wire({"isNew": True, "objectTypes": [category(i, n, "BBOX") for i, n in enumerate(names)]})
    box = {**GOOD["boundingBoxes"], "category": "fnding 0003"}
    body = json.loads(json.dumps({"series": [{"boundingBoxes": [box] * 5000}]}))
    assert {p.message.partition("; ")[2] for p in check_labels(body, taxonomy)} == {"did you mean 'finding 0003'?"}
    good = random.Random(5).sample(names, 5)
    assert problems({"series": [{"boundingBoxes": [{**box, "category": name} for name in good]}]}, taxonomy) == []


# ------------------------------------------------------------------ the older format


FLAT_BOX = {"category": [["object", "finding"]], "bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}}


@pytest.mark.parametrize(
    "label",
    [
        FLAT_BOX,
        {**FLAT_BOX, "category": "finding", "attributes": [{"name": "score", "value": 0.5}], "volumeindex": 3},
        {"seriesclassify": True, "attributes": []},
        {"category": [["object", "anything"]], "frameclassify": True, "frameindex": 3},
        {"category": "finding", "pixel": {"imagesize": [4, 4]}},
        "no label at all",
    ],
)
def test_check_stored_accepts_valid_labels(label):
    assert check_stored([label], TAXONOMY) == []


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (
            {**FLAT_BOX, "category": [["object", "fnding"]]},
            "category: unknown category 'fnding'; did you mean 'finding'?",
        ),
        ({**FLAT_BOX, "category": "lesion"}, "category: category 'lesion' is for SEGMENTATION, not for BBOX"),
        ({**FLAT_BOX, "bbox2d": {**FLAT_BOX["bbox2d"], "wnorm": 2}}, "wNorm: the box leaves the image"),
        (
            {**FLAT_BOX, "bbox2d": {**FLAT_BOX["bbox2d"], "xnorm": -1}},
            f"pointTopLeft.xNorm: must be {SHARE}",
        ),
        ({**FLAT_BOX, "attributes": [{"name": "scor", "value": 1}]}, "attributes.scor: unknown attribute 'scor'"),
        ({"category": "region", "polygon": [{"xnorm": 0, "ynorm": 0}]}, "points: must have at least 3 points"),
    ],
)
def test_check_stored_error_names_label_index(label, words):
    problems = [str(problem) for problem in check_stored([FLAT_BOX, label], TAXONOMY)]
    assert problems
    assert problems[0].startswith(f"labels[1], {words}")


def test_check_stored_first_generation_taxonomy_returns_nothing():
    assert check_stored([{**FLAT_BOX, "category": "nothing"}], Taxonomy()) == []
