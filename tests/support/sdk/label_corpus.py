"""Stored ("flat") labels of all kinds, as tasks of a project, reproducible by seed.

`sound_tasks` are as the editor and imports write them. `corners` are old, damaged or contradictory, and each names the
rows of the test's table of known differences that it shows. `breakers` make the public SDK's export raise an exception.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Flat = dict[str, Any]

SEGMENT = "segment"
STUDY = ("study classification", "study classification, old")
MANY = 1001  # more labels than come inline
TOO_FAR = 1200  # a series no task has


@dataclass(frozen=True)
class CorpusTask:
    """A task to create. `differs` has the rows of the test's table of known differences that it shows."""

    name: str
    labels: list[Flat]
    items: list[str] = field(default_factory=lambda: [f"images/{number}.dcm" for number in range(4)])
    series_info: list[dict[str, Any]] | None = None
    labels_map: list[dict[str, Any] | None] = field(default_factory=list)
    in_file: bool = False
    differs: frozenset[str] = frozenset()


# ---------------------------------------------------------------- label kinds


def _share(draw: random.Random) -> float:
    return draw.choice([0, 1, 0.5, round(draw.random(), 6), round(draw.random(), 15)])


def _image_point(draw: random.Random) -> Flat:
    return {"xnorm": _share(draw), "ynorm": _share(draw)}


def _voxel(draw: random.Random) -> list[int]:
    return [draw.randrange(512), draw.randrange(512), draw.randrange(90)]


def _world(draw: random.Random) -> list[float]:
    return draw.choice([[0, 0, 0], [round(draw.uniform(-300, 300), 4) for _ in range(3)]])


def _computed(draw: random.Random, **values: Any) -> Flat:
    """Return values that the editor computes: present, null, or absent."""
    return draw.choice([values, values, values, dict.fromkeys(values), {}])


def _length(draw: random.Random) -> Flat:
    computed = _computed(
        draw,
        computedpoint1world=_world(draw),
        computedpoint2world=_world(draw),
        computedlength=round(draw.uniform(0.1, 90), 3),
    )
    points = {"point1": _voxel(draw), "point2": _voxel(draw), "normal": draw.choice([[0, 0, 1], [0.6, 0, 0.8]])}
    return {"length3d": {**points, **computed}}


def _angle(draw: random.Random) -> Flat:
    computed = _computed(
        draw,
        computedpoint1world=_world(draw),
        computedpoint2world=_world(draw),
        computedpoint3world=_world(draw),
        computedangledeg=draw.choice([90, round(draw.uniform(0.1, 180), 3)]),
    )
    points = {"point1": _voxel(draw), "point2": _voxel(draw), "point3": _voxel(draw), "normal": [0, 0, 1]}
    return {"angle3d": {**points, **computed}}


def _landmark3d(draw: random.Random) -> Flat:
    voxel = dict(zip(("pointx", "pointy", "pointz"), _voxel(draw), strict=True))
    world = {"computedpointworld": _world(draw)}
    none = {**dict.fromkeys(voxel), **world}
    return {"point3d": draw.choice([{**voxel, **world}, {**voxel, "computedpointworld": None}, voxel, none, world])}


def _cuboid(draw: random.Random) -> Flat:
    voxels = {"point1": _voxel(draw), "point2": _voxel(draw)}
    worlds = {"computedpoint1world": _world(draw), "computedpoint2world": _world(draw)}
    return {"cuboid": draw.choice([{**voxels, **worlds}, voxels, {**voxels, **dict.fromkeys(worlds)}, worlds])}


def _box(draw: random.Random) -> Flat:
    return {"bbox2d": {**_image_point(draw), "wnorm": _share(draw), "hnorm": _share(draw)}}


def _ellipse(draw: random.Random) -> Flat:
    center = {"xcenternorm": _share(draw), "ycenternorm": _share(draw)}
    return {"ellipse": {**center, **_image_point(draw), "rot": draw.choice([0, round(draw.uniform(-3.14, 3.14), 6)])}}


