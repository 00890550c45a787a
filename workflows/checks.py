"""What a setting may be, where several have the same to keep to. Pure; `what` is named in the error."""

from __future__ import annotations

from z0.actors.clock import seconds


def check_whole(value: object, what: str, least: int | None = None, none: str = "") -> None:
    """Raises TypeError, ValueError for what is no whole number, or below `least`; `none`: what None stands for."""
    if none and value is None:
        return
    instead = f", or None for {none}" if none else ""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what}={value!r}: give a whole number{instead}")
    if least is not None and value < least:
        raise ValueError(f"{what}={value!r}: give {least} or more{instead}")


def check_span(span: object, what: str, longest: float = float("inf")) -> float:
    """The span in seconds. Raises ValueError for what is none, or longer than `longest` seconds."""
    try:
        wait = seconds(span)  # type: ignore[arg-type]  # which says what it takes
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{what}={span!r}: {error}") from None
    if wait > longest:
        raise ValueError(f"{what}={span!r}: give {longest / 86_400:,.0f} days at most")
    return wait


def check_limit(span: object, what: str) -> float | None:
    """The time limit in seconds, or None for none. Raises ValueError for what is no span, or no time."""
    limit = None if span is None else check_span(span, what)
    if limit == 0:
        raise ValueError(f"{what}={span!r} leaves no time; give a longer one, or None for none")
    return limit


def check_bool(value: object, what: str) -> None:
    """Raises TypeError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{what}={value!r}: give True or False")
