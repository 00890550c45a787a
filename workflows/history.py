"""What has happened to an instance so far: the fold of its journal. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import msgspec

from .failure import Failure
from .journal import Entry
from .keys import kind_of, names_of, steps_around
from .lifecycle import LIFECYCLE, Child, Undoing, drop
from .outcomes import OUTCOMES
from .retries import Settings
from .verdicts import GivenUp, decided, led_to, orphan, reopen

Status = Literal[
    "queued", "running", "waiting", "paused", "waiting_for_pause", "complete", "errored", "terminated", "abandoned"
]
FINISHED: frozenset[Status] = frozenset({"complete", "errored", "terminated", "abandoned"})


def check_status(*statuses: object) -> None:
    """Raises ValueError for what no instance can be."""
    for each in statuses:
        if each not in get_args(Status):
            raise ValueError(f"no instance has status {each!r}; there are: {', '.join(get_args(Status))}")


class Record(msgspec.Struct):
    """What has become of one step."""

    key: str
    position: int
    """In which order it was begun."""
    done: bool = False
    value: bytes | None = None
    failure: Failure | None = None
    """Of the last attempt."""
    attempts: int = 0
    """That have ended."""
    begun: bool = False
    """An attempt that must not be made twice has begun, and not ended."""
    settings: Settings | None = None
    due: int | None = None
    """When a sleep ends, a wait is given up, or the next attempt is made."""
    type: str | None = None
    """Of the event that it waits for."""
    match: dict[str, Any] | None = None
    event: int | None = None
    """The seq of the event that it got."""
    child: Child | None = None
    """The instance that it waits for."""
    again: int = 0
    """How often it was tried anew, after it had failed the instance."""
    blob: str | None = None
    """Where the result is kept, when it is too big for a row."""
    sensitive: bool = False
    """Readers are not shown the result."""
    undo: bool = False
    """It had a rollback handler when it was taken."""
    past: bool = False
    """It stands in an attempt that failed: the next one need not come by here."""
    given_up: GivenUp | None = None
    """What it waited for, when it stands in a branch that has lost."""

    @property
    def kind(self) -> str:
        """What sort of step it is."""
        return kind_of(self.key)


class History:
    """The state of one instance."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.seq = 0
        self.created: Entry | None = None
        self.run = 1
        """Which run this is: restarting begins another."""
        self.trace: str | None = None
        """What the spans of its steps are children of, as W3C's `traceparent`."""
        self.started = False
        self.end: Entry | None = None
        self.failed: Entry | None = None
        """What it had failed with, of one that was abandoned."""
        self.records: dict[str, Record] = {}
        self.positions = 0
        """The highest that was given."""
        self.inside: dict[str, list[Record]] = {}
        """Steps that stand in another, by its key."""
        self.open: dict[str, Record] = {}
        """Those that wait for the time or for an event."""
        self.steps = 0
        """Steps done, or begun and recorded: what `steps_max` counts."""
        self.executed = 0
        """Microseconds that attempts took, without what they slept or waited."""
        self.diverged: Entry | None = None
        """Why the instance is paused: the code does not do what the journal has."""
        self.put_aside: Entry | None = None
        """Why it was paused last, if nobody asked for it: it was cut off too often."""
        self.events: dict[int, Entry] = {}
        """Events that came, by seq."""
        self.inbox: dict[int, Entry] = {}
        """Those that nobody has taken."""
        self.event_ids: dict[str, None] = {}
        self.paused = False
        self.paused_at: int | None = None
        """Since when it is paused, or is to be."""
        self.rollback: Undoing | None = None
        self.again = 0
        """How often the parent had it retried."""
        self.anew: Counter[str] = Counter()
        """How often steps were forgotten by a retry: their children are others then."""
        self.orphans: dict[Child, bool] = {}
        """Children that must be told that nobody waits for them any more; whether they are to roll back."""
        self.parent_told = 0
        """The entry that says so last."""
        self.errands: dict[str, Entry] = {}
        """What must still be done outside ("<errand>@<seq>"), and the entries that owe it."""

    def apply(self, entry: Entry) -> None:
        """Take one entry into account."""
        self.seq = entry.seq
        fold = _FOLDS.get(entry.event)
        if fold is not None:
            fold(self, entry)
        if "owes" in entry.detail:
            for errand in entry.detail["owes"]:
                self.errands[f"{errand}@{entry.seq}"] = entry

    @property
    def queued(self) -> bool:
        """Whether it has not been let in."""
        return self.created is not None and not self.started and self.end is None and not self.rolls_back

    @property
    def limited(self) -> bool:
        """Whether it begins, and begins anew, only when there is a slot for it."""
        return self.created is not None and "groups" in self.created.detail

    def status(self, resting: bool) -> Status:
        """How the instance is; `resting`: nothing of it can go on by itself."""
        if self.end is not None:
            return ENDS[self.end.event]
        if self.paused_at is not None:
            return "paused" if self.paused else "waiting_for_pause"
        if self.diverged is not None:
            return "paused"
        if not self.started and not self.rolls_back:
            return "queued"
        return "waiting" if resting else "running"

    def waits(self) -> list[Record]:
        """The steps that wait for the time or for an event, in the order in which they were begun."""
        return sorted(self.open.values(), key=_position)

    def due(self) -> int | None:
        """When the first of them is due."""
        if self.paused_at is not None:
            return None
        dues = [each.due for each in self.open.values() if each.due is not None]
        if self.diverged is not None:
            dues.append(self.diverged.detail["again_at"])
        return min(dues, default=None)

    @property
    def rolls_back(self) -> bool:
        """Whether what it did is being undone."""
        return self.end is None and self.rollback is not None and self.rollback.outcome == "running"

    @property
    def owes_parent(self) -> bool:
        """Whether the step that waits for it does not know yet that it has ended."""
        if self.end is None or self.created is None or self.end.seq < self.parent_told:
            return False
        return bool(self.created.detail.get("origin", {}).get("parent"))

    def find(self, step: str) -> Record | None:
        """The record of a step by its key, or by its name as `names_of` has it ("charge", "charge#2", "all/0/send")."""
        if step in self.records:
            return self.records[step]
        names = self.names()
        found = (key for name in (step, step.removesuffix("#1")) for key in names if names[key] == name)
        key = next(found, None)
        return None if key is None else self.records[key]

    def names(self) -> dict[str, str]:
        """What the steps are called, by their keys, in the order in which they were begun."""
        return names_of([record.key for record in sorted(self.records.values(), key=_position)])

    def reload(self, entries: Iterable[Entry]) -> None:
        """Be as these entries say, which are fewer than before. Records stay the objects that they are."""
        before, positions = self.records, self.positions
        self.__init__()  # type: ignore[misc]
        for entry in entries:
            self.apply(entry)
        self.positions = max(self.positions, positions)
        for key in self.records.keys() & before.keys():
            for field in Record.__struct_fields__:
                setattr(before[key], field, getattr(self.records[key], field))
            self.records[key] = before[key]
        self.open = {key: self.records[key] for key in self.open}
        self.inside = {key: [self.records[each.key] for each in inner] for key, inner in self.inside.items()}

    def record(self, entry: Entry) -> Record:
        """The record of the entry's step."""
        assert entry.step is not None
        record = self.records.get(entry.step)
        if record is None:
            position = entry.position or 0
            record = self.records[entry.step] = Record(entry.step, position)
            self.positions = max(self.positions, position)
            self.steps += record.kind == "do"
            if "/" in record.key:
                self._put_inside(record)
        return record

    def _put_inside(self, record: Record) -> None:
        places = steps_around(record.key)
        for place in places:
            self.inside.setdefault(place, []).append(record)
        around = self.records.get(places[-1]) if places else None
        if around is not None and around.due is not None:  # its next attempt is under way
            self.shut(around)

    def shut(self, record: Record) -> None:
        """The step waits for nothing any more."""
        record.due = None
        self.open.pop(record.key, None)

    def forget(self, record: Record) -> None:
        """Nobody is there any more who waits for the step: should one come, it begins anew."""
        self.shut(record)
        if self.records.pop(record.key, None) is not None:
            for place in steps_around(record.key):
                self.inside[place].remove(record)

    def below(self, key: str) -> Sequence[Record]:
        """The steps that stand in that one, however deep."""
        return tuple(self.inside.get(key, ()))

    # Which event a wait gets

    def event_for(self, type: str, match: dict[str, Any] | None) -> Entry | None:
        """The first event that a wait for this may take, if there is one."""
        return next((event for event in self.inbox.values() if fits(event, type, match)), None)

    def wait_for(self, event: Entry) -> Record | None:
        """The wait that gets this event, if one wants it, and its time is not over: the one that has waited longest."""
        at = event.at if self.paused_at is None else self.paused_at  # since when deadlines stand still
        waits = (each for each in self.waits() if each.type is not None and (each.due is None or each.due > at))
        return next((each for each in waits if fits(event, each.type or "", each.match)), None)


