"""A workflow whose body the test gives, and runtimes for it, one after another on one directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import z0
from z0.testing import VirtualClock

Body = Callable[[z0.Step], Any]


class Scripted(z0.Workflow):
    """Does what the test says, which it finds in `env`."""

    async def run(self, event: z0.Event[Any], step: z0.Step) -> Any:
        return await self.env["body"](step)


class Paused(Scripted):
    """Its instances wait until the code fits again."""

    namespace = "Scripted"
    on_divergence = "pause"


@asynccontextmanager
async def running(
    path: Path, clock: VirtualClock, body: Body, cls: type[z0.Workflow] = Scripted
) -> AsyncIterator[tuple[z0.Runtime, z0.Instance[z0.Workflow]]]:
    """A runtime on the directory, whose instance "one" has the body; it is created the first time."""
    async with z0.Runtime(path, clock=clock, actors=[cls], env={"body": body}) as runtime:
        if not await runtime.list(cls):
            await runtime.workflows.create(cls, id="one")
        await clock.settle()
        yield runtime, runtime.workflows.get(cls, "one")
