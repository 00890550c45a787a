"""Ten workflows of different shapes, each of whose effects is a fact of an entity, for tests that crash them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import z0

SLEEP = "2 hours"


class Effects(z0.Entity):
    """Where the world keeps what was done to it."""

    accepts = {"*"}


class Shop(z0.Workflow):
    """Does what its payload names."""

    blob_bytes = 100_000
    result_bytes = 10_000

    async def run(self, event: z0.Event[str], step: z0.Step) -> Any:
        return await SHAPES[event.payload](self, step)

    def effect(self, value: Any = None, fails: int = 0) -> Callable[[z0.StepContext], Awaitable[Any]]:
        """A callback whose effect carries the step's key; its first attempts fail after the effect."""

        async def act(context: z0.StepContext) -> Any:
            self.env.begun(context.idempotency_key)
            await self.get(Effects, "world").append("done", idempotency_key=context.idempotency_key)
            if context.attempt <= fails:
                raise ConnectionError(f"attempt {context.attempt}")
            return context.name if value is None else value

        return act


async def sequential(shop: Shop, step: z0.Step) -> Any:
    return [await step.do(f"s{n}", shop.effect(n)) for n in range(4)]


async def loop(shop: Shop, step: z0.Step) -> Any:
    done = []
    for n in range(3):
        done.append(await step.do("page", shop.effect(n)))
        await step.sleep("pause", SLEEP)
    return done


async def retries(shop: Shop, step: z0.Step) -> Any:
    first = await step.do("flaky", shop.effect(fails=2), retries=z0.Retries(delay="1 minute"))
    try:
        await step.do("dead", shop.effect(fails=9), retries=z0.Retries(limit=1, delay="1 minute"))
    except ConnectionError as error:
        return [first, str(error), await step.do("instead", shop.effect())]


async def nested_sleep(shop: Shop, step: z0.Step) -> Any:
    async def settle(context: z0.StepContext) -> Any:
        before = await context.do("before", shop.effect())
        await context.sleep("settle", SLEEP)
        return [before, await context.do("after", shop.effect(fails=1))]

    return [await step.do("settle", settle), await step.do("last", shop.effect())]


async def gather(shop: Shop, step: z0.Step) -> Any:
    results = await asyncio.gather(*(step.do(f"g{n}", shop.effect(n, fails=n % 2)) for n in range(4)))
    return [*results, await step.do("last", shop.effect())]


async def branches(shop: Shop, step: z0.Step) -> Any:
    async def branch(n: int) -> Any:
        first = await step.do(f"a{n}", shop.effect(n))
        await step.sleep(f"s{n}", f"{n + 1} hours")
        return [first, await step.do(f"b{n}", shop.effect(n))]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(n)) for n in range(3)]
    return [task.result() for task in tasks]


async def events(shop: Shop, step: z0.Step) -> Any:
    first = await step.wait_for_event("first", type="paid")
    done = await step.do("book", shop.effect())
    second = await step.wait_for_event("second", type="paid", match={"order": 3})
    third = await step.wait_for_event("third", type="paid")
    return [first.payload, done, second.payload, third.payload]


async def timeouts(shop: Shop, step: z0.Step) -> Any:
    async def hangs(context: z0.StepContext) -> None:
        await shop.effect()(context)
        await shop.clock.sleep("1 hour")

    try:
        await step.wait_for_event("never", type="never", timeout=SLEEP)
    except z0.EventTimeout:
        await step.do("escalate", shop.effect())
    try:
        await step.do("hangs", hangs, timeout="1 minute", retries=z0.Retries(limit=1, delay="1 minute"))
    except z0.StepTimeout as error:
        return [str(error), await step.do("last", shop.effect())]


async def values(shop: Shop, step: z0.Step) -> Any:
    new = step.patched("change")
    number = int(step.random() * 10)
    same = await step.do("check", shop.effect([new, number]))
    await step.sleep_until("until", step.now() + timedelta(hours=2))
    return same == [new, number] and step.uuid().version


async def big(shop: Shop, step: z0.Step) -> Any:
    data = await step.do("big", shop.effect(b"x" * 50_000))
    await step.sleep("pause", SLEEP)
    return [len(data), await step.do("size", shop.effect(len(data)))]


SHAPES: dict[str, Callable[[Shop, z0.Step], Awaitable[Any]]] = {
    shape.__name__: shape
    for shape in (sequential, loop, retries, nested_sleep, gather, branches, events, timeouts, values, big)
}
