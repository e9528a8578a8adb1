"""Files of labels, and masks, of any bytes: neither takes memory beyond its size."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import struct
import tracemalloc

import pytest
from fuzz.promises import promises
from fuzz.values import JSON, RAW, fuzzed, spoiled, tower
from fuzz.works import a_mask
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_redbrick.annotations.masks import take_masks
from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels.file_reader import read_entries
from airflow_provider_redbrick.labels.nifti import read_volume, write_volume
from airflow_provider_redbrick.labels.strict_json import DEEPEST, BeyondError, Depth

MIB = 1 << 20

# ------------------------------------------------------------------ files of labels


def read(content):
    """Read the entries of a file; answers them, and what was refused."""
    with promises(seconds=10) as watch:
        found = list(read_entries(io.BytesIO(content), name="file"))
        for entry in found:
            assert (entry.value is None) == bool(entry.problem)
            watch.tell(entry, entry.problem)
            if entry.value is not None:
                json.dumps(entry.value)
        return found
    return watch.error


LINES = st.lists(RAW | JSON.map(json.dumps), max_size=4)


@fuzzed(40)
@given(
    LINES.map("\n".join)
    | LINES.map(lambda parts: f"[{','.join(parts)}]")
    | LINES.map(lambda parts: f'[{{"a": 1}},{",".join(parts)}')
    | LINES.map(lambda parts: "".join(f'{{"a": {part}}}\n' for part in parts)),
    st.floats(0, 1),
    st.sampled_from(["plain", "cut", "gzip", "cut gzip", "twice", "damaged"]),
)
def test_any_file(text, where, how):
    content = text.encode("utf-8", "surrogatepass")
    if how in {"gzip", "cut gzip", "damaged"}:
        content = gzip.compress(content)
    if how == "twice":
        content = gzip.compress(gzip.compress(content))
    at = int(len(content) * where)
    if how == "damaged":
        content = content[:at] + b"\xff" + content[at + 1 :]
    read(content[:at] if how.startswith("cut") else content)


@fuzzed(40)
@given(
    st.binary(max_size=100), st.sampled_from([b"", b"[", b"{", b"\xef\xbb\xbf", b"\x1f\x8b", b"\x1f\x8b\x08\0", b" "])
)
def test_any_bytes_for_a_file(content, start):
    read(start + content)


TOWERS = {
    "lists": tower(50_000),
    "objects": tower(50_000, "{}"),
    "open": "[" * 1_000_000,
    "stairs": "[" + "[1,[2]," * 50_000,
    "with strings": '["]","' + '\\"]' * 3 + '",' + '["]",' * 50_000,
}


@pytest.mark.parametrize("text", TOWERS.values(), ids=TOWERS)
def test_a_tower_takes_no_memory(text):
    tracemalloc.start()
    for content in (f"[{text}]", f'[{{"a": 1}}, {{"a": {text}}}]', f'{{"a": {text}}}\n{{"b": 1}}'):
        found = read(content.encode())
        assert "nested deeper" in found[0].problem or "nested deeper" in found[-1].problem
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * MIB


def test_what_follows_a_tower_on_a_line_is_read():
    found = read(f'{{"a": {tower(5000)}}}\n{{"b": 1}}\n'.encode())
    assert [entry.value for entry in found] == [None, {"b": 1}]


def test_as_deep_as_can_be_meant():
    for floor in ("[]", "{}"):
        text = f'{{"a": {tower(DEEPEST - 1, floor)}}}'
        assert read(text.encode())[0].value == json.loads(text)
    assert read(f"[{{}},{{}},{tower(DEEPEST - 1)}]".encode())[2].problem == "it must be an object, not list"


@fuzzed(50)
@given(JSON, st.lists(st.integers(0, 200), max_size=5))
def test_the_depth_is_that_of_the_text(value, cuts):
    """However it is cut in pieces, with whatever strings in it."""

    def depth(inner):
        within = inner.values() if isinstance(inner, dict) else inner
        return 1 + max(map(depth, within), default=0) if isinstance(inner, (dict, list)) else 0

    deep = [value]
    for _ in range(DEEPEST - depth(value) - 1):
        deep = [deep]
    text = json.dumps(deep).encode()
    places = [0, *sorted(len(text) * cut // 200 for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    follower = Depth()
    for piece in pieces:
        follower.scan(piece)
    assert follower.depth == 0
    with pytest.raises(BeyondError):
        Depth().scan(b"[" + text)


def endless(piece, start=b""):
    """A file without an end."""

    class File(io.RawIOBase):
        at = 0

        def read(self, size=-1):
            self.at += 1
            return start if self.at == 1 and start else (piece * (size // len(piece) + 1))[:size]

    return File()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"[", b"x"),
        (b'["', b"x"),
        (b"[", b"7"),
        (b"[", b" "),
        (b'[{"a": "', b"x, "),
        (b'[{"a": [', b"1,"),
        (b'{"a": "', b"x"),
    ],
)
def test_an_entry_without_an_end_takes_no_memory_for_ever(monkeypatch, start, piece):
    monkeypatch.setattr("airflow_provider_redbrick.labels.file_reader.LONGEST_LINE", MIB >> 2)
    tracemalloc.start()
    with promises(seconds=20):
        (first, *_) = read_entries(endless(piece, start), name="file") if start != b'{"a": "' else [None]
        assert first is None or first.problem
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * MIB


# ------------------------------------------------------------------ masks


@st.composite
def broken_masks(draw):
    """A mask with some of its bytes changed: mostly in its header, and there mostly whole fields."""
    content = bytearray(gzip.decompress(a_mask()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from([*range(0, 352, 4), *range(40, 56, 2), 70, 72, 108, 112, 116, 344, 348, 352]))
        field = draw(st.sampled_from(["<i", "<f", "<h", "B"]))
        bounds = {"<i": (-(2**31), 2**31 - 1), "<h": (-(2**15), 2**15 - 1), "B": (0, 255)}
        value = draw(st.floats(width=32) if field == "<f" else st.integers(*bounds[field]))
        struct.pack_into(field, content, min(at, len(content) - 4), value)
    cut = draw(st.sampled_from([None, None, None, 0, 100, 348, 352, 360]))
    content = bytes(content[:cut])
    return gzip.compress(content) if draw(st.booleans()) else content


@fuzzed(120)
@given(broken_masks() | st.binary(max_size=400))
def test_any_mask(content):
    with promises(seconds=10) as watch:
        volume = read_volume(io.BytesIO(content), "mask")
        watch.tell(volume)
        write_volume(volume.voxels, volume).close()
    assert watch.error is None or isinstance(watch.error, RedBrickInputError)


@pytest.mark.parametrize("code", [2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280, 1536, 32, 1792, 2048, 128, 2304, 0, 1])
def test_a_header_that_claims_much_costs_little(code):
    """A header of 352 bytes must not take gigabytes."""
    content = bytearray(gzip.decompress(a_mask()))
    struct.pack_into("<8h", content, 40, 3, 1290, 1290, 1290, 1, 1, 1, 1)
    struct.pack_into("<h", content, 70, code)
    tracemalloc.start()
    for whole in (bytes(content), gzip.compress(content)):
        with promises(seconds=10) as watch:
            read_volume(io.BytesIO(whole), "mask")
        assert isinstance(watch.error, RedBrickInputError)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * MIB


MASKED = {
    "segmentations": ["mask.nii.gz", "other.nii.gz"],
    "segmentMap": {"1": {"category": "lesion", "overlappingGroups": [7]}, "2": "organ"},
}
ALONE = {"binaryMask": True, "segmentMap": {"1": {"category": "x", "mask": "m"}, "2": {"category": "y", "mask": ["n"]}}}


@fuzzed(60)
@given(spoiled({"series": [MASKED, ALONE]}, JSON | st.integers(0, 9) | st.just("1")))
def test_any_segmentation(body):
    with promises(seconds=10) as watch:
        found = take_masks(body if isinstance(body, dict) else {"series": body}, lambda _: io.BytesIO(a_mask()))
        for mask in found.masks:
            if mask.file is not None:
                mask.file.close()
    assert watch.error is None or isinstance(watch.error, RedBrickInputError)
