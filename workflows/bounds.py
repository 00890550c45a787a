"""What a class of workflows declares: its settings, and the limits that its instances are held to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from z0.actors.clock import Span, seconds, to_us
from z0.actors.errors import LimitExceeded
from z0.ledger.entity import Entity

from . import blobs
from .flow import Debounce, Rules
from .history import History
from .lifecycle import first_created
from .limits import check_blob, is_near, near
from .profiles import Profile, settings_of
from .retention import Retention
from .retries import Retries, check_retries
from .schedules import Schedule

log = logging.getLogger("z0.workflows")


class Bounded(Entity):
    """An entity with the settings of workflows."""

    version: ClassVar[int] = 1
    """Of the code; each instance's journal says by which it was begun."""
    retries: ClassVar[Retries] = Retries()
    """Of steps that do not say otherwise."""
    timeout: ClassVar[Span | None] = "10 minutes"
    """Of one attempt of a step that does not say otherwise."""
    result_bytes: ClassVar[int] = 1024 * 1024
    """Of an event's payload and of the output, at most; a step's result that is bigger is kept in a file of its own."""
    blob_bytes: ClassVar[int] = 64 * 1024 * 1024
    """Of one step's result, at most."""
    steps_max: ClassVar[int | None] = 1_000
    """Calls of `do` that one instance may make; what undoes its steps may make more."""
    execution_max: ClassVar[Span | None] = "30 days"
    """That the attempts of an instance may take, all together; time asleep, waiting or paused does not count,
    and what undoes its steps may take more."""
    recoveries_max: ClassVar[int | None] = 100
    """How often in a row the same attempt may be begun again because its process ended; then the instance is paused."""
    sleep_max: ClassVar[Span] = "365 days"
    """Of one sleep, or of one wait that has a timeout."""
    on_divergence: ClassVar[Literal["fail", "pause"]] = "fail"
    """What becomes of an instance whose code does not do what its journal has. "pause": it goes on by itself when
    the code is brought back."""
    profile: ClassVar[Profile] = "z0"
    """"cloudflare": with the limits and retries of Cloudflare Workflows, where the class does not say otherwise."""

    rollback_continues: ClassVar[bool] = False
    """Whether the other steps are undone when one cannot be."""
    retention: ClassVar[Span | Retention | None] = None
    """How long finished instances are kept; None: until they are deleted."""

    concurrency: ClassVar[Rules] = None
    """How many instances may run at once: a `Concurrency`, or several that must all be kept; None: all."""
    debounce: ClassVar[Debounce | None] = None
    schedules: ClassVar[Sequence[Schedule]] = ()
    """Of the default tenant; known when the runtime is opened with this class."""

    history: History

    def __init_subclass__(cls, profile: Profile | None = None, **kwargs: Any) -> None:
        """Read what the class declares. Raises TypeError, ValueError for what cannot be."""
        super().__init_subclass__(**kwargs)
        if profile is not None:
            cls.profile = profile
        if "profile" in vars(cls):
            for name, value in settings_of(cls.profile).items():
                if name not in vars(cls):
                    setattr(cls, name, value)
        if cls.on_divergence not in ("fail", "pause"):
            raise ValueError(f"{cls.__name__}.on_divergence={cls.on_divergence!r}: give 'fail' or 'pause'")
        if cls.recoveries_max is not None and cls.recoveries_max < 1:
            raise ValueError(f"{cls.__name__}.recoveries_max={cls.recoveries_max}: give 1 or more, or None for no end")
        check_retries(cls.retries)
        for span in (cls.timeout, cls.execution_max, cls.sleep_max):
            if span is not None:
                seconds(span)

    @property
    def id(self) -> str:
        """The id of the instance."""
        return self.name

    @property
    def address(self) -> str:
        """Class and id, for messages to people."""
        return f"{self._z0_host.kind.namespace} {self.name!r}"

    @property
    def born(self) -> int:
        """When the instance was first created, in microseconds: what tells it from those that had its id before it."""
        created = self.history.created
        assert created is not None
        return int(created.detail.get("born") or first_created(created))

    @property
    def identity(self) -> str:
        """What tells this instance from every other."""
        return f"{self._z0_host.address}/{self.born}"

    def idempotency_key(self, step: str) -> str:
        """What tells this step of this run of this instance from every other."""
        return f"{self.identity}/{self.history.run}/{step}"

    @property
    def blobs(self) -> Path:
        """Where results are kept that are too big for the journal."""
        return blobs.folder_of(self._z0_host.database.path)

    async def spill(self, encoded: bytes, what: str) -> str:
        """Keep a result in a file; its name. Raises LimitExceeded."""
        check_blob(len(encoded), max(self.blob_bytes, self.result_bytes), what)
        self.used("blob_bytes", len(encoded), self.blob_bytes)
        node = self._z0_host.node
        name: str = await node.threads.call(partial(blobs.write, node.file_ops, self.blobs, encoded))
        return name

    async def kept(self, name: str) -> bytes:
        """A result that is kept in the file of this name. Raises InvalidValue."""
        content: bytes = await self._z0_host.node.threads.call(partial(blobs.read, self.blobs, name))
        return content

    def used(self, limit: str, use: int, most: int | None) -> None:
        """Say so when a limit is nearly reached: once, for one that is counted up."""
        if most is not None and is_near(limit, use, most):
            log.warning("%s: %s", self.address, near(limit, use, most))

    def check_steps(self, taken: int) -> None:
        """Raises LimitExceeded when the instance may not take another step."""
        if self.steps_max is not None and taken >= self.steps_max:
            raise LimitExceeded(
                f"{self.address} has taken {taken:,} steps, and may take {self.steps_max:,} (steps_max); have each "
                "step do more, hand parts of the work to child workflows, or allow more"
            )
        self.used("steps_max", taken + 1, self.steps_max)

    @property
    def execution_us(self) -> float:
        """`execution_max` in microseconds; without one, endless."""
        return float("inf") if self.execution_max is None else to_us(seconds(self.execution_max))

    def check_time(self, most_us: float) -> None:
        """Raises LimitExceeded when the instance has executed for as long as it may."""
        if self.history.executed >= most_us:
            raise LimitExceeded(
                f"{self.address} has executed for {self.history.executed / 86_400e6:,.1f} days, all that it may "
                "(execution_max); continue in another instance, or allow more"
            )
