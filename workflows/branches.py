"""Several branches of a body at once: all of them, or the first. Which it came to is in the journal.

The steps of a branch are named below it ("all:all#1/0/do:fetch#1"), so that each finds its own again on a replay,
whichever was the faster. Where some were given up, the journal says which: a replay begins nothing in these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from z0.actors.errors import presentable
from z0.actors.gates import pass_once
from z0.actors.tasks import task_of

from .branch import BRANCH, Branch
from .failure import decides
from .journal import UNDOABLE
from .keys import is_below
from .place import end_all, last_position, seen
from .progress import one_of
from .values import stored
from .verdicts import Verdict, verdict_of

if TYPE_CHECKING:
    from .keys import Kind
    from .run import Run

_PASSES = 8  # turns of the loop that a replay lets a branch have that was given up


class Branches:
    """Awaitables that run side by side."""

    def __init__(
        self, run: Run, kind: Kind, name: str, around: tuple[str, str], each: Iterable[Awaitable[Any]]
    ) -> None:
        """`around`: the step that they stand in, and the key of the branch of it. Raises TypeError."""
        self._run = run
        self._awaitables = _checked(each)
        self._base, parent = around
        self._record = run.ask(kind, name, parent)
        if not self._record.position:
            self._record.position = last_position()
        self._tasks: list[asyncio.Task[Any]] = []
        self._branches: list[Branch] = []
        found = self._record.value if self._record.done else None
        self._verdict = None if found is None else verdict_of(found)

    async def race(self) -> Any:
        """What the first to end returns, or raises. Raises ValueError when there is none."""
        if not self._awaitables:
            raise ValueError("race([]) has no winner; give it at least one branch")
        try:
            return await self._race()
        finally:
            self._drop()

    async def _race(self) -> Any:
        if self._verdict is not None:
            return await self._repeat(self._verdict, len(self._awaitables))
        while len(self._tasks) < len(self._awaitables):
            self._begin()
        await one_of(self._tasks)
        winner = next(index for index, task in enumerate(self._tasks) if task.done())
        await self._decide(winner)
        return self._outcome(winner)

    async def all(self, concurrency: int | None, tolerated: int) -> list[Any]:
        """What they return, in order; an exception in the place of one that failed and is tolerated."""
        most = len(self._awaitables) if concurrency is None else concurrency
        try:
            if self._verdict is not None:
                await self._repeat(self._verdict, most)
                self._run.diverge(f"{self._record.key}/{self._verdict.decided}, which does not fail")
            failed = await self._run_all(most, tolerated)
            if failed is not None:
                await self._decide(failed)
                self._outcome(failed)
            return [_came_to(task) for task in self._tasks]
        finally:
            self._drop()

    async def _run_all(self, most: int, tolerated: int) -> int | None:
        """Run them, `most` at once; the one whose failure is not tolerated any more."""
        pending: list[asyncio.Task[Any]] = []
        failed, known = 0, self._known()
        while pending or len(self._tasks) < len(self._awaitables):
            while len(pending) < most and len(self._tasks) < len(self._awaitables):
                pending.append(self._begin())
            await one_of(pending)
            ended = [task for task in pending if task.done()]
            pending = [task for task in pending if not task.done()]
            for task in ended:
                failed += task.cancelled() or task.exception() is not None
                if failed > tolerated:
                    while len(self._tasks) < known:
                        self._begin()
                    return self._tasks.index(task)
        return None

    def _known(self) -> int:
        """How many branches the journal has begun: as many are begun again before any of them is judged."""
        start = len(self._record.key) + 1
        keys = (each.key[start:] for each in self._run.history.below(self._record.key))
        return max((int(key.partition("/")[0]) + 1 for key in keys), default=0)

    def _begin(self, *, lost: bool = False) -> asyncio.Task[Any]:
        index = len(self._tasks)
        branch = Branch(self._base, f"{self._record.key}/{index}", lost)
        task = task_of(asyncio.get_running_loop(), _in_branch(branch, self._awaitables[index]))
        task.add_done_callback(seen)
        self._tasks.append(task)
        self._branches.append(branch)
        return task

    async def _decide(self, decided: int) -> None:
        """Journal what it came to, and give up the others."""
        run = self._run
        await run.catch_up(self._record.key)
        run.check_live()
        losers = await run.gated(self._note(decided))
        await end_all(losers)

    async def _note(self, decided: int) -> list[asyncio.Task[Any]]:
        run = self._run
        lost = [index for index, task in enumerate(self._tasks) if not task.done()]
        for index in lost:
            self._branches[index].lost = True
        for undo in list(run.undos.values()):  # what must be undone should be known to have been begun
            cut_off = undo.record.position and undo.record.key not in run.history.records
            if cut_off and any(is_below(undo.record.key, self._branches[index].key) for index in lost):
                run.engine.note("step_started", undo.record, **UNDOABLE)
        verdict = Verdict(decided, lost, len(self._tasks))
        value = stored(msgspec.to_builtins(verdict), self._record.key, 2**20)
        run.engine.note("value_recorded", self._record, value, closed=self._under_way(lost))
        return [self._tasks[index] for index in lost]

    def _under_way(self, lost: list[int]) -> list[str]:
        """The steps of branches that are given up."""
        keys = [self._branches[index].key for index in lost]
        records = self._run.history.records.values()
        return [each.key for each in records if not each.done and any(is_below(each.key, key) for key in keys)]

    async def _repeat(self, verdict: Verdict, most: int) -> Any:
        """Come to the same again."""
        lost, pending = set(verdict.lost), list[asyncio.Task[Any]]()
        while len(self._tasks) < verdict.begun:
            index = len(self._tasks)
            task = self._begin(lost=index in lost)
            if index not in lost:
                pending.append(task)
            if len(pending) >= most:
                await one_of(pending)
                pending = [each for each in pending if not each.done()]
        while pending:
            await one_of(pending)
            pending = [each for each in pending if not each.done()]
        for _ in range(_PASSES if lost else 0):
            await pass_once()
        return self._outcome(verdict.decided)

    def _outcome(self, decided: int) -> Any:
        """What they came to. Raises what the branch did that decided."""
        try:
            return self._tasks[decided].result()
        except Exception as error:
            decides(error, self._record.key)
            raise

    def _drop(self) -> None:
        """Nothing of it goes on."""
        for task in self._tasks:
            task.cancel()
        for awaitable in self._awaitables[len(self._tasks) :]:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()


async def _in_branch(branch: Branch, awaitable: Awaitable[Any]) -> Any:
    BRANCH.set(branch)
    try:
        return await awaitable
    except SystemExit as error:  # of a task it would end the process, and the next one would come by it again
        raise presentable(error) from error


def _came_to(task: asyncio.Task[Any]) -> Any:
    """What the branch has returned, or the error that it ended with."""
    if task.cancelled():
        return presentable(asyncio.CancelledError())
    error = task.exception()
    return task.result() if error is None else error


def _checked(awaitables: Iterable[Awaitable[Any]]) -> Sequence[Awaitable[Any]]:
    given = list(awaitables)
    for each in given:
        if asyncio.isfuture(each) or not isinstance(each, Awaitable):
            raise TypeError(f"{each!r} is no coroutine; give step.do(...) and the like without awaiting them")
    return given


def tolerance(tolerate: int | float, branches: int) -> int:
    """How many of so many branches may fail: a number, or a fraction below 1. Raises ValueError."""
    if tolerate < 0 or (isinstance(tolerate, float) and not tolerate < 1):
        raise ValueError(f"tolerate={tolerate}: give a number of branches, or a fraction from 0.0 to below 1.0")
    return int(tolerate * branches) if isinstance(tolerate, float) else tolerate
