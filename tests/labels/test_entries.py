"""Reading files of tasks with labels, entry by entry."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from airflow_provider_redbrick.exceptions import RedBrickInputError
from airflow_provider_redbrick.labels import entries as module
from airflow_provider_redbrick.labels.entries import read_entries

A, B = {"name": "a", "series": [{"landmarks": [{"point": {"xNorm": 0.25, "yNorm": 1}}]}]}, {"name": "b", "naïve": "Ω"}


def read(content: bytes) -> list:
    return list(read_entries(io.BytesIO(content), name="tasks.jsonl"))


def told(content: bytes) -> list[tuple[str, object]]:
    """Answer the place of each entry with its value, or its problem."""
    found = read(content)
    assert all((entry.value is None) == bool(entry.problem) for entry in found)
    return [(entry.place, entry.problem or entry.value) for entry in found]


def refused(content: bytes) -> str:
    with pytest.raises(RedBrickInputError) as caught:
        next(read_entries(io.BytesIO(content), name="tasks.jsonl"))
    assert str(caught.value).startswith("tasks.jsonl ")
    return str(caught.value)


def lines(*values: object, end: bytes = b"\n") -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + end for value in values)


class TestLines:
    def test_one_entry_a_line(self):
        assert told(lines(A, B)) == [("line 1", A), ("line 2", B)]

    def test_the_last_needs_no_end(self):
        assert told(lines(A, B).rstrip()) == [("line 1", A), ("line 2", B)]

    def test_blank_lines_are_counted_and_skipped(self):
        assert told(b"\n \t\n" + lines(A) + b"\r\n\n" + lines(B) + b"\n") == [("line 3", A), ("line 6", B)]

    def test_lines_may_end_as_on_windows(self):
        assert told(lines(A, B, end=b"\r\n")) == [("line 1", A), ("line 2", B)]

    def test_a_byte_order_mark_is_no_content(self):
        assert told(b"\xef\xbb\xbf" + lines(A)) == [("line 1", A)]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b'{"a": 1', "it is not JSON: Expecting ',' delimiter (column 8)"),
            (b'{"a": 1}}', "it is not JSON: Extra data (column 9)"),
            (b'  {"a": x}', "it is not JSON: Expecting value (column 9)"),
            (b'{"a": NaN}', "it is not JSON: NaN is no JSON number"),
            (b'{"a": -Infinity}', "it is not JSON: -Infinity is no JSON number"),
            (b'{"a": "caf\xe9"}', "it is not UTF-8 from byte 11 on"),
            (b'"a"', "it must be an object, not str"),
            (b"[{}]", "it must be an object, not list"),
            (b"null", "it must be an object, not NoneType"),
            (b'{"a": ' + b"[" * 100_000, "it is nested deeper than 100 levels"),
            (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "it is nested deeper than 100 levels"),
            (b'{"a": ' + b"9" * 5_000 + b"}", None),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_a_broken_line_is_its_own_failure(self, line, problem):
        found = told(lines(A) + line + b"\n" + lines(B))
        assert found == [("line 1", A), ("line 2", problem or found[1][1]), ("line 3", B)]
        assert isinstance(found[1][1], str)

    @pytest.mark.parametrize("start", [b'{"a": 1,', b"{", b'{"a": ["x"', b'{"a": 1}}'])
    def test_the_first_line_can_be_broken_too(self, start):
        place, problem = told(start + b"\n" + lines(A, B))[0]
        assert (place, problem[:14]) == ("line 1", "it is not JSON")
        assert told(start + b"\n" + lines(A, B))[1:] == [("line 2", A), ("line 3", B)]

    def test_a_line_that_is_too_long_is_passed_over(self, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_LINE", 2**20)
        longest = b'{"a": "' + b"x" * (2**20 - 10) + b'"}\n'
        assert len(longest) == 2**20
        too_long = b'{"a": "' + b"x" * 5_000_000 + b'"}\n'
        found = told(longest + too_long + lines(A) + too_long.rstrip())
        assert [place for place, _ in found] == ["line 1", "line 2", "line 3", "line 4"]
        assert found[1:] == [("line 2", "it is longer than 1 MiB"), ("line 3", A), ("line 4", found[1][1])]

    def test_one_of_very_many_small_values_is_passed_over(self):
        many = b'{"a": [%s]}' % b",".join([b"{}"] * 5_000_001)
        tracemalloc.start()
        found = told(lines(A) + many + b"\n" + lines(B))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found == [("line 1", A), ("line 2", "it has more than 10000000 values"), ("line 3", B)]
        assert peak < 5 * len(many)


@pytest.mark.usefixtures("backend")
class TestArray:
    @pytest.mark.parametrize("indent", [None, 2])
    def test_one_entry_an_element(self, indent):
        content = json.dumps([A, B], indent=indent, ensure_ascii=False).encode()
        assert told(b"\n  " + content + b"\n") == [("entry 1", A), ("entry 2", B)]
        assert told(b"\xef\xbb\xbf" + content) == [("entry 1", A), ("entry 2", B)]

    def test_numbers_are_plain(self):
        [(_, value)] = told(b'[{"a": 1, "b": 0.1, "c": 1e2, "d": -0.5, "e": 9007199254740993}]')
        assert value == {"a": 1, "b": 0.1, "c": 100.0, "d": -0.5, "e": 9007199254740993}
        assert [type(each) for each in value.values()] == [int, float, float, float, int]

    def test_an_element_of_another_kind_is_its_own_failure(self):
        assert told(b'[{"a": 1}, 7, {"b": [{}]}]') == [
            ("entry 1", {"a": 1}),
            ("entry 2", "it must be an object, not int"),
            ("entry 3", {"b": [{}]}),
        ]

    @pytest.mark.parametrize(
        ("rest", "at"),
        [
            (b'{"c": 1', 3),
            (b"", 3),
            (b'{"c": 1}', 4),
            (b'{"c": NaN}]', 3),
            (b'{"c": 1} {"d": 2}]', None),
            (b'{"c": 1}] trailing', 4),
            (b"{'c': 1}]", 3),
        ],
        ids=repr,
    )
    def test_where_it_breaks_it_ends(self, rest, at):
        found = told(b"[" + lines(A).strip() + b"," + lines(B).strip() + b", " + rest)
        assert found[:2] == [("entry 1", A), ("entry 2", B)]
        place, problem = found[-1]
        assert at is None or place == f"entry {at}"
        assert problem.startswith("the array is broken here (")
        assert problem.endswith("); the rest of the file was not read")
        assert "\n" not in problem

    def test_what_is_not_utf_8_ends_it_too(self):
        found = told(b"[" + lines(A).strip() + b', {"c": "caf\xe9"}, {}]')
        # The slower parser takes the whole piece of the file for broken.
        assert found[:-1] in ([], [("entry 1", A)])
        assert found[-1][1].startswith("the array is broken here (")

    # The slower parser complains about its own end to nobody.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_what_is_nested_too_deep_ends_it_before_the_parser_sees_it(self):
        found = told(b'[{}, {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]")
        assert found[-1][1] == (
            "this one or one of the next cannot be read: it is nested deeper than 100 levels; "
            "the rest of the file was not read"
        )

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_one_of_very_many_small_values_ends_it(self, monkeypatch):
        monkeypatch.setattr("airflow_provider_redbrick.api.values.MOST_VALUES", 100_000)
        few, many = ({"a": [{}] * n} for n in (40_000, 150_000))
        found = told(json.dumps([*[few] * 4, many, A]).encode())
        assert [place for place, value in found if isinstance(value, dict)] == [f"entry {n}" for n in range(1, 5)]
        assert found[-1][1] == (
            "this one or one of the next cannot be read: it has more than 100000 values; "
            "the rest of the file was not read"
        )

    def test_brackets_in_strings_are_no_levels(self):
        value = {"a": "[{" * 200 + '\\"[', "b": [{"c": "]}" * 200}]}
        assert told(json.dumps([value, A]).encode()) == [("entry 1", value), ("entry 2", A)]
        assert told(lines(value, A)) == [("line 1", value), ("line 2", A)]

    def test_the_message_shows_nothing_of_the_file(self):
        assert "Jane" not in told(b'[{"name": "Jane Doe" oops}]')[-1][1]


class TestKinds:
    @pytest.mark.parametrize(
        "content", [b"", b" \n\t", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), b"[]", b" [ ] \n"]
    )
    def test_nothing(self, content):
        assert read(content) == []

    @pytest.mark.parametrize("content", [b"name,label\n", b'"a"', b"7", b"PK\x03\x04", '{"a": 1}'.encode("utf-16")])
    def test_another_kind_is_refused(self, content):
        assert "neither JSON Lines (one object a line) nor one JSON array of objects" in refused(content)

    @pytest.mark.parametrize("value", [A, {"tasks": [A]}, {"a": [1, 2], "b": 3}])
    @pytest.mark.parametrize("indent", [0, 1, 4, "\t"])
    def test_an_object_over_several_lines_is_refused_with_a_hint(self, value, indent):
        assert "can be read in a JSON array" in refused(json.dumps(value, indent=indent).encode())

    def test_so_is_one_that_begins_beside_its_bracket(self):
        assert "can be read in a JSON array" in refused(b'\n\n{"name": "a", "series": [\n  {}\n]}\n')

    @pytest.mark.parametrize("content", [lines(A, B), json.dumps([A, B]).encode()])
    def test_compressed(self, content):
        assert [entry.value for entry in read(gzip.compress(content))] == [A, B]

    def test_a_compressed_file_that_is_cut_short_is_read_as_far_as_it_goes(self):
        content = lines(*({"n": n, "noise": f"{n * 7919 % 10007:x}" * 9} for n in range(20_000)))
        found = read(gzip.compress(content)[:-20])
        assert len(found) > 19_000
        assert all(entry.value["n"] == n for n, entry in enumerate(found[:-1]))
        assert found[-1].place == f"line {len(found)}"
        assert "cannot be read from here on (Compressed file ended" in found[-1].problem

    def test_a_damaged_compressed_file_is_refused(self):
        assert "cannot be read" in refused(b"\x1f\x8b" + b"x" * 100)


class Flaky(io.BytesIO):
    """A file of an object store: a read answers with less than was asked for, and one day with an error."""

    def __init__(self, content: bytes, *, good: int) -> None:
        super().__init__(content)
        self.good = good

    def read(self, size: int = -1) -> bytes:
        if self.tell() >= self.good:
            raise RuntimeError("503 from the store")
        return super().read(min(size, 1000, self.good - self.tell()))


MANY = [A] * 5_000


@pytest.mark.usefixtures("backend")
# The slower parser says twice that it was stopped.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content", [lines(*MANY), json.dumps(MANY).encode()], ids=["lines", "array"])
class TestUnreadable:
    def test_in_the_middle(self, content):
        found = list(read_entries(Flaky(content, good=len(content) // 2), name="tasks.jsonl"))
        assert 1_700 <= len(found) <= 2_501
        assert all(entry.value == A for entry in found[:-1])
        assert found[-1].place.split()[1] == str(len(found))
        assert found[-1].problem.startswith("the file cannot be read from here on (503 from the store)")
        assert found[-1].problem.endswith("the rest of the file was not read")

    def test_reads_that_answer_little_are_enough(self, content):
        found = list(read_entries(Flaky(content, good=len(content) + 1), name="tasks.jsonl"))
        assert [entry.value for entry in found] == MANY

    def test_from_the_start(self, content):
        with pytest.raises(RedBrickInputError, match="cannot be read: 503 from the store"):
            list(read_entries(Flaky(content, good=0), name="tasks.jsonl"))


TASKS, LABELS_EACH = 2_000, 500
STATUS = Path("/proc/self/status")
COUNT = """
import re, sys
from pathlib import Path
import ijson
from airflow_provider_redbrick.labels.entries import read_entries

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
with open(sys.argv[1], "rb") as file:
    count = sum(len(entry.value["series"][0]["landmarks"]) for entry in read_entries(file, name="it"))
print(count, peak() - before)
"""


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells a process how much memory it has used at most")
class TestMemory:
    @pytest.mark.parametrize(("start", "between", "end"), [("", "\n", "\n"), ("[", ",", "]")], ids=["lines", "array"])
    def test_a_million_labels_are_never_held(self, tmp_path, start, between, end):
        labels = [{"point": {"xNorm": n / 1000, "yNorm": 0.5}, "category": "landmark"} for n in range(LABELS_EACH)]
        task = json.dumps({"name": "NAME", "series": [{"landmarks": labels}]})
        path = tmp_path / "labels.json"
        with path.open("w") as file:
            for number in range(TASKS):
                file.write((between if number else start) + task.replace("NAME", f"scan-{number}"))
            file.write(end)
        done = subprocess.run([sys.executable, "-c", COUNT, path], capture_output=True, text=True, check=True)
        count, used = map(int, done.stdout.split())
        size = path.stat().st_size
        path.unlink()  # pytest would keep it
        print(f"\n{count} labels in {size / 2**20:.0f} MiB read with {used / 2**20:.1f} MiB")
        assert count == 1_000_000
        assert size > 60 * 2**20
        assert 0 < used < 12 * 2**20
