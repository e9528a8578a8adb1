"""Test the conversion of user labels to the stored format."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.annotations.conversion import Converted, Converter, Labels, read_body
from airflow_provider_redbrick.annotations.masks import take_masks

BOX = {"category": "lung", "pointTopLeft": {"xNorm": 0.1, "yNorm": 0.2}, "wNorm": 0.3, "hNorm": 0.4}
SERIES = [{"boundingBoxes": [BOX]}, {}]
FLAT = {"volumeindex": 0, "bbox2d": {"xnorm": 0.1, "ynorm": 0.2, "wnorm": 0.3, "hnorm": 0.4}}


def to_import(**body):
    return Labels("t", body).to_import()


def refused(words):
    return pytest.raises(err.RedBrickInputError, match=words)


# ------------------------------------------------------------------ shapes


def test_series_keep_their_order_and_get_the_name_and_items_the_format_wants():
    assert to_import(series=SERIES) == {
        "taskId": "t",
        "name": "t",
        "series": [
            {"boundingBoxes": [BOX], "name": "0", "items": "https://test"},
            {"name": "1", "items": "https://test"},
        ],
    }


def test_to_import_omits_export_fields_that_are_not_labels():
    exported = {"name": "s", "items": ["a.dcm"], "imageHeaders": {"x": 1}, "metaData": {"m": "CT"}, "polygons": None}
    assert to_import(series=[{**exported, "boundingBoxes": [BOX]}])["series"] == [
        {"boundingBoxes": [BOX], "name": "0", "items": "https://test"}
    ]


def test_a_classification_alone_still_has_a_series():
    found = to_import(classification={"attributes": {"quality": "good"}})
    assert found["classification"] == {"attributes": {"quality": "good"}}
    assert len(found["series"]) == 1


@pytest.mark.parametrize("series", [[], ()])
def test_no_labels_are_an_empty_series(series):
    assert to_import(series=series)["series"] == [{"name": "0", "items": "https://test"}]


def test_the_older_labels():
    assert to_import(labels=[{"bbox2d": {}}]) == {
        "taskId": "t",
        "name": "t",
        "items": ["https://test"],
        "labels": [{"bbox2d": {}}],
    }


@pytest.mark.parametrize("other", ["series", "classification"])
def test_the_older_labels_do_not_mix(other):
    with refused("the older 'labels' cannot be combined"):
        to_import(labels=[], **{other: []})


@pytest.mark.parametrize("key", ["series", "labels"])
@pytest.mark.parametrize("value", [{}, {"boundingBoxes": [BOX]}, "", "text", 0, False, [None], ["x"], [[]], [1]])
def test_labels_of_another_shape_are_refused_and_never_sent_as_none(key, value):
    with refused(f"'{key}' must be a list of objects"):
        to_import(**{key: value})


def test_labels_of_an_unknown_kind_are_refused_rather_than_lost():
    with refused("unknown type"):
        to_import(series=[{"unknown": [{"x": 1}]}])
    assert "unknown" not in to_import(series=[{"unknown": []}])["series"][0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"])
def test_to_import_value_that_json_cannot_represent_is_refused(value):
    with refused("cannot be written as JSON"):
        to_import(series=[{"landmarks": [{"point": value}]}])


def test_to_import_input_is_not_changed():
    body = {"series": [{"boundingBoxes": [dict(BOX)], "items": "mine", "unknown": []}]}
    Labels("t", body).to_import()
    assert body == {"series": [{"boundingBoxes": [BOX], "items": "mine", "unknown": []}]}


def test_the_repr_shows_no_labels():
    assert "canary" not in repr(Labels("t", {"series": [{"canary": 1}]}))


# ------------------------------------------------------------------ what a labeler returns


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (SERIES, {"series": SERIES}),
        (tuple(SERIES), {"series": SERIES}),
        ({"series": SERIES}, {"series": SERIES}),
        ({"series": [], "other": 1}, {"series": []}),
        ({"classification": {}}, {"classification": {}}),
        ({"labels": [], "series": None}, {"labels": []}),
        (
            {"taskId": "t", "series": SERIES, "classification": {"a": 1}},
            {"series": SERIES, "classification": {"a": 1}},
        ),
    ],
)
def test_labels_as_an_object_or_as_a_list_of_series(value, body):
    assert read_body(value) == body


@pytest.mark.parametrize("value", [None, True, 5, "", "text", b"bytes", {}, {"serie": SERIES}, {"series": None}, {1}])
def test_read_body_other_type_is_refused(value):
    with refused("must be an object with 'series'"):
        read_body(value)


@pytest.mark.parametrize("value", [[], ()])
def test_read_body_empty_list_error_states_alternatives(value):
    with refused("for no labels, or None to skip the task"):
        read_body(value)


def test_a_misspelled_key_is_named():
    with refused("serie"):
        read_body({"serie": SERIES})


# ------------------------------------------------------------------ converting


class Client:
    """Converts labels; refuses a request with any of ``bad`` among its tasks, or over ``largest`` tasks."""

    def __init__(self, bad=(), *, largest=1000, error=None):
        self.bad, self.largest, self.error = set(bad), largest, error
        self.requests = []

    def convert_labels(self, tasks):
        ids = [task["taskId"] for task in tasks]
        self.requests.append(ids)
        if len(ids) > self.largest:
            raise err.RedBrickPayloadTooLargeError("HTTP 413.")
        if self.bad.intersection(ids):
            raise self.error or err.RedBrickInputError(f"bad: {sorted(self.bad.intersection(ids))}")
        return [{"labels": [{**FLAT, "of": i}]} for i in ids]


def nothing_here(_path):
    return None


def convert(client, given):
    """Answer the labels of each task as they are to be sent, or the words why they cannot be."""
    found = Converter(client, nothing_here).convert(given)
    return {
        key: [{"of": label["of"]} for label in one.labels] if isinstance(one, Converted) else one
        for key, one in found.items()
    }


def batch(n):
    return [Labels(str(i), {"series": SERIES}) for i in range(n)]


def test_valid_labels_take_few_requests():
    client = Client()
    assert convert(client, batch(60)) == {str(i): [{"of": str(i)}] for i in range(60)}
    assert [len(ids) for ids in client.requests] == [50, 10]


@given(st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_convert_invalid_task_does_not_fail_the_others(n, bad):
    bad = {str(i) for i in bad if i < n}
    found = convert(Client(bad), batch(n))
    assert len(found) == n
    for i, result in found.items():
        assert result == (f"cannot be sent: bad: ['{i}']" if i in bad else [{"of": i}])


def test_finding_one_invalid_task_takes_few_requests():
    client = Client({"7"})
    convert(client, batch(25))
    assert len(client.requests) <= 11


def test_a_request_that_is_too_large_is_halved():
    client = Client(largest=7)
    assert all(isinstance(result, list) for result in convert(client, batch(25)).values())


def test_a_task_too_large_alone_is_its_own_failure():
    found = convert(Client(largest=0), batch(2))
    assert found == dict.fromkeys(["0", "1"], "cannot be sent: HTTP 413.")


def test_a_server_that_refuses_instead_of_explaining_is_treated_alike():
    found = convert(Client({"1"}, error=err.RedBrickRefusedError("no such field")), batch(3))
    assert found["1"] == "cannot be sent: no such field"
    assert found["0"] == [{"of": "0"}]


def test_convert_unavailable_server_does_not_refuse_labels():
    client = Client({"1"}, error=err.RedBrickServerError("HTTP 503.", status=503))
    found = convert(client, batch(3))
    assert set(found.values()) == {"could not be checked: HTTP 503."}
    assert len(client.requests) == 1


def test_labels_without_a_shape_are_never_sent():
    client = Client()
    found = convert(client, [Labels("a", {"series": "x"}), *batch(1)])
    assert "must be a list of objects" in found["a"]
    assert client.requests == [["0"]]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"labels": []}, "series 0, boundingBoxes: 1 given, 0 converted"),
        ({}, "series 0, boundingBoxes: 1 given, 0 converted"),
        ({"labels": [{**FLAT, "volumeindex": 1}]}, "series 1, boundingBoxes: 0 given, 1 converted"),
        ({"labels": [FLAT], "taskId": "another"}, "RedBrick's conversion is for another task"),
        ({"labels": [FLAT], "name": "another"}, "RedBrick's conversion is for another task"),
    ],
)
def test_convert_changed_labels_are_refused_and_others_converted(answer, words):
    client = Client()
    right = client.convert_labels
    client.convert_labels = lambda tasks: [answer if task["taskId"] == "1" else right([task])[0] for task in tasks]
    found = convert(client, batch(3))
    assert found["1"].startswith("cannot be sent: RedBrick's conversion ")
    assert words in found["1"]
    assert (found["0"], found["2"]) == ([{"of": "0"}], [{"of": "2"}])


@pytest.mark.parametrize("answer", [{"labels": []}, {"labels": None}, {}])
@pytest.mark.parametrize("body", [{"series": []}, {"series": [{}]}, {"series": [{"polygons": []}]}, {"labels": []}])
def test_convert_absent_labels_become_an_empty_list(answer, body):
    client = Client()
    client.convert_labels = lambda tasks: [answer for _ in tasks]
    assert convert(client, [Labels("t", body)]) == {"t": []}


class Array:
    """An array of a library: neither true nor false as a whole."""

    def __len__(self):
        return 2

    def __bool__(self):
        raise ValueError("The truth value of an array with more than one element is ambiguous")


@pytest.mark.parametrize("key", ["segmentations", "segmentMap"])
def test_convert_array_instead_of_mask_fails_only_its_task(key):
    assert Labels("t", {"series": [{key: Array()}]}).names_masks
    assert not Labels("t", {"series": [{key: []}, {key: None}, {}]}).names_masks


def test_a_path_may_be_an_object():
    labels = Labels("t", {"series": [{"segmentations": [Path("/masks/a.nii.gz")]}]})
    assert labels.plain().body == {"series": [{"segmentations": ["/masks/a.nii.gz"]}]}


@pytest.mark.parametrize("body", [{"series": SERIES}, {"series": []}, {"classification": {"category": "x"}}, {}])
def test_take_masks_without_mask_fields_returns_what_extraction_does(body):
    assert Converter(None, None).take_masks("t", body) == take_masks(body, None)


def test_take_masks_with_empty_segmentations_removes_the_mask():
    assert Converter(None, None).take_masks("t", {"series": [{}, {"segmentations": []}]}).unmasked == {1}


def test_take_masks_with_a_png_mask_is_refused():
    with refused("PNG masks cannot be sent"):
        Converter(None, None).take_masks("t", {"series": [{"pngMask": True}]})
