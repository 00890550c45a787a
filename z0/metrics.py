"""A node's numbers as Prometheus reads them. Nothing is added up here: they are read when somebody scrapes.

Names end with their unit; no label holds an actor's name. Durations are real, whatever the runtime's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from z0.actors.catalog import CATALOG_FILE
from z0.actors.metrics import Histogram
from z0.actors.node import Node
from z0.actors.reader import Reader
from z0.workflows.history import Record
from z0.workflows.services import services
from z0.workflows.workflow import Workflow

_TIMES = range(10, 37)  # 2**10 ns is a microsecond, 2**36 ns a good minute
_LATENESS = range(10, 33)  # 2**10 us is a millisecond, 2**32 us an hour and a bit
_SIZES = range(11)


def registry(node: Node) -> CollectorRegistry:
    """A registry of its own with this node's metrics."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_NodeCollector(node))
    return made


def page(registry: CollectorRegistry) -> bytes:
    """The registry in Prometheus' text format."""
    return generate_latest(registry)


class _NodeCollector:
    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        yield from self._messages()
        yield from self._gates()
        yield from self._commits()
        yield from self._life()
        yield from self._alarms()
        yield from self._workflows()
        yield from self._present()

    def _messages(self) -> Iterator[Metric]:
        node, metrics = self._node, self._node.metrics
        messages = CounterMetricFamily(
            "z0_messages",
            "Messages to actors. direct: run in their callers' own steps, counted when they are answered; "
            "mailbox: counted when a mailbox accepts them.",
            labels=["way"],
        )
        messages.add_metric(["direct"], node.calls + metrics.direct)
        messages.add_metric(["mailbox"], metrics.posted)
        yield messages
        yield _seconds(
            "z0_mailbox_wait", "Time from a mailbox accepting a message to its handler beginning.", metrics.queued
        )
        yield _counter("z0_overloaded", "Messages refused as Overloaded, by limit.", metrics.overloaded, "limit")

    def _gates(self) -> Iterator[Metric]:
        metrics = self._node.metrics
        yield _seconds(
            "z0_input_gate_hold",
            "Time that an actor held its own input gate (block(), start(), stop()), taken to given back.",
            metrics.gate_held,
        )
        yield _seconds(
            "z0_input_gate_wait",
            "Time that a segment of a handler, or a block(), waited because the input gate was held or a thread "
            "had the file; those that did not wait are not counted.",
            metrics.gate_waited,
        )
        yield _seconds(
            "z0_output_gate_wait",
            "Time from the first write of a turn to its output gate opening: what its callers waited for, at most.",
            metrics.output_waited,
            metrics.alone,
        )

    def _commits(self) -> Iterator[Metric]:
        metrics = self._node.metrics
        alone = metrics.alone.count
        batch = Histogram()
        batch.counts = [metrics.batch.counts[0] + alone, *metrics.batch.counts[1:]]
        batch.total = metrics.batch.total + alone
        yield _histogram("z0_commit_messages", "Messages that one commit of an actor answered.", _SIZES, 1, [batch])
        yield _seconds(
            "z0_commit",
            "Time of the COMMIT itself; with durability full it includes the sync to the device. The one statement of "
            "a message that commits by itself is included.",
            metrics.committed,
            metrics.alone,
        )
        commits = CounterMetricFamily(
            "z0_commits", "Commits of actors, on the event loop or by a thread.", labels=["where"]
        )
        commits.add_metric(["inline"], metrics.committed.count + alone - metrics.threaded)
        commits.add_metric(["thread"], metrics.threaded)
        yield commits
        yield CounterMetricFamily(
            "z0_commit_failures", "COMMITs that failed: their callers got CommitUnknown.", value=metrics.commit_failures
        )

    def _life(self) -> Iterator[Metric]:
        node, metrics = self._node, self._node.metrics
        yield _counter("z0_activations", "Actors opened.", metrics.activations, "namespace")
        yield _counter(
            "z0_first_activations",
            "Actors registered in the catalogue, as their first message does.",
            metrics.first_activations,
            "namespace",
        )
        yield _counter("z0_resets", "Actors whose memory was dropped after a failure.", metrics.resets, "namespace")
        yield _counter(
            "z0_quarantines", "Actors whose files were found damaged, or not theirs.", metrics.quarantines, "namespace"
        )
        yield _counter("z0_evictions", "Idle actors that were closed.", metrics.evictions, "reason")
        yield CounterMetricFamily(
            "z0_checkpoints", "WALs of open actors copied into their databases.", value=metrics.checkpoints
        )
        yield CounterMetricFamily(
            "z0_catalog_commits",
            "Transactions of the catalogue.",
            value=node.catalog.commits if hasattr(node, "catalog") else 0,
        )
        yield CounterMetricFamily(
            "z0_loop_blocked",
            "Times that one piece of code blocked the event loop for too long.",
            value=metrics.blocked,
        )

    def _alarms(self) -> Iterator[Metric]:
        metrics = self._node.metrics
        yield _counter("z0_alarms", "Alarms that ran, by outcome.", metrics.alarms, "outcome")
        yield _histogram(
            "z0_alarm_lateness_seconds",
            "Time from an alarm being due to its handler beginning, by the runtime's clock.",
            _LATENESS,
            1e6,
            [metrics.alarm_lateness],
        )

    def _workflows(self) -> Iterator[Metric]:
        figures = services(self._node).figures
        events = CounterMetricFamily(
            "z0_workflow_events", "Entries made in journals of workflow instances.", labels=["workflow", "event"]
        )
        for labels, count in dict(figures.events).items():
            events.add_metric(labels, count)
        yield events
        alerts = CounterMetricFamily(
            "z0_workflow_alerts", "Alerts of workflows; failed ones are told again.", labels=["workflow", "outcome"]
        )
        for labels, count in dict(figures.alerts).items():
            alerts.add_metric(labels, count)
        yield alerts
        yield _histogram(
            "z0_workflow_attempt_seconds",
            "Time of attempts of steps that succeeded, sleeps inside them included, by the runtime's clock.",
            _TIMES,
            1e6,
            [figures.attempts],
        )
        instances = GaugeMetricFamily(
            "z0_workflow_instances",
            "Instances by status, as of when each was last in memory.",
            labels=["workflow", "status"],
        )
        for workflow, status, count in _statuses(self._node):
            instances.add_metric([workflow, status], count)
        yield instances
        waiting = GaugeMetricFamily(
            "z0_workflow_waiting", "Steps and queued instances in memory that wait, by reason.", labels=["reason"]
        )
        for reason, count in _reasons(self._node).items():
            waiting.add_metric([reason], count)
        yield waiting

    def _present(self) -> Iterator[Metric]:
        node = self._node
        hosts = list(node.hosts.values())
        resident = GaugeMetricFamily("z0_resident_actors", "Actors in memory, or being opened.", labels=["namespace"])
        for namespace, count in Counter(host.address.namespace for host in hosts).items():
            resident.add_metric([namespace], count)
        yield resident
        yield GaugeMetricFamily(
            "z0_quarantined_actors",
            "Actors that answer with an error until their files are right.",
            value=len(node.quarantine),
        )
        yield GaugeMetricFamily("z0_open_files", "Actors that have a place for their open file.", value=node.room.taken)
        yield GaugeMetricFamily(
            "z0_mailbox_messages",
            "Messages in mailboxes that have not begun.",
            value=sum(len(h.mailbox) for h in hosts),
        )
        yield GaugeMetricFamily(
            "z0_mailbox_bytes",
            "Bytes of messages that mailboxes accepted and nobody answered yet.",
            value=node.load.bytes,
        )


