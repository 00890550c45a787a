"""Workflows: the class that users derive theirs from. An instance is an actor whose file is its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.handlers import HOOKS
from z0.ledger.schema import ENTITY_SCHEMA

from . import commands, journal, kin, messages
from .bounds import Bounded
from .engine import Engine
from .event import Event
from .facts import InstanceLedger
from .status import InstanceStatus
from .step import Step

if TYPE_CHECKING:
    from .instances import Workflows

_THEIRS = frozenset({"run", "on_failure"})


class Workflow(Bounded):
    """Code that outlives its process: `async def run(self, event, step)`, every step of which is in a journal.

    The body must do the same again whenever it is run again: what depends on the time, on chance or on the world
    belongs into steps. Its instances are made by `runtime.workflows.create(Class, payload, id=...)`.
    """

    _z0_schema: ClassVar[tuple[str, ...]] = (*ENTITY_SCHEMA, *journal.JOURNAL_SCHEMA)
    _z0_hooks: ClassVar[frozenset[str]] = HOOKS | _THEIRS
    _z0_ledger = InstanceLedger
    _z0_engine_class: ClassVar[type[Engine]] = Engine
    _z0_engine: Engine

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read what the class declares. Raises TypeError, ValueError for what cannot be."""
        super().__init_subclass__(**kwargs)
        for each in cls.__mro__:
            ours = () if issubclass(Workflow, each) else vars(each).keys() & _OURS
            for name in sorted(ours):
                raise TypeError(f"{cls.__name__}.{name}: the name belongs to z0.Workflow; choose another")

    async def run(self, event: Event[Any], step: Step) -> Any:
        """The body. What it returns is the instance's output."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def run(self, event, step)`")

    async def on_failure(self, status: InstanceStatus) -> None:
        """Called at least once when the instance has failed, beside whatever else happens; again until it returns."""

    @property
    def id(self) -> str:
        """The id of the instance."""
        return self._z0_engine.id

    @property
    def workflows(self) -> Workflows:
        """The instances of the same tenant; one that is created in a step is created once."""
        from .instances import Workflows  # which knows this class

        return Workflows(self._z0_host.node, self._z0_host.address.tenant)

    # What an actor's host asks for

    def _z0_open(self, meta: dict[str, Any]) -> None:
        super()._z0_open(meta)
        self._z0_engine = self._z0_engine_class(self, meta)
        self._z0_engine.given = dict(vars(self))

    async def start(self) -> None:
        """Go on with what a crash or a closing has cut off."""
        self._z0_engine.start()

    async def alarm(self, info: AlarmInfo) -> None:
        """The time of a sleep, of a wait or of another attempt has come."""
        await self._z0_engine.alarm(info)

    def _z0_close(self) -> None:
        self._z0_engine.close()
        super()._z0_close()

    def _z0_status(self) -> str | None:
        return self._z0_engine.kept_status

    def _z0_removable(self) -> bool:
        history = self._z0_engine.history
        return history.created is None or (history.end is not None and not kin.is_due(self._z0_engine))

    # Messages of the engine

    z0_create = messages.create
    z0_start = messages.start
    z0_cancel = commands.cancel
    z0_delete = commands.delete
    z0_status = messages.status
    z0_send_event = messages.send_event
    z0_journal = messages.entries
    z0_pause = commands.pause
    z0_resume = commands.resume
    z0_terminate = commands.terminate
    z0_rollback = commands.rollback_again
    z0_retry = commands.retry
    z0_abandon = commands.abandon
    z0_restart = commands.restart
    z0_fork_from = commands.fork_from
    z0_fork = commands.fork
    z0_child_ended = commands.child_ended
    z0_retry_for_parent = commands.retry_for_parent


_OURS = frozenset(name for name in vars(Workflow) if not name.startswith(("_", "z0_"))) - _THEIRS
