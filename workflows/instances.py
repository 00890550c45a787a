"""Instances from outside: made, found, asked and told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, cast

from z0.actors.clock import Span, seconds, to_us
from z0.actors.errors import InvalidName
from z0.actors.kind import Kind
from z0.actors.names import Address
from z0.actors.node import Node

from . import bulk
from .bulk import BatchReport, BulkResult, InstanceInfo, Verb
from .calendar import Schedules
from .errors import InstanceExists, InstanceFailed, InstanceNotFound, WrongStatus
from .event import check_type, fields_of
from .failure import error_of
from .flow import Queued, groups_of, key_in, rules_of
from .history import FINISHED, Status
from .ids import check_id, random_id
from .journal import Entry
from .public import ENDS, Expander, InstanceEvent, StepInfo, step_named, steps_of
from .schedules import Schedule
from .services import ENTRIES, services
from .status import InstanceStatus
from .turnstile import Turnstile, home_of
from .values import loaded, returned_by, stored
from .workflow import Workflow

_PAGE = 1_000
W = TypeVar("W", bound=Workflow)


class Workflows:
    """The instances of one tenant: `runtime.workflows`."""

    def __init__(self, node: Node, tenant: str) -> None:
        """Of this runtime."""
        self.node = node  # the engine; no part of the public interface
        self.tenant = tenant

    async def create(
        self,
        cls: type[W] | str,
        payload: Any = None,
        *,
        id: str | None = None,
        on_conflict: Literal["raise", "existing"] = "raise",
        key: str | None = None,
        priority: int = 0,
    ) -> Instance[W]:
        """Begin an instance; it is durable on return. Without `id` it gets a random one.

        `cls`: the class, or the namespace of one that is known. `on_conflict`: "existing" gives the instance that has
        the id already, as it is. `key`, `priority`: for classes with `concurrency` or `debounce`; the key, in place of
        the one that these take from the payload; the higher the priority, the sooner it leaves the queue. An instance
        of a class with `debounce` does not exist before it begins, though the directory knows of it. Raises
        InstanceExists, InvalidName, InvalidValue.
        """
        instance = self.get(cls, random_id(self.node) if id is None else id)
        encoded = stored(payload, f"the payload of {instance.id}", instance.cls.result_bytes)
        detail = self._detail(instance.cls, payload, key, priority)
        if instance.cls.debounce is not None:
            return self.get(cls, await self._debounce(instance.cls, instance.id, payload, encoded, detail, key))
        try:
            await instance._stub.z0_create(encoded, detail)
        except InstanceExists:
            if on_conflict != "existing":
                raise
        return instance

    def _detail(self, cls: type[Workflow], payload: Any, key: str | None, priority: int) -> dict[str, Any]:
        """What the journal is to know of a new instance besides its payload."""
        tracer = services(self.node).tracer
        trace = None if tracer is None else tracer.here()
        detail: dict[str, Any] = {} if trace is None else {"trace": trace}
        rules = rules_of(cls.concurrency)
        if rules:
            detail["groups"] = groups_of(rules, payload, key, self.tenant)
            detail["priority"] = priority
        return detail

    async def _debounce(
        self, cls: type[Workflow], id: str, payload: Any, encoded: bytes, detail: dict[str, Any], given: str | None
    ) -> str:
        how = cls.debounce
        assert how is not None
        most = None if how.max_wait is None else to_us(seconds(how.max_wait))
        key = key_in(payload, how.key, given)
        turnstile = self._turnstile(cls)
        return await turnstile.z0_debounce(self.tenant, key, id, encoded, detail, to_us(seconds(how.wait)), most)

    def _turnstile(self, cls: type[Workflow]) -> Turnstile:
        return self.node.stub(Turnstile, self.node.kind(cls).namespace, home_of(cls, self.tenant), None)

    def schedules(self, cls: type[W] | str) -> Schedules:
        """The schedules of a class: those that it declares, and others."""
        return Schedules(self, self._class(cls))

    async def schedule(self, cls: type[W] | str, schedule: Schedule) -> str:
        """Have instances created by the calendar; the schedule's name. The same again changes nothing."""
        return await self.schedules(cls).set(schedule)

    async def queue(self, cls: type[W] | str) -> Sequence[Queued]:
        """The instances of a class with `concurrency` that hold slots, then those that wait for one, in order."""
        known = self._class(cls)
        members = await self._turnstile(known).z0_queue()
        return [Queued(tenant, id, state, priority) for tenant, id, state, priority in members]

    # Many

    async def create_batch(self, cls: type[W] | str, instances: Sequence[Mapping[str, Any]]) -> BatchReport:
        """Create many: `[{"payload": ..., "id": ...}, ...]`, the arguments of `create` for each.

        Each is created wholly or not at all, and what was not is reported with its reason.
        """
        return await bulk.created(self, cls, instances)

    async def list(
        self,
        cls: type[W] | str,
        *,
        status: Status | None = None,
        prefix: str = "",
        after: str = "",
        limit: int | None = 100,
    ) -> list[InstanceInfo]:
        """Instances in the order of their ids, from behind `after`. None of those that sleep is opened for it."""
        found: list[InstanceInfo] = []
        async for info in bulk.listed(self, cls, status, prefix, after):
            if limit is not None and len(found) >= limit:
                break
            found.append(info)
        return found

    async def count(self, cls: type[W] | str, *, status: Status | None = None, prefix: str = "") -> int:
        """How many instances there are, in all or of one status."""
        counts = await self.counts(cls, prefix=prefix)
        return sum(counts.values()) if status is None else counts.get(status, 0)

    async def counts(self, cls: type[W] | str, *, prefix: str = "") -> dict[str, int]:
        """How many instances there are, by status."""
        return dict(await bulk.counted(self, cls, prefix))

    async def retry_failed(
        self,
        cls: type[W] | str,
        *,
        prefix: str = "",
        error: str | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Sequence[BulkResult]:
        """Retry failed instances, each at the step that failed, and say what became of each.

        `error`: only those whose error's type or message holds this. `dry_run`: only say which they are, and why.
        """
        ids = [info.id for info in await self.list(cls, status="errored", prefix=prefix, limit=None)]
        found = await bulk.done(self, cls, "retry", ids[:limit] if error is None else ids, {}, dry_run, error)
        return found if limit is None else found[:limit]

    async def bulk(
        self, cls: type[W] | str, verb: Verb, ids: Sequence[str], *, dry_run: bool = False, **arguments: Any
    ) -> Sequence[BulkResult]:
        """Do the same to many instances ("terminate", "pause", "resume", "delete", ...), and say what became of each.

        `arguments` are those of the instance's method. Raises ValueError for anything else that might be done.
        """
        return await bulk.done(self, cls, verb, ids, arguments, dry_run)

    async def purge(
        self, cls: type[W] | str, *, unused_for: Span, status: Status | None = None, limit: int | None = None
    ) -> int:
        """Delete finished instances that nobody has used for so long; how many. See `Workflow.retention`."""
        before = self.node.clock.now() - timedelta(seconds=seconds(unused_for))
        found = [
            info.id
            for each in sorted(FINISHED if status is None else FINISHED & {status})
            for info in await self.list(cls, status=each, limit=None)
            if info.last_use is not None and info.last_use <= before
        ]
        return sum(result.done for result in await bulk.done(self, cls, "delete", found[:limit], {}, False))

    # One

    def get(self, cls: type[W] | str, id: str) -> Instance[W]:
        """A handle on an instance, which need not exist; nothing is loaded. Raises InvalidName."""
        return Instance(self.node, self._class(cls), self.tenant, check_id(id))

    def kind(self, cls: type[Workflow] | str) -> Kind:
        """What the engine knows of the class. Raises InvalidName, TypeError."""
        return self.node.kind(self._class(cls))

    def _class(self, cls: type[W] | str) -> type[W]:
        if isinstance(cls, str):
            kind = self.node.kind_of(cls)
            if kind is None or not issubclass(kind.cls, Workflow):
                raise InvalidName(f"workflow {cls!r}", "is not known; name its class in Runtime(actors=[...])")
            return cast(type[W], kind.cls)
        if not issubclass(cls, Workflow):
            raise TypeError(f"{cls.__name__} is not a subclass of z0.Workflow")
        return cls


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
        clock = self._node.clock
        over = asyncio.get_running_loop().create_future()
        timer = None if timeout is None else clock.call_later(seconds(timeout), lambda: _set(over))
        try:
            while True:
                told = self._node.followers.follow(self._address)
                status = await self.status()
                if status.finished:
                    break
                await asyncio.wait([told, over], return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    raise TimeoutError(f"{self!r} has not ended within {timeout}: {status.status}")
        finally:
            if timer is not None:
                timer.cancel()
        if status.status == "complete":
            kind = returned_by(self.cls.run)
            return loaded(stored(status.output, "the output", 2**63), kind, f"the output of {self!r}")
        if status.error is not None and status.status == "errored":
            raise error_of(status.error)
        raise InstanceFailed(repr(self), status.status, status.reason or "it has no result")

    async def wait_for_status(self, *statuses: Status, timeout: Span | None = None) -> InstanceStatus:
        """How it is, as soon as it has one of these statuses.

        Raises WrongStatus when it has ended with another one, TimeoutError.
        """
        clock = self._node.clock
        over = asyncio.get_running_loop().create_future()
        timer = None if timeout is None else clock.call_later(seconds(timeout), lambda: _set(over))
        try:
            while True:
                news = self._node.followers.follow(self._address, ENTRIES)
                status = await self.status()
                if status.status in statuses:
                    return status
                if status.finished:
                    wanted = f"waiting for it to be {' or '.join(statuses)}"
                    raise WrongStatus(repr(self), status.status, wanted, "it has ended")
                await asyncio.wait([news, over], return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    raise TimeoutError(f"{self!r} is {status.status} after {timeout}")
        finally:
            if timer is not None:
                timer.cancel()

    async def send_event(self, type: str, payload: Any = None, *, id: str | None = None) -> bool:
        """Tell it something; whether that is new: the same id again does nothing. It is durable on return.

        Raises InvalidName, InvalidValue, LimitExceeded, WrongStatus when the instance has ended.
        """
        encoded = stored(payload, f"the payload of event {type!r}", self.cls.result_bytes)
        sender = random_id(self._node) if id is None else id
        return await self._found().z0_send_event(check_type(type), encoded, fields_of(payload), sender)

    async def events(self, cursor: int = 0, types: Collection[str] | None = None) -> AsyncIterator[InstanceEvent]:
        """All that happened, from behind the event whose `event_id` is `cursor`, and what happens, until it has ended.

        `types`: only events of these. It does not keep the instance in memory.
        """
        expander, after, ended = Expander(self.id), 0, False
        while True:
            news = self._node.followers.follow(self._address, ENTRIES)
            entries = await self._found().z0_journal(after, _PAGE)
            for entry in entries:
                after = entry.seq
                for event in expander.events(entry):
                    if event.event_id > cursor and (types is None or event.type in types):
                        yield event
                if entry.event.startswith("workflow_"):
                    ended = entry.event in ENDS
            if len(entries) < _PAGE:
                if ended:
                    return
                await asyncio.wait([news])

    async def steps(self) -> list[StepInfo]:
        """Its steps, in the order in which they were begun, with their attempts and results."""
        return steps_of(await self.journal())

    async def step(self, name: str) -> StepInfo:
        """One step, by its name ("charge"; "charge#2": the second of that name) or its key. Raises StepNotFound."""
        return step_named(await self.journal(), repr(self), name)

    async def delete(self) -> None:
        """Remove it: its file, and all that is known of it. One that has not ended is terminated first.

        Raises WrongStatus when it was retried or restarted meanwhile.
        """
        await self._found().z0_delete()
        if not await self._node.removals.remove(self._node.kind(self.cls), self._address):
            raise WrongStatus(repr(self), "going on again", "deleting it", "delete it once more")

    async def terminate(self) -> None:
        """End it as it is. Raises WrongStatus when it has ended."""
        await self._found().z0_terminate()

    async def retry(self) -> None:
        """Have a failed instance go on at the step that failed, with all its attempts. Raises WrongStatus."""
        await self._found().z0_retry()

    async def abandon(self, reason: str) -> None:
        """Close a failed instance for good. Raises WrongStatus."""
        await self._found().z0_abandon(reason)

    async def journal(self) -> list[Entry]:
        """All that happened, in order."""
        return await self._found().z0_journal()

    def _found(self) -> W:
        """Its stub, when it may exist: asking for what does not must not create it."""
        node, address = self._node, self._address
        node.admit(None)
        if address not in node.hosts and address not in node.closing and not node.catalog.has(address):
            raise InstanceNotFound(repr(self))
        return self._stub


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
