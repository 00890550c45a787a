"""Runs of z0 under a simulated event loop: what runs next, and when, is drawn from a seed.

The loop and its schedules are detangle's, which nothing else imports. Everything of z0 runs on that loop: what it
would do in threads is a callback among others, and its clock is the loop's own time, so that a timer may fire, and a
commit may end, between any two steps of anybody. One seed is one run, exactly, in any process.

    def test_something(proof: Proof) -> None:
        explore(scenario, proof)    # async def scenario(simulation: Simulation) -> None
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import shutil
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import detangle
import msgspec

import z0
from tests.proofs import Proof
from z0.actors.clock import Span, datetime_of, seconds, us_of
from z0.actors.durability import FileSync
from z0.actors.gates import Turn
from z0.actors.host import Host
from z0.testing import _new_folder

T = TypeVar("T")
R = TypeVar("R")
Scenario = Callable[["Simulation"], Awaitable[None]]
SCHEDULES = 200
STEPS_MAX = 60_000
SECONDS_MAX = 24 * 3600.0  # of virtual time: who waits for so long waits for ever
_START_US = us_of(datetime(2026, 1, 1, tzinfo=UTC))


class Options(msgspec.Struct, frozen=True):
    """What is unusual about one run."""

    schedule: str
    step_seconds: float
    """How long each step of the loop takes, so that timers fire before all is done that could be."""
    disk_seconds: float
    """How long work in threads may take."""
    commits: str
    durability: str
    mailbox_messages: int
    open_files: int
    idle_seconds: float
    snapshot_facts: int
    checkpoint_pages: int
    alarm_openings: int

    @classmethod
    def drawn(cls, chance: random.Random) -> Options:
        """Most runs are usual in most ways."""
        step_seconds = chance.choice([0, 0, 0.0001, 0.003, 0.05])
        return cls(
            schedule=chance.choice(["fifo", "random", "random", "random", "pct 1", "pct 2", "pct 3", "pct 5"]),
            step_seconds=step_seconds,
            disk_seconds=chance.choice([0, 0, 0.001, 0.1, 3]),
            commits=chance.choice(["inline", "threads", "either"]),
            durability=chance.choice(["full"] * 7 + ["relaxed"]),
            mailbox_messages=chance.choice([1_000, 1_000, 1_000, 3]),
            open_files=chance.choice([100, 100, 4, 2]),
            idle_seconds=max(chance.choice([10, 10, 1, 0.01]), 200 * step_seconds),  # else nobody does anything else
            snapshot_facts=chance.choice([1_000, 3, 1]),
            checkpoint_pages=chance.choice([1_000, 8, 1]),
            alarm_openings=chance.choice([4, 1]),
        )

    def limits(self) -> z0.Limits:
        return z0.Limits(
            mailbox_messages=self.mailbox_messages,
            open_files=self.open_files,
            idle_seconds=self.idle_seconds,
            snapshot_facts=self.snapshot_facts,
            checkpoint_pages=self.checkpoint_pages,
            alarm_openings=self.alarm_openings,
            inline_sync_seconds=0 if self.commits == "threads" else 3600,
            blocked_seconds=0,
        )

    def strategy(self, seed: int, chance: random.Random) -> detangle.Strategy:
        name, _, depth = self.schedule.partition(" ")
        strategy: detangle.Strategy = InOrder(seed) if name == "fifo" else detangle.RandomWalk(seed)
        if name == "pct":
            strategy = detangle.PCT(seed, int(depth), chance.choice([64, 500, 3_000]))
        strategy.start(0)
        return strategy


class InOrder(detangle.RandomWalk):
    """What is ready runs in its order, as on any loop of asyncio; only the rest is drawn."""

    def schedule(self, lanes: Sequence[Any]) -> int:
        return 0


class Simulation:
    """One run, from within."""

    def __init__(self, path: Path, options: Options, chance: random.Random) -> None:
        self.path = path
        self.options = options
        self.clock = SimulatedClock(chance.random)
        self.executor = SimulatedExecutor(options.disk_seconds)
        self.log: list[str] = []
        """What happened, for who reads a failure; the same whenever the seed is."""
        self.runtime: z0.Runtime | None = None

    def note(self, text: str) -> None:
        self.log.append(f"{asyncio.get_running_loop().time():10.4f} {text}")

    def below(self, number: int) -> int:
        """A number of the schedule's, at least 0."""
        return detangle.randint(0, number - 1)

    def one_of(self, things: Sequence[T]) -> T:
        return detangle.choice(things)

    def cancel_somewhere(self, task: asyncio.Task[Any], awaits: int = 12) -> None:
        """Have the task cancelled where it waits, at any of so many of its next awaits, or not at all."""
        detangle.inject_cancellation(task, awaits)

    async def open(self, *actors: type[z0.Actor], env: object = None) -> z0.Runtime:
        """A runtime on the run's directory, as it was drawn."""
        options = self.options
        durability: Any = options.durability
        runtime = z0.Runtime(
            self.path,
            actors=actors,
            env=env,
            clock=self.clock,
            durability=durability,
            limits=options.limits(),
            executor=self.executor,
        )
        if options.commits == "either" and durability == "full":
            runtime.node.durability = EitherWay(options.limits())
        await runtime.open()
        self.runtime = runtime
        return runtime

    async def _play(self, scenario: Scenario) -> None:
        try:
            await scenario(self)
        finally:
            if self.runtime is not None:
                await self.runtime.node.crash()  # harmless when the scenario has closed it


