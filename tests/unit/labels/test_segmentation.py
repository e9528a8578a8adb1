"""Test the masks of a series, and the merging of masks."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.segmentation import Layers, Segmentation, segmentation_of, without_entry

LESION = {"category": "lesion"}


# ------------------------------------------------------------------ which files there are


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ({}, None),
        ({"segmentations": None, "segmentMap": {}}, None),
        ({"segmentations": [], "binaryMask": True}, None),
        ({"segmentations": "a.nii"}, Segmentation(("a.nii",), {}, {})),
        (
            {"segmentations": ["a.nii", "b.nii", "a.nii"], "segmentMap": {"1": "lesion", 2: LESION}},
            Segmentation(("a.nii", "b.nii"), {}, {1: frozenset(), 2: frozenset()}),
        ),
        (
            {"segmentations": "a.nii", "segmentMap": {"1": {**LESION, "overlappingGroups": [3, 4], "mask": "a.nii"}}},
            Segmentation(("a.nii",), {}, {1: frozenset({3, 4})}),
        ),
        (
            {"binaryMask": True, "segmentMap": {"7": {**LESION, "mask": "a.nii"}, "9": {"mask": ["b.nii", "c.nii"]}}},
            Segmentation(
                ("a.nii", "b.nii", "c.nii"),
                {"a.nii": 7, "b.nii": 9, "c.nii": 9},
                {7: frozenset(), 9: frozenset()},
            ),
        ),
        (
            {"binaryMask": True, "segmentations": ["a.nii"], "segmentMap": {"7": {"mask": "a.nii"}}},
            Segmentation(("a.nii",), {"a.nii": 7}, {7: frozenset()}),
        ),
    ],
)
def test_segmentation_of_reads_masks_and_segments(series, expected):
    assert segmentation_of(series) == expected


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ({"segmentMap": {"1": "lesion"}}, "segmentMap requires a mask"),
        (
            {"segmentMap": {"0": "lesion"}, "segmentations": "a"},
            r"segmentMap\[0\]: a key must be a whole number",
        ),
        ({"segmentMap": {"65536": "lesion"}, "segmentations": "a"}, r"segmentMap\[65536\]"),
        ({"segmentMap": {"x": "lesion"}, "segmentations": "a"}, r"segmentMap\[x\]"),
        ({"binaryMask": True, "segmentMap": {"1": "lesion"}}, r"segmentMap\[1\] requires its own mask"),
        ({"binaryMask": True, "segmentMap": {"1": {"mask": []}}}, r"segmentMap\[1\] requires its own mask"),
        ({"binaryMask": True, "segmentMap": {"1": {"mask": "a"}, "2": {"mask": "a"}}}, "'a' is the mask of two"),
        (
            {"binaryMask": True, "segmentations": ["a", "b"], "segmentMap": {"1": {"mask": "a"}}},
            "contains 'b', which is not the mask of any segment",
        ),
        ({"binaryMask": True, "segmentations": ["a"]}, "contains 'a', which is not the mask of any segment"),
        ({"pngMask": True, "binaryMask": True, "segmentMap": {"1": {"mask": "a.png"}}}, "PNG masks cannot be sent"),
        (
            {"segmentations": "a", "segmentMap": {"1": {"overlappingGroups": [2]}, "2": "organ"}},
            "uses 2 both as a segment and as a group number of an overlap",
        ),
        ({"segmentMap": ["lesion"], "segmentations": "a"}, "segmentMap must be an object"),
        ({"segmentMap": {float("inf"): "lesion"}, "segmentations": "a"}, r"segmentMap\[inf\]"),
        (
            {"segmentMap": {"1": "a", "01": "b"}, "segmentations": "m"},
            "has the keys '1' and '01', which both denote the value 1",
        ),
        (
            {"segmentMap": {1: "a", "1": "b"}, "segmentations": "m"},
            "has the keys 1 and '1', which both denote the value 1",
        ),
        (
            {"segmentMap": {"2": "a", "2.0": "b"}, "segmentations": "m"},
            "has the keys '2' and '2.0', which both denote the value 2",
        ),
        ({"segmentMap": {"1": "a", Decimal(1): "b"}, "segmentations": "m"}, "which both denote the value 1"),
        (
            {"binaryMask": True, "segmentMap": {"1": {"mask": "a"}, np.int8(1): {"mask": "b"}}},
            "which both denote the value 1",
        ),
        *(
            ({"segmentMap": {key: "lesion"}, "segmentations": "m"}, "a key must be a whole number")
            for key in (
                True,
                " 1",
                "1 ",
                "+1",
                "1_0",
                "\u0661",
                "1.5",
                1.5,
                0,
                -1,
                "",
                None,
                np.float64(0.3),
                float("nan"),
            )
        ),
        (
            {"segmentations": "a", "segmentMap": {"1": {"overlappingGroups": [True]}}},
            "overlappingGroups must be a list of whole numbers",
        ),
        (
            {"segmentations": "a", "segmentMap": {"1": {"overlappingGroups": [7.5]}}},
            "overlappingGroups must be a list of whole numbers",
        ),
        ({"segmentations": ["a", "b\nc"], "segmentMap": {"1": "lesion"}}, "without line breaks, not 'b"),
        ({"segmentations": 5}, "masks must be a path or a list of paths"),
        ({"segmentations": [["a"]]}, "masks must be a path or a list of paths"),
        (
            {"segmentations": "a", "segmentMap": {"1": {"overlappingGroups": "x"}}},
            "overlappingGroups must be a list of whole numbers",
        ),
    ],
)
def test_segmentation_of_inconsistent_series_is_refused(series, words):
    with pytest.raises(RedBrickInputError, match=words):
        segmentation_of(series)


@pytest.mark.parametrize(
    "key", [np.int64(3), np.uint16(3), np.float32(3), 3.0, Decimal(3), Decimal("3.0"), "3", "003", "3.0"]
)
def test_mask_value_accepts_whole_numbers_of_any_type(key):
    found = segmentation_of({"segmentations": "a", "segmentMap": {key: "lesion"}})
    assert found.segments == {3: frozenset()}


def test_without_entry_returns_unexplained_values():
    assert without_entry({1, 2, 5, 9}, {1: frozenset({9}), 4: frozenset()}) == [2, 5]
    assert without_entry(set(), {}) == []


# ------------------------------------------------------------------ masks over each other


def laid(masks, segments=None):
    """Lay masks, given as flat lists of values, over each other; answer the values and the segments."""
    found = {value for mask in masks for value in mask if value}
    segments = dict.fromkeys(found, frozenset()) if segments is None else segments
    layers = Layers((len(masks[0]), 1, 1), dict(segments), found)
    for mask in masks:
        flat = np.array(mask, np.uint16)
        places = np.flatnonzero(flat)
        layers.lay(places, flat[places])
    return layers.voxels.ravel().tolist(), layers.segments


def test_layers_disjoint_masks_keep_their_values():
    assert laid([[1, 0, 0], [0, 0, 2]]) == ([1, 0, 2], {1: frozenset(), 2: frozenset()})


def test_layers_overlap_gets_a_new_group_number():
    assert laid([[1, 1, 0], [0, 2, 2]]) == ([1, 3, 2], {1: frozenset({3}), 2: frozenset({3})})


def test_layers_same_instance_twice_is_no_overlap():
    assert laid([[1, 1, 0], [0, 1, 1]]) == ([1, 1, 1], {1: frozenset()})


def test_layers_known_overlap_keeps_its_group_number():
    told = {1: frozenset({9}), 2: frozenset({9})}
    assert laid([[1, 1, 9], [0, 2, 2]], told) == ([1, 9, 9], told)


def test_layers_new_group_number_avoids_values_of_later_masks():
    values, segments = laid([[1, 1, 0], [2, 0, 0], [0, 0, 3]])
    assert values == [4, 1, 3]
    assert segments[3] == frozenset()


@given(
    st.integers(1, 30).flatmap(
        lambda size: st.lists(st.lists(st.booleans(), min_size=size, max_size=size), min_size=1, max_size=6)
    )
)
def test_layers_voxels_identify_exactly_their_instances(shown):
    masks = [[(index + 1) * here for here in mask] for index, mask in enumerate(shown)]
    values, segments = laid(masks, {index + 1: frozenset() for index in range(len(shown))})
    for voxel, value in enumerate(values):
        there = {index + 1 for index, mask in enumerate(shown) if mask[voxel]}
        told = {instance for instance, groups in segments.items() if value == instance or value in groups}
        assert told == there


def test_layers_too_many_overlaps_are_refused():
    layers = Layers((1, 1, 1), {1: frozenset(), 2: frozenset()}, set(range(1, 65536)))
    layers.lay(np.array([0]), np.array([1], np.uint16))
    with pytest.raises(RedBrickInputError, match="overlap in more ways"):
        layers.lay(np.array([0]), np.array([2], np.uint16))
