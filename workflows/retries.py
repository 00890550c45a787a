"""When a step that failed is tried again. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal

import msgspec

from z0.actors.clock import Span, seconds, us_of

Backoff = Literal["constant", "linear", "exponential"]
Delay = Callable[[int, Exception], Span | Awaitable[Span]]


LIMIT_MAX = 10_000
DELAY_MAX = 365 * 86_400.0
"""Seconds that a step waits for its next attempt, at most, whatever says how long."""


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How often and when a step that failed is tried again."""

    limit: int = 3
    """Attempts after the first."""
    delay: Span | Delay = "1 second"
    """Before the second attempt; or a function of the attempt that failed, from 1, and its error. 365 days at most."""
    backoff: Backoff = "exponential"
    """How the delay grows: by itself, by the first delay each time, or twofold each time."""
    max_delay: Span | None = "5 minutes"
    """Up to which delays grow; None: up to 365 days."""
    jitter: float = 0.0
    """A random part of the delay is added, at most this fraction of it."""
    retry_on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool | Awaitable[bool]] = Exception
    """Which errors are worth another attempt: a class, a tuple of classes, or a function that says so of an error;
    NonRetryableError never is."""

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError for what cannot be."""
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or not 0 <= self.limit <= LIMIT_MAX:
            raise ValueError(f"Retries(limit={self.limit}): give 0 to {LIMIT_MAX:,} attempts after the first")
        if not callable(self.delay):
            seconds(self.delay)
        if self.max_delay is not None:
            seconds(self.max_delay)
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Retries(jitter={self.jitter}): give a fraction from 0 to 1")
        if self.backoff not in ("constant", "linear", "exponential"):
            raise ValueError(f"Retries(backoff={self.backoff!r}): give 'constant', 'linear' or 'exponential'")
        if not _tells_errors(self.retry_on):
            raise TypeError(
                f"Retries(retry_on={self.retry_on!r}): give a class of exceptions, a tuple of them, or a function "
                "of an error that says whether it is worth another attempt"
            )


def _tells_errors(wanted: object) -> bool:
    if isinstance(wanted, tuple | type):
        each = wanted if isinstance(wanted, tuple) else (wanted,)
        return all(isinstance(one, type) and issubclass(one, BaseException) for one in each)
    return callable(wanted)


def check_retries(retries: object, what: str = "retries") -> Retries:
    """Raises TypeError for what is none."""
    if not isinstance(retries, Retries):
        raise TypeError(f"{what}={retries!r}: give z0.Retries(limit=3, delay=...)")
    return retries


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A step's settings as its journal keeps them: as they were when the step was first tried."""

    limit: int
    delay: float | None
    """Seconds; None: a function says."""
    backoff: Backoff
    max_delay: float | None
    jitter: float
    timeout: float | None
    """Seconds; None: for ever."""


def settings_of(retries: Retries, timeout: float | None) -> Settings:
    """What is kept of a step's settings."""
    return Settings(
        limit=retries.limit,
        delay=None if callable(retries.delay) else seconds(retries.delay),
        backoff=retries.backoff,
        max_delay=None if retries.max_delay is None else seconds(retries.max_delay),
        jitter=retries.jitter,
        timeout=timeout,
    )


def delay_after(settings: Settings, attempt: int, first: float, random: float) -> float:
    """Seconds from the end of a failed attempt (from 1) to the next; `first` is the delay before the second."""
    match settings.backoff:
        case "constant":
            delay = first
        case "linear":
            delay = first * attempt
        case "exponential":
            delay = first * 2.0 ** min(attempt - 1, 63)
    if settings.max_delay is not None:
        delay = min(delay, max(settings.max_delay, first))
    return min(delay * (1 + settings.jitter * random), DELAY_MAX)


def asked_delay(after: object, now_us: int) -> float:
    """Seconds that an error asks to be waited for: its `retry_after`. Raises ValueError, OverflowError."""
    match after:
        case datetime() if after.tzinfo is not None:
            wait = max(0.0, (us_of(after) - now_us) / 1e6)
        case str() if after.strip().isdecimal():  # as the header of HTTP says it
            wait = float(after)
        case _:
            wait = seconds(after)  # type: ignore[arg-type]  # which says what it takes
    if wait > DELAY_MAX:
        raise ValueError(f"{wait:g} seconds are more than a year")
    return wait


def worth_another(retries: Retries, error: Exception) -> bool | Awaitable[bool]:
    """Whether the error is one that may go away."""
    wanted = retries.retry_on
    return isinstance(error, wanted) if isinstance(wanted, tuple | type) else wanted(error)
