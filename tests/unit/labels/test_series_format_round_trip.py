"""Labels in the `series` format, stored by the server and read again: what comes out is what went in.

The server's conversion is the sandbox's, which shares no code with ours. What comes out differently is in
`NORMALISED`, with the reason; everything else must be equal.
"""

from __future__ import annotations

import copy
import json
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.annotations.conversion import Converter, Labels
from airflow_provider_redbrick.annotations.masks import labels_map
from airflow_provider_redbrick.labels.schema import LISTED
from airflow_provider_redbrick.labels.series_format import SeriesLabels, to_series
from redbrick_sandbox.conversion import convert
from redbrick_sandbox.demo_project import TAXONOMY, interpolate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Fields = dict[str, Any]

# ---------------------------------------------------------------- labels of every kind

_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6)
_COUNTS = st.integers(0, 10**6)
# NUL is refused: it cannot be stored.
_TEXT = st.characters(codec="utf-8", exclude_characters="\0")
_NAMES = st.text(_TEXT, min_size=1, max_size=8) | st.sampled_from(
    ["finding", "lesion", "note", "side", "true", "False"]
)
_FLAGS = st.booleans()
_VALUES = _NAMES | st.just("") | _FLAGS | _NUMBERS | st.lists(_NAMES, max_size=3)
_CLASS_IDS = {each["classId"]: each["category"] for each in TAXONOMY["objectTypes"]}
_CATEGORIES = _NAMES | st.lists(_NAMES, min_size=1, max_size=3) | st.sampled_from(sorted(_CLASS_IDS))

_PIXEL = st.fixed_dictionaries({"xNorm": _NUMBERS, "yNorm": _NUMBERS})
_VOXEL = st.fixed_dictionaries(dict.fromkeys("ijk", _COUNTS | _NUMBERS))
_WORLD = st.fixed_dictionaries(dict.fromkeys("xyz", _NUMBERS))
_NORMAL = st.lists(_NUMBERS, min_size=3, max_size=3)
_ATTRIBUTES = st.dictionaries(_NAMES, _VALUES, max_size=3)
_COMMENT = _NAMES | st.fixed_dictionaries({"text": _NAMES})
_COMMON = {"id": _NAMES, "attributes": _ATTRIBUTES, "group": _NAMES, "readOnly": _FLAGS, "comment": _COMMENT}
_OF_MEASURES = dict.fromkeys(("average", "minimum", "maximum", "area", "volume"), _NUMBERS)
_STATS = {"stats": st.fixed_dictionaries({}, optional={**_OF_MEASURES, "intensityunit": _NAMES})}


def _label(
    required: Mapping[str, st.SearchStrategy[Any]] | None = None,
    optional: Mapping[str, st.SearchStrategy[Any]] | None = None,
    *,
    one_of: tuple[str, ...] = (),
) -> st.SearchStrategy[Fields]:
    """Make labels with a category; at least one of the fields named in ``one_of`` is there."""
    made = st.fixed_dictionaries(
        {"category": _CATEGORIES, **(required or {})}, optional={**_COMMON, **(optional or {})}
    )
    return made.filter(lambda label: not one_of or any(name in label for name in one_of))


def _video(items: int) -> dict[str, st.SearchStrategy[Any]]:
    places = {"frameIndex": _COUNTS, "seriesFrameIndex": _COUNTS, "seriesItemIndex": st.integers(0, items - 1)}
    track = {"trackId": _NAMES, "keyFrame": _FLAGS, "endTrack": _FLAGS}
    return {"video": st.fixed_dictionaries({}, optional={**places, **track})}


_LENGTH = _label(
    {"type": st.just("length"), "point1": _VOXEL, "point2": _VOXEL, "normal": _NORMAL},
    {"absolutePoint1": _WORLD, "absolutePoint2": _WORLD, "length": _NUMBERS},
)
_ANGLE = _label(
    {"type": st.just("angle"), "point1": _VOXEL, "vertex": _VOXEL, "point2": _VOXEL, "normal": _NORMAL},
    {"absolutePoint1": _WORLD, "absoluteVertex": _WORLD, "absolutePoint2": _WORLD, "angle": _NUMBERS},
)
_ELLIPSE = {"pointCenter": _PIXEL, **dict.fromkeys(("xRadiusNorm", "yRadiusNorm", "rotationRad"), _NUMBERS)}
_CUBOID = st.tuples(
    _label({}, _STATS),
    st.fixed_dictionaries({"point1": _VOXEL, "point2": _VOXEL}) | st.just({}),
    st.fixed_dictionaries({"absolutePoint1": _WORLD, "absolutePoint2": _WORLD}) | st.just({}),
).map(lambda parts: {**parts[0], **parts[1], **(parts[2] if parts[1] or parts[2] else _EXTENT)})
_EXTENT = {"point1": dict.fromkeys("ijk", 0), "point2": dict.fromkeys("ijk", 9)}
# A classification without content is returned among the unknown labels.
_CLASSIFICATION = st.fixed_dictionaries({}, optional={**_COMMON, "category": _NAMES}).filter(
    lambda label: label.get("attributes") or label.keys() & {"category", "group"}
)
# A group number of an overlap is not an instance.
_OVERLAPS = st.sets(st.integers(60_000, 65535), max_size=2).map(sorted)
_INSTANCES = st.dictionaries(
    st.integers(1, 59_999).map(str), _label({}, {"overlappingGroups": _OVERLAPS}) | _NAMES, max_size=3
)
_MASKS = st.text(string.ascii_lowercase, min_size=1, max_size=5).map("labels/{}.nii.gz".format)


