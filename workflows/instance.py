"""The handle on one instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from typing import Any, Generic, TypeVar

from z0.actors.call import CURRENT
from z0.actors.clock import Span, seconds
from z0.actors.extensions import refuse
from z0.actors.names import Address, file_path
from z0.actors.node import Node

from . import blobs
from .annotations import returned_by
from .errors import InstanceFailed, InstanceNotFound, WrongStatus
from .event import check_event_id, check_type, fields_of
from .failure import error_of
from .history import ENDS, Status, check_status
from .ids import check_id, random_id
from .journal import Entry
from .kin import derived_id
from .public import GOING, Expander, InstanceEvent, Read, StepInfo, step_named, steps_of
from .services import ENTRIES
from .status import InstanceStatus
from .values import loaded, stored
from .workflow import Workflow

_PAGE = 1_000
T = TypeVar("T")
W = TypeVar("W", bound=Workflow)


class Instance(Generic[W]):
    """A handle on one instance. Every method but the properties raises InstanceNotFound when it does not exist."""

    def __init__(self, node: Node, cls: type[W], tenant: str, id: str) -> None:
        """Made by `Workflows`."""
        self.cls = cls
        self.id = id
        self._node = node
        self._stub = node.stub(cls, id, tenant, None)
        self._address = Address(tenant, node.kind(cls).namespace, id)

    def __repr__(self) -> str:
        """Class and id."""
        return f"<instance {self.id!r} of {self.cls.__name__}>"

    async def status(self) -> InstanceStatus:
        """How it is."""
        return await self._found().z0_status()

    async def result(self, timeout: Span | None = None) -> Any:
        """What the body returns, when it has, as the type that `run` is annotated to return.

        Raises the error that failed the instance, InstanceFailed when it was terminated or abandoned, TimeoutError
        when it has not ended within the span.
        """
        status = await self._until("", lambda status: status.finished, timeout)
        if not status.finished:
            raise TimeoutError(f"{self!r} has not ended within {timeout}: {status.status}")
        if status.status == "complete":
            kind = returned_by(self.cls.run)
            return loaded(stored(status.output, "the output", 2**63), kind, f"the output of {self!r}")
        if status.error is not None and status.status == "errored":
            raise error_of(status.error, self.cls.__module__)
        raise InstanceFailed(repr(self), status.status, status.reason or "it has no result")

    async def wait_for_status(self, *statuses: Status, timeout: Span | None = None) -> InstanceStatus:
        """How it is, as soon as it has one of these statuses.

        Raises WrongStatus when it has ended with another one, TimeoutError, ValueError for one that does not exist.
        """
        check_status(*statuses)
        status = await self._until(ENTRIES, lambda status: status.status in statuses or status.finished, timeout)
        if status.status in statuses:
            return status
        if status.finished:
            wanted = f"waiting for it to be {' or '.join(statuses)}"
            raise WrongStatus(repr(self), status.status, wanted, "it has ended")
        raise TimeoutError(f"{self!r} is {status.status} after {timeout}")

    async def _until(
        self, topic: str, enough: Callable[[InstanceStatus], bool], timeout: Span | None
    ) -> InstanceStatus:
        """How it is as soon as that is enough, or how it was when the time was over.

        `topic`: of the news that may make a difference.
        """
        self._node.admit_loop()
        over = asyncio.get_running_loop().create_future()
        timer = None if timeout is None else self._node.clock.call_later(seconds(timeout), lambda: _set(over))
        try:
            while True:
                news = self._node.followers.follow(self._address, topic)
                status = await self.status()
                if enough(status):
                    return status
                await asyncio.wait([news, over], return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    return status
        finally:
            if timer is not None:
                timer.cancel()

    async def send_event(self, type: str, payload: Any = None, *, id: str | None = None) -> bool:
        """Tell it something; whether that is new: the same id again does nothing. It is durable on return.

        In a step it is sent once, however often the step runs: without `id` it has one that follows from the step.

        Raises InvalidName, InvalidValue, LimitExceeded, WrongStatus when the instance has ended.
        """
        encoded = stored(payload, f"the payload of event {type!r}", self.cls.result_bytes)
        chosen = self._event_id() if id is None else check_event_id(id)
        return await self._found().z0_send_event(check_type(type), encoded, fields_of(payload), chosen)

    def _event_id(self) -> str:
        sent = key_of_step()
        return random_id(self._node) if sent is None else derived_id(sent)

    async def terminate(self, *, rollback: bool = False) -> None:
        """End it as it is, or after undoing its steps (`rollback`). Raises WrongStatus when it has ended.

        What is under way is cancelled. Instances that its steps wait for are terminated too.
        """
        await self._found().z0_terminate(rollback)

    async def pause(self) -> None:
        """Have it begin nothing new: attempts that are under way end first. Raises WrongStatus when it has ended."""
        await self._found().z0_pause()

    async def resume(self) -> None:
        """Go on after a pause; deadlines are later by as long. Raises WrongStatus when it is not paused."""
        await self._found().z0_resume()

    async def restart(self, from_step: str | None = None) -> None:
        """Run it anew, whatever has become of it: from its beginning, or from a step, keeping what was before that.

        `from_step`: a name ("charge", "charge#2": the second of that name), or a key of the journal. What it sends has
        other idempotency keys than before. Events that were taken since may be taken again. Raises StepNotFound, and
        WrongStatus when a step before it was undone, or when it has ended and others hold the slots of a class that
        queues nobody.
        """
        await self._found().z0_restart(from_step)

    async def fork(self, from_step: str, id: str) -> Instance[W]:
        """Create another instance that begins with what this one had done before the step.

        Its ledger begins empty: facts that those steps appended to this one's are not copied, nor are events that
        nobody took. Raises StepNotFound, InstanceExists, InvalidName, and WrongStatus when a step before it was undone.
        """
        new = Instance(self._node, self.cls, self._address.tenant, check_id(id))
        payload, detail, entries = await self._found().z0_fork_from(from_step)
        await new._stub.z0_fork(payload, detail, entries, self.id)
        return new

    async def rollback(self) -> None:
        """Try once more to undo what could not be undone. Raises WrongStatus when no rollback has failed."""
        await self._found().z0_rollback()

    async def events(self, cursor: int = 0, types: Collection[str] | None = None) -> AsyncIterator[InstanceEvent]:
        """All that happened, from behind the event whose `event_id` is `cursor`, and what happens, until it has ended.

        `types`: only events of these. It does not keep the instance in memory.
        """
        self._node.admit_loop()
        expander, after, ended = Expander(self.id), 0, False
        while True:
            news = self._node.followers.follow(self._address, ENTRIES)
            entries = await self._found().z0_journal(after, _PAGE)
            for entry in entries:
                after = entry.seq
                for event in expander.events(entry):
                    if event.event_id > cursor and (types is None or event.type in types):
                        yield event
                if entry.event.startswith(GOING):
                    ended = entry.event in ENDS
            if len(entries) < _PAGE:
                if ended:
                    return
                await asyncio.wait([news])

    async def steps(self) -> list[StepInfo]:
        """Its steps, in the order in which they were begun, with their attempts and results."""
        return await self._looked(partial(steps_of, await self.journal()))

    async def step(self, name: str) -> StepInfo:
        """One step, by its name ("charge"; "charge#2": the second of that name) or its key. Raises StepNotFound."""
        return await self._looked(partial(step_named, await self.journal(), repr(self), name))

    async def _looked(self, look: Callable[[Read], T]) -> T:
        """What is seen in the journal, with the results that are kept in files."""
        folder = blobs.folder_of(self._node.folder / file_path(*self._address))
        found: T = await self._node.threads.call(partial(look, partial(blobs.read, folder)))
        return found

    async def delete(self) -> None:
        """Remove it: its file, and all that is known of it. One that has not ended is terminated first.

        Raises WrongStatus when it was retried or restarted meanwhile.
        """
        await self._found().z0_delete()
        if not await self._node.removals.remove(self._node.kind(self.cls), self._address):
            raise WrongStatus(repr(self), "going on again", "deleting it", "delete it once more")

    async def retry(self) -> None:
        """Have a failed instance go on at the step that failed, with all its attempts.

        What failed beside it, and was not followed by another step, is tried anew as well. Branches that were given up
        because of it go on where they were; a child that was terminated with its branch begins another run. Raises
        WrongStatus, also when it was rolled back, and when others hold the slots of a class that queues nobody.
        """
        await self._found().z0_retry()

    async def abandon(self, reason: str) -> None:
        """Close a failed instance for good; its status keeps the error. Raises TypeError, WrongStatus."""
        await self._found().z0_abandon(reason)

    async def journal(self) -> list[Entry]:
        """All that happened, in order."""
        return await self._found().z0_journal()

    def _found(self) -> W:
        """Its stub, when it may exist: asking for what does not must not create it."""
        node, address = self._node, self._address
        node.admit(None)
        if not node.knows(address):
            raise InstanceNotFound(repr(self), self.cls.debounce is not None)
        return self._stub


def key_of_step() -> str | None:
    """What tells what is sent here from all else that is sent, when a step sends it, which may run again."""
    call = CURRENT.get()
    return None if call is None or call.keys is None else call.keys()


refuse(Instance, "its id: workflows.get() makes a handle of that again")


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