def _statuses(node: Node) -> list[tuple[str, str, int]]:
    """Of the catalogue's file, for whoever scrapes may be in a thread of their own."""
    path = node.path / CATALOG_FILE
    if not hasattr(node, "catalog") or not path.is_file():
        return []
    with Reader(path) as reader:
        sql = "SELECT namespace, status, count(*) FROM actors WHERE status IS NOT NULL GROUP BY 1, 2"
        return [(namespace, status, count) for namespace, status, count in reader.rows(sql)]


def _reasons(node: Node) -> Counter[str]:
    reasons = Counter[str]()
    for host in list(node.hosts.values()):
        if isinstance(host.actor, Workflow):
            history = host.actor._z0_engine.history
            reasons["slot"] += history.queued
            for record in list(history.open.values()) if history.end is None else ():
                reasons[_reason(record)] += 1
    return reasons


def _reason(record: Record) -> str:
    if record.child is not None:
        return "child"
    return "event" if record.type is not None else "retry" if record.attempts else "sleep"


def _counter(name: str, text: str, counts: Counter[str], label: str) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in dict(counts).items():
        family.add_metric([value], count)
    return family


def _seconds(name: str, text: str, *parts: Histogram) -> Metric:
    return _histogram(f"{name}_seconds", text, _TIMES, 1e9, parts)


def _histogram(
    name: str, text: str, shown: range, unit: float, parts: list[Histogram] | tuple[Histogram, ...]
) -> Metric:
    """All parts as one; the bucket of k holds numbers up to 2**k, which are 2**k / `unit` outside."""
    counts = [sum(column) for column in zip(*(part.counts for part in parts), strict=True)]
    buckets = [(str(2**k / unit), float(sum(counts[: k + 1]))) for k in shown]
    buckets.append(("+Inf", float(sum(counts))))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=sum(part.total for part in parts) / unit)
