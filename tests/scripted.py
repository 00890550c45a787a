"""Actors that do what a test hands them, by the name of a function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import z0
from z0.actors.gates import pass_once

Script = Callable[..., Any]


class World:
    """What the scripts are, and what they share."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.go = asyncio.Event()
        self.scripts: dict[str, Script] = {}

    def script(self, function: Script) -> str:
        """Make the function known; its name."""
        self.scripts[function.__name__] = function
        return function.__name__


class Room(z0.Actor):
    """Without hooks: opened on the spot where that is possible."""

    env: World

    async def at_once(self, script: str, *args: Any) -> Any:
        return self.env.scripts[script](self, *args)

    async def slowly(self, script: str, *args: Any) -> Any:
        return await self.env.scripts[script](self, *args)

    async def put(self, key: str, value: Any = 1) -> None:
        self.storage.put(key, value)

    async def put_slowly(self, key: str) -> None:
        self.storage.put(key, 1)
        await pass_once()

    async def read(self) -> dict[str, Any]:
        return self.storage.list()

    def room(self, name: str) -> Room:
        return self.get(Room, name)


class House(Room):
    """With hooks: each does its script, if there is one."""

    def __init__(self) -> None:
        if "construct" in self.env.scripts:
            self.env.scripts["construct"](self)

    async def start(self) -> None:
        await self._hook("start")

    async def stop(self, reason: str) -> None:
        await self._hook("stop")

    async def _hook(self, name: str) -> None:
        if name in self.env.scripts:
            await self.env.scripts[name](self)


async def quiet() -> None:
    """Let everything run that can without a thread."""
    for _ in range(50):
        await pass_once()
