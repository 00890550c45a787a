"""Errors of workflows: what a body may catch, and what callers of an instance may get."""

from __future__ import annotations

import asyncio

from z0.actors.errors import Z0Error


class NonRetryableError(Z0Error):
    """Raise it in a step to fail the step at once, whatever retries are left. Its message is kept as it is."""


class StepTimeout(Z0Error):
    """An attempt of a step took longer than the step's timeout, and was cancelled."""

    retryable = True

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(f"step {step!r} took more than {seconds:g} seconds; give it a longer timeout, or less to do")
        self.step = step
        self.seconds = seconds


class EventTimeout(Z0Error):
    """No event of the type came in time."""

    def __init__(self, step: str, type: str) -> None:
        super().__init__(f"{step!r} waited in vain for an event of type {type!r}; catch EventTimeout to go on without")
        self.step = step
        self.type = type


class StepInterrupted(Z0Error):
    """An attempt that must not be made twice was cut off: whether it had its effect is unknown."""

    def __init__(self, step: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} of step {step!r} was cut off, and may or may not have had its effect")
        self.step = step
        self.attempt = attempt


class StepFailed(Z0Error):
    """Stands for an error of a step whose class is not known here any more."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type
        self.message = message


class NonDeterminismError(Z0Error):
    """Today's code does not do what the journal says that it did. Nothing was executed."""

    def __init__(self, instance: str, position: int, expected: str, found: str) -> None:
        super().__init__(
            f"{instance}: at step {position} the journal has {expected}, but the code came to {found}; bring the code "
            "back, guard the change with step.patched(...), or restart the instance"
        )
        self.instance = instance
        self.position = position
        self.expected = expected
        self.found = found


class InstanceExists(Z0Error):
    """There is an instance of this class and id."""

    def __init__(self, instance: str) -> None:
        super().__init__(f"{instance} exists already; get() it, or create one with another id")
        self.instance = instance


class InstanceNotFound(Z0Error):
    """There is no instance of this class and id; of a class with `debounce`, maybe not yet."""

    def __init__(self, instance: str, debounced: bool = False) -> None:
        late = "; it waits until its debounce is over, or was never created"
        super().__init__(f"{instance} does not exist{late if debounced else '; create() it first'}")
        self.instance = instance


class StepNotFound(Z0Error):
    """The journal has no step of this name."""

    def __init__(self, instance: str, name: str, steps: list[str]) -> None:
        known = ", ".join(repr(each) for each in steps[:20]) or "none"
        super().__init__(f"{instance} has no step {name!r}; its steps are: {known}")
        self.instance = instance
        self.name = name


class ScheduleNotFound(Z0Error):
    """The class has no schedule of this name."""

    def __init__(self, workflow: str, name: str, known: list[str]) -> None:
        super().__init__(f"{workflow} has no schedule {name!r}; it has: {', '.join(known) or 'none'}")
        self.workflow = workflow
        self.name = name


class InstanceFailed(Z0Error):
    """The instance ended without a result."""

    def __init__(self, instance: str, status: str, reason: str) -> None:
        super().__init__(f"{instance} is {status}: {reason}")
        self.instance = instance
        self.status = status
        self.reason = reason


class WrongStatus(Z0Error):
    """What was asked of an instance makes no sense as it is now."""

    def __init__(self, instance: str, status: str, asked: str, instead: str) -> None:
        super().__init__(f"{instance} is {status}, so {asked} is not possible; {instead}")
        self.instance = instance
        self.status = status


class Continued(BaseException):
    """Ends a run whose instance goes on with an empty history. No Exception, so that no code stops it by accident."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self.payload = payload


class Suspended(asyncio.CancelledError):
    """Ends a body whose instance leaves the memory. No Exception, so that no code stops it by accident."""
