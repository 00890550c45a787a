"""A stage for scenarios under simulated schedules: what was called, how it ended, and what must follow from that.

A call says which facts it writes, in which segments. From its end follows what must be in the ledgers, what may be,
and what must not; the order of sending says in which order. Each scenario ends with the faults healed, a message to
every actor (which must be answered), the end of the runtime one way or another, and a look at what is there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec
import pytest

import z0
from tests.proofs import Proof
from tests.simulation import Simulation, explore
from z0.actors.errors import DatabaseFailure
from z0.actors.names import Address, file_path
from z0.actors.node import Node
from z0.actors.reader import Reader
from z0.testing import Point, crash, fault

T = TypeVar("T")
Place = tuple[str, str]
"""An actor's name, and the key of a fact there."""
Outcome = Literal["waiting", "done", "never", "unknown"]
TRIES = 20
LONG = 1800  # virtual seconds: who is not answered by then never will be


class Oops(Exception):
    """What handlers raise on purpose."""


class Call(msgspec.Struct):
    """A message, as its caller knows it."""

    sender: object
    segments: tuple[list[Place], ...]
    """The facts that it writes: those of one list all or none, each list only after the one before."""
    outcome: Outcome = "waiting"
    whole: bool = False
    """It may have happened or not, but not in part."""


