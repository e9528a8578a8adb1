"""Failures that random tests found once, each as a case of its own."""

from __future__ import annotations

import gzip
import io
import json
import logging
import struct

import numpy as np
import pytest
from fixtures import Run
from fuzz.promises import promises, refuse_secrets, refuse_unsendable
from fuzz.values import SIGNATURE
from fuzz.works import SERIES, a_mask

from airflow_provider_redbrick.annotations.conversion import Converter, Labels
from airflow_provider_redbrick.client.models.parsing import moment, reading
from airflow_provider_redbrick.client.models.task import Task
from airflow_provider_redbrick.exceptions import (
    LONGEST_MESSAGE,
    RedBrickAnswerError,
    RedBrickAPIError,
    RedBrickInputError,
)
from airflow_provider_redbrick.hooks import validation
from airflow_provider_redbrick.labels.nifti import read_volume
from airflow_provider_redbrick.operators.prelabel import RedBrickPrelabelOperator
from airflow_provider_redbrick.operators.put_labels import RedBrickPutLabelsOperator
from airflow_provider_redbrick.operators.upload_tasks import RedBrickUploadTasksOperator

ID = "0a9c6e10-5b1d-4c8e-9f00-000000000001"


@pytest.mark.parametrize(
    "wrong",
    [
        {"taskId": "../../x"},
        {"taskId": "a/b"},
        {"taskId": "\ud800"},
        {"priority": "1"},
        {"priority": [0]},
        {"priority": float("nan")},
        {"currentStageName": {}},
        {"currentStageSubTask": {"state": []}},
        {"currentStageSubTask": {"assignedTo": {"userId": "u", "email": 5}}},
        {"datapoint": {"name": ["a"]}},
        {"datapoint": {"items": "abc"}},
        {"datapoint": {"itemsPresigned": [{}]}},
        {"datapoint": {"seriesInfo": [{"itemsIndices": ["a"]}]}},
        {"datapoint": {"seriesInfo": [{"itemsIndices": [-1]}]}},
        {"latestTaskData": {"labelsMap": ["path"]}},
        {"latestTaskData": {"labelsMap": [{"labelName": "x", "seriesIndex": "0"}]}},
        {"latestTaskData": {"labelsDataPath": 5}},
    ],
    ids=json.dumps,
)
def test_values_of_another_kind_are_no_task(wrong):
    """They would raise later, in unrelated code. An id becomes part of a folder name."""
    with pytest.raises(RedBrickAnswerError), reading("task"):
        Task.from_wire({"taskId": ID, **wrong})


def test_what_no_xcom_can_hold_is_replaced():
    task = Task.from_wire({"taskId": ID, "currentStageName": "L\ud800", "datapoint": {"name": "a\0b\udfff"}})
    refuse_unsendable([task.name, task.stage_name])
    refuse_unsendable(str(RedBrickAPIError("\ud800 \0")))
    assert len(str(RedBrickAPIError("x" * 1_000_000))) < LONGEST_MESSAGE + 10


@pytest.mark.parametrize(
    "text", ["00000:", "P9999999999Y", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "P1Y"]
)
def test_times_out_of_all_calendars(text):
    assert moment(text) is None
    with pytest.raises(RedBrickInputError, match="must be a date and time"):
        validation.time("updated_after", text)


HUGE = [10**5000, 10**30, -(10**5000), "9" * 5000, 2**31, 5.0, [[]], object(), np.float64(3)]


@pytest.mark.parametrize("value", HUGE, ids=map(str, range(len(HUGE))))
def test_numbers_that_the_api_has_no_place_for(value):
    with pytest.raises(RedBrickInputError, match="must be a whole number"):
        validation.whole_number("limit", value)


def test_numbers_of_array_libraries_are_numbers():
    assert validation.whole_number("limit", np.int64(5)) == 5


@pytest.mark.parametrize("value", [np.array(["any", "all"]), [], {}, 10**5000, None], ids="abcde")
def test_a_word_is_a_word(value):
    with pytest.raises(RedBrickInputError, match="must be one of"):
        validation.one_of("fail_on", value, ("any", "all"))


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_text_can_be_sent(value):
    with pytest.raises(RedBrickInputError, match="cannot be sent or stored"):
        validation.text("name", value)


def changed(**fields):
    content = bytearray(gzip.decompress(a_mask()))
    for place, (kind, value) in fields.items():
        struct.pack_into(kind, content, int(place[1:]), value)
    return bytes(content)


HEADERS = [{"_70": ("<h", 0)}, {"_70": ("<h", 9999)}, {"_42": ("<h", -1)}, {"_108": ("<f", 1e30)}, {"_0": ("<i", 5)}]
HEADERS += [{"_108": ("<f", float("nan"))}, {"_112": ("<f", float("nan"))}, {"_40": ("<h", 7)}]


@pytest.mark.parametrize("content", [changed(**fields) for fields in HEADERS], ids=map(str, HEADERS))
def test_headers_that_make_no_sense(content):
    try:
        volume = read_volume(io.BytesIO(content), "mask")
    except RedBrickInputError as error:
        assert "'mask'" in str(error)  # noqa: PT017
    else:
        assert volume.values == {1}


# ------------------------------------------------------------------ callables


