"""What a callback is annotated to return: seen to before it runs, as far as can be, and told plainly otherwise."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections import Counter, OrderedDict, defaultdict  # noqa: F401
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

import z0
from tests.scripted_workflow import running
from z0.testing import VirtualClock, crash


class Paid(msgspec.Struct):
    id: str


class Declined(msgspec.Struct):
    why: str


class Either(msgspec.Struct):
    outcome: Paid | Declined


@dataclasses.dataclass
class Dangling:
    other: NowhereToBeFound  # type: ignore[name-defined]  # noqa: F821


class Grumpy(msgspec.Struct):
    id: str

    def __post_init__(self) -> None:
        if self.id == "known":
            raise RuntimeError("no such id")


class Receipt:
    """Nothing that is stored comes back as one."""


@dataclasses.dataclass
class Report:
    pages: int
    file: Path


def returning(kind: Any, value: Any, ran: list[str]) -> Callable[[], Any]:
    def charge() -> Any:
        ran.append("ran")
        return value

    charge.__annotations__["return"] = kind
    return charge


async def error_of_step(data: Path, clock: VirtualClock, fn: Callable[[], Any]) -> z0.InvalidValue:
    async def body(step: z0.Step) -> None:
        await step.do("charge", fn)

    async with running(data, clock, body) as (_, instance):
        await clock.advance("1 hour")
        with pytest.raises(z0.InvalidValue) as caught:
            await instance.result("1 second")
        assert len((await instance.step("charge")).attempts) == 1
        return caught.value


def shown(value: Any) -> str:
    """The same in every process: tests are handed out by name."""
    return re.sub(r" at 0x\w+", "", str(value))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Paid | Declined, r"Paid \| .*Declined"),
        ("Paid | Declined", r"Paid \| .*Declined"),
        (Annotated[Paid | Declined, {"not": "hashable"}], "Paid"),
        (list[Paid | Declined], "list"),
        (Either, "Either"),
        (Dangling, "Dangling"),
        (
            Receipt,
            r"Receipt, .*: a value of type Receipt cannot be stored: it is neither plain data nor a msgspec Struct",
        ),
        (Path, "Path, .*: a value of type Path cannot be stored"),
        (Counter, "Counter, .*: values of type Counter come back as dict"),
        (OrderedDict[str, int], "OrderedDict, .*: values of type OrderedDict come back as dict"),
        ("defaultdict[str, int]", "defaultdict, .*: values of type defaultdict come back as dict"),
        (list[Path], "list, .*: a value of type Path cannot be stored"),
        (Receipt | None, r"Receipt \| None, .*: a value of type Receipt cannot be stored"),
        (Report, "Report, .*: field 'file' of Report: a value of type Path cannot be stored"),
    ],
    ids=shown,
)
async def test_a_callback_does_not_run_when_nothing_can_be_read_as_what_it_is_to_return(
    data: Path, clock: VirtualClock, kind: Any, name: str
) -> None:
    ran: list[str] = []
    error = await error_of_step(data, clock, returning(kind, Paid("p"), ran))
    assert ran == []
    said = rf"step 'charge' was not run: its callback is annotated to return .*{name}.*; declare another type, or none"
    assert re.fullmatch(said, str(error))


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (None, {"status": 202}, "returned a dict, and is annotated to return None (Expected `null`, got `object`)"),
        (int, True, "returned a bool, and is annotated to return int (Expected `int`, got `bool`)"),
        (Paid, {"why": "x"}, "returned a dict, and is annotated to return Paid (Object missing required field `id`)"),
        (Any, object(), "a object cannot be stored: "),
        (Grumpy, {"id": "known"}, "its result cannot be read as Grumpy: no such id; declare another type"),
    ],
    ids=shown,
)
async def test_a_result_that_does_not_fit_fails_the_step_once_and_says_that_it_was_run(
    data: Path, clock: VirtualClock, kind: Any, value: Any, says: str
) -> None:
    ran: list[str] = []
    error = await error_of_step(data, clock, returning(kind, value, ran))
    assert ran == ["ran"]
    assert str(error).startswith("step 'charge' was run, and what it did is done, but without a result: ")
    assert says in str(error)


async def test_a_result_that_todays_annotation_does_not_allow_is_an_error_of_ours_on_replay(
    data: Path, clock: VirtualClock
) -> None:
    kind: Any = Paid

    async def body(step: z0.Step) -> str:
        found = await step.do("charge", returning(kind, Paid("p"), []))
        await step.wait_for_event("w", type="t", timeout=None)
        return str(found.id)

    async with running(data, clock, body) as (runtime, _):
        await crash(runtime)
    kind = Paid | Declined
    async with running(data, clock, body) as (_, instance):
        with pytest.raises(z0.InvalidValue, match=r"the result of do:charge#1 cannot be read as .*Paid \| .*; declare"):
            await instance.result("1 second")


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Paid, Paid("p")), (list[Paid], [Paid("p")]), (Paid | None, Paid("p")), (tuple[int, ...], (1,)), (object, 3)],
    ids=shown,
)
async def test_what_fits_comes_back_as_what_it_is_declared_to_be(
    data: Path, clock: VirtualClock, kind: Any, value: Any
) -> None:
    got: list[Any] = []

    async def body(step: z0.Step) -> None:
        got.append(await step.do("charge", returning(kind, value, [])))

    async with running(data, clock, body) as (_, instance):
        await instance.result("1 second")
    assert got == [value]


async def test_an_event_whose_payload_nothing_can_be_read_as_says_so(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> None:
        await step.wait_for_event("w", type="t", payload=Counter)

    async with running(data, clock, body) as (_, instance):
        await instance.send_event("t", {"a": 1})
        said = r"event \S+ cannot be read as Counter: values of type Counter come back as dict; declare another type"
        with pytest.raises(z0.InvalidValue, match=said):
            await instance.result("1 second")


class Charge:
    def __call__(self) -> Paid:
        return Paid("called")

    def method(self) -> Paid:
        return Paid("method")

    @classmethod
    async def of_the_class(cls, ctx: z0.StepContext) -> Paid:
        return Paid(f"class {ctx.attempt}")


class ChargeLater:
    async def __call__(self, ctx: z0.StepContext) -> Paid:
        return Paid(f"later {ctx.attempt}")


async def charge(id: str, ctx: z0.StepContext) -> Paid:
    return Paid(f"{id} {ctx.attempt}")


@functools.lru_cache
def cached() -> Paid:
    return Paid("cached")


@pytest.mark.parametrize(
    ("fn", "result"),
    [
        (Charge(), Paid("called")),
        (Charge().method, Paid("method")),
        (Charge.of_the_class, Paid("class 1")),
        (ChargeLater(), Paid("later 1")),
        (functools.partial(charge, "partial"), Paid("partial 1")),
        (functools.partial(Charge()), Paid("called")),
        (cached, Paid("cached")),
        (functools.partial(Paid, "plain"), {"id": "plain"}),
        (int, 0),
        (dict, {}),
        (str, ""),
        (iter([5]).__next__, 5),
    ],
    ids=shown,
)
async def test_whatever_can_be_called_may_be_a_callback_and_says_what_it_returns(
    data: Path, clock: VirtualClock, fn: Any, result: Any
) -> None:
    got: list[Any] = []

    async def body(step: z0.Step) -> None:
        got.append(await step.do("charge", fn))

    async with running(data, clock, body) as (_, instance):
        await clock.advance("1 minute")
        await instance.result("1 second")
    assert got == [result]


async def test_a_function_of_c_that_tells_nothing_of_itself_is_called_with_nothing(
    data: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> float:
        return await step.do("now", time.time)

    async with running(data, clock, body) as (_, instance):
        assert await instance.result("1 second") > 0
