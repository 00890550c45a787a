"""What all workflow instances of one runtime share: where alerts go, who is told of failures, and what is measured."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from z0.actors.clock import Clock
from z0.actors.metrics import Histogram
from z0.actors.within import within

from .alerts import Alert, AlertSink, FailedInstance, LogAlerts

if TYPE_CHECKING:
    from z0.actors.host import Host
    from z0.actors.node import Node

    from .journal import Entry
    from .workflow import Workflow

log = logging.getLogger("z0.workflows")
_SINK_SECONDS = 60  # that one alert may take

ENTRIES = "entries"
"""The news of an instance that its journal has grown (see `Followers`)."""

Replace = Callable[["Workflow", str, str, Callable[..., Any]], Callable[..., Any]]
"""Of a workflow, a step's key, its name and its callback: what is called."""
FailureHook = Callable[[FailedInstance], Awaitable[None] | None]


class Tracer(Protocol):
    """Where spans go (z0.tracing has the one for OpenTelemetry)."""

    @property
    def listens(self) -> bool:
        """Whether anybody wants spans now: without, none are made."""

    def here(self) -> str | None:
        """The span that is open now, as W3C's `traceparent`; None: none is."""

    def span(self, name: str, parent: str | None, attributes: dict[str, str | int]) -> AbstractContextManager[object]:
        """A span of the trace of `parent` (a `traceparent`); None: of a new one, whatever is open.

        It is the open one until it is left; leaving it by an exception makes its status an error.
        """


class Figures:
    """The numbers of all instances, since the runtime was made."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.events: Counter[tuple[str, str]] = Counter()  # by workflow and event
        self.alerts: Counter[tuple[str, str]] = Counter()  # by workflow and outcome (sent, failed)
        self.attempts = Histogram()  # microseconds of the runtime's clock, of attempts that succeeded


class Services:
    """One of a runtime."""

    def __init__(self) -> None:
        """With alerts to the log, and nobody else to tell."""
        self.alerts: Sequence[AlertSink] = (LogAlerts(),)
        self.on_failure: FailureHook | None = None
        self.tracer: Tracer | None = None
        self.replace: Replace | None = None
        """For tests: what to call in the place of a step's callback (z0.mocks)."""
        self.performs_errands = True
        """Whether alerts, hooks and words to kin leave from here; else they stay owed, to the next runtime: for one
        that only looks in, whose sinks and hooks are not the owner's. Set it before the runtime opens."""
        self.figures = Figures()
        self._unordered: set[str] = set()
        self._born = 0

    def unordered(self, address: str, name: str) -> None:
        """Tasks of an instance take steps of one name in an order that may be another on a replay: say so once."""
        workflow = address.partition(" ")[0]
        if workflow not in self._unordered:
            self._unordered.add(workflow)
            log.warning(
                "%s: tasks side by side take steps named %r behind other steps; should they come to these in another "
                "order after a crash, each gets the result of the other. Name the steps of each task apart "
                '(f"%s {n}"), or use step.all, whose branches cannot be mixed up',
                address, name, name,
            )  # fmt: skip

    def born(self, now_us: int) -> dict[str, int]:
        """What the journal of an instance that is created now is to know, so that no other was born at the same time.

        A virtual clock stands still, so that an id can be free again at the time at which it was taken.
        """
        if now_us > self._born:
            self._born = now_us
            return {}
        self._born += 1
        return {"born": self._born}

    def noted(self, host: Host, entry: Entry) -> None:
        """An instance has made an entry, as a part of the open turn, or as one by itself."""
        figures, event = self.figures, entry.event
        figures.events[host.address.namespace, event] += 1
        if entry.started is not None and event.endswith("step_completed"):
            figures.attempts.add(entry.at - entry.started)
        followers = host.node.followers
        if followers.has(host.address, ENTRIES):
            if host.turn is None:
                followers.tell(host.address, ENTRIES)
            else:
                host.turn.settled().add_done_callback(lambda _: followers.tell(host.address, ENTRIES))

    async def alert(self, alert: Alert, clock: Clock) -> None:
        """Tell every sink, whatever becomes of the others. Raises the error of the first that failed.

        One that ends as cancelled, or takes longer than a minute, has failed as well.
        """
        told = await asyncio.gather(*(_tell(sink, alert, clock) for sink in self.alerts), return_exceptions=True)
        failed = next((each for each in told if each is not None), None)
        self.figures.alerts[alert.workflow, "sent" if failed is None else "failed"] += 1
        if failed is not None:
            raise failed


async def _tell(sink: AlertSink, alert: Alert, clock: Clock) -> None:
    told = sink(alert)
    if told is not None:
        await within(clock, _SINK_SECONDS, told, f"alert sink {sink!r} took more than {_SINK_SECONDS} s")


def services(node: Node) -> Services:
    """Those of the runtime."""
    found: Services | None = node.services.get(Services)
    if found is None:
        found = node.services[Services] = Services()
    return found
