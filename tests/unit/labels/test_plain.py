"""Test the conversion of user values to plain JSON values."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import json
from decimal import Decimal
from pathlib import Path, PurePosixPath

import attrs
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel
from upath import UPath

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.plain import check_finite, place_of, to_plain


class Text(enum.Enum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Word(str, enum.Enum):
    B = "b"


@dataclasses.dataclass
class Data:
    a: int
    b: list | None = None


@attrs.define
class Attrs:
    a: int
    b: object = None


class Struct(msgspec.Struct):
    a: int
    b: object = None


class Model(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    inner: object = Field(default=None, serialization_alias="a")
    b: object = None


class Root(RootModel[list[int]]):
    pass


class OnlyArray:
    """What has nothing but the protocol of arrays."""

    def __array__(self, dtype=None, copy=None):
        return np.array([1, 2])


class OnlyList:
    def tolist(self):
        return [Data(1)]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array(["a"]), ["a"]),
        (OnlyArray(), [1, 2]),
        (OnlyList(), [{"a": 1}]),
        (array.array("d", [0.5]), [0.5]),
        (Decimal("1.5"), 1.5),
        (Decimal(3), 3),
        (Text.A, "a"),
        (Number.ONE, 1),
        (Word.B, "b"),
        (Path("/a/b"), "/a/b"),
        (PurePosixPath("a"), "a"),
        (UPath("memory://a/b"), "memory://a/b"),
        (Data(1), {"a": 1}),
        (Data(1, [Data(2)]), {"a": 1, "b": [{"a": 2}]}),
        (Attrs(1, b=Data(2)), {"a": 1, "b": {"a": 2}}),
        (Struct(1, b=(2,)), {"a": 1, "b": [2]}),
        (Model(inner=Model(b=1)), {"a": {"b": 1}}),
        (Model(inner=np.int8(1), b=Data(1, [2])), {"a": 1, "b": {"a": 1, "b": [2]}}),
        (Root([1]), [1]),
        ((1, (2,)), [1, [2]]),
        (range(2), [0, 1]),
        (collections.UserDict(a=1), {"a": 1}),
        (collections.deque([1]), [1]),
        ({1: "a", np.int32(2): "b", 3.0: "c", np.float32(4): "d"}, {"1": "a", "2": "b", "3": "c", "4": "d"}),
        ({Text.A: 1, Number.ONE: 2}, {"a": 1, "1": 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_to_plain_supported_types_are_converted(value, plain):
    found = to_plain({"x": [value]})["x"][0]
    assert found == plain
    assert json.dumps(found) == json.dumps(plain)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_to_plain_plain_values_are_unchanged(value):
    assert json.dumps(to_plain(value)) == json.dumps(value)
    # The slow way, which values take that are not plain, gives the same.
    assert to_plain((value,)) == [value]


def test_to_plain_copy_shares_nothing_with_input():
    inner, row = {"a": [1]}, np.zeros(2)
    for value in ({"x": [inner]}, {"x": (inner, row)}):
        copy = to_plain(value)
        before = json.dumps(copy)
        inner["a"].append(2)
        inner["b"] = 1
        row[:] = 7
        assert json.dumps(copy) == before
        inner["a"].pop()
        del inner["b"]


class Broken:
    def tolist(self):
        raise RuntimeError("it is on another device")


class Endless:
    def tolist(self):
        return [self]


class Itself:
    def tolist(self):
        return self


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1}, "set cannot be converted to JSON"),
        (b"bytes", "bytes cannot be converted to JSON"),
        (1j, "complex cannot be converted to JSON"),
        (object(), "object cannot be converted to JSON"),
        (Data, "type cannot be converted to JSON"),
        (np.float32, "type cannot be converted to JSON"),
        ((each for each in "ab"), "generator cannot be converted to JSON"),
        (Broken(), "Broken cannot be converted to JSON: it is on another device"),
        ({None: 1}, "a key must be text, not None"),
        ({True: 1}, "a key must be text, not True"),
        ({1.5: 1}, "a key must be text, not 1.5"),
        ({float("nan"): 1}, "a key must be text, not nan"),
        ({(1, 2): 1}, r"a key must be text, not \(1, 2\)"),
        ({1: 1, "1": 2}, "the keys 1.* and '1' are the same in JSON"),
        ({1.0: 1, "1": 2}, "the keys 1.* and '1' are the same in JSON"),
        ([10**20_000], "the number is too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_to_plain_unsupported_value_is_refused_with_place(value, words):
    body = {"series": ({}, {"boundingBoxes": [{}, {"wNorm": value}]})}
    place = r"it cannot be written as JSON: series 1, boundingBoxes\[1\], wNorm(\[0\])?: "
    with pytest.raises(RedBrickInputError, match=place + f".*{words}"):
        to_plain(body)


@pytest.mark.parametrize("value", [Endless(), Itself()])
def test_to_plain_endless_nesting_is_refused(value):
    with pytest.raises(RedBrickInputError, match="it is nested deeper than 100 levels"):
        to_plain({"a": value})
    circle = []
    circle.append(circle)
    with pytest.raises(RedBrickInputError, match="it is nested deeper than 100 levels"):
        to_plain(circle)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_check_finite_nan_and_infinity_are_refused(number):
    body = to_plain({"series": [{"segmentMap": {"3": {"attributes": {"x": number}}}}]})
    with pytest.raises(
        RedBrickInputError, match=rf"series 0, segmentMap\[3\], attributes.x: JSON cannot represent the number {number}"
    ):
        check_finite(body)
    with pytest.raises(RedBrickInputError, match=r"classification.attributes\[1\]: "):
        check_finite({"classification": {"attributes": [0.5, number]}})
    check_finite({"a": [1.5, "nan", None]})


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (("series", 0, "boundingBoxes", 2, "pointTopLeft", "xNorm"), "series 0, boundingBoxes[2], pointTopLeft.xNorm"),
        (("series", 1, "polygons", 0, "points", 3, "xNorm"), "series 1, polygons[0], points[3].xNorm"),
        (("series", 1, "segmentMap", "7", "category"), "series 1, segmentMap[7], category"),
        (("series", 1, "segmentations"), "series 1, segmentations"),
        (("series", 1), "series 1"),
        (("series",), "series"),
        (("classification", "attributes", "a"), "classification.attributes.a"),
        (("labels", 3, "bbox2d", "xnorm"), "labels[3].bbox2d.xnorm"),
        ((), ""),
    ],
)
def test_place_of_formats_places_like_label_validation(place, words):
    assert place_of(place) == words
