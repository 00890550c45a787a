"""Instances from outside: made, found, asked and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import msgspec

from z0.actors.clock import Span, seconds, to_us
from z0.actors.errors import InvalidName
from z0.actors.kind import Kind
from z0.actors.node import Node

from . import bulk
from .bulk import BatchReport, BulkResult, InstanceInfo, Verb
from .calendar import Schedules
from .errors import InstanceExists, InstanceNotFound
from .flow import Queued, check_priority, groups_of, key_in, rules_of
from .history import FINISHED, Status, check_status
from .ids import check_id, random_id
from .instance import Instance, key_of_step
from .kin import derived_id
from .lifecycle import Origin
from .schedules import Schedule
from .services import services
from .tracing import trace_here
from .turnstile import Turnstile, home_of
from .values import stored
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

        In a step it is created once, however often the step runs, and its id follows from the step.

        `cls`: the class, or the namespace of one that is known. `on_conflict`: "existing" gives the instance that has
        the id already, as it is. `key`, `priority`: for classes with `concurrency` or `debounce`; the key, in place of
        the one that these take from the payload; the higher the priority, the sooner it leaves the queue. An instance
        of a class with `debounce` does not exist before its wait is over; that it will is durable. Raises
        InstanceExists, InvalidName, InvalidValue, and TypeError or ValueError for another argument that cannot be.
        """
        if on_conflict not in ("raise", "existing"):
            raise ValueError(f"on_conflict={on_conflict!r}: give 'raise' or 'existing'")
        sent = key_of_step()
        chosen = random_id(self.node) if sent is None else derived_id(sent)
        instance = self.get(cls, chosen if id is None else id)
        encoded = stored(payload, f"the payload of {instance.id}", instance.cls.result_bytes)
        debounced = instance.cls.debounce is not None
        if sent is None and debounced:
            sent = random_id(self.node)  # it is created later, maybe twice, and must not be taken for another's
        detail = self.detail_of(instance.cls, payload, key, priority, None if sent is None else Origin(key=sent))
        try:
            if not debounced:
                await instance._stub.z0_create(encoded, detail)
            elif not await _has_begun(instance, sent):
                chosen = await self._debounce(instance, payload, encoded, detail, key, id is not None)
                return self.get(cls, chosen)
        except InstanceExists:
            if on_conflict != "existing":
                raise
        return instance

    def detail_of(
        self, cls: type[Workflow], payload: Any, key: str | None, priority: int, origin: Origin | None
    ) -> dict[str, Any]:
        """What the journal is to know of a new instance besides its payload."""
        trace = trace_here(services(self.node).tracer)
        detail: dict[str, Any] = {} if trace is None else {"trace": trace}
        rules = rules_of(cls.concurrency)
        check_priority(priority)
        if rules:
            detail["groups"] = groups_of(rules, payload, key, self.tenant)
            detail["priority"] = priority
        if origin is not None:
            detail["origin"] = msgspec.to_builtins(origin)
        return detail

    async def _debounce(
        self, one: Instance[W], payload: Any, encoded: bytes, detail: dict[str, Any], given: str | None, named: bool
    ) -> str:
        how = one.cls.debounce
        assert how is not None
        most = None if how.max_wait is None else to_us(seconds(how.max_wait))
        key, wait = key_in(payload, how.key, given, "debounces"), to_us(seconds(how.wait))
        return await self._turnstile(one.cls).z0_debounce(self.tenant, key, one.id, encoded, detail, wait, most, named)

    def _turnstile(self, cls: type[Workflow]) -> Turnstile:
        return self.node.stub(Turnstile, self.node.kind(cls).namespace, home_of(cls, self.tenant), None)

    def schedules(self, cls: type[W] | str) -> Schedules:
        """The schedules of a class: those that it declares, and others."""
        return Schedules(self, self.class_of(cls))

    async def schedule(self, cls: type[W] | str, schedule: Schedule) -> str:
        """Have instances created by the calendar; the schedule's name. The same again changes nothing."""
        return await self.schedules(cls).set(schedule)

    async def queue(self, cls: type[W] | str) -> Sequence[Queued]:
        """The instances of a class with `concurrency` that hold slots, then those that wait for one, in order."""
        known = self.class_of(cls)
        members = await self._turnstile(known).z0_queue()
        return [Queued(tenant, id, state, priority) for tenant, id, state, priority in members]

    # Many

    async def create_batch(self, cls: type[W] | str, instances: Sequence[Mapping[str, Any]]) -> BatchReport:
        """Create many: `[{"payload": ..., "id": ...}, ...]`, the arguments of `create` for each.

        Each is created wholly or not at all, and what was not is reported with its reason. Raises RuntimeClosed, and
        InvalidName or TypeError for a class that is none.
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
        """Instances in the order of their ids, from behind `after`. None of those that sleep is opened for it.

        Raises ValueError for a status that does not exist, and for a negative limit.
        """
        _check_limit(limit)
        if status is not None:
            check_status(status)
        found: list[InstanceInfo] = []
        async for info in bulk.listed(self, cls, status, prefix, after):
            if limit is not None and len(found) >= limit:
                break
            found.append(info)
        return found

    async def count(self, cls: type[W] | str, *, status: Status | None = None, prefix: str = "") -> int:
        """How many instances there are, in all or of one status. Raises ValueError for one that does not exist."""
        if status is not None:
            check_status(status)
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
        Raises ValueError for a negative limit.
        """
        _check_limit(limit)
        ids = [info.id for info in await self.list(cls, status="errored", prefix=prefix, limit=None)]
        if error is not None and limit is not None:  # who is meant is known when all were looked at
            ids = [found.id for found in await bulk.done(self, cls, "retry", ids, {}, True, error)]
        return await bulk.done(self, cls, "retry", ids[:limit], {}, dry_run, error)

    async def bulk(
        self, cls: type[W] | str, verb: Verb, ids: Sequence[str], *, dry_run: bool = False, **arguments: Any
    ) -> Sequence[BulkResult]:
        """Do the same to many instances ("terminate", "pause", "resume", "delete", ...), and say what became of each.

        `arguments` are those of the instance's method. Raises ValueError for anything else that might be done,
        TypeError for arguments that it does not take, RuntimeClosed; what an instance raises is in the report.
        """
        if isinstance(ids, str):
            raise TypeError(f"ids={ids!r}: give a list of ids")
        return await bulk.done(self, cls, verb, ids, arguments, dry_run)

    async def purge(
        self, cls: type[W] | str, *, unused_for: Span, status: Status | None = None, limit: int | None = None
    ) -> int:
        """Delete finished instances that nobody has used for so long; how many. See `Workflow.retention`.

        Raises ValueError for a status that does not exist, and for a negative limit.
        """
        _check_limit(limit)
        if status is not None:
            check_status(status)
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
        return Instance(self.node, self.class_of(cls), self.tenant, check_id(id))

    def kind(self, cls: type[Workflow] | str) -> Kind:
        """What the engine knows of the class. Raises InvalidName, TypeError."""
        return self.node.kind(self.class_of(cls))

    def class_of(self, cls: type[W] | str) -> type[W]:
        """The class, or that of the name. Raises InvalidName, TypeError."""
        if isinstance(cls, str):
            kind = self.node.kind_of(cls)
            if kind is None or not issubclass(kind.cls, Workflow):
                raise InvalidName(f"workflow {cls!r}", "is not known; name its class in Runtime(actors=[...])")
            return cast(type[W], kind.cls)
        given: Any = cls
        if not isinstance(given, type) or not issubclass(given, Workflow):
            shown = getattr(given, "__name__", repr(given))
            raise TypeError(f"{shown} is not a subclass of z0.Workflow, nor the name of one")
        return cls


async def _has_begun(instance: Instance[Any], key: str | None) -> bool:
    """Whether the creation of that key has made the instance. Raises InstanceExists when another one has."""
    if not instance._node.knows(instance._address):
        return False
    try:
        first = (await instance._stub.z0_journal(0, 1))[0]
    except InstanceNotFound:
        return False
    if first.detail.get("origin", {}).get("key") != key:
        raise InstanceExists(repr(instance))
    return True


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise ValueError(f"limit={limit}: give 0 or more, or None for all")
