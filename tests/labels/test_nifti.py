"""Mask files, read and written."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.nifti import read_volume, write_volume

AFFINE = np.array([[-0.7, 0, 0, 90], [0, 0.7, 0, -80], [0, 0, 2.5, 10], [0, 0, 0, 1]])


def voxels(dtype=np.uint8, shape=(4, 3, 2)):
    data = np.zeros(shape, dtype)
    data[0, 0, 0], data[3, 2, 1] = 1, 5
    return data


def file_of(data, *, kind=nib.Nifti1Image, packed=False):
    content = kind(data, AFFINE).to_bytes()
    return io.BytesIO(gzip.compress(content, mtime=0) if packed else content)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, np.uint32])
def test_whole_numbers_of_any_type_are_a_mask(kind, packed, dtype):
    volume = read_volume(file_of(voxels(dtype), kind=kind, packed=packed), "a")
    assert volume.values == {1, 5}
    assert (volume.voxels == voxels()).all()
    assert volume.voxels.dtype == np.uint16
    assert volume.is_plain == (dtype in (np.uint8, np.uint16))


def test_the_largest_value():
    data = voxels(np.int32)
    data[1, 1, 1] = 65535
    assert 65535 in read_volume(file_of(data), "a").values


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (-1, np.int16, "-1"),
        (65536, np.int32, "65536"),
        (0.5, np.float32, "0.5"),
        (np.nan, np.float32, "nan"),
        (np.inf, np.float64, "inf"),
        (2**40, np.int64, "1.09951163e"),
    ],
)
def test_what_no_instance_can_be_called_is_refused_and_named(value, dtype, shown):
    data = voxels(dtype)
    data[2, 2, 0] = value
    kind = nib.Nifti1Image
    image = kind(data, AFFINE, dtype=dtype)
    with pytest.raises(RedBrickInputError, match=f"mask 'm.nii' has a voxel of {shown}"):
        read_volume(io.BytesIO(image.to_bytes()), "m.nii")


def test_scaled_values_are_what_they_mean():
    image = nib.Nifti1Image(voxels(np.int16), AFFINE)
    image.header.set_slope_inter(2, 0)
    image.header.set_data_offset(352)
    raw = io.BytesIO()
    image.header.write_to(raw)
    raw.write(voxels(np.int16).tobytes(order="F"))
    volume = read_volume(raw, "a")
    assert volume.values == {2, 10}
    assert not volume.is_plain


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2), (24,)])
def test_a_mask_has_three_axes(shape):
    with pytest.raises(RedBrickInputError, match=f"mask 'm' must have 3 axes, not {len(shape)}"):
        read_volume(file_of(np.ones(shape, np.uint8)), "m")


def test_colours_are_no_mask():
    data = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(RedBrickInputError, match="whole numbers as voxels"):
        read_volume(file_of(data), "m")


WHOLE = file_of(voxels(np.uint16, (20, 20, 20)), packed=True).getvalue()
PLAIN = file_of(voxels(np.uint16, (20, 20, 20))).getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8b", b"not a mask", b"DICM" * 200, WHOLE[:60], WHOLE[: len(WHOLE) // 2], PLAIN[:400], PLAIN[:9000]],
)
def test_what_is_no_whole_nifti_file_is_refused(content):
    with pytest.raises(RedBrickInputError, match="mask 'm' is no NIfTI file that can be read"):
        read_volume(io.BytesIO(content), "m")


def test_a_header_that_claims_too_much_costs_nothing():
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint16)
    header.set_data_shape((32000, 32000, 32000))
    content = header.binaryblock + b"\0" * 200
    with pytest.raises(RedBrickInputError, match="are the most"):
        read_volume(io.BytesIO(content), "m")


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_claims_more_than_its_file_can_hold_costs_nothing(packed):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1000, 1000, 1000))
    content = header.binaryblock + b"\0" * 200
    with pytest.raises(RedBrickInputError, match="claims 8000000000 bytes of voxels, which it does not have"):
        read_volume(io.BytesIO(gzip.compress(content) if packed else content), "m")


@pytest.mark.parametrize(("largest", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_a_mask_is_written_small_and_in_its_place(largest, dtype):
    like = read_volume(file_of(voxels(np.float32)), "a")
    data = np.zeros((4, 3, 2), np.uint16, order="F")
    data[1, 2, 1] = largest
    with write_volume(data, like) as file:
        file.seek(0)
        image = nib.Nifti1Image.from_bytes(gzip.decompress(file.read()))
        assert image.get_data_dtype() == dtype
        assert (np.asanyarray(image.dataobj) == data).all()
        assert np.allclose(image.affine, AFFINE)
        assert (read_volume(file, "b").voxels == data).all()


def test_the_same_mask_is_the_same_file():
    like = read_volume(file_of(voxels()), "a")
    contents = []
    for _ in range(2):
        with write_volume(like.voxels, like) as file:
            file.seek(0)
            contents.append(file.read())
    assert contents[0] == contents[1]


def test_masks_that_are_not_of_one_place_do_not_go_together():
    one = read_volume(file_of(voxels()), "one")
    one.check_alike(read_volume(file_of(voxels(np.int16)), "two"))
    with pytest.raises(RedBrickInputError, match=r"'one' \(4 x 3 x 2\) and 'two' \(4 x 4 x 2\) are not of one size"):
        one.check_alike(read_volume(file_of(voxels(shape=(4, 4, 2))), "two"))
    moved = nib.Nifti1Image(voxels(), AFFINE + 0.5)
    with pytest.raises(RedBrickInputError, match="not in the same place"):
        one.check_alike(read_volume(io.BytesIO(moved.to_bytes()), "two"))


def test_without_nibabel_the_message_says_what_to_install():
    script = (
        "import sys, io\n"
        "sys.modules['nibabel'] = sys.modules['nibabel.nifti1'] = None\n"
        "from airflow_provider_redbrick.labels.nifti import read_volume\n"
        "read_volume(io.BytesIO(b'x' * 600), 'm')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'airflow-provider-redbrick[segmentation]'" in done.stderr
    assert "RedBrickInputError" in done.stderr
