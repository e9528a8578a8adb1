"""Files on their way into RedBrick's own storage."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from airflow_provider_redbrick import exceptions as err
from airflow_provider_redbrick.actions.upload_items import Items
from airflow_provider_redbrick.annotations.masks import take_masks
from airflow_provider_redbrick.client.operations.uploads import UploadTarget


class Imports:
    """Notes what is put where; ``refuses`` has the errors by file name."""

    def __init__(self, refuses=None):
        self.refuses = refuses or {}
        self.asked, self.stored = [], {}

    def request_targets(self, files, *, task_name):
        self.asked.append((task_name, files))
        return [UploadTarget(f"{len(self.asked)}/{name}", kind, "https://s") for name, kind in files]

    def put(self, place, file):
        name = place.path.split("/")[-1]
        if name in self.refuses:
            raise self.refuses[name]
        file.seek(0)
        self.stored[place.path] = file.read()


def items(imports, open_file=lambda name: io.BytesIO(name.encode()), max_concurrency=3):
    return Items(imports, open_file, max_concurrency=max_concurrency)


class Stream(io.RawIOBase):
    """A file that can only be read from its start, as those of some object stores."""

    def __init__(self, content):
        self.left = content

    def readable(self):
        return True

    def readinto(self, buffer):
        piece, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


def test_a_file_that_cannot_be_sought_in_is_sent_all_the_same():
    imports, stream = Imports(), Stream(b"x" * 100_000)
    with items(imports, lambda _: stream) as store:
        assert store.store(["a.dcm"], task_name="t") == {"a.dcm": "1/a.dcm"}
    assert imports.stored == {"1/a.dcm": b"x" * 100_000}
    assert stream.closed


class Endless(io.RawIOBase):
    """A file without an end, as a server may send one for a URI; the test ends it."""

    given = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        self.given += len(buffer)
        return len(buffer) if self.given < 64 << 20 else 0


def test_a_file_without_an_end_does_not_fill_the_disk(monkeypatch):
    monkeypatch.setattr("airflow_provider_redbrick.annotations.snapshot.LARGEST_FILE", 4 << 20)
    imports, stream = Imports(), Endless()
    with items(imports, lambda _: stream) as store, pytest.raises(err.RedBrickInputError) as caught:
        store.store(["s3://b/a.dcm"], task_name="t")
    assert str(caught.value) == "item 's3://b/a.dcm': it is larger than 4 MiB"
    assert (imports.stored, stream.closed) == ({}, True)
    assert stream.given < 8 << 20


def test_neither_does_a_mask(monkeypatch):
    monkeypatch.setattr("airflow_provider_redbrick.annotations.snapshot.LARGEST_FILE", 4 << 20)
    stream = Endless()
    series = [{"segmentations": "s3://b/m.nii"}]
    with pytest.raises(err.RedBrickInputError, match=r"mask 's3://b/m\.nii' cannot be read: it is larger than 4 MiB"):
        take_masks({"series": series}, lambda _: stream)
    assert stream.closed
    assert stream.given < 8 << 20


def test_every_file_is_closed():
    opened = []

    def open_file(name):
        opened.append(io.BytesIO(b"x"))
        return opened[-1]

    with items(Imports({"b.dcm": err.RedBrickServerError("HTTP 500.", status=500)}), open_file) as store:
        store.check(["a.dcm"])
        with pytest.raises(err.RedBrickServerError):
            store.store(["a.dcm", "b.dcm"], task_name="t")
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("raised", [ValueError("no such bucket"), PermissionError("no such bucket")])
def test_what_an_object_store_raises_is_the_files_failure(raised):
    def open_file(_name):
        raise raised

    with items(Imports(), open_file) as store, pytest.raises(err.RedBrickInputError) as caught:
        store.store(["s3://b/a.dcm"], task_name="t")
    assert str(caught.value) == "item 's3://b/a.dcm' cannot be read: no such bucket"


def test_an_object_store_that_fails_while_it_is_read_is_the_files_failure():
    class Failing(io.BytesIO):
        def read(self, *_):
            raise ValueError("the token has expired")

    with items(Imports(), lambda _: Failing(b"x")) as store, pytest.raises(err.RedBrickInputError, match="has expired"):
        store.store(["s3://b/a.dcm"], task_name="t")


def test_files_of_one_name_get_different_ones():
    imports = Imports()
    names = ["x/a.dcm", "y/a.dcm", "z/1-a.dcm", "a.dcm", "b.dcm"]
    with items(imports) as store:
        stored = store.store(names, task_name="t")
    ((_, files),) = imports.asked
    assert [name for name, _ in files] == ["a.dcm", "1-a.dcm", "2-1-a.dcm", "3-a.dcm", "b.dcm"]
    assert {name: imports.stored[path].decode() for name, path in stored.items()} == {name: name for name in names}


def test_signatures_are_no_part_of_names_and_endings():
    imports = Imports()
    names = [
        "https://h/x/a%20b.DCM?X-Amz-Signature=0f/e.png",
        "https://h/y.png?type=z.dcm#z.nii",
        "s3://b/c.nii?v=1.png",
    ]
    content = {names[1]: b"\x89PNG\r\n\x1a\n", names[2]: b"\x5c\1\0\0" + bytes(344)}
    with items(imports, lambda name: io.BytesIO(content.get(name, b"x"))) as store:
        store.check(names)
        store.store(names, task_name="t")
    ((_, files),) = imports.asked
    kinds = ("application/dicom", "image/png", "application/octet-stream")
    assert files == list(zip(("a b.DCM", "y.png", "c.nii"), kinds, strict=True))


def test_what_is_something_else_than_its_name_says_is_not_sent():
    imports = Imports()
    words = r"item 's3://b/a\.dcm': it looks like an HTML page"
    store = items(imports, lambda _: io.BytesIO(b"<html>Sign in</html>"))
    with store, pytest.raises(err.RedBrickInputError, match=words):
        store.store(["s3://b/a.dcm"], task_name="t")
    assert imports.stored == {}


def test_several_tasks_share_a_bound_on_what_is_sent_max_concurrency():
    lock, busy, most = threading.Lock(), [0], [0]
    meet = threading.Barrier(3, timeout=10)

    class Busy(Imports):
        def put(self, place, file):
            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            meet.wait()
            with lock:
                busy[0] -= 1

    with items(Busy(), max_concurrency=3) as store:
        files = [f"{i}.dcm" for i in range(9)]
        tasks = [threading.Thread(target=store.store, args=(files,), kwargs={"task_name": "t"}) for _ in range(4)]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
    assert most[0] == 3


def test_what_is_not_sent_yet_never_is_when_one_fails():
    imports = Imports({"0.dcm": err.RedBrickRefusedError("no.")})
    with items(imports, max_concurrency=1) as store, pytest.raises(err.RedBrickRefusedError):
        store.store([f"{i}.dcm" for i in range(40)], task_name="t")
    assert len(imports.stored) < 20


def test_looking_whether_files_are_there_asks_no_object_store(tmp_path):
    asked = []

    def open_file(name):
        asked.append(name)
        return Path(name).open("rb")

    (tmp_path / "a.dcm").write_bytes(b"x")
    local = str(tmp_path / "a.dcm")
    with items(Imports(), open_file) as store:
        store.check([local, "s3://bucket/a.dcm"])
    assert asked == [local]
