"""How near an instance is to its limits. Pure."""

from __future__ import annotations

from z0.actors.clock import Span, seconds, to_us
from z0.actors.errors import LimitExceeded

from .history import History

_NEAR = 0.8


def is_near(limit: str, use: int, most: int) -> bool:
    """Whether to warn: at the first step that comes near, and for each result that does."""
    if limit == "steps_max":
        return use == max(1, int(_NEAR * most))
    return use >= _NEAR * most


def near(limit: str, use: float, most: float, unit: str = "") -> str:
    """What there is to say of a limit that is nearly reached."""
    return f"{use:,.0f} of {most:,.0f}{unit} are used ({limit}): past that it fails"


def warnings_of(history: History, steps_max: int | None, execution_max: Span | None) -> list[str]:
    """The limits that an instance has nearly reached."""
    warnings = []
    if steps_max is not None and history.steps >= _NEAR * steps_max:
        warnings.append(near("steps_max", history.steps, steps_max))
    if execution_max is not None and history.executed >= _NEAR * to_us(seconds(execution_max)):
        warnings.append(near("execution_max", history.executed / 1e6, seconds(execution_max), " seconds"))
    return warnings


def check_blob(size: int, most: int, what: str) -> None:
    """Raises LimitExceeded for a result that is too big even for a file of its own."""
    if size > most:
        raise LimitExceeded(
            f"{what} has {size:,} bytes, more than {most:,} (blob_bytes); keep it elsewhere, and return where it is"
        )
