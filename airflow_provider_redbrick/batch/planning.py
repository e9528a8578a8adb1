"""Who gets which task: a pure planner that balances queues.

A person's *level* is the length of their queue divided by their weight. The planner keeps the highest level
among those who get something as low as it can, then the next highest, and so on: each task goes where the
level is lowest once the task is counted. Levels are compared as whole numbers (weights are brought to a
common multiple first), so that ties are ties on every machine and fall to the person named first.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Why a movable task may leave a queue, the most pressing reason first.
_WEIGHT_0, _ABOVE_CEILING, _EVENNESS = range(3)


@dataclass(frozen=True)
class Holder:
    """A person and what they hold in the stage.

    `weight`: share of the work relative to the others; 0 means "nothing new". `ceiling`: the longest the
    whole queue may get; None means no limit. `started`: how many held tasks must stay. `movable`: ids of
    held tasks that their holder has not started, the most urgent first.
    """

    email: str
    weight: float = 1.0
    ceiling: int | None = None
    started: int = 0
    movable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Move:
    """One task to assign: to whom, and from whom (None: it was unassigned)."""

    task_id: str
    to: str
    source: str | None


@dataclass(frozen=True)
class AssignmentPlan:
    """What to assign, and the queues it leads from and to.

    `moves`: unassigned tasks first, in the order given; then those that change hands. `left_over`:
    unassigned ids nobody may take. `before`, `after`: length of each person's whole queue, in the order the
    people were given.
    """

    moves: tuple[Move, ...]
    left_over: tuple[str, ...]
    before: Mapping[str, int]
    after: Mapping[str, int]

    def table(self) -> str:
        """Return the plan as lines of aligned text: one a person, then the total, then what is unassigned."""
        left = len(self.left_over)
        waiting = left + sum(move.source is None for move in self.moves)
        counts = [(email, held, self.after[email]) for email, held in self.before.items()]
        counts.append(("total", sum(self.before.values()), sum(self.after.values())))
        counts.append(("unassigned", waiting, left))
        rows = [("person", "before", "after", "change")]
        rows += [(name, str(old), str(new), f"{new - old:+d}" if new != old else "0") for name, old, new in counts]
        name_width, *widths = (max(len(row[column]) for row in rows) for column in range(4))
        return "\n".join(
            "  ".join([name.ljust(name_width), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))])
            for name, *cells in rows
        )


def plan_assignments(unassigned: Sequence[str], people: Sequence[Holder], *, rebalance: bool = False) -> AssignmentPlan:
    """Share `unassigned` (task ids, the most urgent first) so that whole queues end up as even as possible.

    Everybody's share is spread over the whole list, so that nobody gets only urgent tasks or only late
    ones. What is held stays where it is, unless `rebalance`: then, after the unassigned tasks are placed,
    movable tasks change hands as long as that makes the queues more even, and no more of them than that
    takes, the least urgent first. Weight 0 then gives away all its movable tasks, and a queue above its
    ceiling shrinks to it, as far as others have room.

    Raises ValueError for no people, a blank or repeated e-mail (whatever its case), weights that are
    negative, not finite or all 0, a negative ceiling or count, and an id that occurs twice.
    """
    _check_people(people)
    _check_ids(unassigned, people)
    queues = [_Queue(person, cost) for person, cost in zip(people, _task_costs(people), strict=True)]
    before = {queue.holder.email: queue.load for queue in queues}
    takers = _Takers(queues)

    placed = 0
    while placed < len(unassigned) and takers.next_one() is not None:
        takers.give()
        placed += 1
    fresh = [queue.received for queue in queues]
    if rebalance:
        _even_out(queues, takers)

    new_hands = (people[index].email for index in _spread(fresh))
    moves = [Move(task_id, to, None) for task_id, to in zip(unassigned[:placed], new_hands, strict=True)]
    moves += _changing_hands(queues, fresh)
    return AssignmentPlan(
        moves=tuple(moves),
        left_over=tuple(unassigned[placed:]),
        before=before,
        after={queue.holder.email: queue.load for queue in queues},
    )


class _Queue:
    """One person's queue while the plan is made; `cost` is what one task adds to its level."""

    def __init__(self, holder: Holder, cost: int) -> None:
        self.holder = holder
        self.cost = cost
        self.load = holder.started + len(holder.movable)
        self.received = 0
        self.given_away = 0

    @property
    def level(self) -> int:
        return self.load * self.cost

    @property
    def has_room(self) -> bool:
        ceiling = self.holder.ceiling
        return self.cost > 0 and (ceiling is None or self.load < ceiling)

    @property
    def reason_to_give(self) -> int:
        if not self.cost:
            return _WEIGHT_0
        ceiling = self.holder.ceiling
        return _ABOVE_CEILING if ceiling is not None and self.load > ceiling else _EVENNESS


