"""Whether a power cut has left all that it may not take, and whether z0 goes on from there."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import z0
from tests.power_actors import Order, Place
from tests.power_loss import PLANS, Now, Plan, Workload
from z0.actors.kind import Kind
from z0.crashes import CrashImage
from z0.medium import Event, Mark, Medium
from z0.testing import SimulatedDisk, VirtualClock, crash, simulated_disk

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
IMAGES = 190  # of each seed, about
FIRE_ONE_IN = 8
DEEPER_ONE_IN = 40
DEEPER_POINTS, DEEPER_IMAGES = 6, 12
ENOUGH = 4  # violations
START = datetime(2026, 1, 1, tzinfo=UTC)


class Violation(NamedTuple):
    """An image that is not as promised."""

    seed: int
    plan: str
    where: str
    what: str
    kept: str

    def __str__(self) -> str:
        """What it is, and how to see it again."""
        again = f"pytest tests/test_power_loss.py -k at_any_moment --seed {self.seed}"
        kept = f"; the image is kept in {self.kept}" if self.kept else ""
        return f"{self.plan!r}, {self.where}: {self.what}\n    again: {again}{kept}"


class Explored(NamedTuple):
    """What exploring one seed has come to."""

    images: Counter[str]
    violations: list[Violation]


class Told:
    """What the marks say: what was tried, what was acknowledged, and when it is."""

    def __init__(self, marks: Iterable[object]) -> None:
        self.tried: set[Order] = set()
        self.acknowledged: set[Order] = set()
        self.reset: set[Order] = set()
        self.notes: Counter[tuple[str, str]] = Counter()
        self.notes_kept: Counter[tuple[str, str]] = Counter()
        self.now = 0
        for mark in marks:
            match mark:
                case int(now):
                    self.now = now
                case ("reset", Order() as order):
                    self.reset.add(order)
                case ("try", Order() as order):
                    self.tried.add(order)
                    self.reset.discard(order)
                    self.notes[order[2:4]] += order.sort == "note"
                case ("ack", Order() as order):
                    self.acknowledged.add(order)
                    if order.sort != "note":  # then all that was noted before is durable with it
                        self.notes_kept[order[2:4]] = self.notes[order[2:4]]

    @property
    def actors(self) -> set[tuple[str, str]]:
        """Tenant and name of each actor that was meant."""
        return {(order.tenant, order.name) for order in self.tried} | {
            place[:2] for order in self.tried for place in order.places
        }


async def check(path: Path, plan: Plan, marks: Iterable[object], *, fire: bool, runtime: Any = z0.Runtime) -> None:
    """Open what was left, and make sure of everything. Raises AssertionError, and whatever z0 does.

    `fire`: let time pass first, without touching an actor: what is due must have run then.
    """
    told = Told(marks)
    clock = VirtualClock(START + timedelta(hours=20 if fire else 0))
    cls = plan.classes[-1]
    found: list[Place] = []
    async with runtime(path, actors=[cls], clock=clock, executor=Now()) as opened:
        if fire:
            await clock.advance("2 hours")
        # Before an actor is touched, for that would enter it into the catalogue.
        listed = {
            (tenant, info.name)
            for tenant in sorted({tenant for tenant, _ in told.actors})
            for info in await opened.tenant(tenant).list(cls)
        }
        for tenant, name in sorted(told.actors):
            state = await opened.tenant(tenant).get(cls, name).audit(told.now)
            found += [(tenant, name, key) for key in state.keys if not key.startswith("before")]
            assert not (fire and state.owed), f"{name}: {state.owed} never ran"
            actor = (tenant, name)
            assert told.notes_kept[actor] <= state.notes <= told.notes[actor], "unconfirmed writes are lost"
        await crash(opened)
    compare(told, set(found), listed)


def compare(told: Told, there: set[Place], listed: set[tuple[str, str]]) -> None:
    """Acknowledged within stored within started, each message in its order, its parts together where it says so."""
    may = {place for order in told.tried for place in order.places}
    must = {place for order in told.acknowledged for place in order.places}
    assert not must - there, f"lost although acknowledged: {sorted(must - there)}"
    unknown = {place for place in there - may if not place[2].startswith("set-")}
    assert not unknown, f"nobody wrote this: {sorted(unknown)}"
    denied = {place for order in told.reset for place in order.places} & there
    assert not denied, f"said not to be committed: {sorted(denied)}"
    assert {place[:2] for place in must} <= listed, "an acknowledged actor is not in the catalogue"
    for order in told.tried:
        written = [place in there for place in order.places]
        assert written == sorted(written, reverse=True), f"{order.key}: a later part without an earlier one"
        assert order.sort != "many" or len(set(written)) == 1, f"{order.key}: a part of one transaction"


def check_acknowledgements(trace: Sequence[Event], path: Path) -> None:
    """When one caller is told, nothing of the actor's may still be volatile: no write, and no name."""
    medium = Medium()
    for event in trace:
        medium.apply(event)
        match event:
            case Mark(("ack", Order() as order)) if order.sort not in ("note", "never"):
                for tenant, name in {place[:2] for place in order.places}:
                    file = path / tenant / "Safe" / f"{name}.sqlite"
                    for each in (str(file), f"{file}-wal"):
                        assert not medium.nameless(each), f"{order.key}: {each} may vanish"
                    assert not medium.unsynced(f"{file}-wal"), f"{order.key} is acknowledged, and not synced"


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on a RAM disk."""
    path = Path(tempfile.mkdtemp(prefix="z0-power-", dir=MEMORY))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Explorer:
    """Runs one plan with one seed, and checks what power cuts leave of it."""

    def __init__(self, name: str, plan: Plan, seed: int, images: int, fire_one_in: int, keep: bool) -> None:
        """`images`: about so many. `keep`: the first one that is not as promised stays on the disk."""
        self.name, self.plan, self.seed, self.most = name, plan, seed, images
        self.fire_one_in, self.keep = fire_one_in, keep
        self.images: Counter[str] = Counter()
        self.violations: list[Violation] = []

    async def explore(self, spoil: Callable[[SimulatedDisk], object]) -> None:
        """Do it."""
        with folder() as root, simulated_disk(trace=True) as disk:
            spoil(disk)
            path = root / "some" / "data"
            await self.plan.prepare(path)
            await Workload(self.plan, self.seed, disk, path).run()
            if self.plan.callers == 1 and "kill" not in self.plan.runs and not self.plan.fails:
                self._check_acknowledgements(disk, path)
            points = some(self.seed, range(1, len(disk.trace) + 1), self.most // 4)
            for number, image in enumerate(disk.images(seed=self.seed, points=points)):
                await self._check(image, path, root / str(number), number)
                if len(self.violations) >= ENOUGH:
                    return

    def _check_acknowledgements(self, disk: SimulatedDisk, path: Path) -> None:
        try:
            check_acknowledgements(disk.trace, path)
        except AssertionError as error:
            self.violations.append(Violation(self.seed, self.name, "acknowledgements", str(error), ""))

    async def _check(self, image: CrashImage, of: Path, path: Path, number: int) -> None:
        where = f"event {image.point}, {image.mode} {image.number}"
        try:
            image.write(path, of=of)
            self.images["crash images"] += 1
            if number % DEEPER_ONE_IN == 0:
                await self._check_deeper(image, of, path, where)
            else:
                fire = self.plan.has_alarms and number % self.fire_one_in == 0
                self.images["with alarms fired"] += fire
                await self._attempt(where, image, of, check(path, self.plan, image.marks, fire=fire))
        finally:
            shutil.rmtree(path, ignore_errors=True)

    async def _check_deeper(self, image: CrashImage, of: Path, path: Path, where: str) -> None:
        """Recover on a disk with a trace of its own, and check what a second power cut leaves of that."""
        again = path.with_name(f"{path.name}-again")
        with simulated_disk(trace=True) as disk:
            recovering = check(path, self.plan, image.marks, fire=False, runtime=disk.runtime)
            await self._attempt(where, image, of, recovering)
            points = some(self.seed, range(1, len(disk.trace) + 1), DEEPER_POINTS)
            for second in itertools.islice(disk.images(seed=self.seed, each=1, points=points), DEEPER_IMAGES):
                self.images["crash images"] += 1
                self.images["of recoveries"] += 1
                deeper = f"{where}, then event {second.point}, {second.mode} {second.number}"
                try:
                    second.write(again, of=path)
                    await self._attempt(deeper, second, path, check(again, self.plan, image.marks, fire=False))
                finally:
                    shutil.rmtree(again, ignore_errors=True)

    async def _attempt(self, where: str, image: CrashImage, of: Path, checking: Coroutine[Any, Any, None]) -> None:
        try:
            await checking
        except Exception as error:
            kept = ""
            if self.keep and not self.violations:
                kept = tempfile.mkdtemp(prefix="z0-power-kept-")
                image.write(kept, of=of)
            what = f"{type(error).__name__}: {error}"
            self.violations.append(Violation(self.seed, self.name, where, what, kept))


def some(seed: int, moments: Sequence[int], count: int) -> set[int]:
    """So many of these, or all."""
    return set(moments if len(moments) <= count else random.Random(seed).sample(moments, count))


def explore(
    seed: int,
    plan: Plan | None = None,
    *,
    images: int = IMAGES,
    fire_one_in: int = FIRE_ONE_IN,
    spoil: Callable[[SimulatedDisk], object] = lambda disk: None,
) -> Explored:
    """Run the workload of this seed, or this plan, and check about so many images. `spoil`: what to break first."""
    name = list(PLANS)[seed % len(PLANS)]
    explorer = Explorer(name, plan or PLANS[name], seed, images, fire_one_in, keep=plan is None)
    logging.disable(logging.ERROR)
    try:
        with patch("z0.actors.node.Kind", cache(Kind)):  # reading a class takes a tenth of a check
            asyncio.run(explorer.explore(spoil))
    finally:
        logging.disable(logging.NOTSET)
    return Explored(explorer.images, explorer.violations)
