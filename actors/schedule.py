"""When alarms are due: spans and dates, recurrence, and the delays between retries. Pure.

A recurring alarm runs on a fixed grid: an interval counts from the first run, a cron expression by the wall clock
of its time zone. Runs that were missed (nothing ran, or the clock was set forward) are made up for by one run;
the next time is always later than the present and than the last scheduled one, so a clock that is set back
repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .clock import Span, datetime_of, seconds, to_us, us_of

RETRIES_MAX = 6
"""Counted retries of an alarm; the run before them makes seven (as Durable Objects)."""
SHORTEST_US, LONGEST_US = 2_000_000, 1_024_000_000  # between two tries of what is owed
_BACKOFF_SECONDS, _BACKOFF_MAX, _JITTER = 2, 9, 0.25
_SHORTEST = 0.001  # seconds
SPAN_MAX = 1_000 * 365 * 86_400.0
"""Seconds; of longer ones there may be no date any more at which they are over."""
_LAST_US = us_of(datetime.max.replace(tzinfo=UTC))
_ZONE = "TZ="


def due_us(when: datetime | Span, now_us: int) -> int:
    """The time in µs since the epoch: of an aware datetime, or after a span; the past is now. Raises ValueError."""
    if not isinstance(when, datetime):
        due = now_us + to_us(min(seconds(when), float(_LAST_US)))
    elif when.tzinfo is None:
        raise ValueError(f"not a time: {when!r} has no time zone; use an aware datetime, such as datetime.now(UTC)")
    else:
        due = us_of(when)
    if due > _LAST_US:
        raise ValueError(f"not a time: {when!r} lies beyond the year 9999")
    return max(due, now_us)


def recurrence(every: Span | None, cron: str | None, timezone: str) -> str | None:
    """How an alarm recurs, as it is stored: "90 seconds", or a cron expression behind its time zone.

    None: it does not. Raises ValueError for an interval below 1 ms or above 1,000 years, an expression or a zone that
    does not exist.
    """
    if every is not None and cron is not None:
        raise ValueError("give every or cron, not both")
    if every is not None:
        span = seconds(every)
        if not _SHORTEST <= span <= SPAN_MAX:
            raise ValueError(f"an alarm cannot recur every {every!r}; from every millisecond to every 1,000 years")
        return f"{span:.6f}".rstrip("0").rstrip(".") + " seconds"
    if cron is None:
        return None
    text = f"{_ZONE}{timezone} {cron}"
    next_due(text, 0, 0)
    return text


def next_due(recurs: str, scheduled_us: int, now_us: int) -> int:
    """The first time of a recurring alarm after its last scheduled one and after now. Raises ValueError if none is."""
    if not recurs.startswith(_ZONE):
        step = to_us(seconds(recurs))
        return scheduled_us + step * (max(0, now_us - scheduled_us) // step + 1)
    zone, _, cron = recurs.removeprefix(_ZONE).partition(" ")
    try:
        after = datetime_of(max(scheduled_us, now_us)).astimezone(ZoneInfo(zone))
        found = next(CronSim(cron, after))
    except CronSimError as error:
        raise ValueError(f"not a cron expression: {cron!r} ({error})") from error
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"not a time zone: {zone!r}; use a name such as Europe/Berlin, or UTC ({error})") from error
    except StopIteration:
        raise ValueError(f"cron expression {cron!r} never comes") from None
    return us_of(found)


def as_long_again(since: int, now: int, shortest: int = SHORTEST_US, longest: int = LONGEST_US) -> int:
    """When to try again what is owed since then: as long from now as it was owed so far, within these bounds; in µs."""
    return now + min(max(now - since, shortest), longest)


def retry_seconds(failures: int, random: Callable[[], float]) -> float:
    """How long to wait after so many failures in a row: 2, 4, 8 … 1,024 s, and up to a quarter more.

    As Durable Objects.
    """
    delay = float(_BACKOFF_SECONDS << min(max(failures, 1) - 1, _BACKOFF_MAX))
    return delay * (1 + _JITTER * random())
