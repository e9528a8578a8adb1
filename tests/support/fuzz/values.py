"""Unexpected values from a server, a file or a user."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

from examples import examples
from hypothesis import HealthCheck
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "canary/+\"\\%&<>='?#:@;,.~^0123456789A-yranac"
"""43 characters, with all that JSON, URLs and HTML escape."""

SIGNATURE = "canary-of-a-signature-yranac"


def fuzzed(number: int) -> Callable[[Any], Any]:
    """Run a test with so many examples, which may be long, and differ much in how long they take."""
    return examples(number, suppress_health_check=list(HealthCheck))


def of_a_secret(text: str) -> bool:
    """Whether a text has the beginning or the end of one, in whatever case; words of a test are made of its own too."""
    return any(part in text.lower() for part in ("canary", "yranac"))


# ------------------------------------------------------------------ any JSON


def any_text(most: int, **characters: int) -> st.SearchStrategy[str]:
    """Any text of so many characters at most."""
    letters = st.characters(**characters) if characters else st.characters()
    return st.text(letters, max_size=most).filter(lambda text: not of_a_secret(text))


TEXTS = any_text(20) | st.sampled_from(
    [
        "",
        " ",
        "\0",
        "\ud800",
        "a\udfffb",
        "\u202e",
        "x" * 5000,
        "null",
        "[]",
        "{}",
        '[{"a": 1}]',
        "1e400",
        "NaN",
        "../x",
    ]
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 10**400, -0.0, 1e308, float("nan")])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def tower(height: int, floor: str = "[]") -> str:
    """JSON text, nested so deep."""
    return f"{floor[0]}{'' if floor == '[]' else chr(34) + 'a' + chr(34) + ':'}" * height + "0" + floor[1] * height


def escaped(text: str) -> str:
    """JSON text with every character as its number."""
    return '"' + "".join(f"\\u{ord(each):04x}" for each in text) + '"'


ECHOES = (json.dumps(KEY), json.dumps(KEY).replace("/", "\\/"), escaped(KEY), json.dumps(f"no such key: {KEY}!"))
"""The key as a server may send it back."""

RAW = st.sampled_from(
    [
        *("null", "true", "false", "0", "1", "-1", "[]", "{}", '""', "[null]", "[[]]", "[{}]", '[""]', '{"": null}'),
        *("1.5", "1e400", "-1e400", "NaN", "Infinity", "1" + "0" * 400, "1" + "0" * 5000, "9007199254740993"),
        *('"\\ud800"', '"\\u0000"', '"\\udc00\\ud800"', '"x"', '"END"', '"0"', '"null"', '"[{}]"', '"{\\"a\\": 1}"'),
        *('{"a": 1, "a": null}', '{"taskId": null}', '["a", "b", "c"]', "[1, 2, 3]", '"' + "x" * 70_000 + '"'),
        *(tower(300), tower(300, "{}"), tower(960), tower(100_000), "[" * 100_000, json.dumps(tower(960))),
        *('"../../../x"', '"http://[::1"', '"http://\\ud800/"', '"file:///etc/hostname"', '"http://localhost:1/x"'),
        *('"2024-13-45T99:99:99Z"', '"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"', '"P1Y"'),
        *ECHOES,
    ]
) | JSON.map(json.dumps)
"""JSON text to stand where another value stood; not all of it is JSON after all."""


# ------------------------------------------------------------------ an answer, changed in one place


@dataclass(frozen=True)
class Change:
    """One change to a JSON text.

    :param where: how far through the values of the text the place is, from 0 to 1.
    :param how: ``put`` what is given, ``drop`` the value, ``repeat`` it, ``swap`` it with one elsewhere, ``wrap`` it.
    :param inside: where the value is text that holds JSON, change something in there.
    """

    how: str
    where: float
    raw: str = "null"
    inside: bool = False

    def __call__(self, text: str) -> str:
        """Return the changed text, or half of a text that is not JSON."""
        try:
            tree = [json.loads(text)]
        except (ValueError, RecursionError):
            return text[: int(len(text) * self.where)]
        places = list(_places(tree))
        holder, key = places[min(int(self.where * len(places)), len(places) - 1)]
        value = holder[key]
        if self.inside and isinstance(value, str) and value[:1] in {"[", "{"}:
            holder[key] = self(value)
            return json.dumps(tree[0])
        self._change(holder, key, places)
        return json.dumps(tree[0] if tree else None).replace(json.dumps(_HERE), self.raw)

    def _change(self, holder: Any, key: Any, places: list[Any]) -> None:
        if self.how == "put":
            holder[key] = _HERE
        elif self.how == "drop":
            del holder[key]
        elif self.how == "wrap":
            holder[key] = [holder[key]]
        elif self.how == "repeat" and isinstance(holder, list):
            holder[key:key] = [holder[key]] * 3
        else:
            other, place = places[int(self.where * 997) % len(places)]
            # A URL with its signature in place of a name would be told like one.
            if SIGNATURE not in json.dumps([holder[key], other[place]]):
                holder[key], other[place] = other[place], holder[key]


_HERE = "\x01here\x01"


def _places(tree: list[Any]) -> Any:
    """Yield all places of values, as the list or object that they are in and the index or key."""
    left: list[Any] = [tree]
    while left:
        holder = left.pop()
        for key in range(len(holder)) if isinstance(holder, list) else list(holder):
            yield holder, key
            if isinstance(holder[key], (dict, list)):
                left.append(holder[key])


CHANGES = st.builds(
    Change,
    st.sampled_from(["put", "put", "put", "put", "drop", "repeat", "swap", "wrap"]),
    st.floats(0, 1),
    RAW,
    st.booleans(),
)


# ------------------------------------------------------------------ anything at all


class Odd:
    """A user-defined class whose repr, text and comparison raise."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    def __hash__(self) -> int:
        return 1