class Stage:
    """What the actors and callers of one run share."""

    def __init__(self, simulation: Simulation, *actors: type[z0.Actor]) -> None:
        self.simulation = simulation
        self.clock = simulation.clock
        self.actors = actors
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.inside: set[str] = set()
        self.names: dict[tuple[type[Any], str], None] = {}
        self.crashes = 0
        self.answered: Counter[str] = Counter()
        """How the calls of callers ended."""
        self.runtimes: list[z0.Runtime] = []

    @property
    def runtime(self) -> z0.Runtime:
        return self.runtimes[-1]

    async def open(self) -> None:
        self.runtimes.append(await self.simulation.open(*self.actors, env=self))

    def violation(self, text: str) -> None:
        self.simulation.note(f"VIOLATION: {text}")
        self.violations.append(text)

    def get(self, cls: type[T], name: str) -> T:
        self.names[cls, name] = None
        return self.runtime.get(cls, name)  # type: ignore[type-var]

    # Calls

    async def call(
        self,
        message: Coroutine[Any, Any, T],
        *segments: list[Place],
        sender: object = "outside",
        far: bool = False,
        allow: tuple[type[BaseException], ...] = (z0.Overloaded,),
    ) -> T | None:
        """Send it, and note what its end says of these facts; its reply, or None when it ends as is allowed.

        `far`: the message asks other actors in turn, whose errors may be its own.
        """
        call = Call(sender, segments)
        self.calls.append(call)
        text = f"{sender} {getattr(message, '__name__', '')} {segments}"
        self.simulation.note(f"> {text}")
        try:
            async with asyncio.timeout(LONG):
                reply = await message
        except TimeoutError:
            self.violation(f"{text} was not answered")
            call.outcome = "unknown"
            return None
        except BaseException as error:
            call.outcome, call.whole = _outcome(error, far)
            self.simulation.note(f"! {text}: {type(error).__name__} {call.outcome}")
            self.answered[type(error).__name__] += 1
            if not isinstance(error, (*allow, asyncio.CancelledError)):
                self.violation(f"{text}: {error!r}")
            if isinstance(error, asyncio.CancelledError):
                raise
            return None
        call.outcome = "done"
        self.simulation.note(f"< {text}")
        self.answered["reply"] += 1
        for segment in segments:
            for name, key in segment:
                self.see(name, key)
        return reply

    def expect(self, name: str, key: str) -> None:
        """Something may come to be there for which nobody waits."""
        self.calls.append(Call(f"nobody {key}", ([(name, key)],), "unknown"))

    def promise(self, name: str, key: str) -> None:
        """It must be there by now."""
        self.calls.append(Call(f"nobody {key}", ([(name, key)],), "done"))

    def see(self, name: str, key: str) -> None:
        """Whoever knows of this fact may know of it: it is committed, for another connection to see."""
        if not self.is_committed(name, key):
            self.violation(f"{name}: {key} was told of before it was committed")

    def is_committed(self, name: str, key: str) -> bool:
        namespace = next(cls.namespace for cls, known in self.names if known == name)
        path = self.simulation.path / file_path(*Address("default", namespace, name))
        if not path.exists():
            return False
        with Reader(path) as reader:
            return bool(reader.rows("SELECT 1 FROM facts WHERE external_id = ?", key))

    # What goes wrong

    async def trouble(self, *points: Point, times: int = 3) -> None:
        """Set faults, one after another, each for a while."""
        for _ in range(times):
            await self.clock.sleep(self.simulation.one_of([0, 0.01, 0.2, 2]))
            point, nth, strikes = (
                self.simulation.one_of(points),
                1 + self.simulation.below(3),
                1 + self.simulation.below(3),
            )
            self.simulation.note(f"fault {point} {nth} {strikes}")
            with fault(self.runtime, point, nth=nth, times=strikes):
                await self.clock.sleep(self.simulation.one_of([0.01, 0.2, 2, 10]))

    @contextmanager
    def broken_catalogue(self) -> Iterator[None]:
        """Each batch of the catalogue may fail meanwhile."""
        catalog: Any = self.runtime.node.catalog
        whole = catalog._database
        catalog._database = _Broken(whole, lambda: self.simulation.below(2) == 0)
        try:
            yield
        finally:
            catalog._database = whole

    async def crash(self) -> None:
        self.simulation.note("crash")
        self.crashes += 1
        await crash(self.runtime)

    async def reopen(self) -> None:
        await self.open()
        self.simulation.note("reopened")

    # The end

    async def finish(self) -> None:
        """Everybody answers, and what there is follows from what was said, now and after another start."""
        await self.clock.sleep(120)  # what was begun has ended
        await self._liveness()
        await self.check()
        if self.simulation.below(2):
            await self.crash()
        else:
            await self.runtime.close()
        await self.reopen()
        await self.check()
        await self.runtime.close()
        await self.clock.sleep(1)
        for runtime in self.runtimes:
            self._check_books(runtime.node)
        assert self.violations == []

    def _check_books(self, node: Node) -> None:
        """A runtime that has ended holds nothing any more, by its own books."""
        books = {
            "hosts": len(node.hosts) + len(node.closing),
            "places": node.room.taken + node.room.wanted,
            "bytes": node.load.bytes,
            "turns": node.dirty,
            "work": node.threads.in_flight,
            "openings": len(node.wakeups._opening) + node.limits.alarm_openings - node.wakeups._openings._value,
        }
        left = {what: number for what, number in books.items() if number}
        if left:
            self.violation(f"the runtime has ended, and still counts {left}")

    async def _liveness(self) -> None:
        for number, (cls, name) in enumerate(list(self.names)):
            key = f"last{number}.{self.crashes}"
            await self.persist(partial(self.get(cls, name).once, key), [(name, key)])

    async def persist(self, send: Callable[[], Coroutine[Any, Any, T]], *segments: list[Place]) -> T:
        """Send until it is answered, by somebody who may have failed before."""
        for attempt in range(TRIES):
            known = len(self.calls)
            reply = await self.call(
                send(),
                *segments,
                sender=f"persistent {known}",
                allow=(z0.ActorReset, z0.CommitUnknown, z0.Overloaded, Oops),
            )
            if self.calls[known].outcome == "done":
                return reply  # type: ignore[return-value]
            await self.clock.sleep(attempt)
        raise AssertionError(f"nobody answers {segments}")

    async def check(self) -> None:
        """What is in the ledgers is what the ends of the calls say."""
        found = {}
        for cls, name in self.names:
            found[name] = await self.persist(self.get(cls, name).keys)
        for name, keys in found.items():
            doubled = [key for key, times in Counter(keys).items() if times > 1]
            if doubled:
                self.violation(f"{name}: {doubled} more than once")
        there = {(name, key) for name, keys in found.items() for key in keys}
        outcomes: dict[Place, set[Outcome]] = {}
        for call in self.calls:
            for place in (place for segment in call.segments for place in segment):
                outcomes.setdefault(place, set()).add(call.outcome)
        for place in sorted(there - outcomes.keys()):
            self.violation(f"{place} is there, which nobody could have written")
        for place, ends in sorted(outcomes.items()):
            if "done" in ends and place not in there:
                self.violation(f"{place} was acknowledged, and is lost")
            if ends == {"never"} and place in there:
                self.violation(f"{place} is there, although its caller was told that it never would be")
        for call in self.calls:
            self._check_parts(call, there)
        self._check_order(found)

    def _check_parts(self, call: Call, there: set[Place]) -> None:
        parts = [[place in there for place in segment] for segment in call.segments]
        if any(any(part) and not all(part) for part in parts):
            self.violation(f"a segment of {call} was kept in part")
        kept = [all(part) for part in parts]
        if kept != sorted(kept, reverse=True):
            self.violation(f"a later segment of {call} was kept without an earlier one")
        if call.whole and not self._disturbed() and any(kept) and not all(kept):
            self.violation(f"{call} happened in part")

    def _disturbed(self) -> bool:
        """Whether an actor may have lost its memory, so that a message may have ended between two segments."""
        return bool(self.crashes or any(runtime.node.metrics.resets for runtime in self.runtimes))

    def _check_order(self, found: dict[str, list[str]]) -> None:
        """First facts of one sender's messages are in the order of sending."""
        for name, keys in found.items():
            at = {key: number for number, key in enumerate(keys)}
            last: dict[object, int] = {}
            for call in self.calls:
                first = next((key for segment in call.segments for to, key in segment[:1] if to == name), None)
                if first is None or first not in at or call.segments[0][0][0] != name:
                    continue
                if at[first] < last.get(call.sender, -1):
                    self.violation(f"{name}: {first} of {call.sender} was overtaken")
                last[call.sender] = max(at[first], last.get(call.sender, -1))


