"""How near an instance is to its limits, and whether it is past them."""

from __future__ import annotations

import logging

from z0.actors.clock import Span, seconds, to_us
from z0.actors.errors import LimitExceeded

from .history import History

log = logging.getLogger("z0.workflows")
_NEAR = 0.8


def _is_near(limit: str, use: int, most: int) -> bool:
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


def check_steps(whose: str, taken: int, most: int | None) -> None:
    """Raises LimitExceeded when an instance may not take another step."""
    if most is None:
        return
    if taken >= most:
        raise LimitExceeded(
            f"{whose} has taken {taken:,} steps, and may take {most:,} (steps_max); have each "
            "step do more, hand parts of the work to child workflows, or allow more"
        )
    warn_if_near(whose, "steps_max", taken + 1, most)


def check_execution(whose: str, executed_us: float, most_us: float) -> None:
    """Raises LimitExceeded when an instance has executed for as long as it may."""
    if executed_us >= most_us:
        raise LimitExceeded(
            f"{whose} has executed for {executed_us / 86_400e6:,.1f} days, all that it may "
            "(execution_max); continue in another instance, or allow more"
        )


def execution_us(most: Span | None) -> float:
    """`execution_max` in microseconds; without one, endless."""
    return float("inf") if most is None else to_us(seconds(most))


def warn_if_near(whose: str, limit: str, use: int, most: int) -> None:
    """Say so when a limit is nearly reached: once, for one that is counted up."""
    if _is_near(limit, use, most):
        log.warning("%s: %s", whose, near(limit, use, most))
