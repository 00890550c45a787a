"""Plays scenarios on z0, under a virtual clock. `worker.js` beside it does the same on the real Durable Objects."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import z0
from tests.conformance.scenario import Operation, Outcome, Scenario, Step
from tests.conformance.values import decoded, encoded, pairs
from z0.testing import VirtualClock

_TICK = timedelta(milliseconds=10)


class World:
    """What outlives the memory of a scenario's actors: events, what is to be done at which, and texts of errors."""

    def __init__(self, classes: Mapping[str, type[Plain]]) -> None:
        self._classes = classes
        self.log: list[Any] = []
        self.said: list[str] = []
        self.scripts: dict[tuple[str, str], list[list[Operation]]] = {}
        self.times: dict[tuple[str, datetime], int] = {}

    def next(self, event: str, name: str) -> list[Operation] | None:
        """What an actor is to do at this event."""
        scripts = self.scripts.get((event, name), [])
        return scripts.pop(0) if len(scripts) > 1 else scripts[0] if scripts else None

    def address(self, to: str) -> tuple[type[Plain], str]:
        """Class and name of "Other:a", or of "a" alone."""
        kind, _, name = to.rpartition(":")
        return self._classes[kind or "Subject"], name


class Custom(Exception):
    """An error of the scenario's own."""


_ERRORS: dict[str, type[Exception]] = {
    "Error": RuntimeError,
    "TypeError": TypeError,
    "RangeError": ValueError,
    "Custom": Custom,
}
_NAMES = {kind: name for name, kind in _ERRORS.items()}


def described(error: Exception, world: World) -> dict[str, Any]:
    """How a call failed, in the words of both sides."""
    world.said.append(f"{type(error).__name__}: {error}")
    because = re.search(r"(?:^|: )(because[\w ]*)", str(error))
    if isinstance(error, (z0.ActorReset, z0.CommitUnknown)):
        return {"reset": because and because[1]}
    if isinstance(error, z0.CallCycle):
        return {"cycle": None}
    if because:
        return {"raised": _NAMES.get(type(error), type(error).__name__), "says": str(error)}
    return {"refused": None}


class Plain(z0.Actor):
    """Does what the operations of a scenario say. Those that have to be awaited come last."""

    env: World

    def __init__(self) -> None:
        self._memory: dict[str, Any] = {}
        self._cursors: dict[str, Any] = {}
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        script = self.env.next("start", self.name)
        if script:
            await self._perform(script)

    async def run(self, operations: list[Operation]) -> list[Any]:
        return await self._perform(operations)

    async def echo(self, value: Any) -> Any:
        return value

    async def _perform(self, operations: list[Operation]) -> list[Any]:
        results = []
        for operation, *its in operations:
            result = getattr(self, f"_do_{operation}")(*its)
            results.append(await result if inspect.isawaitable(result) else result)
        return results

    def _at_once(self, operations: list[Operation]) -> list[Any]:
        return [getattr(self, f"_do_{operation}")(*its) for operation, *its in operations]

    # Key-value

    def _do_put(self, key: str, value: Any) -> None:
        self.storage.put(key, decoded(value))

    def _do_put_many(self, values: dict[str, Any]) -> None:
        self.storage.put(decoded(values))

    def _do_put_numbered(self, count: int) -> None:
        self.storage.put({f"k{n}": n for n in range(count)})

    def _do_get(self, key: str) -> Any:
        return encoded(self.storage.get(key))

    def _do_get_many(self, *keys: str) -> list[Any]:
        return pairs(self.storage.get(list(keys)))

    def _do_delete(self, key: str) -> bool:
        return self.storage.delete(key)

    def _do_delete_many(self, *keys: str) -> int:
        return self.storage.delete(list(keys))

    def _do_list(self, options: dict[str, Any] | None = None) -> list[Any]:
        return pairs(self.storage.list(**options or {}))

    def _do_delete_all(self) -> None:
        self.storage.delete_all()

    # SQL

    def _do_sql(self, query: str, *params: Any) -> Any:
        return encoded([list(row) for row in self._sql(query, params)])

    def _do_one(self, query: str, *params: Any) -> Any:
        return encoded(list(self._sql(query, params).one()))

    def _do_columns(self, query: str, *params: Any) -> list[str]:
        return list(self._sql(query, params).columns)

    def _do_counts(self, query: str, *params: Any) -> list[int]:
        cursor = self._sql(query, params)
        return [cursor.rows_read, cursor.rows_written]

    def _do_cursor(self, name: str, query: str, *params: Any) -> None:
        self._cursors[name] = self._sql(query, params)

    def _do_next(self, name: str) -> Any:
        row = next(self._cursors[name], None)
        return row and encoded(list(row))

    def _sql(self, query: str, params: tuple[Any, ...]) -> Any:
        return self.storage.sql(query, *map(decoded, params))

    def _do_size(self) -> bool:
        return self.storage.size > 0

    # Transactions

    def _do_transaction(self, *operations: Operation) -> list[Any]:
        with self.storage.transaction():
            return self._at_once(list(operations))

    async def _do_transaction_async(self, *operations: Operation) -> list[Any]:
        async with self.block():
            return await self._perform(list(operations))

    async def _do_transaction_waiting(self, *operations: Operation) -> list[Any]:
        with self.storage.transaction():
            return await self._perform(list(operations))

    def _do_transaction_rolled_back(self, *operations: Operation) -> list[Any]:
        try:
            with self.storage.transaction():
                results = self._at_once(list(operations))
                raise _RolledBack
        except _RolledBack:
            return results

    # Alarms

    def _do_set_alarm(self, milliseconds: int) -> None:
        when = self.clock.now() + timedelta(milliseconds=milliseconds)
        self.env.times[self.name, when] = milliseconds
        self.storage.set_alarm(when)

    def _do_set_alarm_at(self, milliseconds: int) -> None:
        self.storage.set_alarm(datetime.fromtimestamp(milliseconds / 1000, UTC))

    def _do_get_alarm(self) -> Any:
        when = self.storage.get_alarm()
        return when and self.env.times.get((self.name, when), "another time")

    def _do_has_alarm(self) -> bool:
        return self.storage.get_alarm() is not None

    def _do_delete_alarm(self) -> None:
        self.storage.delete_alarm()

    # Life

    def _do_raise(self, kind: str, text: str) -> None:
        raise _ERRORS[kind](text)

    def _do_log(self, text: Any) -> None:
        self.env.log.append(text)

    def _do_remember(self, key: str, value: Any) -> None:
        self._memory[key] = value

    def _do_recall(self, key: str) -> Any:
        return self._memory.get(key)

    def _do_name(self) -> str:
        return self.name

    def _do_abort(self, reason: str, options: dict[str, Any] | None = None) -> None:
        self.abort(reason, **options or {})

    def _do_open(self, gate: str) -> None:
        self._gates[gate].set()

    def _do_wait_until(self, *operations: Operation) -> None:
        self.wait_until(self._perform(list(operations)))

    def _do_task(self, *operations: Operation) -> None:
        self._tasks.append(asyncio.create_task(self._perform(list(operations))))

    # What has to be awaited, if not always

    def _do_try(self, *operations: Operation) -> Any:
        return self._try_in_time(list(operations)) if _waits(operations) else self._try_at_once(list(operations))

    def _try_at_once(self, operations: list[Operation]) -> Any:
        try:
            return self._at_once(operations)
        except Exception as error:
            return described(error, self.env)

    async def _try_in_time(self, operations: list[Operation]) -> Any:
        try:
            return await self._perform(operations)
        except Exception as error:
            return described(error, self.env)

    async def _do_sync(self) -> None:
        await self.storage.sync()

    async def _do_block(self, *operations: Operation) -> list[Any]:
        async with self.block():
            return await self._perform(list(operations))

    async def _do_nest(self, depth: int, *operations: Operation) -> list[Any]:
        async with AsyncExitStack() as stack:
            for _ in range(depth):
                await stack.enter_async_context(self.block())
            return await self._perform(list(operations))

    async def _do_together(self, *scripts: list[Operation]) -> list[Any]:
        return list(await asyncio.gather(*map(self._perform, scripts)))

    async def _do_pause(self, milliseconds: int) -> None:
        await self.clock.sleep(timedelta(milliseconds=milliseconds))

    async def _do_await(self, gate: str) -> None:
        await self._gates[gate].wait()

    async def _do_call(self, to: str, *operations: Operation) -> list[Any]:
        return await self.get(*self.env.address(to)).run(list(operations))

    async def _do_ask(self, to: str, value: Any) -> Any:
        return encoded(await self.get(*self.env.address(to)).echo(decoded(value)))


