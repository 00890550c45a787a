"""Steps of workflows whose callbacks are replaced, for tests of programs: what the world answers is up to the test.

    with mock_step(runtime, "charge", returns="receipt-1") as charged:
        instance = await runtime.workflows.create(Billing, ...)
        await clock.advance("1 hour")
    assert charged.calls == 1

All else is as ever: the result goes through the journal, a failure is tried again, the instance may be crashed. The
place where an attempt calls its callback is replaced while a mock is set; nothing is asked there otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from z0.runtime import Runtime
from z0.workflows.attempts import Attempts
from z0.workflows.keys import check_step_name, name_of
from z0.workflows.workflow import Workflow

__all__ = ["Mock", "mock_step"]


class Mock:
    """A mock that is set. `calls` says how often it has answered."""

    def __init__(self, returns: Any, raises: Exception | None, times: int | None) -> None:
        """Made by `mock_step`."""
        self.calls = 0
        self._returns = returns
        self._raises = raises
        self._times = times

    @property
    def is_spent(self) -> bool:
        """Whether it has answered as often as it should."""
        return self._times is not None and self.calls >= self._times

    def answer(self) -> Any:
        """What the callback would have returned, or raised."""
        self.calls += 1
        if self._raises is not None:
            raise self._raises
        return self._returns


@contextmanager
def mock_step(
    runtime: Runtime,
    name: str,
    *,
    returns: Any = None,
    raises: Exception | None = None,
    times: int | None = None,
    workflow: type[Workflow] | None = None,
) -> Iterator[Mock]:
    """Have attempts of a step return or raise this, instead of running its callback, `times` times (None: always).

    `name`: the step's ("charge": each of that name, also inside others; "settle/charge#2": that one). `workflow`: only
    of this class (None: of all). After `times` a mock set around this one answers, or the callback does: so two blocks
    make a step that fails first. Handlers that undo steps are not replaced. Raises ValueError, InvalidName.
    """
    if times is not None and times < 1:
        raise ValueError(f"times counts from 1, not {times}; leave a mock out that never answers")
    if raises is not None and returns is not None:
        raise ValueError("a step either returns or raises; set one mock inside the other to have both")
    check_step_name(name)
    node, mock, real = runtime.node, Mock(returns, raises, times), Attempts._call

    def is_meant(attempts: Attempts) -> bool:
        owner = attempts._run.workflow
        return (
            type(attempts) is Attempts
            and owner._z0_host.node is node
            and (workflow is None or isinstance(owner, workflow))
            and name in (attempts._name, name_of(attempts._record.key))
        )

    async def call(attempts: Attempts, attempt: int) -> Any:
        if not mock.is_spent and is_meant(attempts):
            return mock.answer()
        return await real(attempts, attempt)

    Attempts._call = call  # type: ignore[method-assign,assignment]
    try:
        yield mock
    finally:
        Attempts._call = real  # type: ignore[method-assign]
