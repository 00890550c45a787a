"""An instance whose code does not do what its journal has: it is paused, until the code is brought back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from z0.actors.schedule import as_long_again

from .errors import NonDeterminismError
from .failure import failure_of

if TYPE_CHECKING:
    from .engine import Engine
    from .history import Record
    from .run import Run

log = logging.getLogger("z0.workflows")

LOOK_AGAIN_US = 300 * 1_000_000
_LOOK_AGAIN_MAX_US = 86_400 * 1_000_000


def pause(engine: Engine, error: NonDeterminismError) -> None:
    """The code does not fit; look again, ever more rarely, whether it does."""
    log.error("%s is paused: %s", engine.address, error)
    now, first = engine.clock.now_us(), engine.history.diverged
    since = now if first is None else first.detail["since"]
    again_at = as_long_again(since, now, LOOK_AGAIN_US, _LOOK_AGAIN_MAX_US)
    engine.note("workflow_paused", reason=str(error), error=failure_of(error), since=since, again_at=again_at)


def difference(run: Run, found: str) -> NonDeterminismError:
    """The code did something else than the journal has: the error, which the run keeps."""
    first = min((run.history.records[key] for key in run.owed), key=lambda record: record.position, default=None)
    expected = "nothing more" if first is None else first.key
    position = run.history.positions + 1 if first is None else first.position
    run.diverged = NonDeterminismError(run.engine.address, position, expected, found)
    return run.diverged


def changed(run: Run, record: Record, expected: str, found: str) -> NoReturn:
    """The code came to the step in another way than the journal has it. Raises NonDeterminismError."""
    run.diverged = NonDeterminismError(run.engine.address, record.position, expected, found)
    raise run.diverged


def reordered(run: Run, record: Record, last: int) -> NoReturn:
    """The code came to the step behind the one of that position, which is a later one. Raises NonDeterminismError."""
    records = run.history.records.values()
    later = next((each.key for each in records if each.position == last), "a later step")
    changed(run, record, record.key, f"{later}, and to {record.key}, which the journal has earlier, behind it")


def check_wait(run: Run, record: Record, type: str, match: dict[str, Any] | None) -> None:
    """Make sure that the code waits for the event that the journal waits for. Raises NonDeterminismError."""
    if record.type is None or record.done:  # nobody waits for one
        return
    plain: dict[str, Any] | None = msgspec.to_builtins(match)
    if (record.type, record.match or None) != (type, plain or None):
        expected = f"{record.key} for an event {_event(record.type, record.match)}"
        changed(run, record, expected, f"the same for an event {_event(type, plain)}")


def _event(type: str, match: dict[str, Any] | None) -> str:
    return f"of type {type!r}" + (f" with {match}" if match else "")


def check_child(run: Run, record: Record, namespace: str, id: str | None) -> None:
    """Make sure that the step has the child that the code wants; `id`: if it gives one. Raises NonDeterminismError."""
    child = record.child
    if child is None or (child.namespace, child.id) == (namespace, id or child.id):
        return
    changed(run, record, f"{record.key} with {child.namespace} {child.id!r}", f"{namespace} {id or child.id!r}")
