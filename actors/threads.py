"""Work off the event loop: commits of several actors, checkpoints, opening and closing of files."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

Done = Callable[[Any, BaseException | None], None]


class Threads:
    """Runs functions in threads and hands their outcomes back on the loop, many per wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, executor: Executor | None = None) -> None:
        """`executor`: where to run instead of `count` threads of our own (tests, simulation)."""
        self._loop = loop
        self._own = executor is None
        self._executor = executor or ThreadPoolExecutor(count, thread_name_prefix="z0")
        self._finished: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._woken = False
        self.in_flight = 0

    def run(self, work: Callable[[], Any], done: Done) -> Future[None]:
        """Run `work` in a thread, then `done(result, error)` on the loop."""
        self.in_flight += 1
        return self._executor.submit(self._work, work, done)

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
        """Take no more work."""
        if self._own:
            self._executor.shutdown(wait=False)

    def _work(self, work: Callable[[], Any], done: Done) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:  # it belongs to whoever asked: handed to `done`
            error = caught
        self._finished.append((done, result, error))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop was closed without closing the runtime: nobody is left to tell
                return

    def _drain(self) -> None:
        self._woken = False
        while self._finished:
            done, result, error = self._finished.popleft()
            self.in_flight -= 1
            done(result, error)