def _kinds(items: int) -> dict[str, st.SearchStrategy[Fields]]:
    """Make labels of each kind, for a series of so many items."""
    video = _video(items)
    return {
        "landmarks": _label({"point": _PIXEL}, video),
        "landmarks3d": _label({}, {"point": _VOXEL, "absolutePoint": _WORLD}, one_of=("point", "absolutePoint")),
        "measurements": _LENGTH | _ANGLE,
        "boundingBoxes": _label({"pointTopLeft": _PIXEL, "wNorm": _NUMBERS, "hNorm": _NUMBERS}, {**video, **_STATS}),
        "ellipses": _label(_ELLIPSE, {**video, **_STATS}),
        "polygons": _label({"points": st.lists(_PIXEL, min_size=3, max_size=4)}, {**video, **_STATS}),
        "polylines": _label({"points": st.lists(_PIXEL, min_size=2, max_size=3)}, video),
        "cuboids": _CUBOID,
        "classifications": st.tuples(_CLASSIFICATION, st.fixed_dictionaries({}, optional=video)).map(
            lambda parts: {**parts[0], **parts[1]}
        ),
        "instanceClassifications": st.fixed_dictionaries(
            {"fileIndex": st.integers(0, 5), "values": _ATTRIBUTES}, optional={k: _COMMON[k] for k in ("id", "group")}
        ),
    }


@st.composite
def _series(draw: st.DrawFn) -> Fields:
    """Make one series, with several labels of some kinds."""
    items = draw(st.integers(1, 4))
    kinds = _kinds(items)
    some = draw(st.sets(st.sampled_from([*kinds, "masks"]), max_size=5))
    series = {kind: draw(st.lists(kinds[kind], max_size=3)) for kind in sorted(some - {"masks"})}
    if "masks" in some:
        series |= {"segmentations": draw(_MASKS), "segmentMap": draw(_INSTANCES)}
        series |= draw(st.fixed_dictionaries({}, optional={"semanticMask": _FLAGS}))
    name = draw(st.fixed_dictionaries({}, optional={"name": _NAMES}))
    return {**name, "items": [f"item-{i}" for i in range(items)], **series}


_TASKS = st.fixed_dictionaries(
    {"series": st.lists(_series(), min_size=1, max_size=3)}, optional={"classification": _CLASSIFICATION}
)

# ---------------------------------------------------------------- what comes out differently


