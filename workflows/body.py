"""What runs the body of one instance: at most one `Run` at a time, in a task of its own beside the messages."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from z0.actors.background import wait_until
from z0.actors.errors import message_of, presentable

from . import commands, divergence, kin, put_off, saga
from .errors import Continued, Suspended
from .failure import blame, failing_step, shown
from .place import begin_body
from .run import Run
from .services import ENTRIES
from .step import called
from .values import stored

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("z0.workflows")


class Body:
    """The body of one instance, whether it runs or not."""

    def __init__(self, engine: Engine) -> None:
        """It does not run."""
        self.run: Run | None = None
        """Under way."""
        self.stirred_us: int | None = None
        """When the body was last given something to react to; None: it has come to rest since."""
        self.passed_us: int | None = None
        """The deadline that was given to it since, the last one."""
        self.resumed = False
        """A deadline that had passed was given to it since."""
        self.reaction: asyncio.Future[None] | None = None
        """Done when the body has reacted."""
        self._engine = engine
        self._former: set[asyncio.Task[Any]] = set()

    def go_on(self) -> None:
        """Have it run, if it does not yet and may."""
        engine = self._engine
        if self.run is None and self._is_runnable and not engine.host.dead and not put_off.body(engine):
            self.stirred_us = engine.clock.now_us()
            engine.set_alarm()  # it may have run before a crash, by a clock that was ahead of today's
            self.run = Run(engine)
            self.run.task = wait_until(engine.host, self._perform(self.run))

    @property
    def _is_runnable(self) -> bool:
        history = self._engine.history
        return (history.started or history.rolls_back) and history.end is None and history.paused_at is None

    def leave(self) -> None:
        """Nothing goes on that is under way; who goes on next waits until it has ended."""
        run, self.run = self.run, None
        if run is None:
            return
        run.close()
        if run.task is not None and not run.task.done():
            run.task.cancel()
            self._former.add(run.task)
            run.task.add_done_callback(self._former.discard)

    def take_over(self, run: Run) -> None:
        """The run goes on in the place of the one before, in the same task."""
        if self.run is None or self._engine.host.dead:
            raise Suspended
        run.task, self.run = self.run.task, run

    def awake(self) -> None:
        """It goes on: the instance stays in memory."""
        self.stirred_us = self._engine.clock.now_us()
        background = self._engine.host.background
        if background is not None and self.run is not None and self.run.task is not None:
            background.wake(self.run.task)

    def asleep(self) -> None:
        """It waits for nothing but the time and events: the instance may leave the memory."""
        self.has_reacted()
        host = self._engine.host
        if host.background is not None and self.run is not None and self.run.task is not None:
            host.background.rest(self.run.task)
            host.node.followers.tell(host.address, ENTRIES)

    def has_reacted(self) -> None:
        """It can get no further, is over, or has had its time."""
        self.stirred_us, self.passed_us, self.resumed = None, None, False
        if self.reaction is not None and not self.reaction.done():
            self.reaction.set_result(None)

    async def _perform(self, run: Run) -> None:
        engine, task, number = self._engine, run.task, self._engine.history.run
        try:
            while former := self._former - {asyncio.current_task()}:
                await asyncio.wait(former)
            undos = None
            if not engine.history.rolls_back:
                begin_body(engine)
                await run.gated(self._to_its_end(run))
                await run.over()
                undos = None if run.owed else run.undos
            if engine.history.rolls_back:
                await saga.perform(engine, undos)
            await engine.host.durable()
        except (Suspended, asyncio.CancelledError):
            if task is not None and task.cancelling() and self.run is not None and self.run.task is task:
                engine.put_off = True  # by nobody here: the loop ends, and the next process is to go on
            return
        finally:
            await run.over()
            if self.run is not None and self.run.task is task:
                self.run.close()
                self.run = None
            self.has_reacted()
        if engine.history.run != number:
            await commands.purge(engine)
        if engine.history.diverged is None:
            self.go_on()
        kin.see_to(engine)
        engine.host.node.followers.tell(engine.host.address)

    async def _to_its_end(self, run: Run) -> None:
        """Run the code, and journal what came of it."""
        engine, workflow = self._engine, self._engine.workflow
        try:
            output = await called(run)
            await run.check_end()
            run.check_live()
            encoded = stored(output, f"the output of {engine.address}", workflow.result_bytes)
        except Continued as caught:
            commands.continue_as_new(engine, caught.payload)
        except (KeyboardInterrupt, GeneratorExit):  # it is the process that ends
            raise
        except BaseException as caught:
            if run.closed or engine.host.dead or isinstance(caught, Suspended) or run.is_cancelled(caught):
                raise Suspended from None
            engine.host.writes.undo()
            if run.diverged is not None and workflow.on_divergence == "pause":
                divergence.pause(engine, run.diverged)
            else:
                self._fail(run.diverged or presentable(caught))
        else:
            engine.note("workflow_completed", None, encoded)

    def _fail(self, error: Exception) -> None:
        engine, run = self._engine, self.run
        if run is not None and saga.begin(engine, run, error):
            return
        log.error("%s failed: %s", engine.address, message_of(error), exc_info=shown(error))
        detail = blame(error, run.failed_last() if run else ())
        engine.enter("workflow_errored", step=failing_step(error), detail=detail)