def _polygon(draw: random.Random) -> Flat:
    return {"polygon": [_image_point(draw) for _ in range(draw.randint(3, 9))]}


def _polyline(draw: random.Random) -> Flat:
    return {"polyline": [_image_point(draw) for _ in range(draw.randint(2, 6))]}


def _segment(draw: random.Random) -> Flat:
    groups = draw.choice([None, None, [], [draw.randint(200, 300)], [301, 302]])
    return {"dicom": {"instanceid": draw.randint(1, 65535), **draw.choice([{"groupids": groups}, {}])}}


# For each kind: its factory, and its category in the sandbox's taxonomy, by name and by class id.
KINDS: dict[str, tuple[Any, str | None, int | None]] = {
    "landmark": (lambda draw: {"point": _image_point(draw)}, "landmark", 2),
    "landmark in space": (_landmark3d, "landmark", 2),
    "length": (_length, "diameter", 8),
    "angle": (_angle, "bend", 9),
    "bounding box": (_box, "finding", 0),
    "ellipse": (_ellipse, "nodule", 5),
    "polygon": (_polygon, "region", 4),
    "polyline": (_polyline, "vessel", 3),
    "cuboid": (_cuboid, "volume", 1),
    "study classification": (lambda _: {"studyclassify": True}, None, None),
    "study classification, old": (lambda _: {"tasklevelclassify": True}, None, None),
    "series classification": (lambda _: {"seriesclassify": True}, None, None),
    "series classification, old": (lambda _: {"multiclassify": True}, None, None),
    "instance classification": (lambda _: {"instanceclassify": True}, None, None),
    SEGMENT: (_segment, "lesion", 6),
}
_MARKS = {
    "point": "landmark",
    "point3d": "landmark in space",
    "length3d": "length",
    "angle3d": "angle",
    "bbox2d": "bounding box",
    "ellipse": "ellipse",
    "polygon": "polygon",
    "polyline": "polyline",
    "cuboid": "cuboid",
    "studyclassify": "study classification",
    "tasklevelclassify": "study classification, old",
    "seriesclassify": "series classification",
    "multiclassify": "series classification, old",
    "instanceclassify": "instance classification",
    "dicom": SEGMENT,
}


def kind_of(label: Flat) -> str:
    """Return the kind of a stored label."""
    return next((kind for mark, kind in _MARKS.items() if label.get(mark)), "none")


def _category_is(category: Any, length: Callable[[int], bool]) -> bool:
    return isinstance(category, list) and length(len(category[0]))


def _any_value(label: Flat, fits: Callable[[Any], bool]) -> bool:
    return any(fits(attribute["value"]) for attribute in label.get("attributes") or ())


# Optional features of a stored label, whatever its kind.
TRAITS: dict[str, Callable[[Flat], bool]] = {
    "frame": lambda label: label.get("frameindex") is not None and "instanceclassify" not in label,
    "item": lambda label: label.get("globalitemsindex") is not None,
    "statistics": lambda label: isinstance(label.get("stats"), dict),
    "group": lambda label: label.get("linkid") is not None,
    "read-only": lambda label: bool(label.get("readonly")),
    "id": lambda label: label.get("labelid") is not None,
    "category as text": lambda label: isinstance(label.get("category"), str),
    "category of old": lambda label: _category_is(label.get("category"), lambda length: length == 2),
    "nested category": lambda label: _category_is(label.get("category"), lambda length: length > 2),
    "class id only": lambda label: label.get("category") is None and label.get("classid") is not None,
    "no series": lambda label: label.get("volumeindex") is None,
    "second or later series": lambda label: bool(label.get("volumeindex")),
    "overlapping groups": lambda label: bool((label.get("dicom") or {}).get("groupids")),
    "attribute: true or false": lambda label: _any_value(label, lambda value: isinstance(value, bool)),
    "attribute: true or false as text": lambda label: _any_value(
        label, lambda value: isinstance(value, str) and value.lower() in {"true", "false"}
    ),
    "attribute: text": lambda label: _any_value(label, lambda value: isinstance(value, str)),
    "attribute: number": lambda label: _any_value(label, lambda value: type(value) in {int, float}),
    "attribute: several choices": lambda label: _any_value(label, lambda value: isinstance(value, list)),
}