def _spelled(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _attributes(label: Fields) -> None:
    if "attributes" in label:
        label["attributes"] = {name: _spelled(value) for name, value in label["attributes"].items()}


def _no_attributes(label: Fields) -> None:
    if not label.get("attributes"):
        label.pop("attributes", None)


def _not_read_only(label: Fields) -> None:
    if not label.get("readOnly"):
        label.pop("readOnly", None)


def _comment(label: Fields) -> None:
    label.pop("comment", None)


def _category(label: Fields) -> None:
    category = label.get("category")
    if isinstance(category, list) and len(category) == 1:
        label["category"] = category[0]


def _class_id(label: Fields) -> None:
    if isinstance(label.get("category"), int):
        label["category"] = _CLASS_IDS[label["category"]]


def _groups(label: Fields) -> None:
    if not label.get("overlappingGroups"):
        label.pop("overlappingGroups", None)


def _no_frame(label: Fields) -> None:
    if "video" in label and not label["video"].keys() & {"frameIndex", "seriesItemIndex"}:
        del label["video"]


def _track(label: Fields) -> None:
    if "video" in label:
        label["video"] = {"trackId": "", "keyFrame": True, "endTrack": True, **label["video"]}


@dataclass(frozen=True)
class Normalised:
    """What comes out differently, why, and an example of it."""

    change: Callable[[Fields], None]
    why: str
    example: Fields


NORMALISED = {
    "attributes in words": Normalised(
        _attributes,
        "stored flags may be words, so that true and false in words are read as flags",
        {"attributes": {"calcified": "True"}},
    ),
    "no attributes": Normalised(
        _no_attributes, "a label without attributes is stored with an empty list of them", {"attributes": {}}
    ),
    "not read-only": Normalised(_not_read_only, "a label is not read-only unless it says so", {"readOnly": False}),
    "comment": Normalised(_comment, "comments are told people, and are no part of stored labels", {"comment": "Sure?"}),
    "short path": Normalised(_category, "a path of one name is that name", {"category": ["finding"]}),
    "class id": Normalised(
        _class_id, "the server fills in the name of a class that is told by its id", {"category": 0}
    ),
    "no groups": Normalised(
        _groups, "an instance that overlaps with nothing is in no group", {"overlappingGroups": []}
    ),
    "no frame": Normalised(_no_frame, "what is on no frame is on no track either", {"video": {"trackId": "one"}}),
    "track": Normalised(_track, "what is on a frame is on a track, if only of its own", {"video": {"frameIndex": 3}}),
}


def read_label(label: Any) -> Fields:
    """Return a label as it is read again."""
    # An instance of a segment map may be no more than its category.
    fields = dict(label) if isinstance(label, dict) else {"category": label}
    for normalised in NORMALISED.values():
        normalised.change(fields)
    return fields


def _instance(label: Fields, items: list[str]) -> Fields:
    """RedBrick shows frame, file and values of an instance classification, and nothing else."""
    frame = label["fileIndex"]
    values = {name: _spelled(value) for name, value in label["values"].items()}
    return {"fileIndex": frame, "fileName": items[frame] if frame < len(items) else "", "values": values}


def read_series(series: Fields) -> Fields:
    """Return a series as it is read again.

    Its items and what is told of them are the task's, and an empty list is no list. A series with a mask says which
    form it has, which is the same for all stored masks, and each instance says which file it is in.
    """
    fields: Fields = {"name": series["name"]} if "name" in series else {}
    for key, given_labels in series.items():
        if key == "instanceClassifications" and given_labels:
            fields[key] = [_instance(label, series["items"]) for label in given_labels]
        elif key not in {"name", "items", "segmentations", "segmentMap", "semanticMask"} and given_labels:
            fields[key] = [read_label(label) for label in given_labels]
    if "segmentations" in series:
        mask = series["segmentations"]
        segments = {key: read_label(label) for key, label in series["segmentMap"].items()}
        fields |= dict.fromkeys(("binaryMask", "semanticMask", "pngMask"), False)
        fields |= {"segmentations": mask, "segmentMap": {key: {**s, "mask": mask} for key, s in segments.items()}}
    return fields


def read(task: Fields) -> SeriesLabels:
    """Return the labels of a task as they are read again."""
    classification = read_label(task["classification"]) if "classification" in task else None
    return SeriesLabels([read_series(series) for series in task["series"]], classification)


# ---------------------------------------------------------------- there and back


def imported(task: Fields) -> SeriesLabels:
    """Give a whole task to the server's conversion, as tasks are imported; read its labels again."""
    answer = convert(json.dumps([{"name": "task", **task}]))
    assert answer.error is None
    [stored] = answer.converted
    labels = interpolate(stored["labels"])
    return to_series(labels, series_info=stored["seriesInfo"], labels_map=stored["labelsMap"], items=stored["items"])


class Server:
    """The part of the client that converts."""

    def convert_labels(self, tasks: list[Fields]) -> list[Fields]:
        answer = convert(json.dumps(tasks))
        assert answer.error is None
        return answer.converted


def put(task: Fields) -> SeriesLabels:
    """Put labels on a task that is there already, as operators do; read them again."""
    items = [item for series in task["series"] for item in series["items"]]
    info, first = [], 0
    for series in task["series"]:
        info.append({"name": series.get("name"), "itemsIndices": list(range(first, first + len(series["items"])))})
        first += len(series["items"])
    body = {**task, "series": [{k: v for k, v in series.items() if k != "items"} for series in task["series"]]}
    converter = Converter(Server(), open_file=lambda _path: None)
    converted = converter.convert([Labels("task", body)])["task"]
    assert not isinstance(converted, str), converted
    labels = interpolate(converted.on_items_of(info))
    masks = labels_map(converted.masks, files=None, task_id="task")
    return to_series(labels, series_info=info, labels_map=masks, items=items)


WAYS = pytest.mark.parametrize("way", [imported, put])


def test_every_kind_takes_part():
    assert _kinds(1).keys() == LISTED.keys()


@WAYS
@examples(150)
@given(task=_TASKS)
def test_round_trip_labels_are_unchanged(way, task):
    given_before = copy.deepcopy(task)
    assert way(task) == read(task)
    assert task == given_before


@WAYS
@pytest.mark.parametrize("name", NORMALISED)
def test_round_trip_known_differences(way, name):
    label = {"category": "finding", **NORMALISED[name].example}
    if "overlappingGroups" in label:
        labels = {"segmentations": "labels/mask.nii.gz", "segmentMap": {"1": label}}
    else:
        labels = {"landmarks": [{**label, "point": {"xNorm": 0.5, "yNorm": 0.5}}]}
    task = {"series": [{"items": ["item"], **labels}]}
    assert read_label(label) != label
    assert way(task) == read(task)
