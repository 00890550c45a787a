"""A host keeps one actor live: it delivers messages, ends turns and stops at the first storage error.

- One segment at a time: everything here runs on the event loop, and a segment is a synchronous call.
- A message that cannot wait runs at once in its caller's step when nothing is before it (`run`); any other goes
  through the mailbox, in order, and runs in a task of its own.
- The first write of a turn opens a transaction; the turn is committed when the loop has run everything that was
  ready, so all messages of that moment share one commit.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from .alarms import Alarms
from .background import Background
from .call import Activity, Call
from .clock import perf_ns
from .codec import ATOMS, share
from .database import Database
from .delivery import Delivery
from .errors import Aborted, ActorReset, CommitUnknown, LimitExceeded, QueryError
from .gates import InputGate, Turn
from .handlers import Handler
from .mailbox import Mailbox
from .migrations import migrate
from .names import Address, file_path
from .outbox import Outbox
from .parking import Gone, Parking
from .storage import Storage
from .writes import Writes

if TYPE_CHECKING:
    from .kind import Kind
    from .node import Node

log = logging.getLogger("z0.actors")

_CALLS_MAX = 256  # a caller that never waits must not starve the others for longer than so many messages
_OPAQUE_ROWS = 100  # what SQL of users is taken to have written, until it is measured


class State(enum.Enum):
    """Where a host is in its life; it never goes back."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    EVICTED = "evicted"
    RESET = "reset"


