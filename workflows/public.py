"""A journal as the public sees it: events under the names that Cloudflare Workflows uses, and steps. Pure.

A journal's row may stand for several events: a step that succeeds at once is one row, and five events. An event's id
is a whole number that grows, and is the same whenever the journal is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from z0.actors import codec
from z0.actors.clock import datetime_of
from z0.actors.errors import Z0Error

from .errors import StepNotFound
from .history import ENDS
from .journal import Entry
from .keys import name_of, names_of

REDACTED = "[REDACTED]"
_ANEW = frozenset({"workflow_restarted", "workflow_continued"})
Read = Callable[[str], bytes]
_IDS_PER_ROW = 8
_PUBLIC = ("workflow_", "step_", "attempt_", "sleep_", "wait_", "rollback_", "alert_")  # others are the journal's own
GOING = ("workflow_", "rollback_started")
"""What entries begin with that say whether the instance goes on or has ended (`ENDS`)."""
_WAITS = frozenset({"sleep_started", "wait_started", "attempt_errored", "rollback_attempt_errored", "child_started"})
_STEP_ENDS = ("step_completed", "step_errored")
_STARTS = {"step": "step_started", "attempt": "step_started", "sleep": "sleep_started", "wait": "wait_started"}


class InstanceEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Something that happened to an instance. As JSON its fields have the names that Cloudflare gives them."""

    instance_id: str
    event_id: int
    """Grows from event to event; a cursor."""
    timestamp: datetime
    type: str
    step_name: str | None = None
    """The step's name, behind those of the steps around it: "settle/charge"; "#2" is the second of that name."""
    config: dict[str, Any] | None = None
    attempt: int | None = None
    retry_delay_ms: int | None = None
    duration_ms: int | None = None
    event_type: str | None = None
    """Of the event that a wait waits for."""
    params: Any = None
    output: Any = None
    error: dict[str, Any] | None = None
    until: datetime | None = None
    """When a sleep ends, or a wait is given up."""
    reason: str | None = None


class Expander:
    """Makes events of one instance's entries, which it is given in order, from the first."""

    def __init__(self, instance: str) -> None:
        """Nothing was read yet."""
        self._instance = instance
        self._begun: set[str] = set()
        self._attempt: dict[str, int] = {}
        self._since: dict[str, int] = {}
        self._ended = False

    def events(self, entry: Entry) -> list[InstanceEvent]:
        """What the entry says, in order.

        Whenever a sleep, a wait for an event or for a child, or a retry's delay begins, the last one is
        `workflow_waiting`: other branches may go on.
        """
        if entry.event in _ANEW:
            self.__init__(self._instance)  # type: ignore[misc]
        if entry.event.startswith(GOING):
            self._ended = entry.event in ENDS
        elif self._ended:  # what is still heard of children is not the instance's life any more
            return []
        made: list[tuple[str, dict[str, Any]]] = []
        if entry.event.startswith(_PUBLIC) and not entry.event.endswith("attempt_ignored"):
            made += [*self._before(entry), (entry.event, self._fields(entry))]
        if entry.event == "child_started" and entry.step is not None:
            self._begin(entry.step, entry.at)
            made.append(("step_started", _config(entry)))
        if entry.event in _WAITS:
            made.append(("workflow_waiting", {}))
        if entry.event.endswith(_STEP_ENDS):  # should it be taken anew, that is another beginning
            self._begun.discard(entry.step or "")
            self._attempt.pop(entry.step or "", None)
        first = entry.seq * _IDS_PER_ROW
        name = None if entry.step is None else name_of(entry.step)
        return [
            InstanceEvent(
                instance_id=self._instance,
                event_id=first + number,
                timestamp=datetime_of(_at(entry, event)),
                type=event,
                step_name=None if event == "workflow_waiting" else name,
                **fields,
            )
            for number, (event, fields) in enumerate(made)
        ]

    def _before(self, entry: Entry) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events that the row leaves out."""
        key, (of, group, how) = entry.step, _parts(entry.event)
        if key is None or group not in _STARTS:
            return
        started = of + _STARTS[group]
        if entry.event == started:
            self._begin(key, entry.at)
            return
        if key not in self._begun:
            self._begin(key, _at(entry, started))
            yield started, _config(entry)
        if group not in ("step", "attempt") or entry.attempt is None:
            return
        if self._attempt.get(key) != entry.attempt:
            self._attempt[key] = entry.attempt
            if (group, how) != ("attempt", "started"):
                yield f"{of}attempt_started", {"attempt": entry.attempt}
        if group == "step":
            taken = {} if entry.started is None else {"duration_ms": (entry.at - entry.started) // 1_000}
            yield f"{of}attempt_{how}", {"attempt": entry.attempt, **taken, **_error(entry)}

    def _begin(self, key: str, at: int) -> None:
        self._begun.add(key)
        self._since[key] = at

    def _fields(self, entry: Entry) -> dict[str, Any]:
        detail, fields = entry.detail, _error(entry)
        if entry.attempt is not None:
            fields["attempt"] = entry.attempt
        if entry.event.endswith("attempt_errored"):
            fields["retry_delay_ms"] = round((detail["retry_at"] - entry.at) / 1_000)  # made some microseconds later
        elif entry.step is not None and not entry.event.endswith("_started"):
            fields["duration_ms"] = (entry.at - self._since.get(entry.step, entry.at)) // 1_000
        if entry.event in ("workflow_queued", "workflow_continued"):
            fields["params"] = _value(entry)
        elif entry.value is not None or "blob" in entry.detail:
            fields["output"] = _value(entry)
        if detail.get("until") is not None:
            fields["until"] = datetime_of(detail["until"])
        for name, field in (("type", "event_type"), ("reason", "reason"), ("alert", "event_type")):
            if name in detail:
                fields[field] = detail[name]
        return fields


def _parts(event: str) -> tuple[str, str, str]:
    """Of "rollback_step_errored": "rollback_", "step", "errored"; of "step_errored": "", "step", "errored"."""
    inner = event.removeprefix("rollback_")
    group, _, how = inner.partition("_")
    return event[: len(event) - len(inner)], group, how


def _at(entry: Entry, event: str) -> int:
    begins = event.endswith("_started") and event != entry.event
    return entry.started if begins and entry.started is not None else entry.at


def _config(entry: Entry) -> dict[str, Any]:
    settings = entry.detail.get("settings")
    return {} if settings is None else {"config": msgspec.to_builtins(settings)}


def _error(entry: Entry) -> dict[str, Any]:
    error = entry.detail.get("error")
    return {"error": {"type": error["type"], "message": error["message"]}} if isinstance(error, dict) else {}


def _value(entry: Entry, read: Read | None = None) -> Any:
    blob = entry.detail.get("blob")
    if entry.value is None and blob is None:
        return None
    if entry.detail.get("sensitive"):
        return REDACTED
    if blob is not None and read is None:
        return f"<in the file {blob}>"
    try:
        value = entry.value if blob is None or read is None else read(blob)
        return None if value is None else codec.decode(value)
    except (Z0Error, msgspec.MsgspecError):  # of another house's codec, or too large to stand here
        return f"<in the file {blob}>" if entry.value is None else f"<{len(entry.value):,} bytes>"


# Steps


class StepAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a step, which has ended."""

    attempt: int
    ended: datetime
    started: datetime | None = None
    error: dict[str, Any] | None = None
    """Type, message and traceback."""
    retry_at: datetime | None = None


class StepInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of one step."""

    key: str
    name: str
    """As the body gave it, behind those of the steps and the number of the branch around it: "settle/charge",
    "all/0/send", "charge#2"; the key when a step before has that name."""
    kind: str
    position: int | None
    """In which order it was begun."""
    status: str
    """"running", "waiting", "complete", "errored", or "given up": the instance has ended, or is undone, without it."""
    begun: datetime
    ended: datetime | None = None
    output: Any = None
    """What it returned, as plain data."""
    error: dict[str, Any] | None = None
    attempts: list[StepAttempt] = []


_OUTCOMES = {
    "step_completed": "complete",
    "sleep_completed": "complete",
    "wait_completed": "complete",
    "alert_raised": "complete",
    "rollback_step_completed": "complete",
    "rollback_step_errored": "errored",
    "rollback_attempt_errored": "waiting",
    "child_started": "waiting",
    "value_recorded": "complete",
    "step_errored": "errored",
    "wait_timed_out": "errored",
    "attempt_errored": "waiting",
    "sleep_started": "waiting",
    "wait_started": "waiting",
}


def steps_of(entries: Iterable[Entry], read: Read | None = None) -> list[StepInfo]:
    """All steps, in the order in which they were begun; `read`: of results that are kept in files, by their names."""
    found: dict[str, StepInfo] = {}
    events: dict[int, Entry] = {}
    ended = undoes = False
    for entry in entries:
        if entry.event.startswith(GOING):
            ended = entry.event in ENDS
            undoes = (undoes or entry.event == "rollback_started") and entry.event not in _ANEW
        if entry.event == "event_received":
            events[entry.seq] = entry
        if entry.event in _ANEW:  # what was done from the step on is as if it had never been
            anew = found.get(entry.step or "")
            first = 0 if anew is None or anew.position is None else anew.position
            found = {key: info for key, info in found.items() if (info.position or 0) < first}
        if entry.step is None or entry.position is None:
            continue
        info = found.get(entry.step)
        if info is None:
            path = entry.step.rpartition("/")[2]
            info = StepInfo(
                key=entry.step,
                name="",
                kind=path.partition(":")[0],
                position=entry.position,
                status="running",
                begun=datetime_of(entry.started or entry.at),
            )
        found[entry.step] = _after(info, entry, events, read)
    for key, info in found.items():
        if info.status in ("running", "waiting") and (ended or (undoes and not key.startswith("rollback:"))):
            found[key] = msgspec.structs.replace(info, status="given up")
    steps = sorted(found.values(), key=lambda info: info.position or 0)
    names = names_of([info.key for info in steps])
    return [msgspec.structs.replace(info, name=names[info.key]) for info in steps]


def _after(info: StepInfo, entry: Entry, events: dict[int, Entry], read: Read | None) -> StepInfo:
    status = _OUTCOMES.get(entry.event, "running")
    error = entry.detail.get("error")
    attempts = info.attempts
    if entry.attempt is not None and not entry.event.endswith(("attempt_started", "step_started")):
        retry_at = entry.detail.get("retry_at")
        attempts = [
            *attempts,
            StepAttempt(
                attempt=entry.attempt,
                started=None if entry.started is None else datetime_of(entry.started),
                ended=datetime_of(entry.at),
                error=error,
                retry_at=None if retry_at is None else datetime_of(retry_at),
            ),
        ]
    output = _value(entry, read)
    if entry.event == "wait_completed":
        output = _value(events[entry.detail["event"]]) if entry.detail.get("event") in events else None
    return msgspec.structs.replace(
        info,
        status=status,
        ended=datetime_of(entry.at) if status in ("complete", "errored") else None,
        output=output,
        error=error,
        attempts=attempts,
    )


def step_named(entries: Iterable[Entry], instance: str, name: str, read: Read | None = None) -> StepInfo:
    """The step of that name or key; of several the first. Raises StepNotFound."""
    steps = steps_of(entries, read)
    for info in steps:
        if name in (info.key, info.name):
            return info
    raise StepNotFound(instance, name, [info.name for info in steps if info.kind != "value"])