def traits_of(label: Flat) -> list[str]:
    """Return the optional features that a stored label has."""
    return [trait for trait, has in TRAITS.items() if has(label)]


# ---------------------------------------------------------------- optional features of all kinds


def _attributes(draw: random.Random) -> Any:
    some = [
        {"name": "confirmed", "value": draw.choice([True, False, "true", "False", "TRUE"]), "attrid": 0},
        {"name": "note", "value": draw.choice(["", "Größe 3 mm", "truely", "false alarm", "1"]), "attrid": 1},
        {"name": "score", "value": draw.choice([0, 1, 0.25, -3])},
        {"name": "side", "value": "right", "attrid": 3, "optionid": 1},
        {"name": "appearance", "value": draw.choice([["solid", "calcified"], [], ["true"]]), "attrid": 4},
        {"name": "not in the taxonomy", "value": draw.choice(["x", False, 7])},
    ]
    return draw.choice([None, [], *[draw.sample(some, draw.randint(1, len(some))) for _ in range(4)]])


def _category(draw: random.Random, name: str | None, class_id: int | None) -> Flat:
    if name is None:
        # Classifications: only those of the older taxonomies have a category.
        return draw.choice([{}, {}, {"category": None}, {"category": [["object", "good"]]}])
    return draw.choice(
        [
            {"category": name},
            {"category": name, "classid": class_id},
            {"category": None, "classid": class_id},
            {"classid": class_id},
            {"category": "not in the taxonomy"},
            {"category": [["object", name]]},
            {"category": [["object", "lung", "lobe", "Rundherd"]]},
        ]
    )


def _common(draw: random.Random, kind: str) -> Flat:
    _, name, class_id = KINDS[kind]
    choices: Flat = {
        **_category(draw, name, class_id),
        "attributes": _attributes(draw),
        "labelid": draw.choice([None, f"{draw.getrandbits(64):016x}"]),
        "linkid": draw.choice([None, None, f"group-{draw.randint(1, 3)}"]),
        "readonly": draw.choice([None, False, True]),
        "stats": draw.choice([None, _stats(draw)]),
    }
    if kind.endswith(("classification", "old")):
        # Empty statistics are among the corner cases.
        choices["attributes"] = choices["attributes"] or [{"name": "usable", "value": True}]
    # Null and absent are the same; both are stored.
    return {key: value for key, value in choices.items() if value is not None or draw.random() < 0.3}


def _stats(draw: random.Random) -> Flat:
    stats = {"average": round(draw.uniform(-900, 900), 2), "minimum": -1000, "maximum": 3000.5}
    more = {"area": 0, "volume": draw.choice([None, 12.5]), "intensityunit": draw.choice([None, "HU"])}
    return draw.choice([stats, {**stats, **more}, {}])


def _frames(draw: random.Random, own: list[int], count: int) -> Flat:
    """Return the position of a label in a video or stack: by frame, by item, by both, or none."""
    frame = draw.randrange(count)
    track = draw.choice([{}, {"trackid": f"track-{draw.randint(1, 4)}", "keyframe": False, "end": draw.random() < 0.5}])
    by_frame = {"frameindex": frame, **draw.choice([{}, {"seriesframeindex": draw.randrange(9)}])}
    anywhere = {**by_frame, "globalitemsindex": draw.randrange(count)}
    by_item = {"globalitemsindex": draw.choice(own)} if own else anywhere
    return draw.choice([{}, {}, {"frameindex": -1}, track, {**track, **by_frame}, {**track, **by_item}, anywhere])


# ---------------------------------------------------------------- tasks


