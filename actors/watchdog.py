"""The watchdog names who blocks the event loop: one thread per node, which costs the messages nothing."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Node

log = logging.getLogger("z0.actors")

_BEATS = 2  # per limit: what blocks for longer than 1 + 1/_BEATS limits is always seen


class Watchdog:
    """Has the loop beat; when a beat is overdue, logs where the loop is, once per episode."""

    def __init__(self, node: Node) -> None:
        """Watch the running loop, unless `Limits.blocked_seconds` is 0."""
        self._node = node
        self._limit = node.limits.blocked_seconds
        self._loop_thread = threading.get_ident()
        self._ended = threading.Event()
        self._beaten = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="z0-watchdog", daemon=True)
        if self._limit > 0:
            self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._ended.set()  # first: the thread asks for it after clearing the other
        self._beaten.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        loop = self._node.loop
        while not self._ended.wait(self._limit / _BEATS):
            self._beaten.clear()
            if self._ended.is_set():
                return
            try:
                loop.call_soon_threadsafe(self._beaten.set)
            except RuntimeError:  # the loop was closed without closing the runtime
                return
            if self._beaten.wait(self._limit):
                continue
            if loop.is_running():  # else nobody runs it now, and nothing is blocked
                self._report()
            while not self._beaten.wait(self._limit):
                if loop.is_closed():
                    return

    def _report(self) -> None:
        node = self._node
        node.metrics.blocked += 1
        names = [str(host.address) for host in list(node.hosts.values()) if host.running]
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(no stack)"
        log.warning(
            "the event loop is blocked for more than %g seconds (blocked_seconds) by %s; move slow work into a "
            "thread (asyncio.to_thread)\n%s",
            self._limit,
            f"actor {', '.join(names)}" if names else "code outside of actors",
            stack,
        )
