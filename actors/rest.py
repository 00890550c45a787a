"""Rest: actors without work are checkpointed, then evicted, a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import Timer

if TYPE_CHECKING:
    from .node import Node

_CLOSING_MAX = 8  # idle actors that are closed at once: each costs syncs, which commits need too
_TICKS_PER_IDLE = 5  # how finely the time since an actor's last use is known


class Rest:
    """Looks at the actors of one node, least recently used first, while there are any."""

    __slots__ = ("_node", "_timer", "tick")

    def __init__(self, node: Node) -> None:
        """Not looking yet."""
        self._node = node
        self._timer: Timer | None = None
        self.tick = 0
        """The present, in fifths of `Limits.idle_seconds`."""

    def watch(self) -> None:
        """Look from now on."""
        node = self._node
        if self._timer is None and not node.draining:
            self._timer = node.clock.call_later(node.limits.idle_seconds / _TICKS_PER_IDLE, self._sweep)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        self._timer = None
        self.tick += 1
        self.look()
        if any(host.is_open and not (host.delivery.tasks or host.background) for host in self._node.hosts.values()):
            self.watch()  # else whoever comes to rest has us look again

    def look(self) -> None:
        """Evict actors that were idle for long enough, and checkpoint others that rest."""
        node = self._node
        for host in list(node.hosts.values()):
            idle = self.tick - host.used
            if idle <= 1 or len(node.closing) + node.threads.in_flight >= _CLOSING_MAX:
                break  # the others were used later still
            if not host.idle:
                continue
            if idle > _TICKS_PER_IDLE:
                node.evict(host, "idle")
            elif host.database.has_wal:
                host.parking.checkpoint()
