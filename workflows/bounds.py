"""What a class of workflows declares: its settings, plain values that are checked where it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from z0.actors.clock import Span
from z0.actors.schedule import SPAN_MAX
from z0.ledger.entity import Entity

from .checks import check_bool, check_limit, check_span, check_whole
from .flow import Debounce, Rules, check_debounce, check_rules
from .profiles import Profile, settings_of
from .retention import Retention, check_retention
from .retries import Retries, check_retries
from .schedules import Schedule, check_schedules


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

    def __init_subclass__(cls, profile: Profile | None = None, **kwargs: Any) -> None:
        """Read what the class declares. Raises TypeError, ValueError for what cannot be."""
        super().__init_subclass__(**kwargs)
        if profile is not None:
            cls.profile = profile
        if "profile" in vars(cls):
            for name, value in settings_of(cls.profile).items():
                if name not in vars(cls):
                    setattr(cls, name, value)
        for name, check in _CHECKS.items():
            check(getattr(cls, name), f"{cls.__name__}.{name}")


def _check_divergence(chosen: object, what: str) -> None:
    if chosen not in ("fail", "pause"):
        raise ValueError(f"{what}={chosen!r}: give 'fail' or 'pause'")


_CHECKS: dict[str, Callable[[object, str], object]] = {
    "version": check_whole,
    "retries": check_retries,
    "timeout": check_limit,
    "result_bytes": partial(check_whole, least=1),
    "blob_bytes": partial(check_whole, least=0),  # 0: no files
    "steps_max": partial(check_whole, least=1, none="no end"),
    "execution_max": check_limit,
    "recoveries_max": partial(check_whole, least=1, none="no end"),
    "sleep_max": partial(check_span, longest=SPAN_MAX),
    "on_divergence": _check_divergence,
    "rollback_continues": check_bool,
    "retention": check_retention,
    "concurrency": check_rules,
    "debounce": check_debounce,
    "schedules": check_schedules,
}