def _outcome(error: BaseException, far: bool) -> tuple[Outcome, bool]:
    """What the error says of the message's facts, and whether it may not have happened in part."""
    match error:
        case _ if far:
            return "unknown", False
        case z0.DeadlineExceeded(started=True) | asyncio.CancelledError():
            return "unknown", True
        case z0.ActorReset() | z0.Overloaded() | z0.DeadlineExceeded() | z0.RuntimeClosed() | z0.CallCycle():
            return "never", True
        case _:
            return "unknown", False


class _Broken:
    """A database whose COMMIT fails now and then."""

    def __init__(self, database: Any, fails: Callable[[], bool]) -> None:
        self._database = database
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def commit(self) -> None:
        if self._fails():
            raise DatabaseFailure("fault of the catalogue")
        self._database.commit()


async def at_once(*coroutines: Awaitable[Any]) -> None:
    """All of them, each in a task of its own; those that are cancelled meanwhile as well."""
    for result in await asyncio.gather(*coroutines, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


Scene = Callable[[Stage], Awaitable[None]]


def scenario(*actors: type[z0.Actor], full: int = 200) -> Callable[[Scene], Callable[[Proof], None]]:
    """Make a test of a scene with these actors: many schedules of it, each ended and checked as any."""

    def of(scene: Scene) -> Callable[[Proof], None]:
        @pytest.mark.proof
        def test(proof: Proof) -> None:
            explore(played, proof, full)

        async def played(simulation: Simulation) -> None:
            await play(scene, simulation, *actors)

        for function in (test, played):
            function.__name__ = function.__qualname__ = scene.__name__
            function.__module__ = scene.__module__
        return test

    return of


async def play(scene: Scene, simulation: Simulation, *actors: type[z0.Actor]) -> None:
    """One run of a scene."""
    stage = Stage(simulation, *actors)
    await stage.open()
    await scene(stage)
    await stage.finish()
