"""How one step is to be taken: what it says itself, and what its class says. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.clock import Span

from .checks import check_limit
from .retries import Retries, Settings, check_retries, settings_of

if TYPE_CHECKING:
    from .engine import Engine

Taken = Coroutine[Any, Any, Any]


class Options(msgspec.Struct, frozen=True):
    """How a step is to be taken."""

    retries: Retries
    settings: Settings
    """What the journal keeps of them."""
    at_most_once: bool = False
    sensitive: bool = False

    @staticmethod
    def of(
        engine: Engine,
        retries: Retries | None,
        timeout: Span | msgspec.UnsetType | None,
        at_most_once: bool = False,
        sensitive: bool = False,
    ) -> Options:
        """With the class's defaults for what was not given. Raises TypeError, ValueError."""
        limit = engine.workflow.timeout if isinstance(timeout, msgspec.UnsetType) else timeout
        span = check_limit(limit, "timeout")
        if at_most_once.__class__ is not bool or sensitive.__class__ is not bool:
            raise TypeError(f"at_most_once={at_most_once!r}, sensitive={sensitive!r}: give True or False")
        chosen = check_retries(engine.workflow.retries if retries is None else retries)
        return Options(chosen, settings_of(chosen, span), at_most_once, sensitive)


def decorated(name: str, function: Callable[..., Any], take: Callable[[], Taken]) -> Callable[[], Taken]:
    """The function that a step makes of the one that it decorates: its call, without arguments, takes the step."""

    @functools.wraps(function)
    def taking(*given: object, **named: object) -> Taken:
        if given or named:
            raise TypeError(
                f"step {name!r}: what it decorates is called without arguments, and is given its StepContext, if it "
                f"wants one, by the step; for arguments: step.do({name!r}, lambda: function(...))"
            )
        return take()

    taking.__signature__ = inspect.Signature()  # type: ignore[attr-defined]  # not that of what it wraps
    return taking


def uncallable(fn: object, what: str) -> TypeError:
    """The error for a callback that cannot be called; `what` is named in it."""
    if not inspect.iscoroutine(fn):
        return TypeError(f"{what} is {fn!r}, which cannot be called; give a function")
    fn.close()
    made = fn.__name__
    return TypeError(
        f"{what} is the coroutine of a call of {made} that was made already, and cannot be made again for another "
        f"attempt; give the function: {made}, or lambda: {made}(...)"
    )
