"""Labels that tests put on tasks."""

from __future__ import annotations

BOX = {"pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4, "category": "finding"}

PIXEL = {"xNorm": 0.25, "yNorm": 0.5}
VOXEL, WORLD = {"i": 1, "j": 2, "k": 3}, {"x": 1.5, "y": -2, "z": 0}
COMMON = {
    "id": "l1",
    "group": "g",
    "readOnly": False,
    "comment": {"text": "see", "pin": {}},
    "attributes": {
        "confirmed": True,
        "note": "x",
        "score": 1,
        "birads": 5,
        "depth": 12.5,
        "side": "left",
        "look": ["solid", "calcified"],
        "sure": True,
        "drawing": {"any": 1},
    },
}
VIDEO = {"frameIndex": 3, "trackId": "t", "keyFrame": True, "endTrack": False, "seriesItemIndex": 0}
STATS = {"average": 1.5, "minimum": 0, "maximum": 2, "area": 3, "volume": 4, "intensityunit": "HU"}
GOOD = {
    "landmarks": {**COMMON, "category": "landmark", "point": PIXEL, "video": VIDEO},
    "landmarks3d": {**COMMON, "category": "landmark", "point": VOXEL, "absolutePoint": WORLD},
    "length": {
        **COMMON,
        "category": "diameter",
        "type": "length",
        "point1": VOXEL,
        "point2": VOXEL,
        "normal": [0, 0, 1],
        "absolutePoint1": WORLD,
        "absolutePoint2": WORLD,
        "length": 4.2,
    },
    "angle": {
        **COMMON,
        "category": "bend",
        "type": "angle",
        "point1": VOXEL,
        "vertex": VOXEL,
        "point2": VOXEL,
        "normal": [0, 0, 1],
        "absolutePoint1": WORLD,
        "absoluteVertex": WORLD,
        "absolutePoint2": WORLD,
        "angle": 90,
    },
    "boundingBoxes": {
        **COMMON,
        "category": "finding",
        "pointTopLeft": PIXEL,
        "wNorm": 0.75,
        "hNorm": 0.5,
        "video": VIDEO,
        "stats": STATS,
    },
    "ellipses": {
        **COMMON,
        "category": "nodule",
        "pointCenter": PIXEL,
        "xRadiusNorm": 0.1,
        "yRadiusNorm": 0.2,
        "rotationRad": -3,
        "video": VIDEO,
        "stats": STATS,
    },
    "polygons": {**COMMON, "category": "region", "points": [PIXEL] * 3, "video": VIDEO, "stats": STATS},
    "polylines": {**COMMON, "category": "vessel", "points": [PIXEL] * 2, "video": VIDEO},
    "cuboids": {**COMMON, "category": "volume", "point1": VOXEL, "point2": VOXEL, "stats": STATS},
    "classifications": {"id": "c", "attributes": {"usable": True, "plane": "axial"}, "video": VIDEO},
    "instanceClassifications": {"fileIndex": 2, "fileName": "a.dcm", "values": {"artifact": True, "visible": ["lung"]}},
}
CLASSIFICATION = {"attributes": {"abnormal": False, "urgency": "now"}}
SEGMENT = {**COMMON, "category": "lesion", "overlappingGroups": [1, 2], "mask": "a.nii.gz"}
MASKS = {"segmentations": "a.nii.gz", "segmentMap": {"1": SEGMENT, "65535": SEGMENT}}


def listed_in(kind):
    return "measurements" if kind in {"length", "angle"} else kind