def prelabelled(meddler, labeler):
    """Prelabel one task with a labeler that raises; answers all that is told of it."""
    meddler.sandbox.reset()
    meddler.sandbox.seed_tasks(1, stage="Label", images=True)
    meddler.begin()
    run = Run()
    with promises() as watch:
        run.try_once(RedBrickPrelabelOperator(task_id="t", stage_name="Label", labeler=labeler))
    (failed,) = run.xcoms["manifest"]["failed"]
    return failed["reason"], run.xcoms["manifest"], " ".join(watch.words)


WRITTEN = {
    "as it is": lambda url: url,
    "its path": lambda url: url[url.index("/", 9) :],
    "in another order": lambda url: "{0}?x=1&{2}".format(*url.partition("?")),
    "its signature": lambda url: url.rpartition("=")[2],
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_labeler_that_cannot_fetch_an_image_does_not_tell_the_signature(meddler, caplog, written):
    def labeler(task):
        assert SIGNATURE in task.item_urls[0]
        url = written(task.item_urls[0])
        try:
            raise ConnectionError(f"no route to {url}")
        except ConnectionError as error:
            raise OSError(f"403 Client Error: Forbidden for url: {url}") from error

    with caplog.at_level(logging.DEBUG, "airflow_provider_redbrick"):
        reason, manifest, words = prelabelled(meddler, labeler)
    assert "403 Client Error: Forbidden for url: " in reason
    assert reason.endswith("***")
    assert "no route to" in words
    for told in (words, json.dumps(manifest), caplog.text):
        refuse_secrets(told)


ONE = {"1": {"category": "lesion"}}
SIGNED = f"https://bucket.example.com/f.{{}}?X-Sig={SIGNATURE}"


@pytest.mark.parametrize(
    "task",
    [
        {"name": "n", "items": [SIGNED.format("dcm")]},
        {"name": "n", "items": [SIGNED.format("mp4")]},
        {"name": "n", "items": [f"nowhere{SIGNED.format('dcm')}&n=.dcm"]},
        {
            "name": "n",
            "series": [{"items": "a.dcm", "segmentations": SIGNED.format("nii"), "segmentMap": ONE}],
        },
    ],
    ids=["item", "video", "item of a storage", "mask"],
)
def test_a_file_given_as_a_signed_url_is_told_without_its_signature(meddler, caplog, tmp_path, task):
    (tmp_path / "a.dcm").write_bytes(b"x")
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    meddler.begin()
    run = Run()
    with promises() as watch, caplog.at_level(logging.DEBUG):
        run.try_once(RedBrickUploadTasksOperator(task_id="t", tasks_path=str(tmp_path / "tasks.json")))
    (failed,) = run.xcoms["manifest"]["failed"]
    assert "bucket.example.com/f." in failed["reason"]
    refuse_secrets(failed["reason"] + caplog.text + " ".join(watch.words))


@pytest.mark.parametrize("operator", [RedBrickUploadTasksOperator, RedBrickPutLabelsOperator])
def test_a_file_of_tasks_given_as_a_signed_url_is_told_without_its_signature(meddler, operator):
    given = {"tasks_path" if operator is RedBrickUploadTasksOperator else "labels_path": f"nowhere{SIGNED}"}
    stage = {} if operator is RedBrickUploadTasksOperator else {"stage_name": "Label"}
    with promises() as watch:
        Run().try_once(operator(task_id="t", **given, **stage))
    assert "cannot be read" in str(watch.error)


def test_what_a_labeler_raises_can_be_kept(meddler):
    """The names of files may have what UTF-8 has not."""

    def labeler(_task):
        raise OSError("no such file: caf\udce9 \0" + "x" * 1_000_000)

    reason, manifest, _ = prelabelled(meddler, labeler)
    assert reason.startswith("The labeler raised OSError: no such file: caf? \ufffd")
    refuse_unsendable(manifest)


def test_an_error_that_will_not_say_what_it_is(meddler):
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError

    def labeler(_task):
        raise SilentError

    reason, _, _ = prelabelled(meddler, labeler)
    assert "SilentError" in reason


@pytest.mark.parametrize("report", ["file/x", "nowhere://x/y"])
def test_a_report_that_cannot_be_written_changes_nothing(meddler, tmp_path, monkeypatch, report):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    meddler.sandbox.reset()
    meddler.sandbox.seed_tasks(1, stage="Label")
    meddler.begin()
    with promises() as watch:
        operator = RedBrickPrelabelOperator(
            task_id="t", stage_name="Label", labeler=lambda _: SERIES, report_path=report
        )
        Run().try_once(operator)
    assert isinstance(watch.error, RedBrickInputError)
    assert f"report_path '{report}' cannot be written" in str(watch.error)
    assert meddler.mutations == []


def test_labels_nested_deeper_than_any_are_refused_whatever_the_depth():
    """Each step on their way goes a little deeper than the one before: none of them must be the first to fail."""
    tall = [1]
    for height in range(2, 1100):
        tall = [tall]
        if height > 100:
            found = Converter(None, lambda _: None).convert([Labels("t", {"series": [{"heatMaps": [{"a": tall}]}]})])
            assert found["t"].startswith("cannot be sent: it cannot be written as JSON")
