"""An attempt that is cut off again and again: it may be what ends its process, so the instance is put aside.

What was cut off is begun again when the process is, and nobody knows whether it was the cause. So the first attempt
that an instance makes after it was cut off is counted, in its file and durably, before it is made: when it is the same
one too often, the instance is paused, and the rest of the process lives. Instances that only wait are not counted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .errors import Suspended

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("z0.workflows")

_GET = "SELECT value FROM z0_meta WHERE key = 'cut_offs'"
_SET = "INSERT OR REPLACE INTO z0_meta VALUES('cut_offs', ?)"


async def count(engine: Engine, step: str, attempt: int) -> None:
    """Note that this attempt is the first one since the instance was cut off. Raises Suspended: one time too many."""
    engine.cut_off = False
    writes, which, most = engine.host.writes, f"{attempt} {step}", engine.workflow.recoveries_max
    if most is None:
        return
    found = writes.row(_GET)
    times, _, before = str(found[0]).partition(" ") if found is not None else ("0", "", "")
    again = int(times) + 1 if before == which and times.isdecimal() else 1
    if again > most:
        _put_aside(engine, step, most)
        raise Suspended
    writes.write(_SET, (f"{again} {which}",))
    await engine.host.durable()


def _put_aside(engine: Engine, step: str, most: int) -> None:
    reason = (
        f"{step} was cut off {most} times in a row (recoveries_max): it may be what ends the process. resume() begins "
        "it again, terminate() ends the instance"
    )
    log.error("%s is paused: %s", engine.address, reason)
    engine.note("workflow_paused", reason=reason)
    engine.set_alarm()
    engine.body.leave()