def _waits(operations: Any) -> bool:
    """Whether one of the operations, or of those inside them, has to be awaited."""
    return any(
        inspect.iscoroutinefunction(getattr(Plain, f"_do_{name}")) or (name == "try" and _waits(its))
        for name, *its in operations
    )


class _RolledBack(Exception):
    """Takes a transaction back."""


class Subject(Plain):
    """... in its alarm, too."""

    async def alarm(self, info: z0.AlarmInfo) -> None:
        script = self.env.next("alarm", self.name) or [["put", "alarm ran", True]]
        told: Operation = ["log", [info.retry_count, info.is_retry, info.scheduled_time <= self.clock.now()]]
        await self._perform([told if operation == ["info"] else operation for operation in script])


class Other(Subject):
    """Another class with actors of the same names."""


CLASSES: dict[str, type[Plain]] = {"Plain": Plain, "Subject": Subject, "Other": Other}


async def play(scenario: Scenario, path: Path, classes: Mapping[str, type[Plain]] = CLASSES) -> Outcome:
    """Play a scenario in a new data directory; `said` are the errors as they were."""
    world, clock = World(classes), VirtualClock()
    steps: list[Any] = []
    for act in scenario.acts():
        async with z0.Runtime(path, actors=classes.values(), env=world, clock=clock) as runtime:
            playing = asyncio.create_task(_play_act(act, _Stage(runtime, world, clock)))
            await clock.settle()
            while not playing.done():
                await clock.advance(_TICK)
            steps += await playing
    return {"outcome": {"steps": steps, "log": world.log}, "said": world.said}


class _Stage(NamedTuple):
    """Where a scenario is played."""

    runtime: z0.Runtime
    world: World
    clock: VirtualClock


async def _play_act(act: list[Step], stage: _Stage) -> list[Any]:
    return [await _play_step(step, stage) for step in act]


async def _play_step(step: Step, stage: _Stage) -> Any:
    match step:
        case {"together": calls}:
            return await asyncio.gather(*(_play_step(one, stage) for one in calls))
        case {"wait": milliseconds}:
            return await stage.clock.sleep(timedelta(milliseconds=milliseconds))
        case {"on": event, "to": to, "scripts": scripts}:
            stage.world.scripts[event, to] = [*scripts]
        case {"to": to, "do": operations}:
            try:
                return await stage.runtime.get(*stage.world.address(to)).run(operations)
            except Exception as error:
                return described(error, stage.world)
    return None
