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
from airflow_provider_redbrick.labels import file_reader as module
from airflow_provider_redbrick.labels.file_reader import read_entries

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
            (b'{"a": NaN}', "it is not JSON: NaN is not a JSON number"),
            (b'{"a": -Infinity}', "it is not JSON: -Infinity is not a JSON number"),
            (b'{"a": "caf\xe9"}', "it is not UTF-8 from byte 11 onwards"),
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
        [(b'{"c": 1', 3), (b"", 3), (b'{"c": 1}', 4), (b'{"c": 1}] trailing', 4), (b'{"c": "]', 3)],
        ids=repr,
    )
    def test_where_the_array_breaks_it_ends(self, rest, at):
        found = told(b"[" + lines(A).strip() + b"," + lines(B).strip() + b", " + rest)
        assert found[:2] == [("entry 1", A), ("entry 2", B)]
        place, problem = found[-1]
        assert place == f"entry {at}"
        assert problem.startswith("the array is invalid from here on (")
        assert problem.endswith("). The rest of the file was not read")
        assert "\n" not in problem

    @pytest.mark.parametrize(
        ("element", "problem"),
        [
            (b'{"c": NaN}', "it is not JSON: NaN is not a JSON number (line 3)"),
            (b'{"c":\n [1, -Infinity]}', "it is not JSON: -Infinity is not a JSON number (line 4)"),
            (b"{'c': 1}", "it is not JSON: Expecting property name enclosed in double quotes (line 3)"),
            (b'{"c": 1} {"d": 2}', "it is not JSON: Extra data (line 3)"),
            (b'{"c": 1}}', "it is not JSON: Extra data (line 3)"),
            (b"", "it is not JSON: Expecting value (line 3)"),
            (b'{"c": "caf\xe9"}', "it is not UTF-8 from byte 97 of the file onwards (line 3)"),
            (b'{"c": 1,\n "c": 2}', "it repeats the key 'c' (line 4)"),
            (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "it is nested deeper than 100 levels (line 3)"),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_a_broken_element_is_its_own_failure(self, element, problem):
        content = b"[" + lines(A).strip() + b",\n\n" + element + b",\n" + lines(B) + b"]"
        assert told(content) == [("entry 1", A), ("entry 2", problem), ("entry 3", B)]

    def test_bytes_are_counted_from_the_start_of_the_file(self):
        content = b'\xef\xbb\xbf\r\n [{}, {"c": "caf\xe9"}]'
        assert told(content)[1] == (
            "entry 2",
            f"it is not UTF-8 from byte {content.index(0xE9) + 1} of the file onwards (line 2)",
        )

    def test_one_of_very_many_small_values_is_its_own_failure(self, monkeypatch):
        monkeypatch.setattr("airflow_provider_redbrick._utils.MOST_VALUES", 100_000)
        few, many = ({"a": [{}] * n} for n in (40_000, 150_000))
        found = told(json.dumps([*[few] * 4, many, A]).encode())
        assert found == [
            *((f"entry {n}", few) for n in range(1, 5)),
            ("entry 5", "it has more than 100000 values"),
            ("entry 6", A),
        ]

    def test_one_that_is_too_long_ends_it(self, monkeypatch):
        monkeypatch.setattr(module, "LONGEST_LINE", 2**20)
        found = told(json.dumps([A, {"a": "x" * 2**20}, B]).encode())
        assert found == [
            ("entry 1", A),
            (
                "entry 2",
                "the array is invalid from here on (it is longer than 1 MiB). The rest of the file was not read",
            ),
        ]

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
    def test_it_is_the_same_wherever_a_piece_of_the_file_ends(self, monkeypatch, size):
        monkeypatch.setattr("airflow_provider_redbrick.labels.strict_json._READ_BYTES", size)
        monkeypatch.setattr("airflow_provider_redbrick.labels.strict_json._BLOCK_BYTES", size)
        values = [{'a\\"': "\\", "b": ["]", "[{", '"', "\\\\"]}, A, {"": [[], {}]}, B]
        content = json.dumps(values, indent=1).encode()
        assert told(content) == [(f"entry {n}", value) for n, value in enumerate(values, start=1)]

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

    @pytest.mark.parametrize("content", [b"name,label\n", b'"a"', b"7", b"PK\x03\x04", bytes(200)])
    def test_another_kind_is_refused(self, content):
        assert "neither JSON Lines (one object per line) nor one JSON array of objects" in refused(content)

    @pytest.mark.parametrize("value", [A, {"tasks": [A]}, {"a": [1, 2], "b": 3}])
    @pytest.mark.parametrize("indent", [0, 1, 4, "\t"])
    def test_an_object_over_several_lines_is_refused_with_a_hint(self, value, indent):
        assert "Use a JSON array for objects that span several lines" in refused(
            json.dumps(value, indent=indent).encode()
        )

    def test_so_is_one_that_begins_beside_its_bracket(self):
        assert "Use a JSON array for objects that span several lines" in refused(
            b'\n\n{"name": "a", "series": [\n  {}\n]}\n'
        )

    @pytest.mark.parametrize("content", [lines(A, B), json.dumps([A, B]).encode()])
    def test_compressed(self, content):
        assert [entry.value for entry in read(gzip.compress(content))] == [A, B]

    def test_compressed_in_several_members(self):
        assert [entry.value for entry in read(gzip.compress(lines(A)) + gzip.compress(lines(B)) + bytes(512))] == [A, B]

    @pytest.mark.parametrize("kind", [lines(*[A] * 500, B), json.dumps([*[A] * 500, B]).encode()])
    def test_a_damaged_compressed_file_is_refused_before_its_first_entry(self, kind):
        whole = gzip.compress(kind)
        wrong = bytes([whole[-8] ^ 1])
        assert "its gzip data are damaged: CRC check failed" in refused(whole[:-8] + wrong + whole[-7:])
        assert "its gzip data are damaged: Incorrect length" in refused(whole[:-4] + bytes(4))
        assert "its gzip data are truncated" in refused(whole[:-1])
        assert "its gzip data are truncated" in refused(whole[: len(whole) // 2])
        assert "its gzip data are damaged" in refused(whole + b"garbage")
        assert "its gzip data are damaged" in refused(b"\x1f\x8b" + b"x" * 100)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("text", ['{"a": 1}\n{"b": 1}\n', '[{"a": 1}]', '\r\n [{"a": 1}]'])
    def test_a_wider_encoding_is_named(self, encoding, packed, text):
        content = text.encode(encoding)
        name = encoding[:6].upper()
        expected = f"tasks.jsonl cannot be read: it is encoded as {name}; save it as UTF-8"
        assert refused(gzip.compress(content) if packed else content) == expected

    def test_a_line_in_utf_16_is_its_own_failure(self):
        found = told(lines(A) + '{"a": 1}\n'.encode("utf-16-le")[:-1] + lines(B))
        problem = "it contains NUL bytes, as UTF-16 text does; save the file as UTF-8"
        assert found == [("line 1", A), ("line 2", problem), ("line 3", B)]

    def test_a_byte_order_mark_may_begin_any_line(self):
        assert told(lines(A) + b"\xef\xbb\xbf" + lines(B)) == [("line 1", A), ("line 2", B)]


class TestKeys:
    """A repeated key is refused, since one of its values would be lost."""

    @pytest.mark.parametrize(
        ("text", "problem", "column"),
        [
            ('{"taskId": "a", "taskId": "b"}', "it repeats the key 'taskId'", 17),
            ('{"series": [{}, {"boundingBoxes": [1], "boundingBoxes": []}]}',
             "series[1] repeats the key 'boundingBoxes'", 40),
            ('{"a": {"b": {"x": "},\\"", "c": 1, "x": 2}}}', "a.b repeats the key 'x'", 35),
            ('{"a": 1, "\\u0061": 2}', "it repeats the key 'a'", 10),
        ],
    )  # fmt: skip
    def test_it_is_named_with_its_place(self, text, problem, column):
        line = text.encode() + b"\n"
        assert told(lines(A) + line + lines(B)) == [
            ("line 1", A),
            ("line 2", f"{problem} (column {column})"),
            ("line 3", B),
        ]
        array = b"[" + lines(A).strip() + b",\n" + line + b"," + lines(B) + b"]"
        assert told(array) == [("entry 1", A), ("entry 2", f"{problem} (line 2)"), ("entry 3", B)]

    def test_the_same_key_in_different_objects_is_fine(self):
        value = {"a": {"a": [{"a": 1}, {"a": 2}]}, "b": {"a": 3}}
        assert told(lines(value)) == [("line 1", value)]


class TestTexts:
    """Texts that cannot be stored are found where they come in."""

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ({"name": "a\0"}, "name has characters that cannot be sent or stored: 'a\\x00'"),
            ({"series": [{"x": ["ok", "\ud800"]}]}, "series[0].x[1] has characters"),
            ({"metaData": {"k\udc80": "v"}}, "metaData: the key has characters"),
        ],
    )
    def test_they_are_named(self, value, problem):
        content = json.dumps(value).encode()
        for found in (told(lines(A) + content), told(b"[" + lines(A).strip() + b"," + content + b"]")):
            assert found[0][1] == A
            assert found[1][1].startswith(problem)

    def test_other_characters_are_fine(self):
        value = {"a": "\U0001f600 \u2028 \\u0000 \n é"}
        assert told(json.dumps(value).encode()) == [("line 1", value)]


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


@pytest.mark.parametrize("content", [lines(*MANY), json.dumps(MANY).encode()], ids=["lines", "array"])
class TestUnreadable:
    def test_in_the_middle(self, content):
        found = list(read_entries(Flaky(content, good=len(content) // 2), name="tasks.jsonl"))
        assert 1_700 <= len(found) <= 2_501
        assert all(entry.value == A for entry in found[:-1])
        assert found[-1].place.split()[1] == str(len(found))
        assert found[-1].problem.startswith("the file cannot be read from here on (503 from the store)")
        assert found[-1].problem.endswith("The rest of the file was not read")

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
from airflow_provider_redbrick.labels.file_reader import read_entries

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
