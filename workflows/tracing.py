"""Spans of steps: one trace for each instance, across all suspensions and restarts.

The trace is that of whoever created the instance, kept in the journal; else it is made of the instance's address and
the time of its creation, so that every process finds the same.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .workflow import Workflow

_NONE = nullcontext()


def trace_of(workflow: Workflow) -> str:
    """What the spans of the instance are children of, as W3C's `traceparent`."""
    created, address = workflow.history.created, workflow._z0_host.address
    assert created is not None
    kept = created.detail.get("trace")
    if isinstance(kept, str):
        return kept
    digest = blake2b("\0".join((*address, str(created.at))).encode(), digest_size=24).hexdigest()
    return f"00-{digest[:32]}-{digest[32:]}-01"


def span_of(workflow: Workflow, key: str, name: str, attempt: int) -> AbstractContextManager[object]:
    """The span of one attempt of a step; nothing when nobody traces."""
    tracer = workflow._services.tracer
    if tracer is None:
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
    return tracer.span(f"z0.workflow.{address.namespace}.{name}", trace_of(workflow), attributes)
