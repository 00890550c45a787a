"""An instance whose code does not do what its journal has: it is paused, until the code is brought back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .errors import NonDeterminismError
from .failure import failure_of

if TYPE_CHECKING:
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")

LOOK_AGAIN_US = 300 * 1_000_000
_LOOK_AGAIN_MAX_US = 86_400 * 1_000_000


def pause(workflow: Workflow, error: NonDeterminismError) -> None:
    """The code does not fit; look again, ever more rarely, whether it does."""
    log.error("%s is paused: %s", workflow.address, error)
    now, first = workflow.clock.now_us(), workflow.history.diverged
    since = now if first is None else first.detail["since"]
    again_at = now + max(LOOK_AGAIN_US, min(now - since, _LOOK_AGAIN_MAX_US))
    workflow.note("workflow_paused", reason=str(error), error=failure_of(error), since=since, again_at=again_at)
