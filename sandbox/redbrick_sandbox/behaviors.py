"""What kind of server this is, where the API leaves it open.

A fault (`faults`) affects single requests. A behavior holds until it is changed. Invariants:

1. The first value of a behavior is its default. With all defaults the public SDK works unchanged.
2. Each behavior is independent of the others, so that any combination is a server.
3. A value has one text, which the command line, the control route and the documents share.

A specification is text such as `read_lag=2,retired=Task.priority,Task.updatedAt,times=epoch`. A part without `=`
continues the list before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

NONE = "none"
_LONGEST_S = 86_400.0


@dataclass(frozen=True)
class LateApply:
    """Mutations that get no answer, and are applied later.

    `share` is the probability from 0 to 1, `seconds` the delay. `answers` are the possible failures that the client
    sees, 504 or drop. Only requests with one of `root_fields` are affected; None means all mutations. The rule passes
    over `skip` matching requests, and then affects `times` of them; None means no limit.
    """

    text: str
    share: float
    seconds: float
    answers: tuple[str, ...] = ("504", "drop")
    root_fields: frozenset[str] | None = None
    skip: int = 0
    times: int | None = None

    def __str__(self) -> str:
        return self.text


class LateDraw:
    """Decide which mutations are applied late.

    :param rule: the rule; None decides that none is.
    :param generator: source of the random numbers.
    """

    def __init__(self, rule: LateApply | None, generator: random.Random) -> None:
        self._rule = rule
        self._random = generator
        self._matched = 0
        self._affected = 0

    def decide(self, root_fields: Iterable[str]) -> tuple[str, float] | None:
        """Return the answer and the delay in seconds of a mutation; None if it is applied at once.

        :param root_fields: names of the request's root fields.
        """
        rule = self._rule
        if rule is None or (rule.root_fields is not None and rule.root_fields.isdisjoint(root_fields)):
            return None
        self._matched += 1
        drawn = self._random.random() < rule.share
        exhausted = rule.times is not None and self._affected >= rule.times
        if not drawn or exhausted or self._matched <= rule.skip:
            return None
        self._affected += 1
        return self._random.choice(rule.answers), rule.seconds


def _one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}, not {text!r}")
        return text

    return parse


def _between(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}, not {text!r}")
        return number

    return parse


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"must be a whole number, not {text!r}")
    return int(text)


def _limit(text: str) -> int | None:
    return None if text == NONE else _count(text)


def _field_names(text: str) -> frozenset[str]:
    names = frozenset() if text == NONE else frozenset(text.split(","))
    if not all(len(name.split(".")) == 2 and all(part.isidentifier() for part in name.split(".")) for name in names):
        raise ValueError(f"takes a list of Type.field, not {text!r}")
    return names


def _late_apply(text: str) -> LateApply | None:
    """Parse `SHARE:SECONDS`, followed by the answers, root fields, `skip=N` and `times=N`, in any order."""
    if text == NONE:
        return None
    share, _, rest = text.partition(":")
    seconds, *options = rest.split(":")
    rule = LateApply(text, _between(0, 1)(share), _between(0, _LONGEST_S)(seconds))
    for option in options:
        name, equals, number = option.partition("=")
        if equals:
            if name not in ("skip", "times"):
                raise ValueError(f"takes skip=N and times=N, not {option!r}")
            rule = replace(rule, skip=_count(number)) if name == "skip" else replace(rule, times=_count(number))
        elif set(option.split("|")) <= {"504", "drop"}:
            rule = replace(rule, answers=tuple(option.split("|")))
        elif all(root_field.isidentifier() for root_field in option.split(",")):
            rule = replace(rule, root_fields=frozenset(option.split(",")))
        else:
            raise ValueError(f"takes 504, drop or names of root fields, not {option!r}")
    return rule


def _text_of(value: Any) -> str:
    if value is None or value == frozenset():
        return NONE
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choice(*values: str) -> Any:
    return field(default=values[0], metadata={"parse": _one_of(values), "values": values})


def _number(default: float, unit: str, *, least: float = 0.0, most: float = _LONGEST_S) -> Any:
    return field(default=default, metadata={"parse": _between(least, most), "values": (f"{default:g}", unit)})


def _whole(default: int | None) -> Any:
    parse = _limit if default is None else _count
    return field(default=default, metadata={"parse": parse, "values": (_text_of(default), "N")})


@dataclass(frozen=True)
class Behaviors:
    """The behaviors of a server. `docs/sandbox.md` describes each.

    The metadata of a field has its parser, and its values: the default, then the alternatives or their form.
    """

    read_lag: float = _number(0.0, "SECONDS")
    lag_probability: float = _number(1.0, "SHARE", most=1.0)
    late_apply: LateApply | None = field(
        default=None,
        metadata={"parse": _late_apply, "values": (NONE, "SHARE:SECONDS[:OPTION…]")},
    )
    error_status: str = _choice("200", "400", "500")
    error_path: str = _choice("yes", "no")
    error_data: str = _choice("partial", "null")
    conversion: str = _choice("complete", "omit-empty", "omit", "drop-unknown")
    max_root_fields: int | None = _whole(None)
    max_complexity: int | None = _whole(None)
    max_depth: int | None = _whole(None)
    max_body: int | None = _whole(None)
    aliases: str = _choice("yes", "nested", "no")
    retired: frozenset[str] = field(
        default=frozenset(), metadata={"parse": _field_names, "values": (NONE, "TYPE.FIELD,…")}
    )
    max_page: int = _whole(500)
    max_ids: int = _whole(50)
    key_identity: str = _choice("same", "other")
    assign_answer: str = _choice("complete", "empty", "null")
    events: str = _choice("readable", "empty", "anonymous", "forbidden")
    updated_at: str = _choice("every-change", "not-labels", "absent")
    times: str = _choice("utc", "z", "offset", "naive", "epoch")
    presigned: str = _choice("everywhere", "items")
    ownership: str = _choice("enforced", "free")
    clock_offset: float = _number(0.0, "SECONDS", least=-_LONGEST_S)

    def changed(self, changes: Mapping[str, Any]) -> Behaviors:
        """Return the behaviors with some values replaced.

        :param changes: new values by name, as text or numbers. None is the text `none`.
        :raises ValueError: if a name or a value is unknown.
        """
        parsers = {each.name: each.metadata["parse"] for each in fields(self)}
        parsed: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in parsers:
                raise ValueError(f"no behavior {name!r}; the behaviors are {', '.join(parsers)}")
            try:
                parsed[name] = parsers[name](NONE if value is None else str(value))
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        return replace(self, **parsed)

    def document(self) -> dict[str, str]:
        """Return the text of each value by name."""
        return {each.name: _text_of(getattr(self, each.name)) for each in fields(self)}


VALUES: dict[str, tuple[str, ...]] = {each.name: each.metadata["values"] for each in fields(Behaviors)}


def parse(spec: str) -> Behaviors:
    """Parse a specification. Empty text means all defaults.

    :raises ValueError: if a part is not of the form name=value, a name is repeated, or a name or value is unknown.
    """
    changes: dict[str, str] = {}
    name = ""
    for part in filter(None, (piece.strip() for piece in spec.split(","))):
        head, equals, value = part.partition("=")
        if head.strip() in VALUES and equals:
            name = head.strip()
            if name in changes:
                raise ValueError(f"{name} is given twice")
            changes[name] = value.strip()
        elif name in ("retired", "late_apply"):
            changes[name] += f",{part}"
        elif equals:
            name = head.strip()
            changes[name] = value.strip()
        else:
            raise ValueError(f"{part!r} is not of the form name=value")
    return Behaviors().changed(changes)
