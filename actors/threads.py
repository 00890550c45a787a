"""Work off the event loop: commits of several actors, checkpoints, opening and closing of files."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from queue import SimpleQueue
from typing import Any

log = logging.getLogger("z0.actors")

Done = Callable[[Any, BaseException | None], None]


class Work:
    """Something that a thread does, or whoever cannot wait until a thread begins."""

    __slots__ = ("_begun", "_done", "_finished", "_work", "error", "result")

    def __init__(self, work: Callable[[], Any], done: Done) -> None:
        """`done(result, error)` is called on the loop."""
        self._work = work
        self._done = done
        self._begun = threading.Lock()
        self._finished = threading.Lock()
        self._finished.acquire()
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self) -> None:
        """Do it; when somebody has begun, block until it is done."""
        if self._begun.acquire(blocking=False):
            try:
                self.result = self._work()
            except BaseException as caught:  # it belongs to whoever asked: handed to `done`
                self.error = caught
            self._finished.release()
        else:
            with self._finished:
                pass

    def drop(self) -> None:
        """Have it never done; when somebody has begun, block until it is done."""
        if self._begun.acquire(blocking=False):
            self.error = RuntimeError("dropped before it began")
            self._finished.release()
        else:
            self.finish()

    def deliver(self) -> None:
        """Tell whoever asked (on the loop), and keep nothing of it: a thread may hold on to this for long."""
        done, result, error = self._done, self.result, self.error
        del self._work, self._done
        self.result = self.error = None
        done(result, error)


class Threads:
    """Runs functions in threads and hands their outcomes back on the loop, many per wake-up.

    A plain queue instead of an executor of the standard library: handing work over costs a tenth, which counts
    when it is one commit.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count: int,
        executor: Executor | None = None,
        delivered: Callable[[], object] | None = None,
    ) -> None:
        """At most `count` daemon threads, started when needed. `executor`: where to run instead (simulation).

        `delivered` is called on the loop when outcomes have been handed back.
        """
        self._loop = loop
        self._count = count
        self._executor = executor
        self._delivered = delivered
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._submitted: dict[Work, None] = {}  # to the executor, which is not ours to shut down
        self._finished: deque[Work] = deque()
        self._woken = False
        self.in_flight = 0

    def run(self, work: Callable[[], Any], done: Done) -> Work:
        """Run `work` in a thread, then `done(result, error)` on the loop."""
        item = Work(work, done)
        self.in_flight += 1
        if self._executor is not None:
            self._submitted[item] = None
            self._executor.submit(self._perform, item)
            return item
        self._queue.put(item)
        if self.in_flight > len(self._threads) < self._count:
            thread = threading.Thread(target=self._serve, name=f"z0-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return item

    def call(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run `work` in a thread; its result or error as a future of the loop."""
        future = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.run(work, done)
        return future

    def close(self) -> None:
        """End the threads when they have done what was asked."""
        for item in list(self._submitted):
            item.finish()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            self._perform(item)

    def _perform(self, item: Work) -> None:
        item.finish()
        self._submitted.pop(item, None)
        self._finished.append(item)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop was closed without closing the runtime: nobody is left to tell
                return

    def _drain(self) -> None:
        self._woken = False
        while self._finished:
            self.in_flight -= 1
            try:
                self._finished.popleft().deliver()
            except Exception:
                log.exception("a finished piece of work could not be handed back")
        if self._delivered is not None:
            self._delivered()
