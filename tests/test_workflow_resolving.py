"""Annotations that are written as text: each is resolved by itself, from where it stands; the log tells of the rest."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import msgspec
import pytest

import z0
from z0.testing import VirtualClock, temporary_runtime
from z0.workflows import annotations as reading
from z0.workflows.annotations import payload_of, returned_by

if TYPE_CHECKING:
    from tests.test_workflow_annotations import Paid as Hidden

T = TypeVar("T")


class Order(msgspec.Struct):
    id: str


class Paid(msgspec.Struct):
    id: str


@pytest.fixture(autouse=True)
def nothing_was_told_before() -> None:
    reading._tell.cache_clear()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


class Pay(z0.Workflow):
    async def run(self, event: z0.Event[Order], step: z0.Step) -> Hidden:
        first = await step.do("charge", self.charge)
        second = await step.do("charge", self.charge)
        return {"id": event.payload.id, "came": [first, second]}  # type: ignore[return-value]

    async def charge(self) -> Hidden:
        return Paid("p")  # type: ignore[return-value]


async def test_a_return_type_that_cannot_be_resolved_is_told_once_and_costs_the_payload_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(), actors=[Pay]) as runtime:
        for _ in range(2):
            instance = await runtime.workflows.create(Pay, Order("o-1"))
            output: Any = await instance.result("1 second")
            assert output == {"id": "o-1", "came": [{"id": "p"}, {"id": "p"}]}
    assert sorted(warnings(caplog)) == [
        f"tests.test_workflow_resolving.Pay.{method} is annotated to return Hidden, which cannot be resolved "
        "(NameError: name 'Hidden' is not defined): what it returns comes untyped, a struct or dataclass as a dict; "
        "import what it names outside `if TYPE_CHECKING:`, and define it outside functions"
        for method in ("charge", "run")
    ]


class Blind(z0.Workflow):
    async def run(self, event: z0.Event[Hidden], step: z0.Step) -> str:
        return str(event.payload)


async def test_a_payload_whose_type_cannot_be_resolved_comes_plain_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(), actors=[Blind]) as runtime:
        instance = await runtime.workflows.create(Blind, Order("o-1"))
        assert await instance.result("1 second") == "{'id': 'o-1'}"
    (said,) = warnings(caplog)
    assert "Blind.run is annotated with event: z0.Event[Hidden], which cannot be resolved (NameError: " in said
    assert "the payload comes untyped" in said


async def test_types_that_are_local_to_a_function_are_found_where_the_callback_uses_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Order(msgspec.Struct):  # nearer than the module's
        number: int

    class Local(msgspec.Struct):
        id: str

    def order() -> Order:
        return Order(7)

    def locals() -> list[Local]:
        return [Local("l")]

    class Bill(z0.Workflow):
        async def run(self, event: z0.Event[Local], step: z0.Step) -> list[Any]:
            assert isinstance(event.payload, Local)
            return [str(await step.do("order", order)), str(await step.do("locals", locals))]

    async with temporary_runtime(memory=True, clock=VirtualClock(), actors=[Bill]) as runtime:
        instance = await runtime.workflows.create(Bill, Local("l"))
        assert await instance.result("1 second") == ["Order(number=7)", "[Local(id='l')]"]
    assert warnings(caplog) == []


class Outer:
    class Inner(msgspec.Struct):
        id: str

    def give(self) -> Inner:
        return self.Inner("i")

    def all(self) -> list[Outer.Inner]:
        return []


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner() -> Any:
        return function()

    return inner


async def test_what_surrounds_a_callback_gives_its_annotation_a_meaning(caplog: pytest.LogCaptureFixture) -> None:
    class Local(msgspec.Struct):
        id: str

    @kept
    def wrapped() -> Local:
        return Local("l")

    def module_is_gone() -> Paid:
        return Paid("p")

    module_is_gone.__module__ = "gone.since"

    async def raises() -> NoReturn:
        raise ZeroDivisionError

    def soon() -> Awaitable[Order]: ...  # type: ignore[empty-body]
    def future() -> asyncio.Future[Order]: ...  # type: ignore[empty-body]
    def generic(what: T) -> T: ...  # type: ignore[empty-body]

    assert returned_by(wrapped) is Local
    assert returned_by(Outer().give) is Outer.Inner
    assert returned_by(Outer().all) == list[Outer.Inner]
    assert returned_by(module_is_gone) is Paid
    assert returned_by(soon) is returned_by(future) is Order
    assert returned_by(raises) is returned_by(generic) is Any
    assert warnings(caplog) == []


def test_a_name_that_is_bound_later_is_found_then(caplog: pytest.LogCaptureFixture) -> None:
    def early() -> list[Later]:
        return [Later()]

    assert returned_by(early) is Any

    class Later(msgspec.Struct):
        pass

    assert returned_by(early) == list[Later]
    assert len(warnings(caplog)) == 1


class Base(z0.Workflow, Generic[T]):
    async def run(self, event: z0.Event[T], step: z0.Step) -> Any: ...


class Bare:
    async def run(self, event, step: z0.Step) -> z0.Event[Order]: ...  # type: ignore[no-untyped-def, empty-body]
    async def plain(self, event: z0.Event[Order], step: Hidden) -> Hidden: ...  # type: ignore[empty-body]
    async def untyped(self, event: z0.Event, step: z0.Step) -> None: ...  # type: ignore[type-arg]


def test_the_payload_is_what_the_annotation_of_the_event_says_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    assert payload_of(Base.run) is payload_of(Bare.run) is payload_of(Bare.untyped) is payload_of(len) is Any
    assert payload_of(Bare.plain) is Order

    @functools.wraps(Bare.plain)
    def around(*args: Any) -> Any: ...

    assert payload_of(around) is Order
    assert warnings(caplog) == []


def test_nothing_keeps_a_callback_or_a_body_whose_annotations_were_read() -> None:
    def made() -> list[weakref.ref[Any]]:
        class Local(msgspec.Struct):
            id: str

        async def run(self: Any, event: z0.Event[Local], step: Nowhere) -> Nowhere2:  # type: ignore[name-defined]  # noqa: F821
            return Local("l")

        def callback() -> list[Local]:
            return [Local("l")]

        assert (returned_by(run), payload_of(run), returned_by(callback)) == (Any, Local, list[Local])
        return [weakref.ref(run), weakref.ref(callback)]

    alive = made()
    gc.collect()
    assert [each() for each in alive] == [None, None]