class SimulatedClock:
    """The loop's time. A timer that is due fires in an order of its own, as everything else does."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self.random = chance

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now_us(self) -> int:
        return _START_US + int(self.monotonic() * 1e6)

    def now(self) -> datetime:
        return datetime_of(self.now_us())

    async def sleep(self, span: Span) -> None:
        await asyncio.sleep(seconds(span))

    def call_later(self, span: Span, callback: Callable[[], object]) -> SimulatedTimer:
        return SimulatedTimer(seconds(span), callback)

    def call_at(self, when_us: int, callback: Callable[[], object]) -> SimulatedTimer:
        return SimulatedTimer(max(0, when_us - self.now_us() + 1) / 1e6, callback)  # 1: never early by rounding

    async def patience(self, span: Span) -> None:
        await self.sleep(span)

    def watch(self, busy: Callable[[], bool], done: Callable[[], int]) -> Callable[[], object]:
        return lambda: None


class SimulatedTimer:
    def __init__(self, after: float, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._cancelled = False
        self._handle = asyncio.get_running_loop().call_later(after, run_soon, self._fire)

    def _fire(self) -> None:
        if not self._cancelled:
            self._callback()

    def cancel(self) -> None:
        self._cancelled = True
        self._handle.cancel()


class SimulatedExecutor(Executor):
    """Each work is one step of the loop, some time later."""

    def __init__(self, longest: float) -> None:
        self._longest = longest

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        loop = asyncio.get_running_loop()
        if self._longest and detangle.flip(0.5):
            loop.call_later(detangle.uniform(0, self._longest), run_soon, fn, *args)
        else:
            run_soon(fn, *args)
        return Future()  # which nobody asks: outcomes are handed back on the loop


def run_soon(function: Callable[..., object], *args: Any) -> None:
    """Make it a step of its own, which the schedule puts anywhere from here on."""

    def raise_its_error(future: asyncio.Future[Any]) -> None:
        future.result()

    asyncio.get_running_loop().run_in_executor(None, function, *args).add_done_callback(raise_its_error)


class EitherWay(FileSync):
    """Commits on the loop or in threads, as the schedule will have it, instead of which is quicker."""

    def commit(self, host: Host, turn: Turn, dirty: int) -> None:
        self.quick = detangle.flip(0.5)
        super().commit(host, turn, dirty)
        self.quick = detangle.flip(0.5)


class Outcome(NamedTuple):
    """How one run ended."""

    options: Options
    log: list[str]
    failure: str | None
    error: BaseException | None
    steps: int
    digest: str
    """Of every decision, and all that was noted."""


def run(scenario: Scenario, seed: int) -> Outcome:
    """One run, on a directory of its own in memory."""
    chance = random.Random(seed)
    options = Options.drawn(chance)
    config = detangle.SimConfig(
        step_cost=options.step_seconds, max_steps=STEPS_MAX, max_time=SECONDS_MAX, check_leaks=True
    )
    folder = _new_folder(memory=True)
    simulation = Simulation(folder / "data", options, chance)
    strategy = options.strategy(seed, chance)
    try:
        with _errors_logged() as logged:
            result = detangle.execute(simulation._play, (scenario,), config=config, strategy=strategy)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    failure = None if result.failure is None else f"[{result.failure.kind}] {result.failure.headline()}"
    if result.failure is not None and result.failure.deadlock is not None:
        failure = f"{failure}\n{result.failure.deadlock.render()}"
    if failure is None and logged:
        failure = f"logged: {logged[0]}"
    error = None if result.failure is None else result.failure.exception
    said = "\n".join([str(result.values), str(result.order_hash), *simulation.log])
    digest = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
    return Outcome(options, simulation.log, failure, error, result.steps, digest)


def explore(scenario: Scenario, proof: Proof, full: int = SCHEDULES) -> None:
    """Run the scenario under as many schedules as the proof says. A failure says how to see it again."""
    for seed in proof.seeds(full):
        outcome = run(scenario, seed)
        if outcome.failure is not None:
            raise AssertionError(told(scenario, seed, outcome)) from outcome.error
        proof.count("schedules")
        proof.count("steps", outcome.steps)


def told(scenario: Scenario, seed: int, outcome: Outcome) -> str:
    """A failure, with what was drawn and the command that repeats it."""
    name, module = getattr(scenario, "__name__", "?"), getattr(scenario, "__module__", "?").replace(".", "/")
    return "\n".join(
        [
            f"{outcome.failure}",
            f"scenario {name}, seed {seed}, {outcome.options}",
            *outcome.log[-40:],
            f"again: pytest {module}.py -k {name} --seed {seed}",
        ]
    )


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        reason = record.exc_info[1] if record.exc_info else None
        if isinstance(reason, (z0.ActorReset, z0.CommitUnknown)):  # of a hook or of background work: provoked
            return
        self.lines.append(f"{record.getMessage()}: {reason!r}")


@contextmanager
def _errors_logged() -> Any:
    """What z0 logs as an error meanwhile; warnings of resets that were provoked are kept from the report."""
    log = logging.getLogger("z0.actors")
    errors, propagate, level = _Errors(), log.propagate, log.level
    log.addHandler(errors)
    log.propagate = False
    log.setLevel(logging.ERROR)
    try:
        yield errors.lines
    finally:
        log.removeHandler(errors)
        log.propagate = propagate
        log.setLevel(level)


class Operation(NamedTuple):
    """What a client did, between two moments, and what it saw."""

    process: str
    f: str
    arg: Any
    began: int
    ended: int | None
    """None: its outcome is unknown, so it happened at any time from `began` on, or never."""
    output: Any


Step = Callable[[Any, Operation], tuple[bool, Any]]
"""State and operation; whether it can happen there, and the state after it."""


def why_not_linearizable(operations: Sequence[Operation], start: object, step: Step) -> str | None:
    """Why no order of the operations, each within its time, explains what all of them saw; None when one does."""
    result = detangle.lin.check([_told_to_detangle(*each) for each in enumerate(operations)], _Model(start, step))
    return None if result.ok else result.explain()


def _told_to_detangle(index: int, operation: Operation) -> detangle.lin.Operation:
    process, f, arg, began, ended, output = operation
    status = "info" if ended is None else "ok"
    return detangle.lin.Operation(index, process, f, arg, began, 0.0, output, status, ended)


class _Model(detangle.lin.Model):
    name = "sequential"

    def __init__(self, start: Any, step: Step) -> None:
        self._start, self._step = start, step

    def init(self) -> Any:
        return self._start

    def step(self, state: Any, op: detangle.lin.Operation) -> tuple[bool, Any]:
        ended = None if op.status == "info" else op.ret
        return self._step(state, Operation(str(op.process), op.f, op.arg, op.call, ended, op.output))
