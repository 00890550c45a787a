"""The cases by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .alarm_case import alarm, alarm_late, alarm_month, alarm_restart
from .append_case import append, append_cpu
from .call_case import call
from .callers_case import append_64, entities_64
from .cold_case import cold
from .fold_case import fold
from .idempotent_case import idempotent
from .memory_case import idle_memory
from .replay_case import replay
from .result import Result
from .scale_case import scale
from .settings import Settings
from .sleepers_case import sleepers
from .step_case import step, steps_64
from .workflow_case import workflow_10

Case = Callable[[Settings], Awaitable[Result]]

CASES: dict[str, Case] = {
    "append": append,
    "append-cpu": append_cpu,
    "append-64": append_64,
    "entities-64": entities_64,
    "call": call,
    "cold": cold,
    "fold": fold,
    "idle-memory": idle_memory,
    "idempotent": idempotent,
    "alarm": alarm,
    "alarm-late": alarm_late,
    "alarm-restart": alarm_restart,
    "alarm-month": alarm_month,
    "scale": scale,
    "step": step,
    "steps-64": steps_64,
    "workflow-10": workflow_10,
    "replay": replay,
    "sleepers": sleepers,
}