class _Takers:
    """People with room, the one who should get the next task on top."""

    def __init__(self, queues: Sequence[_Queue]) -> None:
        self._queues = queues
        self._heap = [self._key(index) for index, queue in enumerate(queues) if queue.has_room]
        heapq.heapify(self._heap)

    def _key(self, index: int) -> tuple[int, int, int]:
        # At equal levels after the task, the costlier queue (smaller weight) has the lower level before it.
        queue = self._queues[index]
        return queue.level + queue.cost, -queue.cost, index

    def next_one(self) -> _Queue | None:
        return self._queues[self._heap[0][2]] if self._heap else None

    def give(self) -> None:
        """Add a task to the queue on top."""
        index = self._heap[0][2]
        queue = self._queues[index]
        queue.load += 1
        queue.received += 1
        if queue.has_room:
            heapq.heapreplace(self._heap, self._key(index))
        else:
            heapq.heappop(self._heap)


def _even_out(queues: Sequence[_Queue], takers: _Takers) -> None:
    """Count which queues give movable tasks away and which take them.

    Tasks go from the highest level to the lowest, and only while that lowers the higher one. So nobody who
    gave ever takes and nobody who took ever gives: each count is a surplus, and no set of moves that ends
    as even is smaller. It is also why entries of either heap that are out of date do no harm.
    """

    def key(index: int) -> tuple[int, int, int]:
        queue = queues[index]
        return queue.reason_to_give, -queue.level, index

    givers = [key(index) for index, queue in enumerate(queues) if queue.holder.movable]
    heapq.heapify(givers)
    while givers and (taker := takers.next_one()) is not None:
        index = givers[0][2]
        giver = queues[index]
        if giver.reason_to_give == _EVENNESS and taker.level + taker.cost >= giver.level:
            return
        takers.give()
        giver.load -= 1
        giver.given_away += 1
        if giver.given_away < len(giver.holder.movable):
            heapq.heapreplace(givers, key(index))
        else:
            heapq.heappop(givers)


def _changing_hands(queues: Sequence[_Queue], fresh: Sequence[int]) -> list[Move]:
    surplus = [iter(q.holder.movable[len(q.holder.movable) - q.given_away :]) for q in queues]
    sources = _spread([queue.given_away for queue in queues])
    targets = _spread([queue.received - new for queue, new in zip(queues, fresh, strict=True)])
    return [
        Move(next(surplus[source]), queues[target].holder.email, queues[source].holder.email)
        for source, target in zip(sources, targets, strict=True)
    ]


def _spread(counts: Sequence[int]) -> list[int]:
    """Return index i counts[i] times, each index spread evenly over the whole list."""
    places = ((place / count, index) for index, count in enumerate(counts) for place in range(1, 2 * count, 2))
    return [index for _, index in sorted(places)]


def _task_costs(people: Sequence[Holder]) -> list[int]:
    """Return how much one task raises each person's level, as whole numbers in a common unit; 0 for weight 0.

    Weights are read as the decimals people write: 0.3 is three tenths, so that 0.1 and 0.3 are exactly one
    to three.
    """
    weights = [Fraction(str(person.weight)) for person in people]
    steps = [1 / weight if weight else Fraction(0) for weight in weights]
    unit = math.lcm(*(step.denominator for step in steps))
    return [int(step * unit) for step in steps]


def _check_people(people: Sequence[Holder]) -> None:
    if not people:
        raise ValueError("No people to assign tasks to.")
    seen: set[str] = set()
    for person in people:
        email = person.email.strip().casefold()
        if not email:
            raise ValueError("A person's e-mail is blank.")
        if email in seen:
            raise ValueError(f"{person.email} is named twice.")
        seen.add(email)
        if not 0 <= person.weight < math.inf:  # NaN too is refused here
            raise ValueError(f"The weight of {person.email} is {person.weight}; it must be a number from 0 up.")
        if person.ceiling is not None and person.ceiling < 0:
            raise ValueError(f"The ceiling of {person.email} is {person.ceiling}; it cannot be negative.")
        if person.started < 0:
            raise ValueError(f"{person.email} cannot hold {person.started} started tasks.")
    if not any(person.weight for person in people):
        raise ValueError("Everybody's weight is 0: nobody may get a task.")


def _check_ids(unassigned: Iterable[str], people: Iterable[Holder]) -> None:
    seen: set[str] = set()
    for ids in (unassigned, *(person.movable for person in people)):
        for task_id in ids:
            if task_id in seen:
                raise ValueError(f"Task {task_id} occurs twice.")
            seen.add(task_id)