def fits(event: Entry, type: str, match: dict[str, Any] | None) -> bool:
    """Whether the event is of the type, with all that `match` asks for in its payload."""
    if event.detail["type"] != type:
        return False
    fields = event.detail.get("fields", {})
    return all(name in fields and _same(fields[name], value) for name, value in (match or {}).items())


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _position(record: Record) -> int:
    return record.position


ENDS: dict[str, Status] = {
    "workflow_completed": "complete",
    "workflow_errored": "errored",
    "workflow_terminated": "terminated",
    "workflow_abandoned": "abandoned",
}


def _queued(history: History, entry: Entry) -> None:
    history.created, history.trace = entry, entry.detail.get("trace")


def _trace_begun(history: History, entry: Entry) -> None:
    history.trace = entry.detail["trace"]


def _started(history: History, entry: Entry) -> None:
    history.started = True


def _ended(history: History, entry: Entry) -> None:
    history.end = entry
    history.paused, history.paused_at = False, None


def _abandoned(history: History, entry: Entry) -> None:
    history.failed = history.end
    _ended(history, entry)


def _terminated(history: History, entry: Entry) -> None:
    if history.rollback is None:
        orphan(history, list(history.records), rollback=False)
    _ended(history, entry)


def _retried(history: History, entry: Entry) -> None:
    """The steps that failed the instance are tried anew, with all their attempts; what they led to is open again.

    What was begun because of the failure is forgotten.
    """
    blamed = {} if history.end is None else history.end.detail
    history.end = None
    forgotten = [key for key in entry.detail.get("forgotten", ()) if key in history.records]
    history.anew.update(forgotten)
    drop(history, forgotten)
    history.started = not history.limited
    history.again = max(history.again, entry.detail.get("again", 0))
    for key in decided(history, blamed.get("branches", [])):
        reopen(history, key)
    for step in (entry.step or "", *blamed.get("also", [])):
        if step in history.records:
            _try_anew(history, history.records[step])


def _try_anew(history: History, failed: Record) -> None:
    for key in led_to(history, failed.key):
        reopen(history, key)
    failed.again += 1
    inner = history.below(failed.key)
    for record in (failed, *inner):
        if record.kind == "wait" and record.failure is not None:
            if record is failed or record.position == max(each.position for each in inner):  # else it was dealt with
                history.forget(record)
        elif record is failed or record.failure is not None:
            record.done, record.attempts, record.failure, record.type = False, 0, None, None
            if record.child is not None:
                history.open[record.key] = record


def _goes_on(history: History, entry: Entry) -> None:
    history.diverged = None


_FOLDS: dict[str, Callable[[History, Entry], None]] = {
    "workflow_queued": _queued,
    "workflow_started": _started,
    "workflow_completed": _ended,
    "workflow_errored": _ended,
    "workflow_terminated": _terminated,
    "workflow_abandoned": _abandoned,
    "workflow_retried": _retried,
    "workflow_running": _goes_on,
    "trace_begun": _trace_begun,
    **OUTCOMES,
    **LIFECYCLE,
}
