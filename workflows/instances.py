"""Instances from outside: made, found, asked and told."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Generic, TypeVar, cast

from z0.actors.clock import Span, seconds
from z0.actors.errors import InvalidName
from z0.actors.names import Address
from z0.actors.node import Node

from .errors import InstanceFailed, InstanceNotFound
from .event import check_event_id, check_type, fields_of
from .failure import error_of
from .journal import Entry
from .status import InstanceStatus
from .values import loaded, returned_by, stored
from .workflow import Workflow

W = TypeVar("W", bound=Workflow)
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


class Workflows:
    """The instances of one tenant: `runtime.workflows`."""

    def __init__(self, node: Node, tenant: str) -> None:
        """Of this runtime."""
        self._node = node
        self._tenant = tenant

    async def create(self, cls: type[W] | str, payload: Any = None, *, id: str | None = None) -> Instance[W]:
        """Begin an instance; it is durable on return. Without `id` it gets a random one.

        `cls`: the class, or the namespace of one that is known. Raises InstanceExists, InvalidName, InvalidValue.
        """
        instance = self.get(cls, _random_id(self._node) if id is None else id)
        encoded = stored(payload, f"the payload of {instance.id}", instance.cls.result_bytes)
        await instance._stub.z0_create(encoded)
        return instance

    def get(self, cls: type[W] | str, id: str) -> Instance[W]:
        """A handle on an instance, which need not exist; nothing is loaded. Raises InvalidName."""
        if not _ID.fullmatch(id):
            raise InvalidName(f"instance id {id!r}", "is not 1 to 100 letters, digits, '_' or '-', not first '-'")
        return Instance(self._node, self._class(cls), self._tenant, id)

    def _class(self, cls: type[W] | str) -> type[W]:
        if isinstance(cls, str):
            kind = self._node.kind_of(cls)
            if kind is None or not issubclass(kind.cls, Workflow):
                raise InvalidName(f"workflow {cls!r}", "is not known; name its class in Runtime(actors=[...])")
            return cast(type[W], kind.cls)
        if not issubclass(cls, Workflow):
            raise TypeError(f"{cls.__name__} is not a subclass of z0.Workflow")
        return cls


def _random_id(node: Node) -> str:
    return "".join(f"{int(node.clock.random() * 2**32):08x}" for _ in range(4))


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

    async def send_event(self, type: str, payload: Any = None, *, id: str | None = None) -> bool:
        """Tell it something; whether that is new: the same id again does nothing. It is durable on return.

        Raises InvalidName, InvalidValue, LimitExceeded, WrongStatus when the instance has ended.
        """
        encoded = stored(payload, f"the payload of event {type!r}", self.cls.result_bytes)
        sender = _random_id(self._node) if id is None else id
        check_event_id(sender)
        return await self._found().z0_send_event(check_type(type), encoded, fields_of(payload), sender)

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
