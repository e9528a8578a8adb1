"""Test the demo images and thumbnails."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from redbrick_sandbox.images import demo_studies, pixels, thumbnail


def test_demo_studies_are_distinct_and_reproducible():
    studies = demo_studies(60)
    assert len({study.name for study in studies}) == 60
    assert demo_studies(60) == studies
    assert {study.data_type for study in studies} == {"dicom", "nifti"}


def test_demo_studies_have_image_content():
    for study in demo_studies(20):
        array = pixels(study.files[0].content, study.files[0].filename)
        assert min(array.shape) >= 64
        assert np.ptp(array) > 0


def test_thumbnail_keeps_aspect_ratio_and_stretches_contrast():
    study = demo_studies(1)[0]
    picture = Image.open(io.BytesIO(thumbnail(study.files[0].content, study.files[0].filename, 160)))
    assert picture.format == "PNG"
    assert max(picture.size) == 160
    assert picture.getextrema()[0] < 20
    assert picture.getextrema()[1] > 235


def test_thumbnail_of_invalid_image_is_gray():
    for content in (b"", b"\x1f\x8bnot gzip", b"DICM" * 100):
        for name in ("a.dcm", "a.nii.gz", "a.txt"):
            picture = Image.open(io.BytesIO(thumbnail(content, name, 50)))
            assert picture.getextrema() == (64, 64)
