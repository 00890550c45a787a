"""Today's code against a journal: the body runs as on any replay, and stops where the journal does. Writes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.background import wait_until
from z0.actors.errors import InvalidValue, Z0Error, presentable

from . import journal
from .body import Body
from .engine import Engine
from .errors import Continued, NonDeterminismError
from .failure import failure_of
from .history import History
from .place import begin_body
from .run import Run
from .step import started
from .values import stored
from .workflow import Workflow


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay."""

    instance: str
    entries: int
    """In the journal."""
    steps: int
    """That the code asked for, and the journal has."""
    ends: bool
    """Whether the code came to an end; else it goes on behind the journal, or waits as that says."""
    reached: list[str]
    """The steps that it would take next, or waits for."""
    problem: str | None = None
    """Where the code does something else than the journal has."""

    @property
    def same(self) -> bool:
        """Whether the code does what the journal has."""
        return self.problem is None


class ReplayedBody(Body):
    """A body that is replayed."""

    over: asyncio.Future[None]

    def asleep(self) -> None:
        """It has come to where the journal ends."""
        if not self.over.done():
            self.over.set_result(None)


class Replayer(Engine):
    """The engine of an instance that is replayed."""

    workflow: Replaying
    body: ReplayedBody
    _unread: InvalidValue | None = None

    def __init__(self, workflow: Workflow, meta: dict[str, Any]) -> None:
        """Nothing is replayed yet."""
        super().__init__(workflow, meta)
        self.body = ReplayedBody(self)

    def start(self) -> None:
        """Do nothing."""

    async def alarm(self, info: AlarmInfo) -> None:
        """Do nothing."""

    def look_back(self) -> None:
        """Keep the history that it was given."""

    @property
    def blobs(self) -> Path:
        """Where they are kept beside the file that the journal is of."""
        return self.workflow.z0_blobs

    async def kept(self, name: str) -> bytes:
        """A result that is kept in the file of this name. Raises InvalidValue."""
        try:
            return await super().kept(name)
        except InvalidValue as error:
            self._unread = error
            raise

    async def replay(self, rows: list[tuple[Any, ...]]) -> Replayed:
        """Run the body against these rows of a journal. Raises InvalidValue for a result that is not there."""
        self.history = history = History()
        for entry in journal.entries(rows):
            history.apply(entry)
        if history.created is None:
            raise Z0Error(f"{self.address}: the journal is empty; there is nothing to replay")
        run = self.body.run = Run(self, dry=True)
        over = self.body.over = asyncio.get_running_loop().create_future()
        run.task = wait_until(self.host, self._ending(run))
        try:
            await asyncio.wait([run.task, over], return_when=asyncio.FIRST_COMPLETED)
            if self._unread is not None:  # whatever the body made of it
                raise self._unread
            ends = run.task.done()
            problem = run.task.result() if ends else run.diverged
            return Replayed(
                instance=self.address,
                entries=len(rows),
                steps=len(history.records) - len(run.owed),
                ends=ends,
                reached=run.reached,
                problem=None if problem is None else str(problem),
            )
        finally:
            self.body.run = None
            run.close()
            run.task.cancel()

    async def _ending(self, run: Run) -> NonDeterminismError | None:
        """Run the body to its end; how that differs from the journal's."""
        begin_body()
        output, end, came = None, "the end of run()", "a result"
        try:
            output = await run.gated(self._output(run))
        except Continued:
            end = came = "continue_as_new()"
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if run.closed:
                raise
            failure = failure_of(presentable(error))
            end = came = self._told(failure.type, failure.message)
        try:
            await run.check_end(end)
        except NonDeterminismError as error:
            return error
        return self._compared(run, output, came)

    async def _output(self, run: Run) -> bytes | None:
        return stored(await started(run, self.workflow, "the payload"), "the output", 2**63)

    def _told(self, kind: str, message: str) -> str:
        """An error in words that are the same whether the workflow's module is a script or was imported."""
        module, _, name = kind.partition(":")
        return f"{name if module in ('__main__', type(self.workflow).__module__) else kind}: {message}"

    def _compared(self, run: Run, output: bytes | None, came: str) -> NonDeterminismError | None:
        end = run.history.end
        if end is None or end.event not in ("workflow_completed", "workflow_errored"):
            return None
        kept = end.detail.get("error")
        expected = "a result" if kept is None else self._told(kept["type"], kept["message"])
        if kept is not None and kept["type"].endswith(":NonDeterminismError"):  # of other code
            return None
        if expected != came or (kept is None and output != end.value):
            other = " other than the journal's" if expected == came else ""
            return NonDeterminismError(self.address, run.history.positions + 1, expected, f"{came}{other} at its end")
        return None


class Replaying(Workflow):
    """Comes before a class of workflows, as whose instance it replays a journal and does nothing else."""

    _z0_engine_class = Replayer
    z0_blobs: Path
    """Where the results are that were too big for the journal."""

    async def z0_replay(self, rows: list[tuple[Any, ...]]) -> Replayed:
        """Run the body against these rows of a journal. Raises InvalidValue for a result that is not there."""
        assert isinstance(self._z0_engine, Replayer)
        return await self._z0_engine.replay(rows)
