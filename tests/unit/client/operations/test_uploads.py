"""Tests for task creation: content types, upload targets and answers."""

from __future__ import annotations

import json

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.client.operations.uploads import (
    Created,
    Datapoint,
    ProjectImports,
    content_type,
    file_name,
)

ID, OTHER = "0A9C6E10-5B1D-4C8E-9F00-000000000001", "0a9c6e10-5b1d-4c8e-9f00-000000000002"
FILES = [("a.dcm", "application/dicom"), ("b.nii", "application/octet-stream")]


class Scope:
    """Answers every operation with one value, and records the requests."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def execute(self, document, variables, *, task_ids):
        self.asked.append((document, variables, task_ids))
        return self.answer


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.dcm", "application/dicom"),
        ("/x/A.DCM", "application/dicom"),
        ("IM0001", "application/dicom"),
        ("1.2.840.113619.2.5.1762583153", "application/dicom"),
        ("a.ima", "application/dicom"),
        ("s3://bucket/v1.2/brain.nii.gz", "application/octet-stream"),
        ("brain.nii", "application/octet-stream"),
        ("brain.nrrd", "application/octet-stream"),
        ("a.b.PNG", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.bmp", "image/bmp"),
        ("a.txt", "text/plain"),
        ("a.html", "text/html"),
        ("a.json", "application/json"),
        ("a.pdf", None),
        ("a.mp4", None),
        ("a.tar.gz", None),
        ("https://h/a.dcm?X-Amz-Signature=0f/foo.png", "application/dicom"),
        ("https://h/a.png?response-content-type=a.dcm#page.html", "image/png"),
        ("https://h/A.NII.GZ?sig=b.dcm", "application/octet-stream"),
        ("https://h/a%2Enrrd?x", "application/octet-stream"),
        ("https://h/scan%201.jpg", "image/jpeg"),
        ("https://h/download?file=a.pdf", "application/dicom"),
        ("HTTPS://H/a.pdf?file=a.dcm", None),
        ("s3://bucket/a.dcm?versionId=1.png", "application/dicom"),
        ("s3://bucket/what?.png", "image/png"),
        ("s3://bucket/a#2.png", "image/png"),
        ("file:///data/a#2.png", "image/png"),
        ("/data/a?2.png", "image/png"),
        ("s3://conn@bucket/a.b/1.2.3", "application/dicom"),
        ("a.png/", "image/png"),
    ],
)
def test_content_type_follows_from_the_file_name(name, kind):
    assert content_type(name) == kind


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("/data/a.dcm", "a.dcm"),
        ("a.dcm/", "a.dcm"),
        ("https://h/x/a%20b.dcm?sig=a/b", "a b.dcm"),
        ("https://h/x/a%00.dcm", "a%00.dcm"),
        ("https://h/x/y%2Fa.dcm", "a.dcm"),
        ("s3://conn@bucket/x/a b.dcm", "a b.dcm"),
        ("s3://bucket/a.dcm?versionId=a/b", "a.dcm"),
    ],
)
def test_file_name_excludes_the_signature(name, called):
    assert file_name(name) == called


def test_each_file_gets_an_upload_target_with_its_content_type():
    signed = [{"filePath": name, "presignedUrl": f"https://s/{name}?sig=secret"} for name, _ in FILES]
    scope = Scope({"itemsUploadPresign": {"items": signed}})
    places = ProjectImports(scope).request_targets(FILES, task_name="study")
    assert [(place.path, place.content_type) for place in places] == FILES
    assert [place.url for place in places] == [entry["presignedUrl"] for entry in signed]
    assert "secret" not in repr(places)
    ((_, variables, about),) = scope.asked
    assert (variables["files"], variables["fileType"], about) == (*map(list, zip(*FILES, strict=True)), ["study"])


SIGNED = {"filePath": "a", "presignedUrl": "https://s/a"}


@pytest.mark.parametrize(
    "items",
    [
        [],
        [SIGNED],
        [SIGNED, SIGNED],
        [SIGNED, {"filePath": "b", "presignedUrl": None}],
        [SIGNED, {"filePath": None, "presignedUrl": "https://s/b"}],
        [SIGNED, {"filePath": "b"}],
        [SIGNED, None],
        None,
    ],
    ids=repr,
)
def test_missing_or_shared_upload_targets_are_an_error(items):
    with pytest.raises(err.RedBrickAnswerError):
        ProjectImports(Scope({"itemsUploadPresign": {"items": items}})).request_targets(FILES, task_name="study")


def datapoint(**more):
    return Datapoint(**{"name": "n", "storage_id": "s", "items": ["a"], "layout": {}, "labels": {}, **more})


def sent(**more):
    """Return the variables that are sent for a task."""
    scope = Scope({"createDatapoint": {"taskId": ID}})
    ProjectImports(scope).create(datapoint(**more))
    return scope.asked[0][1]


def test_absent_values_are_sent_in_the_form_the_api_expects():
    plain = sent()
    assert plain["preAssign"] == "null"
    names = ("metaData", "priority", "seriesInfo", "heatMaps", "transforms", "centerline")
    assert [plain[name] for name in names] == [None] * 6
    assert plain["isGroundTruth"] is False


def test_objects_are_sent_as_json_text():
    info = {"name": "ct", "itemsIndices": [0], "binaryMask": True, "masks": {}, "semanticMask": False, "pngMask": True}
    series = [{**info, "metaData": {"a": "b"}, "imageHeaders": {"spacing": [1]}}, {"metaData": '{"c": "d"}'}]
    layout = {"seriesInfo": series, "centerline": [{"name": "c", "centerline": [1]}], "labels": ["no layout"]}
    found = sent(layout=layout, metadata={"ward": "3"}, pre_assign={"Label": "a@b.c"})
    first, second = found["seriesInfo"]
    assert first.keys() == {"name", "itemsIndices", "metaData", "imageHeaders"}
    assert [json.loads(first[key]) for key in ("metaData", "imageHeaders")] == [{"a": "b"}, {"spacing": [1]}]
    assert second == {"metaData": '{"c": "d"}'}
    assert found["centerline"] == [{"name": "c", "centerline": "[1]"}]
    assert (json.loads(found["metaData"]), json.loads(found["preAssign"])) == ({"ward": "3"}, {"Label": "a@b.c"})
    assert "labels" not in found


@pytest.mark.parametrize(
    ("answer", "task_ids"),
    [
        ({"taskId": ID, "dpId": "d"}, (ID.lower(),)),
        ({"taskId": ID, "taskIds": [], "dpId": "d"}, (ID.lower(),)),
        ({"taskId": ID, "taskIds": [ID, OTHER], "dpId": "d"}, (ID.lower(), OTHER)),
    ],
)
def test_create_returns_the_task_ids(answer, task_ids):
    assert ProjectImports(Scope({"createDatapoint": answer})).create(datapoint()) == Created(task_ids, "d")


@pytest.mark.parametrize("answer", [None, {}, {"taskId": None}, {"taskId": None, "taskIds": [None]}, []], ids=repr)
def test_create_answer_without_an_id_may_have_been_applied(answer):
    with pytest.raises(err.RedBrickAnswerError) as caught:
        ProjectImports(Scope({"createDatapoint": answer})).create(datapoint(name="study"))
    assert caught.value.maybe_applied
    assert caught.value.task_ids == ("study",)