def _division(draw: random.Random, way: str) -> tuple[list[str], list[dict[str, Any]] | None, list[list[int]]]:
    """Return the items of a task, its `seriesInfo`, and the items of each series in display order."""
    sizes = [draw.randint(1, 8)] if way == "one" else [draw.randint(1, 5) for _ in range(draw.randint(2, 4))]
    count = sum(sizes)
    items = [f"images/{draw.getrandbits(32):08x}/{number:03}.dcm" for number in range(count)]
    order = list(range(count))
    if way == "interleaved":
        draw.shuffle(order)
    views = []
    for size in sizes:
        views.append(order[:size])
        order = order[size:]
    if way == "unknown":
        return items, None, [list(range(count))]
    info: list[dict[str, Any]] = []
    for number, view in enumerate(views):
        name = draw.choice([{}, {"name": ""}, {"name": f"Series {number}"}])
        meta = draw.choice([{}, {"metaData": '{"modality": "CT"}'}])
        headers = draw.choice([{}, {"imageHeaders": '{"dimensions": [8, 8, 4], "spacing": [1, 1, 2]}'}])
        info.append({**name, **meta, **headers, "itemsIndices": view, "dataType": "dicom"})
    if way == "undivided":
        for each in info[draw.randrange(len(info)) :]:
            del each["itemsIndices"]
        views = [list(range(count)), *[[] for _ in views[1:]]]
    return items, info, views


def _masks(draw: random.Random, views: list[list[int]]) -> list[dict[str, Any] | None]:
    """Return a `labelsMap`: series with and without a mask, named by series or item in any order, or by position."""
    in_order = draw.random() < 0.5
    entries: list[dict[str, Any] | None] = []
    for index, view in enumerate(views):
        path = {"labelName": f"labels/{draw.getrandbits(32):08x}/{index}.nii.gz"}
        by_series = {"seriesIndex": index, **path}
        named = [by_series, {"imageIndex": draw.choice(view), **path} if view else by_series]
        entries.append(draw.choice([*named, path, None] if in_order else named))
    return entries if in_order else draw.sample(entries, len(entries))


def _for_a_file(label: Flat) -> Flat:
    """Return a label as an import writes it: with names, and without nulls, which break the SDK's export."""
    if "classid" in label and label.get("category") is None:
        label = {**label, "category": f"class {label['classid']}"}
    attributes = [{"name": each["name"], "value": each["value"]} for each in label.get("attributes") or ()]
    named = {**label, "classid": None, "attributes": attributes}
    return {key: value for key, value in named.items() if value is not None}


WAYS = ("one", "several", "interleaved", "undivided", "unknown")


