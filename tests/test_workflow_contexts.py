"""Which callbacks get the context of their step: none misses it without a word, and no bound value gives way to it."""

from __future__ import annotations

import functools
import smtplib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional
from unittest.mock import Mock
from urllib.request import urlopen

import pytest

import z0
from tests.scripted_workflow import running
from z0.testing import VirtualClock
from z0.workflows.calling import argument_of

if TYPE_CHECKING:
    from z0 import StepContext as Hidden
Alias = z0.StepContext


class Given:
    async def optional(self, ctx: z0.StepContext | None = None) -> Any:
        return ctx and ctx.idempotency_key

    async def by_name_only(self, *, ctx=None) -> Any:  # type: ignore[no-untyped-def]
        return ctx and ctx.idempotency_key

    def __call__(self, *, context=None) -> Any:  # type: ignore[no-untyped-def]
        return context and context.idempotency_key

    @classmethod
    async def of_the_class(cls, number: int = 1, ctx: Optional[z0.StepContext] = None) -> Any:  # noqa: UP045
        return ctx and number == 1 and ctx.idempotency_key


async def keyed(order: str = "", *, of: Annotated[Alias | None, "given"] = None) -> Any:
    return of and of.idempotency_key


async def with_order(order: str, ctx: z0.RollbackContext | None = None) -> Any:
    return ctx and order == "o" and ctx.idempotency_key


async def by_position(ctx=None, /, other=None) -> Any:  # type: ignore[no-untyped-def]
    return other is None and ctx.idempotency_key


async def required_by_name(*, ctx) -> Any:  # type: ignore[no-untyped-def]
    return ctx.idempotency_key


async def out_of_reach(of: Hidden | StepContext | None = None) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return of and of.idempotency_key


@functools.wraps(keyed)
async def wrapped(*args: Any, **kwargs: Any) -> Any:
    return await keyed(*args, **kwargs)


GETS: list[Callable[..., Any]] = [
    Given().optional, Given().by_name_only, Given(), Given.of_the_class, keyed, by_position, required_by_name,
    out_of_reach, wrapped, functools.partial(keyed, "o"), functools.partial(with_order, "o"),
    functools.partial(with_order, order="o"), lambda ctx: ctx.idempotency_key,
    lambda n=1, ctx=None: ctx.idempotency_key,
]  # fmt: skip


async def test_a_callback_that_has_a_place_for_the_context_gets_it(data: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> list[Any]:
        return [await step.do(f"step {number}", fn) for number, fn in enumerate(GETS)]

    async with running(data, clock, body) as (_, instance):
        await clock.advance("1 minute")
        keys = await instance.result("1 second")
    assert [key and f"step {number}#1" in key for number, key in enumerate(keys)] == [True] * len(GETS)


def bound(n: int = 7, ctx: dict[str, int] | None = None) -> Any:
    return n, ctx


OUTER = object.__new__(z0.StepContext)
GETS_NOTHING: list[Callable[..., Any]] = [
    lambda n=7: n,
    lambda ctx=OUTER: ctx,
    lambda of=None: of,
    lambda *, n=7: n,
    lambda *args: args,
    bound,
    functools.partial(by_position, OUTER),
    functools.partial(urlopen, "https://example.com"),
    smtplib.SMTP().starttls,
    Decimal,
    Decimal(2).sqrt,
    dict,
    Mock(),
]


@pytest.mark.parametrize("fn", GETS_NOTHING, ids=range(len(GETS_NOTHING)))
def test_a_value_that_was_bound_is_kept_and_others_contexts_are_not_ours(fn: Callable[..., Any]) -> None:
    assert argument_of(fn) is None


def test_a_parameter_without_a_default_gets_the_context_whatever_its_name() -> None:
    assert argument_of(lambda c, n=7, context=None: c) == ""


async def test_a_rollback_handler_with_an_optional_context_gets_it(data: Path, clock: VirtualClock) -> None:
    undone: list[Any] = []

    async def refund(number: int = 7, ctx: z0.RollbackContext | None = None) -> None:
        undone.append(ctx and (number, ctx.output))

    def silent(*, ctx=None) -> None:  # type: ignore[no-untyped-def]
        undone.append(ctx and ctx.output)

    async def body(step: z0.Step) -> None:
        await step.do("charge", lambda: "paid", rollback=refund)
        await step.do("book", lambda: "booked", rollback=silent)
        await step.do("late", lambda n=7: n, rollback=lambda n=8: undone.append(n))
        raise z0.NonRetryableError("no")

    async with running(data, clock, body) as (_, instance):
        await clock.advance("1 minute")
        with pytest.raises(z0.NonRetryableError):
            await instance.result("1 second")
    assert undone == [8, "booked", (7, "paid")]
