"""Test reading and writing of NIfTI masks."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tracemalloc

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
        (0.5, np.float32, "0.5. "),
        (0.3, np.float32, "0.3. "),
        (0.3, np.float64, "0.3. "),
        (0.98, np.float64, "0.98. "),
        (1.0101, np.float64, "1.0101. "),
        (-0.02, np.float64, "-0.02. "),
        (65535.5, np.float64, "65535.5. "),
        (np.nan, np.float32, "nan"),
        (np.inf, np.float64, "inf"),
        (2**40, np.int64, "1099511627776. "),
    ],
)
def test_read_volume_invalid_voxel_value_is_refused(value, dtype, shown):
    data = voxels(dtype)
    data[2, 2, 0] = value
    kind = nib.Nifti1Image
    image = kind(data, AFFINE, dtype=dtype)
    with pytest.raises(RedBrickInputError, match=f"mask 'm.nii' has the voxel value {shown}"):
        read_volume(io.BytesIO(image.to_bytes()), "m.nii")


def test_read_volume_scale_factors_are_applied():
    image = nib.Nifti1Image(voxels(np.int16), AFFINE)
    image.header.set_slope_inter(2, 0)
    image.header.set_data_offset(352)
    raw = io.BytesIO()
    image.header.write_to(raw)
    raw.write(voxels(np.int16).tobytes(order="F"))
    volume = read_volume(raw, "a")
    assert volume.values == {2, 10}
    assert not volume.is_plain


def scaled(stored, slope, inter=0.0):
    """A file of voxels as they are stored, with scale factors in its header."""
    header = nib.Nifti1Image(stored, AFFINE).header
    header.set_data_offset(352)
    header["scl_slope"], header["scl_inter"] = slope, inter
    content = bytearray(header.binaryblock.ljust(352, b"\0"))
    return io.BytesIO(bytes(content) + stored.tobytes(order="F"))


@pytest.mark.parametrize("slope", [0.99999, 1.00001526, 0.99607849, 1.00999])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_values_that_are_whole_but_for_rounding_are_rounded(slope, dtype):
    ones = (voxels() > 0).astype(dtype)
    volume = read_volume(scaled(ones, slope), "m")
    assert volume.is_rounded
    assert not volume.is_plain
    assert volume.values == {1}
    assert (volume.voxels == ones).all()


def test_what_nibabel_scales_when_it_saves_is_read_as_it_was():
    image = nib.Nifti1Image(voxels(np.float64) * 51, AFFINE)
    image.set_data_dtype(np.uint8)
    volume = read_volume(io.BytesIO(image.to_bytes()), "m")
    assert volume.values == {51, 255}


@pytest.mark.parametrize("value", [-0.004, 0.004, 1.01, 0.99, 65534.995])
def test_a_value_within_a_hundredth_is_the_whole_number_next_to_it(value):
    data = voxels(np.float64)
    data[2, 2, 0] = value
    volume = read_volume(file_of(data), "m")
    assert volume.is_rounded
    assert volume.voxels[2, 2, 0] == round(value)


@pytest.mark.parametrize(("slope", "inter"), [(0.3, 0), (0.5, 0), (1, 0.5), (1, np.inf)])
def test_scaled_values_that_are_not_whole_are_refused(slope, inter):
    with pytest.raises(RedBrickInputError, match="m' "):
        read_volume(scaled((voxels() > 0).astype(np.int16), slope, inter), "m")


@pytest.mark.parametrize("big", [">u2", ">i2", ">f4"])
def test_the_order_of_bytes_does_not_matter(big):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(big)
    content = nib.Nifti1Image(voxels().astype(big), AFFINE, header).to_bytes()
    volume = read_volume(io.BytesIO(content), "m")
    assert (volume.voxels == voxels()).all()
    assert volume.is_plain == (big == ">u2")


def test_a_mask_that_was_rounded_is_written_as_whole_numbers_in_its_place():
    like = read_volume(scaled((voxels() > 0).astype(np.int16), 0.99999), "m")
    with write_volume(like.voxels, like) as file:
        file.seek(0)
        image = nib.Nifti1Image.from_bytes(gzip.decompress(file.read()))
    assert image.get_data_dtype() == np.uint8
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    assert (np.asanyarray(image.dataobj) == (voxels() > 0)).all()
    assert np.allclose(image.affine, AFFINE)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2), (24,), (4, 3, 1, 2), (1, 4, 3, 2)])
def test_a_mask_has_three_axes(shape):
    with pytest.raises(RedBrickInputError, match=f"mask 'm' must have 3 axes, not {len(shape)}"):
        read_volume(file_of(np.ones(shape, np.uint8)), "m")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1, 1)])
def test_axes_of_one_at_the_end_are_dropped(kind, packed, more):
    volume = read_volume(file_of(voxels().reshape((4, 3, 2, *more)), kind=kind, packed=packed), "m")
    assert (volume.voxels == voxels()).all()
    assert not volume.is_plain
    volume.check_alike(read_volume(file_of(voxels()), "other"))
    with write_volume(volume.voxels, volume) as file:
        file.seek(0)
        image = kind.from_bytes(gzip.decompress(file.read()))
    assert image.shape == (4, 3, 2)
    assert image.header["dim"].tolist() == [3, 4, 3, 2, 1, 1, 1, 1]
    assert np.allclose(image.affine, AFFINE)
    assert (np.asanyarray(image.dataobj) == voxels()).all()


def test_a_slice_alone_has_three_axes_too():
    assert read_volume(file_of(np.ones((4, 3, 1, 1), np.uint8)), "m").voxels.shape == (4, 3, 1)


def test_read_volume_color_image_is_refused():
    data = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(RedBrickInputError, match="whole numbers as voxels"):
        read_volume(file_of(data), "m")


WHOLE = file_of(voxels(np.uint16, (20, 20, 20)), packed=True).getvalue()
PLAIN = file_of(voxels(np.uint16, (20, 20, 20))).getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8b", b"not a mask", b"DICM" * 200, WHOLE[:60], WHOLE[: len(WHOLE) // 2], PLAIN[:400], PLAIN[:9000]],
)
def test_read_volume_incomplete_file_is_refused(content):
    with pytest.raises(RedBrickInputError, match="mask 'm' is not a readable NIfTI file"):
        read_volume(io.BytesIO(content), "m")


@pytest.mark.parametrize("at", [4, 40, 200, -8, -4, -1])
def test_a_flipped_bit_in_a_compressed_mask_is_found(at):
    rng = np.random.default_rng(7)
    whole = file_of(rng.integers(0, 3, (20, 20, 20)).astype(np.uint8), packed=True).getvalue()
    damaged = bytearray(whole)
    damaged[at] ^= 4
    if at == 4:
        # Within the time that gzip's header has, which nothing depends on.
        assert read_volume(io.BytesIO(damaged), "m").is_plain
        return
    with pytest.raises(RedBrickInputError, match="mask 'm' is not a readable NIfTI file"):
        read_volume(io.BytesIO(damaged), "m")


def test_damage_that_unpacks_to_other_voxels_is_found_by_the_checksum():
    content = file_of(voxels(np.uint16, (20, 20, 20))).getvalue()
    other = bytearray(content)
    other[-1] ^= 1
    spliced = gzip.compress(bytes(other), mtime=0)[:-8] + gzip.compress(content, mtime=0)[-8:]
    with pytest.raises(RedBrickInputError, match="its gzip data are damaged: CRC check failed"):
        read_volume(io.BytesIO(spliced), "m")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (WHOLE[:-1], "its gzip data are truncated"),
        (WHOLE[:-8], "its gzip data are truncated"),
        (WHOLE[:-4] + b"\1\0\0\0", "its gzip data are damaged: Incorrect length"),
        (WHOLE + b"garbage", "its gzip data are damaged: Not a gzipped file"),
        (WHOLE + WHOLE, "its header states 16352 bytes, but it has more"),
        (gzip.compress(PLAIN + b"\0"), "its header states 16352 bytes, but it has more"),
        (gzip.compress(PLAIN[:-1]), "could the file be damaged"),
        (PLAIN + b"\0", "its header states 16352 bytes, but it has 16353"),
        (PLAIN[:-1], "its header states 16352 bytes, but it has 16351"),
    ],
)
def test_a_file_is_neither_shorter_nor_longer_than_its_header_says(content, reason, tmp_path):
    with pytest.raises(RedBrickInputError, match=reason):
        read_volume(io.BytesIO(content), "m")
    path = tmp_path / "mask"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(RedBrickInputError, match=reason):
        read_volume(file, "m")


def test_gzip_data_may_have_several_members_and_blanks_at_their_end():
    content = gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]) + bytes(512)
    assert read_volume(io.BytesIO(content), "m").is_plain


def test_read_volume_false_header_is_refused_without_memory():
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint16)
    header.set_data_shape((32000, 32000, 32000))
    content = header.binaryblock + b"\0" * 200
    with pytest.raises(RedBrickInputError, match="more than the limit of"):
        read_volume(io.BytesIO(content), "m")


@pytest.mark.parametrize("packed", [False, True])
def test_read_volume_header_beyond_file_size_is_refused_without_memory(packed):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1000, 1000, 500))
    content = header.binaryblock + b"\0" * 200
    with pytest.raises(RedBrickInputError, match="states 4000000000 bytes of voxels, but the file is shorter"):
        read_volume(io.BytesIO(gzip.compress(content) if packed else content), "m")


MIB = 1 << 20


def bomb(dtype, voxel_count, *, slope=1.0, offset=352, extension=0, kind=nib.Nifti1Header):
    """A small file of zeros that says it is much more."""
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape((256, 256, voxel_count >> 16))
    header["scl_slope"], header["vox_offset"] = slope, offset
    start = bytearray(header.binaryblock)
    if extension:
        start += b"\1\0\0\0" + extension.to_bytes(4, "little", signed=True) + b"\0\0\0\0"
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed:
        packed.write(start)
        left = int(offset) - len(start) + voxel_count * np.dtype(dtype).itemsize
        while left > 0:
            packed.write(bytes(min(left, MIB)))
            left -= MIB
    return out


def peak_of(file):
    """How much memory it takes to read a mask or to refuse it, in MiB, and what it is refused with."""
    tracemalloc.start()
    try:
        read_volume(file, "m")
    except RedBrickInputError as error:
        words = str(error)
    else:
        words = ""
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak / MIB, words


def test_scaling_takes_no_more_memory_than_the_mask():
    plain, _ = peak_of(bomb(np.uint8, 1 << 24))
    scaled, words = peak_of(bomb(np.uint8, 1 << 24, slope=2))
    assert words == ""
    # 16 MiB of bytes and 32 of whole numbers; as floating-point numbers alone they would be 128.
    assert scaled < plain + 32 < 128


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_read_volume_unsupported_type_is_refused_before_reading(dtype):
    peak, words = peak_of(bomb(dtype, 1 << 23))
    assert "must have whole numbers as voxels" in words
    assert peak < 8


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize(
    ("offset", "extension"),
    [
        (1 << 26, (1 << 26) - 352),  # as long as it says
        (4 << 20, 1 << 26),  # longer than there is room for
        (4 << 20, 0x7FFFFFF0),
    ],
)
def test_extensions_of_a_header_are_bounded(kind, offset, extension):
    peak, words = peak_of(bomb(np.uint8, 1 << 26, offset=offset, extension=extension, kind=kind))
    assert "is not a readable NIfTI file" in words
    assert peak < 16


@pytest.mark.parametrize("offset", [np.nan, np.inf, -16.0])
def test_read_volume_invalid_voxel_offset_is_refused(offset):
    header = nib.Nifti1Header()
    header["vox_offset"] = offset
    with pytest.raises(RedBrickInputError, match="its voxel data begin at byte"):
        read_volume(io.BytesIO(header.binaryblock + bytes(600)), "m")


def test_read_volume_too_many_bytes_are_refused_before_reading():
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1024, 1024, 1024))
    with pytest.raises(
        RedBrickInputError,
        match="has 8589934592 bytes of voxels according to its header, more than the limit of 4294967296",
    ):
        read_volume(io.BytesIO(header.binaryblock + bytes(200)), "m")


def test_extensions_of_usual_size_go_with_a_mask_that_is_written_anew():
    image = nib.Nifti1Image(voxels(np.float32), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"by hand"))
    like = read_volume(io.BytesIO(image.to_bytes()), "a")
    with write_volume(like.voxels, like) as file:
        file.seek(0)
        written = nib.Nifti1Image.from_bytes(gzip.decompress(file.read()))
    assert [each.get_content() for each in written.header.extensions] == [b"by hand"]
    assert (np.asanyarray(written.dataobj) == voxels()).all()


@pytest.mark.parametrize(("largest", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_write_volume_uses_smallest_type_and_same_affine(largest, dtype):
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


def test_write_volume_equal_masks_give_equal_files():
    like = read_volume(file_of(voxels()), "a")
    contents = []
    for _ in range(2):
        with write_volume(like.voxels, like) as file:
            file.seek(0)
            contents.append(file.read())
    assert contents[0] == contents[1]


def test_check_alike_different_shape_or_affine_is_refused():
    one = read_volume(file_of(voxels()), "one")
    one.check_alike(read_volume(file_of(voxels(np.int16)), "two"))
    with pytest.raises(RedBrickInputError, match=r"'one' \(4 x 3 x 2\) and 'two' \(4 x 4 x 2\) differ in size"):
        one.check_alike(read_volume(file_of(voxels(shape=(4, 4, 2))), "two"))
    moved = nib.Nifti1Image(voxels(), AFFINE + 0.5)
    with pytest.raises(RedBrickInputError, match="differ in their affine"):
        one.check_alike(read_volume(io.BytesIO(moved.to_bytes()), "two"))


def test_read_volume_without_nibabel_error_names_the_extra():
    script = (
        "import sys, io\n"
        "sys.modules['nibabel'] = sys.modules['nibabel.nifti1'] = None\n"
        "from airflow_provider_redbrick.labels.nifti import read_volume\n"
        "read_volume(io.BytesIO(b'x' * 600), 'm')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'airflow-provider-redbrick[segmentation]'" in done.stderr
    assert "RedBrickInputError" in done.stderr
