"""What a retry of a failed instance forgets: what its body has begun because the step had failed. Pure.

It goes back to the step that failed, which may succeed now: a body that then never comes to what it did about the
failure must not owe it. Kept is what had been begun before, and what stands in a branch, or in another step, that
had been: that goes on by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .history import History
from .journal import Entry
from .keys import around, is_below, kind_of
from .verdicts import KINDS

FAILURES = ("step_errored", "wait_timed_out")
"""The entries with which a step fails for good."""


def begun_since(history: History, entries: Sequence[Entry], failed: str) -> list[str]:
    """The keys of the steps to forget when this one, which has failed the instance, is tried anew."""
    end = next((each for each in reversed(entries) if each.step == failed and each.event in FAILURES), None)
    if end is None:
        return []
    last = _begun_at(end, entries)
    going_on = _GoingOn(history, last, failed)
    forgotten = {
        key
        for key, record in history.records.items()
        if record.position > last and record.kind != "patch" and not going_on.holds(key)
    }
    verdicts = [each for each in entries if each.seq > end.seq and each.step in history.records and _decides(each)]
    for verdict in verdicts:
        assert verdict.step is not None
        if not is_below(failed, verdict.step) and not going_on.holds(f"{verdict.step}/"):  # else it is open again
            forgotten.add(verdict.step)
    return [key for key in history.records if key in forgotten or _is_in(key, forgotten)]


def _begun_at(end: Entry, entries: Iterable[Entry]) -> int:
    """The last position that had been given when the step failed."""
    begun: int | None = end.detail.get("begun")
    if begun is not None:
        return begun
    before = (each for each in entries if each.seq <= end.seq or (each.started is not None and each.started < end.at))
    return max(each.position or 0 for each in before)


class _GoingOn:
    """What does not wait for the step that failed."""

    def __init__(self, history: History, last: int, failed: str) -> None:
        """`last`: the last position that was given before."""
        self._failed = failed
        records = history.records
        self._begun = {place for key in records if records[key].position <= last for place in around(key)}

    def holds(self, key: str) -> bool:
        """Whether the step stands in a place that had been begun, or in a branch beside that of the failed step."""
        for place in around(key):
            all_of_it, _, index = place.rpartition("/")
            beside = index.isdecimal() and is_below(self._failed, all_of_it)
            if (beside or place in self._begun) and not is_below(self._failed, place):
                return True
        return False


def _decides(entry: Entry) -> bool:
    return entry.event == "value_recorded" and kind_of(entry.step or "") in KINDS


def _is_in(key: str, forgotten: set[str]) -> bool:
    return any(place in forgotten and kind_of(place) not in KINDS for place in around(key))
