"""Running a handler that may wait: every segment of it passes the input gate, and is undone as a whole.

A segment runs from the handler's start, or from a real suspension, to its end or the next real suspension.
The driver stands between the handler and its task, so that a task wakes as ever but the handler's code goes
on only when its actor's gate lets it (as Durable Objects: every re-entry takes an input lock).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from .call import CURRENT
from .clock import perf_ns

if TYPE_CHECKING:
    from .call import Activity
    from .host import Host

T = TypeVar("T")


async def gated(host: Host, work: Coroutine[Any, Any, T]) -> T:
    """Run background work of an actor (see `wait_until`) as segments, each kept or taken back as a whole."""
    call = CURRENT.get()
    assert call is not None
    assert call.activity is not None
    return await Segments(host, work, call.activity)  # type: ignore[no-any-return]


class Segments:
    """Awaiting it runs the coroutine as segments of its host. Raises what the coroutine raises."""

    __slots__ = ("_activity", "_coroutine", "_host")

    def __init__(self, host: Host, coroutine: Coroutine[Any, Any, Any], activity: Activity) -> None:
        """`activity` is who holds the gate inside `block()`."""
        self._host = host
        self._coroutine = coroutine
        self._activity = activity

    def __await__(self) -> Generator[Any, None, Any]:
        """Drive."""
        host, coroutine = self._host, self._coroutine
        thrown: BaseException | None = None
        while True:
            if not host.dead and not host.gate.admits(self._activity):
                thrown = yield from self._wait_at_gate(thrown)
            host.enter(self._activity)
            try:
                awaited = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
                while host.writes.depth:
                    awaited = self._refuse_suspension()
            except StopIteration as stop:
                return self.end(stop.value)
            except BaseException:
                host.fail_segment()
                raise
            thrown = self._end_segment()
            if thrown is not None:
                if asyncio.isfuture(awaited):  # what it asked for must not happen without its writes
                    awaited.cancel()
                    awaited.add_done_callback(_seen)
                continue
            try:
                yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # cancelled, by the host or by the handler's own time limit
                thrown = error

    def end(self, value: Any) -> Any:
        """End the last segment; the value as who awaits it gets it. Raises what makes keeping the writes impossible."""
        return self._host.end(value)

    def _wait_at_gate(self, thrown: BaseException | None) -> Generator[Any, None, BaseException | None]:
        """Return when the gate lets the segment in; what to throw into it then."""
        host, since = self._host, perf_ns()
        while not host.dead and not host.gate.admits(self._activity):
            try:
                yield from host.gate.wait()
            except asyncio.CancelledError as cancelled:  # it is the handler's, and waits with it
                thrown = cancelled
        host.node.metrics.gate_waited.add(perf_ns() - since)
        return thrown

    def _end_segment(self) -> BaseException | None:
        """Keep what the segment wrote; what makes that impossible is raised where the handler waits."""
        writes = self._host.writes
        wrote = writes.wrote == writes.segment
        try:
            self._host.leave()
            if wrote:
                self._activity.kept = True
        except Exception as error:
            self._host.fail_segment()
            return error
        return None

    def _refuse_suspension(self) -> Any:
        """A handler waited inside `transaction()`: raise there, so that the block takes its writes back."""
        return self._coroutine.throw(
            RuntimeError("a handler must not wait inside storage.transaction(): await before or after the block")
        )


def _seen(future: asyncio.Future[Any]) -> None:
    """Take the outcome of what nobody waits for any more, so that asyncio does not complain."""
    if not future.cancelled():
        future.exception()