def sound_task(number: int, seed: int, *, count: int | None = None, in_file: bool = False) -> CorpusTask:
    """Return a valid task. Its number selects the kind of its first label and the division into series."""
    draw = random.Random(f"{seed}/{number}")
    kinds = list(KINDS)
    way = WAYS[(number // len(kinds)) % len(WAYS)]
    items, info, views = _division(draw, way)
    wanted = [kinds[number % len(kinds)]]
    wanted += draw.choices(kinds, k=draw.randint(0, 12) if count is None else count - 1)
    labels: list[Flat] = []
    instances: set[int] = set()
    studied = False
    for kind in wanted:
        if kind in STUDY and studied:
            continue  # of several the last counts: a corner
        studied = studied or kind in STUDY
        series = draw.randrange(len(views))
        place: Flat = draw.choice([{"volumeindex": series}, {"volumeindex": series}, {"volumeindex": None}, {}])
        view = views[place.get("volumeindex") or 0]
        label = {**KINDS[kind][0](draw), **_common(draw, kind), **place, **_frames(draw, view, len(items))}
        if kind == "instance classification":
            label["frameindex"] = draw.randrange(max(1, len(view)))
        if kind == SEGMENT:
            if label["dicom"]["instanceid"] in instances:
                continue
            instances.add(label["dicom"]["instanceid"])
        labels.append(_for_a_file(label) if in_file else label)
    while count is not None and len(labels) < count:
        labels.append({"category": "finding", **_box(draw), "volumeindex": 0})
    has_masks = SEGMENT in wanted and draw.random() < 0.8
    return CorpusTask(
        name=f"{way}-{number:04}",
        labels=labels,
        items=items,
        series_info=info,
        labels_map=_masks(draw, views) if has_masks else [],
        in_file=in_file,
    )


def sound_tasks(count: int, seed: int) -> list[CorpusTask]:
    """Return valid tasks with all label kinds and all divisions into series. The last two have labels files."""
    made = [sound_task(number, seed) for number in range(count - 2)]
    return made + [sound_task(number, seed, count=MANY, in_file=True) for number in (count - 2, count - 1)]


# ---------------------------------------------------------------- corner cases

POINT = {"point": {"xnorm": 0.5, "ynorm": 0.25}}
TWO_SERIES = [{"itemsIndices": [0, 1]}, {"itemsIndices": [2, 3]}]
_LINE = {"point1": [1, 2, 3], "point2": [1, 2, 3], "normal": [0, 0, 1]}


def _corner(name: str, *labels: Flat, differs: tuple[str, ...] = (), **more: Any) -> CorpusTask:
    return CorpusTask(f"corner-{name}", list(labels), differs=frozenset(differs), **more)


def corners() -> list[CorpusTask]:
    """Return tasks with irregular labels that the SDK exports."""
    return [
        _corner("no labels"),
        _corner("attribute without a value", {**POINT, "attributes": [{"name": "note", "value": None}]}),
        _corner("category without its root", {**POINT, "category": ["lung", "nodule"]}),
        _corner("category that is only a root", {**POINT, "category": [["object"]]}),
        _corner("category that is a number", {**POINT, "category": 4}),
        _corner("empty group", {**POINT, "linkid": ""}),
        _corner("frame before the first", {**POINT, "globalitemsindex": 1, "frameindex": -1}),
        _corner("item the task does not have", {**POINT, "globalitemsindex": 99}),
        _corner("track without a frame", {**POINT, "trackid": "t", "keyframe": True}),
        _corner("classification that is empty", {"studyclassify": True}),
        _corner("series classification that is empty", {"seriesclassify": True}),
        _corner("frame of a classification", {"seriesclassify": True, "labelid": "id", "frameindex": 1}),
        _corner("segment without a mask", {"dicom": {"instanceid": 3}, "category": "organ"}),
        _corner("mask without segments", labels_map=[{"labelName": "labels/only.nii.gz", "seriesIndex": 0}]),
        _corner("mask without a path", labels_map=[{"seriesIndex": 0}]),
        _corner("part of a voxel", {"point3d": {"pointx": 1, "pointy": 2, "computedpointworld": [1, 2, 3]}}),
        _corner("series the task does not have", {**POINT, "volumeindex": 3}),
        _corner("two kinds in one", {**POINT, "bbox2d": {"xnorm": 0, "ynorm": 0, "wnorm": 1, "hnorm": 1}}),
        _corner("length of 0", {"length3d": {**_LINE, "computedlength": 0}}, differs=("measure of 0",)),
        _corner(
            "angle of 0",
            {"angle3d": {**_LINE, "point3": [4, 5, 6], "computedangledeg": 0}},
            differs=("measure of 0",),
        ),
        *[
            _corner(f"old {key}", {key: value, "category": [["object", "x"]]}, differs=("kept aside",))
            for key, value in {
                "pixel": {"imagesize": [1, 1], "regions": [[0, 0, 1]], "holes": None},
                "frameclassify": True,
                "taskclassify": True,
                "ocrvalue": "12",
                "bbox3d": [{"x": 1}],
                "dummy": True,
            }.items()
        ],
        _corner("nothing but an id", {"labelid": "id", "category": "finding"}, differs=("kept aside",)),
        _corner("empty shape", {"bbox2d": {}, "category": "finding"}, differs=("kept aside",)),
        _corner("segment 0", {"dicom": {"instanceid": 0}, "category": "lesion"}, differs=("kept aside",)),
        _corner("classification with an id alone", {"studyclassify": True, "labelid": "id"}, differs=("kept aside",)),
        _corner("series class with an id alone", {"seriesclassify": True, "labelid": "id"}, differs=("kept aside",)),
        _corner(
            "two classifications",
            {"studyclassify": True, "category": [["object", "first"]]},
            {"studyclassify": True, "category": [["object", "second"]]},
            differs=("kept aside",),
        ),
        _corner(
            "two segments of one number",
            {"dicom": {"instanceid": 1}, "category": "lesion", "volumeindex": 0},
            {"dicom": {"instanceid": 1}, "category": "organ", "volumeindex": 0},
            differs=("kept aside",),
        ),
        _corner(
            "landmark nowhere",
            {"point3d": {"pointx": 1, "pointy": 2, "pointz": None}, "category": "landmark"},
            differs=("kept aside", "no position"),
        ),
        _corner("cuboid nowhere", {"cuboid": {"point1": None}, "labelid": "c"}, differs=("kept aside", "no position")),
        _corner(
            "box without a height",
            {"bbox2d": {"xnorm": 0.1, "ynorm": 0.1, "wnorm": 0.1, "hnorm": None}},
            differs=("kept aside", "no number"),
        ),
        _corner(
            "series before the first",
            {**POINT, "volumeindex": -1},
            series_info=TWO_SERIES,
            differs=("kept aside", "index below 0"),
        ),
        _corner(
            "file before the first",
            {"instanceclassify": True, "frameindex": -1, "attributes": [{"name": "artifact", "value": True}]},
            differs=("kept aside", "index below 0"),
        ),
        _corner(
            "series far from any", {**POINT, "volumeindex": TOO_FAR}, differs=("kept aside", "more series than any has")
        ),
        _corner(
            "segment of all series, and one more series",
            {"dicom": {"instanceid": 1}, "category": "lesion"},
            {**POINT, "volumeindex": 2},
            series_info=TWO_SERIES,
            differs=("segment of a series told of later",),
        ),
        _corner(
            "two masks of one series",
            {"dicom": {"instanceid": 1}, "category": "lesion", "volumeindex": 0},
            labels_map=[{"seriesIndex": 0, "labelName": f"labels/{name}.nii.gz"} for name in ("first", "second")],
            differs=("two masks of one series",),
        ),
    ]


def by_ids() -> CorpusTask:
    """Return a task with a labels file that has only ids of categories, attributes and options."""
    attributes = [{"attrid": 0, "value": True}, {"attrid": 3, "optionid": 1}, {"attrid": 4, "optionid": [0, 2]}]
    box = {"xnorm": 0.1, "ynorm": 0.1, "wnorm": 0.5, "hnorm": 0.5}
    classification = {"studyclassify": True, "attributes": [{"attrid": 2, "optionid": 2}]}
    labels = [{"classid": 0, "attributes": attributes, "bbox2d": box}] * MANY
    return CorpusTask("by ids", [classification, *labels], in_file=True)


def breakers() -> list[CorpusTask]:
    """Return tasks that abort the SDK's export."""
    return [
        _corner("attribute that lacks its value", {**POINT, "attributes": [{"name": "note"}]}),
        _corner("attribute that lacks its name", {**POINT, "attributes": [{"value": "x"}]}),
        _corner("category that is an empty list", {**POINT, "category": []}),
        _corner("point that lacks y", {"point": {"xnorm": 0.5}}),
        _corner("point of two coordinates", {"length3d": {**_LINE, "computedpoint1world": [1, 2]}}),
        _corner("instance without a frame", {"instanceclassify": True}),
        _corner("series that is text", {**POINT, "volumeindex": "1"}),
        _corner(
            "nulls in a file",
            *[{"category": "finding", "bbox2d": {"xnorm": 0, "ynorm": 0, "wnorm": 1, "hnorm": 1}, "volumeindex": None}]
            * MANY,
            in_file=True,
        ),
    ]
