"""Wake-ups: when the alarms of all actors of a node are due, whether they are in memory or not.

The actors in memory say when they are due; of the others the catalogue knows. After an unclean stop the actors of
the catalogue's active set are opened besides, for only their files know when they are due. However many are due at
once, few are opened at once, so that other messages go on.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

from .alarm_index import BEFORE_ALL, Due
from .clock import Timer
from .errors import Z0Error
from .names import Address
from .schedule import retry_seconds

if TYPE_CHECKING:
    from .host import Host
    from .kind import Kind
    from .node import Node

log = logging.getLogger("z0.actors")

_PAGE = 256
_OPENING_SECONDS = 30.0  # others wait no longer for one whose start() takes long
_ASK_AGAIN_US = 1_000_000  # when the catalogue could not be read
_STALE_MAX = 1_000  # alarms that were moved since, which are still expected at their former times


class Wakeups:
    """Runs the alarms of one node when they are due."""

    def __init__(self, node: Node) -> None:
        """Nothing is expected yet."""
        self._node = node
        self._expected: list[tuple[int, int, ref[Host]]] = []  # the earliest first; of actors in memory, kept by none
        self._expected_most = _STALE_MAX
        self._order = itertools.count()
        self._evicted_us: int | None = None  # when an actor is due that is not in memory
        self._timer: Timer | None = None
        self._timer_us = 0
        self._looking: asyncio.Task[None] | None = None
        self._look_again = self._unclean = False
        self._openings = asyncio.Semaphore(node.limits.alarm_openings)
        self._opening: dict[Address, Timer] = {}
        self._failures: dict[Address, int] = {}
        self._retries: dict[Address, Timer] = {}  # ... and when they are opened again
        self._reported: set[str] = set()

    # What is expected

    def expect(self, host: Host) -> None:
        """Note when an actor in memory is due."""
        due = host.alarms.due
        if due is not None and not host.alarms.runs.busy and self._node.lively(host.address):
            if len(self._expected) >= self._expected_most:
                self._forget_stale()
            heapq.heappush(self._expected, (due, next(self._order), ref(host)))
            self._arm()

    def _forget_stale(self) -> None:
        """Expect only what is still so: alarms may be moved many times before they are due."""
        true = {host: each for each in self._expected if (host := each[2]()) is not None and _is_due(host, each[0])}
        self._expected = sorted(true.values())
        self._expected_most = 2 * len(true) + _STALE_MAX

    def evicted(self, due: int | None) -> None:
        """Note that an actor is due then that is not in memory; the catalogue knows which."""
        if due is not None and (self._evicted_us is None or due < self._evicted_us):
            self._evicted_us = due
            self._arm()

    def lost(self, host: Host) -> None:
        """An actor was reset: open it again by and by, or when it is due, for only its file knows when that is."""
        alarms = host.alarms
        if host.kind.alarm is None or alarms.runs.busy or self._node.draining:
            return  # whoever runs its alarms sees to it
        if alarms.due is not None or alarms.indexed is not None or self._overdue(host.address):
            self._later(host.kind, host.address, alarms.due)

    def _overdue(self, address: Address) -> bool:
        """Whether the catalogue has had the actor looked for, which was in vain when it was being opened."""
        try:
            due = self._node.alarm_index.at(address)
        except Z0Error:  # who cannot be asked may have
            return True
        return due is not None and due <= self._node.clock.now_us()

    def stop(self) -> None:
        """Expect nothing any more."""
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _arm(self) -> None:
        times = [] if self._evicted_us is None else [self._evicted_us]
        if self._expected:
            times.append(self._expected[0][0])
        if not times or self._node.draining:
            return
        if self._timer is not None:
            if self._timer_us <= min(times):
                return
            self._timer.cancel()
        self._timer_us = min(times)
        self._timer = self._node.clock.call_at(self._timer_us, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._node.clock.now_us()
        while self._expected and self._expected[0][0] <= now:
            due, _, expected = heapq.heappop(self._expected)
            host = expected()
            if host is not None and _is_due(host, due) and not host.alarms.runs.busy:
                self._serve(host)
        if self._evicted_us is not None and self._evicted_us <= now:
            self._evicted_us = None
            self.look()
        self._arm()

    # Running

    def _serve(self, host: Host, opened: bool = False) -> None:
        host.alarms.runs.busy = True
        self._node.spawn(self._run(host, opened), Context())

    async def _run(self, host: Host, opened: bool) -> None:
        try:
            await host.alarms.runs.run()
        except Exception as error:
            await self._failed(host, error)
        else:
            self._failures.pop(host.address, None)
            if opened and self._looking is not None and host.idle:
                self._node.evict(host, "room")  # others are due, and this one was opened for its alarms only
        finally:
            self.began(host.address)

    async def _failed(self, host: Host, error: Exception) -> None:
        """An actor could not run its alarms: later; but a run that abort() has given up is ended first."""
        run = host.alarms.runs.given_up
        try:
            if run is not None and not self._node.draining:
                await self._node.host(host.kind, host.address).alarms.runs.abandon(run)
                self._failures.pop(host.address, None)
                return
        except Exception as other:
            error = other
        log.warning("alarms of %s could not run: %s", host.address, error)
        self._later(host.kind, host.address)

    def began(self, address: Address) -> None:
        """An actor that was opened for its alarms has begun to run them, or takes too long: another may be opened."""
        timer = self._opening.pop(address, None)
        if timer is not None:
            timer.cancel()
            self._openings.release()

    def _later(self, kind: Kind, address: Address, due: int | None = None) -> None:
        """Open the actor once more, the later the more often that has failed; the first time when it is due already."""
        if self._node.draining or address in self._retries or not self._node.lively(address):
            return
        failures = self._failures[address] = self._failures.get(address, 0) + 1
        delay = retry_seconds(failures, self._node.clock.random)
        if failures == 1 and due is not None:
            delay = min(delay, max(0.0, (due - self._node.clock.now_us()) / 1e6))
        self._retries[address] = self._node.clock.call_later(delay, partial(self._again, kind, address))

    def _again(self, kind: Kind, address: Address) -> None:
        node = self._node
        del self._retries[address]
        host = node.hosts.get(address)
        if host is not None:  # which looks into its file by itself, or is lost once more
            self._failures.pop(address, None)
            if host.is_open:
                self.expect(host)
        elif address in node.closing:
            self._later(kind, address)
        else:
            self._open(kind, address, None)

    def _open(self, kind: Kind, address: Address, indexed: int | None) -> None:
        """Open an actor and run what is due there."""
        try:  # in a thread when there are several, so that other work goes on
            host = self._node.host(kind, address, at_once=len(self._opening) < 2, indexed=indexed)
        except Exception as error:
            log.warning("%s could not be opened for its alarms: %s", address, error)
            self.began(address)
            self._later(kind, address)
            return
        self._serve(host, opened=True)

    # Actors that are not in memory

    def look(self, *, unclean: bool = False) -> None:
        """Ask the catalogue for actors that are due, and (`unclean`) for those that were never closed.

        Nobody, when only some may go on by themselves: these are in memory, and expected.
        """
        if self._node.only is not None:
            return
        self._unclean |= unclean
        self._look_again = True
        if self._looking is None and not self._node.draining:
            self._looking = self._node.spawn(self._look(), Context())

    async def _look(self) -> None:
        unclean = False
        try:
            while self._look_again:
                self._look_again = False
                unclean, self._unclean = self._unclean, False
                await self._look_once(unclean)
        except Exception as error:
            log.warning("the catalogue could not be asked for alarms, and will be: %s", error)
            self._unclean |= unclean
            self.evicted(self._node.clock.now_us() + _ASK_AGAIN_US)
        finally:
            self._looking = None

    async def _look_once(self, unclean: bool) -> None:
        index, clock = self._node.alarm_index, self._node.clock
        served = [kind.namespace for kind in self._node.kinds.values() if kind.alarm is not None]
        if unclean:
            self._report(index.unserved(clock.now_us(), served))
            await self._wake_all(lambda after: index.active(after, served, _PAGE))
        now = clock.now_us()  # one time for both, so that nobody is due between them
        await self._wake_all(lambda after: index.due(after, now, served, _PAGE))
        self.evicted(index.next(now, served))

    def _report(self, unserved: list[tuple[str, int]]) -> None:
        for namespace, count in unserved:
            if namespace not in self._reported:
                self._reported.add(namespace)
                log.warning(
                    "%d actors of namespace %s may have alarms due, but no class of it with an alarm() is known; the "
                    "alarms are kept: name the class in Runtime(actors=[...])", count, namespace,
                )  # fmt: skip

    async def _wake_all(self, page: Callable[[Due], list[Due]]) -> None:
        due = page(BEFORE_ALL)
        while due:
            for each in due:
                await self._wake(each.address)
            due = page(due[-1]) if len(due) == _PAGE else []

    async def _wake(self, address: Address) -> None:
        """Open an actor that is due, when few enough others are being opened; not one that is in memory."""
        await self._openings.acquire()
        opened, node = False, self._node
        try:
            kind, indexed = node.kind_of(address.namespace), node.alarm_index.at(address)
            elsewhere = address in node.hosts or address in node.closing or address in self._retries
            if kind is not None and indexed is not None and not elsewhere and not node.draining:
                opened = True
                enough = partial(self.began, address)
                self._opening[address] = node.clock.call_later(_OPENING_SECONDS, enough)
                self._open(kind, address, indexed)
        finally:
            if not opened:
                self._openings.release()


def _is_due(host: Host, due: int) -> bool:
    return host.is_open and host.alarms.due == due
