"""Steps of workflows whose callbacks are replaced, for tests of programs: what the world answers is up to the test.

    with mock_step(runtime, "charge", returns="receipt-1") as charged:
        instance = await runtime.workflows.create(Billing, ...)
        await clock.advance("1 hour")
    assert charged.calls == 1

All else is as ever: the result goes through the journal, a failure is tried again, the instance may be crashed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from z0.runtime import Runtime
from z0.workflows.keys import check_step_name, name_of
from z0.workflows.services import services
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
    mock, seam = Mock(returns, raises, times), services(runtime.node)
    around = seam.replace

    def replace(owner: Workflow, key: str, step: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        meant = (workflow is None or isinstance(owner, workflow)) and name in (step, name_of(key))
        if meant and not mock.is_spent:
            return mock.answer
        return callback if around is None else around(owner, key, step, callback)

    seam.replace = replace
    try:
        yield mock
    finally:
        seam.replace = around
