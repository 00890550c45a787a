"""Spans of steps: one trace for each instance, across all suspensions and restarts.

The trace is that of whoever created the instance, kept in the journal; else it is made of the instance's address and
the time of its creation, so that every process finds the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .run import Run
    from .services import Tracer
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")
_NONE = nullcontext()


class _Guarded:
    """A span whose tracer may fail: that is logged, and is no business of the step's."""

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._span: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        try:
            span = self._make()
            span.__enter__()
            self._span = span
        except Exception as error:
            log.warning("a span could not be begun: %r", error)

    def __exit__(self, *raised: object) -> None:
        if self._span is None:
            return
        try:
            self._span.__exit__(*raised)  # type: ignore[arg-type]
        except Exception as error:
            if error is not raised[1]:
                log.warning("a span could not be ended: %r", error)


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


def trace_of(workflow: Workflow) -> str:
    """What the spans of the instance are children of, as W3C's `traceparent`."""
    created, address = workflow.history.created, workflow._z0_host.address
    assert created is not None
    kept = created.detail.get("trace")
    if isinstance(kept, str):
        return kept
    digest = blake2b("\0".join((*address, str(created.at))).encode(), digest_size=24).hexdigest()
    return f"00-{digest[:32]}-{digest[32:]}-01"


def span_of(run: Run, key: str, name: str, attempt: int) -> AbstractContextManager[object]:
    """The span of one attempt of a step; nothing when nobody traces."""
    workflow = run.workflow
    tracer = workflow._services.tracer
    if tracer is None or not run.traced:
        return _NONE
    address = workflow._z0_host.address
    attributes: dict[str, str | int] = {
        "z0.tenant": address.tenant,
        "z0.workflow": address.namespace,
        "z0.instance": address.name,
        "z0.run": workflow.history.run,
        "z0.step": key,
        "z0.attempt": attempt,
    }
    name = f"z0.workflow.{address.namespace}.{name}"
    return _Guarded(lambda: tracer.span(name, trace_of(workflow), attributes))
