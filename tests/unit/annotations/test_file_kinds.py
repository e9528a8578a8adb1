"""Test the detection of file types from content."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from airflow_provider_redbrick.annotations.file_kinds import LOOKED_AT, cut_short, housekeeping, what_is_wrong

DICOM = Path(pydicom.__file__).parent / "data"
NIFTI = Path(nibabel.__file__).parent / "tests" / "data"
SHIPPED = [path for path in sorted(DICOM.rglob("*")) if path.suffix in {"", ".dcm"} and path.is_file()]
IMAGES = [path for path in SHIPPED if "DICOMDIR" not in path.name and path.name != "README"]
INDEXES = [path for path in SHIPPED if "DICOMDIR" in path.name]
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100)
VOLUME = b"\x5c\x01\x00\x00" + bytes(340) + b"n+1\x00"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def wrong(name, content):
    return what_is_wrong(name, content[:LOOKED_AT])


def test_there_are_files():
    assert (len(IMAGES) > 100, len(INDEXES) > 5) == (True, True)


def test_every_dicom_file_that_pydicom_ships_is_one():
    names = ("{}", "IM0001", "1.2.840.113619.2", "a.dcm", "a.DICOM", "a.ima")
    tried = {(path.name, name): wrong(name.format(path.name), path.read_bytes()) for path in IMAGES for name in names}
    assert {key: words for key, words in tried.items() if words} == {}


def test_an_index_of_dicom_files_is_no_image():
    for path in INDEXES:
        for name in (path.name, "a.dcm"):
            assert "a DICOMDIR, which lists other files" in wrong(name, path.read_bytes())


@pytest.mark.parametrize("path", sorted(NIFTI.glob("*.nii*")), ids=lambda path: path.name)
def test_every_volume_that_nibabel_ships_is_one(path):
    content = path.read_bytes()
    assert wrong(path.name, content) is None
    other = path.name.removesuffix(".gz") if path.suffix == ".gz" else f"{path.name}.gz"
    assert "gz" in wrong(other, content)


@pytest.mark.parametrize("path", sorted(NIFTI.glob("*.nii*")), ids=lambda path: path.name)
def test_cut_short_truncated_volume_is_detected(path):
    content = path.read_bytes()
    size = len(gzip.decompress(content) if path.suffix == ".gz" else content)
    assert cut_short(path.name, content[:LOOKED_AT], size) is None
    words = f"it is truncated: its header states {size} bytes, but it has {size - 1}"
    assert cut_short(path.name, content[:LOOKED_AT], size - 1) == words


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_in_either_version_and_byte_order(kind, order):
    header = kind.header_class(endianness=order)
    header.set_data_dtype("f4")
    content = kind(np.zeros((3, 4, 5)), np.eye(4), header).to_bytes()
    assert cut_short("a.nii", content[:LOOKED_AT], len(content)) is None
    assert "is truncated" in cut_short("a.nii", content[:LOOKED_AT], len(content) - 1)


@pytest.mark.parametrize(
    "content", [VOLUME, VOLUME + bytes(200), b"\x5c\x01\0\0" + b"\xff" * 340 + b"n+1\0", b"x" * 999]
)
def test_cut_short_header_without_size_is_accepted(content):
    assert cut_short("a.nii", content, len(content)) is None
    assert cut_short("a.dcm", content, 1) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"\n\n  <html lang=en>", "an HTML page"),
        (b"\xef\xbb\xbf<!doctype HTML>", "an HTML page"),
        ("<html><p>Anmeldung f\xfcr \xc4rzte".encode("latin-1"), "an HTML page"),
        ("\ufeff<html>".encode("utf-16-le"), "an HTML page"),
        (b"<!-- proxy --><html>", "an HTML page"),
        (b"<h1>502 Bad Gateway</h1>", "an HTML page"),
        (b"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>AccessDenied</Code></Error>", "an XML error message"),
        (b"<Error><Code>NoSuchKey</Code>", "an XML error message"),
        (b"<?xml version='1.0'?><ListBucketResult>", "an XML document"),
        (b'{"error": {"code": 404}}', "JSON text"),
        (b'{"message":"Not Found"}', "JSON text"),
        (b"[]", "JSON text"),
        (b"404 page not found\n", "plain text"),
        ("Zugriff verweigert: ung\xfcltig".encode(), "plain text"),
        (b"\xff\xfe[\0.\0S\0h\0 \0e\0]\0", "plain text"),
        (POINTER, "a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s1--a.dcm\n", "a git-annex pointer"),
        (PICTURE, "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "a JPEG picture"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\0\5\x16\7\0\2\0\0" + bytes(50), "AppleDouble"),
        (b"\0\0\0\1Bud1" + bytes(50), "a system file of macOS"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(50), "Thumbs.db"),
        (bytes(4) + b"ftypisom" + bytes(50), "video"),
        (bytes(257) + b"ustar\x0000", "a tar archive"),
    ],
)
def test_what_is_wrong_other_type_is_described(content, words):
    for name in ("a.dcm", "IM0001", "a.nii", "a.nrrd"):
        assert words in wrong(name, content)
    assert words in wrong("a.nii.gz", gzip.compress(content, mtime=0))
    assert words in wrong("a.dcm.gz", gzip.compress(content, mtime=0))
    assert words in wrong("a.nii.gz", content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", PICTURE),
        ("a.jpg", b"\xff\xd8\xff\xe0" + bytes(50)),
        ("a.jpeg", PICTURE),
        ("a.bmp", b"BM\x10\0\0\0\0\0\0\0" + bytes(50)),
        ("a.nrrd", b"NRRD0004\n# Complete NRRD file format\ntype: short\n"),
        ("a.nii", VOLUME),
        ("a.nii", bytes(344) + b"n+1\x00"),
        ("a.nii.gz", gzip.compress(VOLUME, mtime=0)),
        ("a.json", b'{"a": 1}'),
        ("a.txt", b"A finding in words."),
        ("a.html", b"<html><p>A report.</html>"),
        ("a.dcm", bytes(range(256)) * 8),
        ("._a.dcm", bytes(128) + b"DICM" + bytes(50)),
    ],
)
def test_what_is_wrong_matching_type_is_accepted(name, content):
    assert wrong(name, content) is None


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.json", "a.txt", "a.html", "a.nrrd"])
@pytest.mark.parametrize("content", [POINTER, gzip.compress(b"x", mtime=0), bytes(128) + b"DICM" + bytes(50)])
def test_what_is_wrong_checks_other_item_types(name, content):
    assert wrong(name, content)


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"\x1f\x8b\x08\0" + b"\xff" * 100, gzip.compress(b"", mtime=0)])
def test_what_is_wrong_damaged_or_empty_gzip_file_is_refused(content):
    assert wrong("a.nii.gz", content) == "it is a damaged or empty gzip file"


@pytest.mark.parametrize("content", [b"\0" * 1000, b"x", bytes(range(256)) * 4])
def test_what_is_wrong_unrecognized_volume_is_refused(content):
    assert wrong("a.nii", content) == "it is not a NIfTI volume"
    assert "it is not a NIfTI volume" in wrong("a.nii.gz", gzip.compress(content, mtime=0))


@pytest.mark.parametrize(
    "name",
    [
        "DICOMDIR",
        "/cd/dicomdir",
        "x/.DS_Store",
        "._a.nii.gz",
        "Thumbs.db",
        "Desktop.ini",
        "https://h/%2EDS_Store?a=b.dcm",
    ],
)
def test_names_that_no_image_has(name):
    assert housekeeping(name)
    assert wrong(name, b"\x00unknown")


@pytest.mark.parametrize(
    "name", ["a.dcm", "IM_0001", ".hidden.dcm", "https://h/a.dcm?n=.DS_Store", "DICOMDIR/a", "_.dcm"]
)
def test_names_that_images_may_have(name):
    assert housekeeping(name) is None