class Host:
    """One live actor: its object, its file, its gates and its mailbox."""

    __slots__ = (
        "__weakref__", "actor", "address", "alarms", "background", "call", "caller", "closed", "created", "database",
        "dead", "delivery", "gate", "kind", "led", "mailbox", "node", "outbox", "parking", "path", "placed", "ready",
        "reason", "running", "running_keys", "state", "storage", "streak", "turn", "unindexed", "used", "version",
        "writes",
    )  # fmt: skip

    def __init__(self, node: Node, kind: Kind, address: Address) -> None:
        """A host whose actor is not open yet."""
        self.node = node
        self.kind = kind
        self.address = address
        self.path = node.folder / file_path(*address)
        self.state = State.OPENING
        self.dead = False  # this incarnation is over
        self.ready = False  # a message that cannot wait may run at once
        self.running = False  # a segment is running now
        self.led = False  # ... and its caller will end the turn
        self.turn: Turn | None = None  # not durable yet
        self.call = Call(self, None)  # whose code runs, for what it starts
        self.caller = 0  # the task that was alone in the last turn
        self.streak = 0  # ... and has ended this many turns since without letting others run
        self.gate = InputGate()
        self.delivery = Delivery(self)
        self.outbox = Outbox(self)
        self.background: Background | None = None
        self.parking = Parking(self)
        self.alarms = Alarms(self)
        self.unindexed = False  # the catalogue must learn of an alarm before the turn is committed
        self.mailbox = Mailbox(address, node.limits, node.load, node.metrics)
        self.running_keys: dict[tuple[str, str], asyncio.Future[None]] = {}
        self.used = 0
        self.version = 0  # migrations that the file has had
        self.reason = ""
        self.placed = False  # has a place among the open files
        self.created = False  # has a new file, and the catalogue does not know yet whether anything is in it
        self.closed = node.loop.create_future()
        self.actor: Any = None
        self.database: Database
        self.writes: Writes
        self.storage: Storage

    def attach(self, database: Database) -> None:
        """Give the host its open file."""
        self.database = database
        self.writes = Writes(self, database)
        self.storage = Storage(self.writes, self.sync, self.alarms, partial(migrate, self, 0))

    @property
    def evicted(self) -> bool:
        """Whether it ended well."""
        return self.state is State.EVICTED

    @property
    def is_open(self) -> bool:
        """Whether messages may run."""
        return self.state is State.OPEN

    @property
    def idle(self) -> bool:
        """Whether nothing is running, waiting or on its way to the disk."""
        return (
            self.state is State.OPEN
            and self.turn is None
            and not self.mailbox
            and not self.delivery.tasks
            and not self.running
            and not self.outbox
            and not self.alarms.runs.busy
            and not self.background
            and self.gate.free
        )

    def refresh(self) -> None:
        """Say whether a message may run at once."""
        self.ready = self.state is State.OPEN and self.gate.free and not self.mailbox and not self.node.draining

    # Segments

    def run(
        self, handler: Handler, args: tuple[Any, ...], kwargs: dict[str, Any], led: bool = False, lone: bool = False
    ) -> Any:
        """Run a handler that cannot wait, as one segment. Raises what it raises, with its writes undone.

        `led`: the caller ends the turn that it may begin; `lone`: at once, so it may commit by itself.
        """
        writes = self.writes
        writes.segment += 1
        writes.lone = lone and handler.direct is not None  # which writes once, as the last thing that it does
        self.led = led
        self.running = True
        try:
            if handler.direct is not None:
                value = handler.direct(self.actor, args, kwargs)
            else:
                try:
                    handler.function(self.actor, *args, **kwargs).send(None)
                except StopIteration as stop:
                    value = stop.value
                else:  # pragma: no cover - a function without an await cannot wait (handlers.can_suspend)
                    raise RuntimeError(f"{handler.name} waited although it has no await")
                if type(value) not in ATOMS:
                    value = share(value)
            if writes.loose:
                self._finish()
            return value
        except Aborted:
            raise self.reset_error() from None
        except BaseException:
            self._undo()
            raise
        finally:
            writes.segment += 1  # what is written between segments is nobody's to undo
            self.running = False

    def enter(self, activity: Activity) -> None:
        """Begin a segment of a handler that may wait."""
        if self.mailbox and self.mailbox[0] is activity:
            self.mailbox.take().begun = True
        self.writes.segment += 1
        self.writes.lone = self.led = False
        self.running = True

    def leave(self) -> None:
        """End a segment at a suspension, keeping its writes. Raises what makes that impossible."""
        if self.writes.loose:
            self._finish()
        self._left()

    def end(self, value: object) -> object:
        """End the last segment; the value as the caller gets it. Raises what makes keeping the writes impossible."""
        try:
            value = share(value)
            if self.writes.loose:
                self._finish()
        except BaseException:
            self.fail_segment()
            raise
        self._left()
        return value

    def divide(self) -> None:
        """End the running segment well and begin another: what raises after this does not take back what was before."""
        if self.writes.loose:
            self._finish()
        self.writes.segment += 1

    def fail_segment(self) -> None:
        """End a segment that raised, taking its writes back."""
        try:
            self._undo()
        finally:
            self._left()

    def _left(self) -> None:
        self.writes.segment += 1
        self.running = False
        if self.mailbox:
            self.node.loop.call_soon(self.delivery.pump)
        else:
            self.refresh()

    def _finish(self) -> None:
        """What the end of an unusual segment has to do."""
        if self.dead:
            raise self.reset_error()
        writes = self.writes
        self.storage.end_segment()
        if writes.wrote == writes.segment and self.database.guarded and self.database.deferred_violations():
            raise QueryError("FOREIGN KEY constraint failed (deferred); the message was rolled back")
        writes.keep()

    def _undo(self) -> None:
        if self.dead:
            return
        self.storage.end_segment()
        self.writes.undo()

    # Turns

    def commit(self) -> None:
        """End the open turn, unless somebody did. Called when the loop has run what was ready."""
        turn = self.turn
        if turn is not None and not self.gate.parked:
            if self.unindexed:
                self.alarms.mark()
                return
            writes = self.writes
            self.node.committer = self.address
            self.database.unmeasured += len(writes.log) + _OPAQUE_ROWS if writes.opaque else len(writes.log)
            turn.pending = writes.end_turn()
            self.node.durability.commit(self, turn, self.node.dirty)

    def committed(self, turn: Turn, failure: BaseException | None) -> None:
        """The commit of this turn has ended."""
        node = self.node
        node.dirty -= 1
        if self.turn is turn:
            self.turn = None
        node.metrics.turn_ended(turn)
        if failure is not None:
            turn.settle(CommitUnknown(str(self.address), str(failure)))
            self.commit_failed(failure)
            return
        if turn.commit_ns:  # else it was no durability's: an eviction's last writes can be rebuilt
            node.metrics.turn_committed(turn)
        if turn.replies is None and turn.settling is None:
            turn.done = True
        else:
            turn.settle(None)
        if self.alarms.touched and not self.dead:
            self.alarms.committed()
        if self.outbox:
            self.outbox.release()
        if self.database.unmeasured >= self.database.measure_at:
            self.parking.checkpoint_if_due()
        if node.attentive:
            node.rested(self)

    def ended_at_once(self, lone: bool) -> bool:
        """A message has ended that nobody waits for any more; whether its caller should let others run now.

        It wrote nothing, or was `lone` and its one write was committed by itself.
        """
        node = self.node
        if lone:
            self.streak += 1
            if self.database.unmeasured >= self.database.measure_at:
                self.parking.checkpoint_if_due()
        if node.attentive:
            node.rested(self)
        node.calls += 1
        return not node.calls % _CALLS_MAX

    def _distrust(self, failure: BaseException) -> None:
        self.node.quarantine.failed(self.address, self.database.path, failure)

    def commit_failed(self, failure: BaseException) -> CommitUnknown:
        """Fail-stop after an error out of COMMIT: what it was to store may be there or not."""
        self.node.metrics.commit_failures += 1
        self._distrust(failure)
        self.reset(f"COMMIT failed: {failure}")
        return CommitUnknown(str(self.address), str(failure))

    def resume(self) -> None:
        """Go on after a thread has given the file back."""
        if self.turn is not None:  # somebody who is not gated wrote meanwhile
            self.node.loop.call_soon(self.commit)
        self.gate.wake()
        self.delivery.pump()
        self.node.rested(self)

    async def durable(self) -> None:
        """Return when everything written so far is committed. Raises what the commit raised."""
        if self.dead:
            raise self.reset_error()
        turn = self.turn
        if turn is not None:
            self.node.loop.call_soon(self.commit)
            await turn.settled()
            if turn.error is not None:
                raise turn.failure()

    async def sync(self) -> None:
        """Return when everything written so far is on the device. Raises what the commit raised."""
        await self.durable()
        await self.node.durability.sync_now(self)

    # The end

    def storage_failed(self, failure: BaseException) -> ActorReset:
        """Fail-stop: nothing that this incarnation holds may be believed any more."""
        self._distrust(failure)
        self.reset(f"storage failed: {failure}")
        return self.reset_error()

    def reset_error(self) -> ActorReset:
        """What whoever still uses this incarnation gets."""
        return ActorReset(str(self.address), self.reason)

    def reset(self, reason: str, spare: Activity | None = None) -> None:
        """Drop the memory; the next message opens the actor anew. `spare`: a message that answers for itself."""
        if self.dead:
            return
        self.abandon(reason)
        log.warning("actor %s reset: %s", self.address, reason)
        self._count_reset()
        turn, self.turn = self.turn, None
        if turn is not None and turn is not self.parking.committing:
            self.node.dirty -= 1
            self.node.metrics.turn_ended(turn)
            turn.settle(self.reset_error())
        self.delivery.discard(spare)
        self.outbox.discard()
        if self.background is not None:
            self.background.cancel()
        self.gate.wake()
        self.node.forget(self)
        self.node.wakeups.lost(self)

    def _count_reset(self) -> None:
        metrics = self.node.metrics
        metrics.resets[self.address.namespace] += 1
        if self.gate.depth:
            metrics.gate_held.add(perf_ns() - self.gate.held_ns)

    def abandon(self, reason: str, state: State = State.RESET) -> None:
        """Let nobody use this incarnation any more."""
        self.state, self.ready, self.reason = state, False, reason
        self.dead = state is State.EVICTED or state is State.RESET
        if hasattr(self, "writes"):
            self.writes.database = Gone(self)  # type: ignore[assignment]
            self.writes.loose = True

    # Blocks

    def hold(self, activity: Activity) -> None:
        """Take the input gate for this activity. Raises LimitExceeded when it is nested too deeply."""
        if self.gate.depth >= self.node.limits.block_depth:
            raise LimitExceeded(f"block() is nested {self.gate.depth} deep (block_depth)")
        if self.gate.depth == 0:
            self.gate.held_ns = perf_ns()
        self.gate.holder = activity
        self.gate.depth += 1
        self.ready = False
        if self.mailbox:
            self.delivery.refuse_cycles()

    def unhold(self) -> None:
        """Give the input gate back, once."""
        self.gate.depth -= 1
        if self.gate.depth == 0:
            self.gate.holder = None
            self.node.metrics.gate_held.add(perf_ns() - self.gate.held_ns)
            self.gate.wake()
            if not self.running:
                self.delivery.pump()
            else:
                self.node.loop.call_soon(self.delivery.pump)
