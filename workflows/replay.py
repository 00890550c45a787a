"""Today's code against a journal: the body runs as on any replay, and stops where the journal does. Writes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from z0.actors.alarm_runs import AlarmInfo
from z0.actors.clock import datetime_of
from z0.actors.errors import Z0Error, presentable

from . import journal
from .errors import NonDeterminismError
from .event import Event
from .failure import Failure, failure_of
from .history import History
from .place import begin_body
from .run import Run
from .step import Step
from .values import loaded, payload_of, stored
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


class Replaying(Workflow):
    """Comes before a class of workflows, as whose instance it replays a journal and does nothing else."""

    async def start(self) -> None:
        """Do nothing."""

    async def alarm(self, info: AlarmInfo) -> None:
        """Do nothing."""

    def look_back(self) -> None:
        """Keep the history that it was given."""

    def asleep(self) -> None:
        """The body has come to where the journal ends."""
        if not self._over.done():
            self._over.set_result(None)

    async def z0_replay(self, rows: list[tuple[Any, ...]]) -> Replayed:
        """Run the body against these rows of a journal."""
        self.history = history = History()
        for entry in journal.entries(rows):
            history.apply(entry)
        if history.created is None:
            raise Z0Error(f"{self.address}: the journal is empty; there is nothing to replay")
        run = self._run = Run(self, dry=True)
        self._over = asyncio.get_running_loop().create_future()
        run.task = self.wait_until(self._ending(run))
        try:
            await asyncio.wait([run.task, self._over], return_when=asyncio.FIRST_COMPLETED)
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
            self._run = None
            run.close()
            run.task.cancel()

    async def _ending(self, run: Run) -> NonDeterminismError | None:
        """Run the body to its end; how that differs from the journal's."""
        begin_body()
        created = run.history.created
        assert created is not None
        try:
            payload = loaded(created.value, payload_of(type(self).run), "the payload")
            event = Event(payload=payload, timestamp=datetime_of(created.at), id=self.name)
            output = await run.gated(self.run(event, Step(run)))
            await run.check_end()
            found, failure = stored(output, "the output", 2**63), None
        except NonDeterminismError as error:
            return error
        except Exception as error:
            if run.diverged is not None:
                return run.diverged
            found, failure = None, failure_of(presentable(error))
        return self._compared(run, found, failure)

    def _compared(self, run: Run, output: bytes | None, failure: Failure | None) -> NonDeterminismError | None:
        end = run.history.end
        if end is None or end.event not in ("workflow_completed", "workflow_errored"):
            return None
        kept = end.detail.get("error")
        expected = "a result" if kept is None else f"{kept['type']}: {kept['message']}"
        came = "a result" if failure is None else f"{failure.type}: {failure.message}"
        if kept is not None and kept["type"].endswith(":NonDeterminismError"):  # of other code
            return None
        if expected != came or (failure is None and output != end.value):
            other = " other than the journal's" if expected == came else ""
            return NonDeterminismError(self.address, run.history.positions + 1, expected, f"{came}{other} at its end")
        return None
