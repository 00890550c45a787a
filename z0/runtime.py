"""The runtime: what a program opens to have actors. Owns everything it needs; no global state."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from z0.actors.actor import Actor
from z0.actors.call import Deadline
from z0.actors.catalog import ActorInfo
from z0.actors.clock import Clock, Span, SystemClock
from z0.actors.durability import Mode
from z0.actors.errors import DatabaseFailure, StorageFailed
from z0.actors.limits import Limits
from z0.actors.names import DEFAULT_TENANT, Address, check_name
from z0.actors.node import Node
from z0.tracing import installed
from z0.workflows.alerts import AlertSink
from z0.workflows.calendar import Calendar, declare
from z0.workflows.instances import Workflows
from z0.workflows.services import FailureHook, Tracer, services
from z0.workflows.turnstile import Turnstile
from z0.workflows.workflow import Workflow

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

A = TypeVar("A", bound=Actor)
F = TypeVar("F")


class Tenant:
    """The actors of one tenant; their files live apart, and their facts carry the tenant's id."""

    def __init__(self, node: Node, tenant: str) -> None:
        """Raises InvalidName."""
        self.node = node  # the engine; no part of the public interface
        self.id = check_name(tenant, "tenant")

    def get(self, cls: type[A], name: str) -> A:
        """A stub of the actor of that class and name: its messages are called like methods, and awaited.

        Creates nothing; the first message does. Raises InvalidName, NamespaceConflict.
        """
        return self.node.stub(cls, name, self.id, None)

    @property
    def workflows(self) -> Workflows:
        """The tenant's workflow instances."""
        return Workflows(self.node, self.id)

    def deadline(self, span: Span) -> Deadline:
        """`with runtime.deadline("5 seconds"):` calls made inside answer within the span or raise DeadlineExceeded.

        It travels with them through all the calls that actors make for them. Deadlines nest, the earlier one wins.
        The block itself is not interrupted. Raises ValueError for what is no span.
        """
        return Deadline(self.node.clock, span)

    async def list(
        self, cls: type[Actor], *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[ActorInfo]:
        """Actors of the class that have ever had a message, in order of their names.

        `after`: begin behind this name. Sizes and counts are as of each actor's last eviction.
        """
        return await self.node.list(cls, self.id, prefix, after, limit)

    async def versions(self, cls: type[Actor]) -> dict[int, int]:
        """How many actors of the class have had how many of its `migrations`.

        Of an actor that is not in memory: when it was evicted last.
        """
        return await self.node.versions(cls, self.id)

    async def evict(self, cls: type[Actor], name: str) -> bool:
        """Drop the actor's memory now, if it is idle; whether it is out of memory then, its file closed."""
        return await self.node.evict_idle(Address(self.id, self.node.kind(cls).namespace, check_name(name)))


class Runtime(Tenant):
    """Actors on one data directory, inside any asyncio program: `async with Runtime("var/z0") as runtime:`.

    As a tenant it is the default one. Opening raises DataDirLocked when another runtime has the directory; leaving
    drains within `Limits.close_seconds` and loses nothing that was acknowledged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        actors: Iterable[type[Actor]] = (),
        env: Any = None,
        durability: Mode = "full",
        clock: Clock | None = None,
        limits: Limits | None = None,
        alerts: Sequence[AlertSink] | None = None,
        on_failure: FailureHook | None = None,
        tracer: Tracer | None = None,
        vfs: str | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Nothing is opened yet.

        `actors`: classes to know from the start (others become known by `get`). `env`: any object; actors have it as
        `self.env`. `durability`: "full" (an awaited reply is on the device) or "relaxed" (it survives a kill, and a
        power cut after `Limits.relaxed_sync_seconds`). `alerts`: where alerts of workflows go, callables
        that take an Alert [default: LogAlerts()]. `on_failure`: told of failed instances, each a FailedInstance.
        `tracer`: where spans go [default: to OpenTelemetry, when that is installed]. `vfs`, `executor`: where SQLite
        runs, for simulation.
        """
        node = Node(
            Path(path),
            clock=SystemClock() if clock is None else _clock(clock),
            env=env,
            durability=durability,
            limits=Limits() if limits is None else _limits(limits),
            vfs=vfs,
            executor=executor,
        )
        super().__init__(node, DEFAULT_TENANT)
        shared = services(node)
        shared.on_failure = None if on_failure is None else _callable(on_failure, "on_failure")
        shared.tracer = installed() if tracer is None else tracer
        if alerts is not None:
            shared.alerts = tuple(_callable(sink, "alerts") for sink in alerts)
        self._metrics: CollectorRegistry | None = None
        for cls in actors:
            node.kind(cls)
        if any(issubclass(cls, Workflow) for cls in node.kinds):
            node.kind(Turnstile)
            node.kind(Calendar)

    @property
    def path(self) -> Path:
        """The data directory."""
        return self.node.path

    @property
    def metrics(self) -> CollectorRegistry:
        """What this runtime measures of itself, as prometheus_client's registry: always the same one.

        Add your own metrics to it, or it to a registry of yours (`REGISTRY.register(runtime.metrics)`).
        """
        if self._metrics is None:
            from .metrics import registry  # it costs a hundred milliseconds, and not every program is scraped

            self._metrics = registry(self.node)
        return self._metrics

    def metrics_text(self) -> bytes:
        """The metrics as a page that Prometheus reads (content type: prometheus_client.CONTENT_TYPE_LATEST)."""
        from .metrics import page

        return page(self.metrics)

    def tenant(self, tenant: str) -> Tenant:
        """The actors of that tenant. Raises InvalidName.

        The id comes from the caller's identity, never from a request.
        """
        return Tenant(self.node, tenant)

    async def open(self) -> None:
        """Open; `async with` does it.

        Raises DataDirLocked, ActorFileError for a damaged catalogue, StorageFailed, ValueError for schedules that
        cannot be.
        """
        try:
            self.node.open()
        except (DatabaseFailure, OSError) as error:
            raise StorageFailed(str(self.path), str(error)) from error
        try:
            for cls in [] if self.node.only is not None else list(self.node.kinds):
                if issubclass(cls, Workflow):
                    await declare(self.node, cls, self.id)
        except BaseException:
            await self.node.close()
            raise

    async def close(self) -> None:
        """Drain and close; `async with` does it."""
        await self.node.close()

    async def __aenter__(self) -> Self:
        """Open."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def __repr__(self) -> str:
        """Path and durability."""
        return f"<Runtime {str(self.path)!r} durability={self.node.durability.name!r}>"


def _clock(given: object) -> Clock:
    if isinstance(given, type) or not all(callable(getattr(given, each, None)) for each in ("now_us", "call_later")):
        raise TypeError(f"clock: {given!r} is none; give one such as z0.testing.VirtualClock(), or nothing")
    return cast(Clock, given)


def _limits(given: object) -> Limits:
    if not isinstance(given, Limits):
        raise TypeError(f"limits: {given!r} are none; give z0.Limits(...)")
    return given


def _callable(given: F, what: str) -> F:
    if not callable(given):
        raise TypeError(f"{what}: {given!r} cannot be called; give functions")
    return given