def _nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@cache
def _odd_values() -> dict[str, Any]:
    """Values that are no JSON, or hardly, by name."""
    import numpy as np

    circle: list[Any] = []
    circle.append(circle)
    tomorrow = datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))
    return {
        **{f"numpy {each!r}": each for each in (np.int64(5), np.float64("nan"), np.float32(0.5), np.bool_(True))},
        **{f"array {each}": np.array(each) for each in ([1, 2], ["a", "b"], [], [[0.5], [2]], [None], 5)},
        **{f"{each!r}": each for each in (10**400, Fraction(1, 3), Decimal("NaN"), Decimal(5), 1j, b"bytes", {1, 2})},
        **{
            f"{each!r}": each
            for each in (frozenset(), bytearray(b"x"), (1, "a"), range(3), str, len, ..., timedelta(1))
        },
        "a huge number": 10**5000,
        "a long text": "x" * 100_000,
        "a circle": circle,
        "an odd object": Odd(),
        "a tower": _nested(500),
        "a skyscraper": _nested(5000),
        "a stone": object(),
        "odd keys": {None: 1, (1,): 2},
        "a moment": datetime(2024, 1, 1),  # noqa: DTZ001
        "the last moment": tomorrow,
        "a surrogate": "\ud800",
    }


@dataclass(frozen=True)
class OddOne:
    """A placeholder for an odd value, so that reports of an example do not access the value."""

    name: str


ANYTHING = JSON | st.deferred(lambda: st.sampled_from([OddOne(name) for name in _odd_values()]))


def real(value: Any) -> Any:
    """Return a value with placeholders replaced by odd values."""
    if isinstance(value, OddOne):
        return _odd_values()[value.name]
    if isinstance(value, list):
        return [real(each) for each in value]
    return {real(key): real(each) for key, each in value.items()} if isinstance(value, dict) else value


def spoiled(value: Any, other: st.SearchStrategy[Any] = ANYTHING) -> st.SearchStrategy[Any]:
    """Generate a value with one or two replaced parts, or a different value."""
    return other | st.lists(st.tuples(st.floats(0, 1), other), min_size=1, max_size=2).map(
        lambda changes: _spoiled(value, changes)
    )


def _spoiled(value: Any, changes: list[tuple[float, Any]]) -> Any:
    tree = [json.loads(json.dumps(value))]
    for where, other in changes:
        places = list(_places(tree))
        holder, key = places[min(int(where * len(places)), len(places) - 1)]
        if isinstance(holder, dict) and isinstance(other, (str, int, float)) and where > 0.8:
            holder[other] = holder.pop(key)
        else:
            holder[key] = other
    return tree[0]
