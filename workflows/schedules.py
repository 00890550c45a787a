"""Schedules: instances that are created by the calendar. Pure: when, and under which ids.

The id of an instance tells schedule and time ("daily-1786001400000"), so whatever is done twice, by a crash, by
backfilling, by two hands, makes one instance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from z0.actors.clock import us_of
from z0.actors.schedule import next_due, recurrence

from .ids import check_id

Missed = Literal["one", "all", "skip"]
RUNS_MAX = 10_000
_LATE_US = 60_000_000  # a run that is later than this was missed
_READABLE = str.maketrans({"*": "x", "/": "_", ",": "_", " ": "-", "#": "_", "+": "_"})


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Instances of a class, by a cron expression: `schedules = [z0.Schedule(cron="0 9 * * *")]`."""

    cron: str
    timezone: str = "UTC"
    name: str = ""
    """Of letters, digits, "_" and "-", at most 80; default: made of the expression."""
    payload: Any = None
    missed: Missed = "one"
    """Of runs whose time has passed while nothing ran: make up for the last one, for all, or for none."""

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be, InvalidName for the name."""
        self.recurs()
        if self.missed not in get_args(Missed):
            raise ValueError(f"Schedule(missed={self.missed!r}): give 'one', 'all' or 'skip'")
        check_id(self.key, "schedule name", 80)

    @property
    def key(self) -> str:
        """What it is called."""
        if self.name:
            return self.name
        zone = "" if self.timezone == "UTC" else f"-{self.timezone}"
        return re.sub(r"[^A-Za-z0-9_-]", "_", f"cron-{self.cron}{zone}".translate(_READABLE))

    def recurs(self) -> str:
        """When, as the engine says it."""
        text = recurrence(None, self.cron, self.timezone)
        assert text is not None
        return text


def check_schedule(schedule: object, what: str) -> Schedule:
    """Raises TypeError for what is none."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{what}={schedule!r}: give {_instead_of(schedule)}")
    return schedule


def check_schedules(schedules: object, what: str) -> None:
    """Raises TypeError for what is no list or tuple of schedules."""
    if not isinstance(schedules, list | tuple):
        raise TypeError(f"{what}={schedules!r}: give a list or tuple, [{_instead_of(schedules)}]")
    for number, schedule in enumerate(schedules):
        check_schedule(schedule, f"{what}[{number}]")


def _instead_of(given: object) -> str:
    """How a schedule is written, of a cron expression if that was given."""
    return f"z0.Schedule(cron={given!r})" if isinstance(given, str) else "z0.Schedule(cron=...)"


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it stands."""

    name: str
    cron: str
    timezone: str
    missed: Missed
    paused: bool
    declared: bool
    """By the class, not by `set`."""
    next: datetime | None
    """None: it is paused."""
    last: datetime | None
    """The time of the last run."""
    error: str | None = None
    """Why the run that was due last was passed over, or is still tried (`next` has passed then)."""


def instance_id(name: str, at_us: int) -> str:
    """The id of the instance of that time."""
    return f"{name}-{at_us // 1_000}"


def times(recurs: str, since_us: int, until_us: int) -> Iterator[int]:
    """All times from `since_us` to before `until_us`. Raises ValueError when there are too many."""
    at, count = next_due(recurs, since_us - 1, 0), 0
    while at < until_us:
        count += 1
        if count > RUNS_MAX:
            raise ValueError(f"more than {RUNS_MAX:,} runs lie in that time; take a part of it")
        yield at
        at = next_due(recurs, at, at)


def due_times(recurs: str, missed: Missed, due_us: int, now_us: int) -> tuple[list[int], int]:
    """The runs to make now of a schedule that was due at `due_us`, and when it is due next."""
    following = next_due(recurs, due_us, now_us)
    if missed == "all":
        late = [due_us]
        while len(late) < RUNS_MAX and (at := next_due(recurs, late[-1], late[-1])) <= now_us:
            late.append(at)
        return late, next_due(recurs, late[-1], late[-1])
    last = due_us
    if now_us - due_us > _LATE_US:
        last = _last_before(recurs, due_us, following)
    if missed == "skip" and now_us - last > _LATE_US:
        return [], following
    return [last], following


def _last_before(recurs: str, due_us: int, following: int) -> int:
    """The last time before `following`, not before `due_us`: found by halves, for there may be many."""
    low, high = due_us, following - 1
    while low < high:
        middle = (low + high + 1) // 2
        if next_due(recurs, middle - 1, middle - 1) < following:
            low = middle
        else:
            high = middle - 1
    return low


def moment(when: datetime, what: str) -> int:
    """An aware time in µs since the epoch. Raises ValueError."""
    if when.tzinfo is None:
        raise ValueError(f"{what} {when} has no time zone; give an aware datetime")
    return us_of(when)
