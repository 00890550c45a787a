"""Arguments of steps that cannot be meant are refused at once, and what to give is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import running
from z0.testing import VirtualClock


async def fetch() -> int:
    return 1


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no function": (lambda step: step.do("x", None), "step 'x': fn is None, which cannot be called; give a function"),
    "a string": (lambda step: step.do("x", "fetch"), "step 'x': fn is 'fetch', which cannot be called"),
    "a coroutine": (
        lambda step: step.do("x", fetch()),
        "step 'x': fn is the coroutine of a call of fetch that was made already, and cannot be made again for another "
        "attempt; give the function: fetch, or lambda: fetch(...)",
    ),
    "nothing to decorate": (lambda step: step.do("x")(3), "step 'x': fn is 3, which cannot be called"),
    "retries as a number": (
        lambda step: step.do("x", fetch, retries=3),
        "retries=3: give z0.Retries(limit=3, delay=...)",
    ),
    "retries as a dict": (
        lambda step: step.do("x", fetch, retries={"limit": 3}),
        "retries={'limit': 3}: give z0.Retries(limit=3, delay=...)",
    ),
    "a rollback": (lambda step: step.do("x", fetch, rollback=5), "step 'x': rollback is 5, which cannot be called"),
    "a rollback with settings": (
        lambda step: step.do("x", fetch, rollback=z0.Rollback("undo")),  # type: ignore[arg-type]
        "step 'x': rollback is 'undo', which cannot be called",
    ),
    "a rollback's retries": (
        lambda step: step.do("x", fetch, rollback=z0.Rollback(fetch, retries=3)),  # type: ignore[arg-type]
        "retries=3: give z0.Retries",
    ),
    "a time as a string": (
        lambda step: step.sleep_until("x", "2026-01-01"),
        "sleep_until('x'): '2026-01-01' is no time; give an aware datetime, or sleep for a span",
    ),
}


async def test_an_argument_of_a_step_that_cannot_be_meant_is_refused_before_anything_is_done(
    tmp_path: Path, clock: VirtualClock
) -> None:
    said: dict[str, str] = {}

    async def body(step: z0.Step) -> None:
        for what, (ask, _) in REFUSED.items():
            try:
                await ask(step)
            except TypeError as error:
                said[what] = str(error)

    async with running(tmp_path / "data", clock, body) as (_, instance):
        await instance.result("1 second")
        assert await instance.steps() == []
    for what, (_, expected) in REFUSED.items():
        assert expected in said[what]


def test_a_class_whose_retries_are_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"retries=3: give z0\.Retries"):

        class Wrong(z0.Workflow):
            retries = 3  # type: ignore[assignment]


@pytest.mark.parametrize(
    "wanted",
    [[ConnectionError], "ConnectionError", int, ConnectionError("x"), (ConnectionError, "OSError"), None, True],
)
def test_errors_to_retry_on_that_are_no_classes_of_exceptions_are_refused(wanted: Any) -> None:
    with pytest.raises(
        TypeError, match=r"Retries\(retry_on=.*\): give a class of exceptions, a tuple of them, or a func"
    ):
        z0.Retries(retry_on=wanted)


@pytest.mark.parametrize("wanted", [OSError, (OSError, KeyError), (), lambda error: True, BaseException])
def test_errors_to_retry_on_are_a_class_a_tuple_of_classes_or_a_function(wanted: Any) -> None:
    assert z0.Retries(retry_on=wanted).retry_on == wanted


async def test_a_decorated_step_is_taken_when_it_is_called(tmp_path: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> int:
        @step.do("x", retries=z0.Retries(limit=0))
        async def work() -> int:
            return 1

        return int(await work()) + int(await work())

    async with running(tmp_path / "data", clock, body) as (_, instance):
        assert await instance.result("1 second") == 2
