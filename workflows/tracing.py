"""Spans of steps: one trace for each instance, across all suspensions and restarts.

The trace is that of whoever created the instance; else it begins with a span of the instance's own, which ends at once,
for the instance may take months. Either is kept in the journal, with what the sampler has decided. A step that stands
in another is a part of that one's span.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import StepInterrupted
from .keys import is_below

if TYPE_CHECKING:
    from .engine import Engine
    from .run import Run
    from .services import Tracer

log = logging.getLogger("z0.workflows")
_NONE = nullcontext()
_AROUND: ContextVar[str] = ContextVar("z0_workflow_span", default="")
"""The instance and the step whose attempt has begun a span last; steps that stand in it end before it does."""


class _Attempt:
    """The span of an attempt. Its tracer may fail: that is logged, and is no business of the step's."""

    def __init__(
        self, make: Callable[[], AbstractContextManager[object]], left: Callable[[], Exception | None]
    ) -> None:
        self._make = make
        self._left = left
        self._span: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        try:
            span = self._make()
            span.__enter__()
            self._span = span
        except Exception as error:
            log.warning("a span could not be begun: %r", error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is None:
            return
        if error is not None and not isinstance(error, Exception):
            error = self._left()
        try:
            self._span.__exit__(None if error is None else type(error), error, traceback)
        except Exception as caught:
            if caught is not error:
                log.warning("a span could not be ended: %r", caught)


def trace_here(tracer: Tracer | None) -> str | None:
    """The span that is open now, as W3C's `traceparent`; None: none is, or nobody traces."""
    try:
        return None if tracer is None else tracer.here()
    except Exception as error:
        log.warning("the open span could not be told: %r", error)
        return None


def is_traced(tracer: Tracer | None) -> bool:
    """Whether somebody wants spans now; a body asks when it begins."""
    try:
        return tracer is not None and tracer.listens
    except Exception as error:
        log.warning("a tracer could not be asked: %r", error)
        return False


def begun(engine: Engine) -> dict[str, str]:
    """What the journal is to know of the trace that begins with the instance; nothing when nobody traces."""
    tracer = engine.services.tracer
    if tracer is None or not is_traced(tracer):
        return {}
    trace = None
    try:
        with tracer.span(f"z0.workflow.{engine.host.address.namespace}", None, _whose(engine)):
            trace = tracer.here()
    except Exception as error:
        log.warning("a trace could not be begun: %r", error)
    return {"trace": trace or _made_up(engine)}


def _made_up(engine: Engine) -> str:
    """A trace for a tracer that cannot tell which one it has begun."""
    digest = blake2b("\0".join((*engine.host.address, str(engine.clock.now_us()))).encode(), digest_size=24)
    return f"00-{digest.hexdigest()[:32]}-{digest.hexdigest()[32:]}-01"


def _whose(engine: Engine) -> dict[str, str | int]:
    address = engine.host.address
    return {"z0.tenant": address.tenant, "z0.workflow": address.namespace, "z0.instance": address.name}


def span_of(run: Run, key: str, name: str, attempt: int) -> AbstractContextManager[object]:
    """The span of one attempt of a step; nothing when nobody traces."""
    engine = run.engine
    tracer = engine.services.tracer
    if tracer is None or not run.traced:
        return _NONE
    address, history = engine.host.address, engine.history
    if history.trace is None and (trace := begun(engine)):  # it was created by a process that did not trace
        engine.note("trace_begun", trace=trace["trace"])
    place = f"{address} {key}"
    parent = (trace_here(tracer) if is_below(place, _AROUND.get()) else None) or history.trace
    _AROUND.set(place)
    attributes = {**_whose(engine), "z0.run": history.run, "z0.step": key, "z0.attempt": attempt}
    return _Attempt(
        lambda: tracer.span(f"z0.workflow.{address.namespace}.{name}", parent, attributes),
        lambda: None if _is_put_off(run, key) else StepInterrupted(name, attempt),
    )


def _is_put_off(run: Run, key: str) -> bool:
    """Whether an attempt that is left was waiting, and will be gone on with."""
    history = run.history
    waits = any(each.key in history.open for each in history.below(key))
    return history.end is None and (waits or run.cut_off or history.paused)
