"""Plan who gets which task so that queues end up as even as possible.

The planner is pure: it works on ids and counts, and always returns the same plan for the same input.

A person's *level* is the length of their queue divided by their weight.

Invariants:

1. Each task goes to the person whose level is lowest once the task is counted. This minimizes the highest level among
   those who get something, then the next highest, and so on.
2. Levels are compared as whole numbers: weights are brought to a common multiple first. Ties are therefore ties on
   every machine and go to the person named first.
3. Tasks change hands only from a higher level to a lower one, and only while that lowers the higher one. A person who
   gave a task away therefore never receives one, and the reverse, so no smaller set of moves ends as even.
4. Started tasks never move.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Why a movable task may leave a queue, in order of urgency.
_WEIGHT_0, _ABOVE_CEILING, _EVENNESS = range(3)


@dataclass(frozen=True)
class Holder:
    """A person and the tasks that they hold in the stage.

    :param email: the person's email address.
    :param weight: share of the work relative to the others; 0 means no new tasks.
    :param ceiling: longest queue the person may have; None for no limit.
    :param started: number of held tasks that must stay.
    :param movable: ids of held tasks that the person has not started, the most urgent first.
    """

    email: str
    weight: float = 1.0
    ceiling: int | None = None
    started: int = 0
    movable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Move:
    """One assignment of a plan.

    :param task_id: the task.
    :param to: email of the new holder.
    :param source: email of the previous holder; None if the task was unassigned.
    """

    task_id: str
    to: str
    source: str | None


@dataclass(frozen=True)
class AssignmentPlan:
    """A plan of assignments and the queue lengths before and after it.

    :param moves: unassigned tasks first, in their given order, then tasks that change hands.
    :param left_over: ids of unassigned tasks for which no person has room.
    :param before: length of each person's whole queue, by email, in the given order.
    :param after: the same after the plan.
    """

    moves: tuple[Move, ...]
    left_over: tuple[str, ...]
    before: Mapping[str, int]
    after: Mapping[str, int]

    def table(self) -> str:
        """Return the plan as aligned text.

        One line per person, then the total and the number of unassigned tasks.
        """
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
    """Plan assignments that make the people's queues as even as possible.

    Each person's share is spread over the whole list, so that each gets urgent and less urgent tasks.

    :param unassigned: ids of the tasks to distribute, the most urgent first.
    :param people: the possible holders; ties go to the one named first.
    :param rebalance: also move tasks between people, after the unassigned tasks are placed. Movable tasks change hands,
        the least urgent first, while that makes the queues more even. A person with weight 0 gives away all movable
        tasks, and a queue above its ceiling shrinks to it, as far as others have room.
    :raises ValueError: if there are no people, an email is blank or repeated (case is ignored), a weight is negative or
        not finite, all weights are 0, a ceiling or count is negative, or an id occurs twice.
    """
    _check_people(people)
    _check_ids(unassigned, people)
    queues = [_Queue(person, cost) for person, cost in zip(people, _task_costs(people), strict=True)]
    before = {queue.holder.email: queue.load for queue in queues}
    recipients = _Recipients(queues)

    placed = 0
    while placed < len(unassigned) and recipients.lowest() is not None:
        recipients.add_task()
        placed += 1
    from_unassigned = [queue.received for queue in queues]
    if rebalance:
        _even_out(queues, recipients)

    new_holders = (people[index].email for index in _spread(from_unassigned))
    moves = [Move(task_id, to, None) for task_id, to in zip(unassigned[:placed], new_holders, strict=True)]
    moves += _reassignments(queues, from_unassigned)
    return AssignmentPlan(
        moves=tuple(moves),
        left_over=tuple(unassigned[placed:]),
        before=before,
        after={queue.holder.email: queue.load for queue in queues},
    )


class _Queue:
    """A person's queue while the plan is made.

    :param holder: the person.
    :param cost: how much one task raises the level; 0 for weight 0.
    """

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


class _Recipients:
    """Heap of people with room; the top one gets the next task."""

    def __init__(self, queues: Sequence[_Queue]) -> None:
        self._queues = queues
        self._heap = [self._key(index) for index, queue in enumerate(queues) if queue.has_room]
        heapq.heapify(self._heap)

    def _key(self, index: int) -> tuple[int, int, int]:
        # Of equal levels after the task, the queue with the higher cost (smaller weight) has the lower level before it.
        queue = self._queues[index]
        return queue.level + queue.cost, -queue.cost, index

    def lowest(self) -> _Queue | None:
        return self._queues[self._heap[0][2]] if self._heap else None

    def add_task(self) -> None:
        """Add a task to the queue on top."""
        index = self._heap[0][2]
        queue = self._queues[index]
        queue.load += 1
        queue.received += 1
        if queue.has_room:
            heapq.heapreplace(self._heap, self._key(index))
        else:
            heapq.heappop(self._heap)


def _even_out(queues: Sequence[_Queue], recipients: _Recipients) -> None:
    """Count the tasks that each queue gives away and receives.

    Stale entries in either heap are harmless, because no queue both gives and receives (invariant 3).
    """

    def key(index: int) -> tuple[int, int, int]:
        queue = queues[index]
        return queue.reason_to_give, -queue.level, index

    donors = [key(index) for index, queue in enumerate(queues) if queue.holder.movable]
    heapq.heapify(donors)
    while donors and (recipient := recipients.lowest()) is not None:
        index = donors[0][2]
        donor = queues[index]
        if donor.reason_to_give == _EVENNESS and recipient.level + recipient.cost >= donor.level:
            return
        recipients.add_task()
        donor.load -= 1
        donor.given_away += 1
        if donor.given_away < len(donor.holder.movable):
            heapq.heapreplace(donors, key(index))
        else:
            heapq.heappop(donors)


def _reassignments(queues: Sequence[_Queue], from_unassigned: Sequence[int]) -> list[Move]:
    surplus = [iter(q.holder.movable[len(q.holder.movable) - q.given_away :]) for q in queues]
    sources = _spread([queue.given_away for queue in queues])
    targets = _spread([queue.received - new for queue, new in zip(queues, from_unassigned, strict=True)])
    return [
        Move(next(surplus[source]), queues[target].holder.email, queues[source].holder.email)
        for source, target in zip(sources, targets, strict=True)
    ]


def _spread(counts: Sequence[int]) -> list[int]:
    """Return each index i counts[i] times, spread evenly over the list."""
    positions = ((step / count, index) for index, count in enumerate(counts) for step in range(1, 2 * count, 2))
    return [index for _, index in sorted(positions)]


def _task_costs(people: Sequence[Holder]) -> list[int]:
    """Return how much one task raises each person's level, in a common unit.

    The costs are whole numbers; 0 for weight 0. Weights are read as decimals: 0.3 is three tenths, so that 0.1 and 0.3
    are exactly one to three.
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
            raise ValueError("A person's email is blank.")
        if email in seen:
            raise ValueError(f"{person.email!r} is named twice.")
        seen.add(email)
        if not 0 <= person.weight < math.inf:  # also refuses NaN
            raise ValueError(f"The weight of {person.email!r} is {person.weight}. It must be 0 or a positive number.")
        if person.ceiling is not None and person.ceiling < 0:
            raise ValueError(f"The ceiling of {person.email!r} is {person.ceiling}. It must not be negative.")
        if person.started < 0:
            raise ValueError(
                f"The number of started tasks of {person.email!r} is {person.started}. It must not be negative."
            )
    if not any(person.weight for person in people):
        raise ValueError("Every weight is 0. At least one person must have a positive weight.")


def _check_ids(unassigned: Iterable[str], people: Iterable[Holder]) -> None:
    seen: set[str] = set()
    for ids in (unassigned, *(person.movable for person in people)):
        for task_id in ids:
            if task_id in seen:
                raise ValueError(f"Task {task_id!r} occurs twice.")
            seen.add(task_id)
