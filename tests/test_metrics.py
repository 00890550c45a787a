"""Metrics: what a runtime says of itself is what happened."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import z0
from z0.actors.metrics import Histogram
from z0.testing import VirtualClock, fault, temporary_runtime


class Worker(z0.Actor):
    env: asyncio.Event

    async def put(self) -> None:
        self.storage.put("n", self.storage.get("n", 0) + 1)

    async def look(self) -> int:
        return int(self.storage.get("n", 0))

    async def wait(self) -> None:
        await self.env.wait()
        self.storage.put("waited", 1)

    async def hold(self) -> None:
        async with self.block():
            await self.env.wait()


class Other(Worker):
    pass


def value(runtime: z0.Runtime, name: str, **labels: str) -> float:
    """A sample as a scraper sees it; 0 when it is not there yet."""
    for family in text_string_to_metric_families(runtime.metrics_text().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return 0.0


@pytest.fixture
async def go() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def runtime(clock: VirtualClock, go: asyncio.Event) -> AsyncIterator[z0.Runtime]:
    limits = z0.Limits(mailbox_messages=5, close_seconds=1)
    async with temporary_runtime(memory=True, clock=clock, env=go, limits=limits) as runtime:
        yield runtime


async def test_the_registry_is_one_and_can_be_part_of_another(runtime: z0.Runtime) -> None:
    assert runtime.metrics is runtime.metrics
    mine = prometheus_client.CollectorRegistry()
    mine.register(runtime.metrics)
    prometheus_client.Counter("jobs", "Of mine.", registry=runtime.metrics)
    page = prometheus_client.generate_latest(mine).decode()
    assert "z0_messages_total" in page
    assert "jobs_total" in page


async def test_a_runtime_that_is_not_open_has_metrics_too(tmp_path: Any) -> None:
    assert b"z0_catalog_commits_total 0.0" in z0.Runtime(tmp_path / "never").metrics_text()


async def test_every_name_is_ours_and_every_help_is_said(runtime: z0.Runtime) -> None:
    families = list(runtime.metrics.collect())
    assert [f.name for f in families if not f.name.startswith("z0_") or not f.documentation.endswith(".")] == []
    units = [f.name for f in families if f.type == "histogram" and not f.name.endswith(("_seconds", "_messages"))]
    assert units == []


async def test_every_message_is_counted_once_by_the_way_that_it_took(runtime: z0.Runtime, go: asyncio.Event) -> None:
    worker = runtime.get(Worker, "a")
    await worker.put()  # opens the actor: through the mailbox
    for _ in range(10):
        await worker.put()
        await worker.look()
    await asyncio.gather(*(worker.put() for _ in range(4)))
    go.set()
    await worker.wait()
    assert value(runtime, "z0_messages_total", way="direct") == 24
    assert value(runtime, "z0_messages_total", way="mailbox") == 2
    assert value(runtime, "z0_mailbox_wait_seconds_count") == 2


async def test_commits_are_counted_with_what_they_answered(runtime: z0.Runtime) -> None:
    worker = runtime.get(Worker, "a")
    await worker.look()
    before = value(runtime, "z0_commit_messages_count")
    await asyncio.gather(*(worker.put() for _ in range(4)))
    assert value(runtime, "z0_commit_messages_count") - before == 1
    assert value(runtime, "z0_commit_messages_bucket", le="4.0") == 1
    assert value(runtime, "z0_commit_messages_bucket", le="2.0") == 0
    assert value(runtime, "z0_commit_messages_sum") == 4
    assert value(runtime, "z0_commits_total", where="inline") == 1
    assert 0 < value(runtime, "z0_commit_seconds_sum") <= value(runtime, "z0_output_gate_wait_seconds_sum") < 10


async def test_a_fact_that_commits_by_itself_is_a_commit_like_others() -> None:
    class Account(z0.Entity):
        accepts = {"deposit"}

    async with temporary_runtime(memory=True) as runtime:
        account = runtime.get(Account, "a")
        for _ in range(20):
            await account.append("deposit", amount=1)
        assert runtime.node.metrics.alone.count > 0  # else this shows nothing
        assert value(runtime, "z0_commit_messages_sum") == 20
        for name in ("z0_commit_seconds", "z0_output_gate_wait_seconds", "z0_commit_messages"):
            assert value(runtime, f"{name}_count") == 20
        assert value(runtime, "z0_messages_total", way="direct") == 19


async def test_commits_of_several_actors_at_once_are_threaded(runtime: z0.Runtime) -> None:
    workers = [runtime.get(Worker, name) for name in "ab"]
    await asyncio.gather(*(worker.look() for worker in workers))
    await asyncio.gather(*(worker.put() for worker in workers))
    assert value(runtime, "z0_commits_total", where="thread") >= 1
    threaded = value(runtime, "z0_commits_total", where="thread")
    assert value(runtime, "z0_commits_total", where="inline") + threaded == 2
    assert value(runtime, "z0_commit_seconds_count") == 2


async def test_the_input_gate_tells_who_held_it_and_who_waited(
    runtime: z0.Runtime, clock: VirtualClock, go: asyncio.Event
) -> None:
    worker = runtime.get(Worker, "a")
    waits = asyncio.create_task(worker.wait())
    await clock.settle()
    holds = asyncio.create_task(worker.hold())
    await clock.settle()
    also = asyncio.create_task(worker.hold())
    await clock.settle()
    go.set()
    await asyncio.gather(waits, holds, also)
    assert value(runtime, "z0_input_gate_hold_seconds_count") == 2
    assert value(runtime, "z0_input_gate_wait_seconds_count") == 1  # `wait`; `also` had not begun
    assert value(runtime, "z0_input_gate_hold_seconds_sum") > 0


async def test_life_is_counted_by_namespace_and_reason(runtime: z0.Runtime, clock: VirtualClock) -> None:
    for cls in (Worker, Other):
        await runtime.get(cls, "a").put()
    assert value(runtime, "z0_resident_actors", namespace="Other") == 1
    assert value(runtime, "z0_open_files") == 2
    await runtime.evict(Other, "a")
    await clock.advance("1 minute")
    await runtime.get(Worker, "a").look()
    assert value(runtime, "z0_activations_total", namespace="Worker") == 2
    assert value(runtime, "z0_first_activations_total", namespace="Worker") == 1
    assert value(runtime, "z0_evictions_total", reason="asked") == 1
    assert value(runtime, "z0_evictions_total", reason="idle") == 1
    assert value(runtime, "z0_checkpoints_total") >= 1
    assert value(runtime, "z0_open_files") == 1
    assert value(runtime, "z0_resident_actors", namespace="Other") == 0
    assert value(runtime, "z0_catalog_commits_total") >= 2


async def test_failures_and_refusals_are_counted(runtime: z0.Runtime, go: asyncio.Event, clock: VirtualClock) -> None:
    worker = runtime.get(Worker, "a")
    await worker.look()
    with fault(runtime, "commit-lost"), pytest.raises(z0.CommitUnknown):
        await worker.put()
    assert value(runtime, "z0_commit_failures_total") == 1
    assert value(runtime, "z0_resets_total", namespace="Worker") == 1
    assert value(runtime, "z0_messages_total", way="direct") == 1
    callers = [asyncio.create_task(worker.wait()) for _ in range(6)]
    await clock.settle()
    go.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert sum(isinstance(outcome, z0.Overloaded) for outcome in outcomes) == 1
    assert value(runtime, "z0_overloaded_total", limit="mailbox_messages") == 1


async def test_what_waits_is_seen_when_it_waits(runtime: z0.Runtime, go: asyncio.Event, clock: VirtualClock) -> None:
    worker = runtime.get(Worker, "a")
    holds = asyncio.create_task(worker.hold())
    await clock.settle()
    waits = [asyncio.create_task(worker.look()) for _ in range(2)]
    await clock.settle()
    assert value(runtime, "z0_mailbox_messages") == 2
    assert value(runtime, "z0_mailbox_bytes") > 0
    go.set()
    await asyncio.gather(holds, *waits)
    assert (value(runtime, "z0_mailbox_messages"), value(runtime, "z0_mailbox_bytes")) == (0, 0)


async def test_what_other_parts_add_is_published(runtime: z0.Runtime) -> None:
    metrics = runtime.node.metrics
    metrics.alarms["ok"] += 2
    metrics.alarm_lateness.add(1_500)
    metrics.blocked += 1
    assert value(runtime, "z0_alarms_total", outcome="ok") == 2
    assert value(runtime, "z0_alarm_lateness_seconds_sum") == 0.0015
    assert value(runtime, "z0_loop_blocked_total") == 1


@given(st.lists(st.integers(-5, 2**40)))
def test_a_bucket_holds_what_is_at_most_its_bound(numbers: list[int]) -> None:
    histogram = Histogram()
    for n in numbers:
        histogram.add(n)
    for k in range(42):
        assert sum(histogram.counts[: k + 1]) == sum(n <= 2**k for n in numbers)
    assert histogram.total == math.fsum(max(0, n) for n in numbers)
    assert histogram.count == len(numbers)
