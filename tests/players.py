"""Actors of the scenarios: they write what they are told to, one way or another, and watch over themselves.

Each fact that a message is to write has a key of its own, and is written together with a key-value pair and into a
projection: what was written together must never be found apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import z0
from tests.stage import Oops, Stage


class Count(z0.Projection):
    all: int = 0
    own: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.all += 1
        self.own += fact.type == "own"


class Player(z0.Entity):
    """Without hooks."""

    namespace = "Player"
    accepts = {"outside"}
    count: Count
    env: Stage

    def __init__(self) -> None:
        self.blocker: object = None
        self.background: list[asyncio.Task[None]] = []

    @contextmanager
    def segment(self, who: object = None) -> Iterator[None]:
        """What runs inside is a segment, or a part of one. `who`: has the gate, if anybody has."""
        inside, host = self.env.inside, self._z0_host
        if self.name in inside:
            self.env.violation(f"{self.name}: a segment runs inside another one's")
        if self.blocker is not None and self.blocker is not who:
            self.env.violation(f"{self.name}: a segment runs while another message has the gate")
        if host.gate.parked and not host.dead:
            self.env.violation(f"{self.name}: a segment runs while a thread has the file")
        inside.add(self.name)
        try:
            self.agree()
            yield
        finally:
            inside.discard(self.name)

    def agree(self) -> None:
        """The ledger, its projection and the key-value pairs were written together, and taken back together."""
        head, own = self.ledger.head, self.storage.get("own", 0)
        if (self.count.all, self.count.own) != (head, own) or self.ledger.count() != head:
            self.env.violation(f"{self.name}: {head} facts and {own} pairs, but {self.count}")

    def write(self, key: str) -> None:
        self.ledger.append("own", external_id=key)
        self.storage.put("own", self.storage.get("own", 0) + 1)

    async def pause(self) -> None:
        """Wait, one way or another."""
        match self.env.simulation.below(4):
            case 0:
                await asyncio.sleep(0)
            case 1:
                await self.clock.sleep(0.001)
            case 2:
                await self.storage.sync()
            case _:
                await self.clock.sleep(1)

    # Messages

    async def put(self, key: str) -> None:
        with self.segment():
            self.write(key)

    async def put_and_fail(self, key: str) -> None:
        with self.segment():
            self.write(key)
            raise Oops

    @z0.idempotent("key")
    async def once(self, key: str) -> int:
        with self.segment():
            self.write(key)
            return self.ledger.head

    async def slow(self, *keys: str) -> None:
        """A segment for each key, and one more at the end."""
        for key in keys:
            with self.segment():
                self.write(key)
            await self.pause()
        with self.segment():
            pass

    async def slow_and_fail(self, key: str, lost: str) -> None:
        with self.segment():
            self.write(key)
        await self.pause()
        with self.segment():
            self.write(lost)
            raise Oops

    async def alone(self, keys: list[str], fail: bool = False) -> None:
        """As `slow`, with the gate held, taken twice."""
        async with self.block(), self.block():
            me = self.blocker = object()
            for key in keys:
                with self.segment(me):
                    self.write(key)
                await self.pause()
            self.blocker = None
            if fail:
                raise Oops

    async def pass_on(self, key: str, route: list[str]) -> None:
        """Write, have the next one do the same, and write again."""
        with self.segment():
            self.write(f"{key}/out")
        if route:
            await self.get(type(self), route[0]).taken(self.name, f"{key}/out", f"{key}+", route[1:])
        with self.segment():
            self.write(f"{key}/back")

    async def taken(self, sender: str, sent: str, key: str, route: list[str]) -> None:
        """As `pass_on`, for whoever has written `sent` before."""
        self.env.see(sender, sent)
        await self.pass_on(key, route)

    async def call_back(self, name: str, held: bool) -> str:
        """Ask another one who asks this one, with the gate held or not; what came of it."""
        if not held:
            return await self.get(type(self), name).ask(self.name)
        async with self.block():
            try:
                return await self.get(type(self), name).ask(self.name)
            except z0.CallCycle:
                return "cycle"

    async def ask(self, name: str) -> str:
        return await self.get(type(self), name).answer()

    async def answer(self) -> str:
        with self.segment():
            return "answer"

    async def tell(self, key: str, names: list[str]) -> None:
        """Write, and send to others without waiting in between."""
        with self.segment():
            self.write(key)
            tasks = [asyncio.create_task(self._tell(key, name, f"{key}+{n}")) for n, name in enumerate(names)]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, before: str, name: str, key: str) -> None:
        other, sender = self.get(type(self), name), (self.name, id(self))
        await self.env.call(other.hear(self.name, before, key), [(name, key)], sender=sender, allow=(z0.Z0Error,))

    async def hear(self, sender: str, before: str, key: str) -> None:
        self.env.see(sender, before)
        with self.segment():
            self.write(key)

    async def later(self, key: str) -> None:
        """Write, and write again in the background."""
        with self.segment():
            self.write(key)
            self.wait_until(self._in_background(f"{key}+"))

    async def _in_background(self, key: str) -> None:
        await self.pause()
        me = self.get(type(self), self.name)
        await self.env.call(me.put(key), [(self.name, key)], sender=key, allow=(z0.Z0Error,))

    async def note(self, key: str) -> None:
        """Nobody waits for it to be durable."""
        with self.segment():
            self.storage.put(f"note {key}", key, allow_unconfirmed=True)

    async def keys(self) -> list[str]:
        """Of the facts in order, and of the notes."""
        with self.segment():
            facts = [fact.external_id or "" for fact in self.ledger.query()]
            return facts + list(self.storage.list(prefix="note ").values())


class Sleeper(Player):
    """With alarms: each writes a fact, once."""

    namespace = "Sleeper"

    async def arm(self, key: str, after: float) -> None:
        with self.segment():
            self.write(key)
            self.storage.set_alarm(timedelta(seconds=after), key)

    async def alarm(self, info: Any) -> None:
        if self.clock.now() < info.scheduled_time:
            self.env.violation(f"{self.name}: {info} is early")
        with self.segment():
            if not self.ledger.count(external_id=f"{info.name}!"):  # else a reset cut the last run off after this
                self.write(f"{info.name}!")
            if info.name.startswith("fails") and not info.is_retry:
                raise Oops
        if info.name.startswith("slow"):
            await self.pause()
            with self.segment():
                self.write(f"{info.name}!!")


class Host(Player):
    """With hooks that take their time."""

    namespace = "Host"

    async def start(self) -> None:
        with self.segment():
            self.storage.put("starts", self.storage.get("starts", 0) + 1)
        async with self.block():
            await self.pause()
        with self.segment():
            if self.env.simulation.below(8) == 0:
                raise Oops

    async def stop(self, reason: str) -> None:
        with self.segment():
            self.storage.put("stops", self.storage.get("stops", 0) + 1)
        await self.pause()
        if self.env.simulation.below(4) == 0:
            await self.clock.sleep(100)
        with self.segment():
            self.storage.put("stops", self.storage.get("stops", 0) + 1)
