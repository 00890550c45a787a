"""Time and spans. The only module that reads the machine's clock; everything else is given a `Clock`.

`perf_ns` is for measuring durations, never for decisions that a test may want to control.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

perf_ns = time.perf_counter_ns
_LOOK_SECONDS = 1.0  # how long a jump of the wall clock may stay unnoticed
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Span = timedelta | float | int | str
"""A timedelta, a number of seconds, or "<number> <unit>" such as "10 minutes"."""

_UNIT_SECONDS = {
    "ms": 0.001,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3_600.0,
    "day": 86_400.0,
    "week": 604_800.0,
    "month": 30 * 86_400.0,
    "year": 365 * 86_400.0,
}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|second|minute|hour|day|week|month|year)s?\s*")


def seconds(span: Span) -> float:
    """The span in seconds. Raises ValueError for a negative, unreadable or non-finite one."""
    if isinstance(span, timedelta):
        value = span.total_seconds()
    elif isinstance(span, str):
        value = _read(span)
    elif isinstance(span, bool) or not isinstance(span, (int, float)):
        raise ValueError(f"not a span: {span!r}; give a timedelta, a number of seconds or a string")
    else:
        value = float(span)
    if not 0 <= value < float("inf"):
        raise ValueError(f"not a span: {span!r}; it must be finite and not negative")
    return value


@lru_cache(maxsize=1024)
def _read(span: str) -> float:
    match = _SPAN.fullmatch(span)
    if match is None or span.strip().endswith("mss"):
        raise ValueError(
            f'not a span: {span!r}; write "<number> <unit>" with ms, second(s), minute(s), hour(s), '
            "day(s), week(s), month(s) or year(s)"
        )
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def to_us(seconds: float) -> int:
    """Seconds in microseconds."""
    return round(seconds * 1e6)


def us_of(when: datetime) -> int:
    """An aware time in microseconds since the epoch."""
    return (when - EPOCH) // timedelta(microseconds=1)


def datetime_of(us: int) -> datetime:
    """Microseconds since the epoch as an aware time, UTC."""
    return EPOCH + timedelta(microseconds=us)


FIRST_US, LAST_US = (us_of(end.replace(tzinfo=UTC)) for end in (datetime.min, datetime.max))
"""The times that there are."""


def seeded(seed: int) -> Callable[[], float]:
    """A source of numbers, at least 0 and less than 1, that are always the same for one seed."""
    return random.Random(seed).random


class Timer(Protocol):
    """A call that will happen, unless it is cancelled before."""

    def cancel(self) -> None:
        """Make it never happen; harmless when it already did."""


class Clock(Protocol):
    """Where a runtime gets the time from."""

    def now(self) -> datetime:
        """The wall-clock time, aware, UTC."""

    def now_us(self) -> int:
        """The wall-clock time in microseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back; for spans, not for dates."""

    async def sleep(self, span: Span) -> None:
        """Return when the span has passed on this clock."""

    def call_later(self, span: Span, callback: Callable[[], object]) -> Timer:
        """Call back on the running event loop when the span has passed."""

    def call_at(self, when_us: int, callback: Callable[[], object]) -> Timer:
        """Call back on the running event loop when the wall-clock time is at least `when_us`, and not before.

        However the wall clock is set meanwhile: a jump is noticed within a second.
        """

    def random(self) -> float:
        """At least 0 and less than 1; for jitter, not for secrets."""

    async def patience(self, span: Span) -> None:
        """Return when there is no use in waiting longer for work to end: after the span, in real time.

        A virtual clock stands still, so there that is when all is quiet.
        """

    def watch(self, busy: Callable[[], bool], done: Callable[[], int]) -> Callable[[], object]:
        """Learn how to ask whether work is under way (a virtual clock does not let time pass meanwhile).

        `done`: a number that goes up with what was done. What is returned is to be called, on the event loop, when it
        is worth asking again.
        """


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The wall-clock time, aware, UTC."""
        return datetime.now(UTC)

    def now_us(self) -> int:
        """The wall-clock time in microseconds since the epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, span: Span) -> None:
        """Return when the span has passed."""
        await asyncio.sleep(seconds(span))

    def call_later(self, span: Span, callback: Callable[[], object]) -> Timer:
        """Call back on the running event loop when the span has passed."""
        return asyncio.get_running_loop().call_later(seconds(span), callback)

    def call_at(self, when_us: int, callback: Callable[[], object]) -> Timer:
        """Call back on the running event loop when the wall-clock time is at least `when_us`."""
        return _WallTimer(self, when_us, callback)

    def random(self) -> float:
        """At least 0 and less than 1."""
        return random.random()

    async def patience(self, span: Span) -> None:
        """Return when the span has passed."""
        await asyncio.sleep(seconds(span))

    def watch(self, busy: Callable[[], bool], done: Callable[[], int]) -> Callable[[], object]:
        """Real time passes whoever is busy."""
        return _nothing


def _nothing() -> None:
    return


class _WallTimer:
    """Looks at the wall clock, which may be set to any time, at least once a second."""

    __slots__ = ("_callback", "_clock", "_handle", "_when_us")

    def __init__(self, clock: SystemClock, when_us: int, callback: Callable[[], object]) -> None:
        self._clock = clock
        self._when_us = when_us
        self._callback = callback
        self._wait()

    def _wait(self) -> None:
        left = (self._when_us - self._clock.now_us()) / 1e6
        self._handle = asyncio.get_running_loop().call_later(min(max(left, 0.0), _LOOK_SECONDS), self._look)

    def _look(self) -> None:
        if self._clock.now_us() >= self._when_us:
            self._callback()
        else:
            self._wait()

    def cancel(self) -> None:
        self._handle.cancel()
