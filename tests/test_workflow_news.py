"""What an instance tells: events, alerts, failures, spans and numbers."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgspec
import pytest

import z0
from tests.proofs import Proof
from z0.testing import VirtualClock, crash, fault, temporary_runtime
from z0.tracing import OpenTelemetry
from z0.workflows.public import Expander
from z0.workflows.services import services


class Order(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        await step.do("charge", self.charge, retries=z0.Retries(limit=2, delay="5 seconds"))
        await step.alert("charged", {"amount": 7})
        await step.sleep("night", "8 hours")
        await step.wait_for_event("paid", type="paid", timeout="1 day")
        return "done"

    def charge(self, ctx: z0.StepContext) -> str:
        if ctx.attempt == 1:
            raise ValueError("declined")
        return "receipt"


class Failing(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
        await step.do("charge", self.charge, retries=z0.Retries(limit=0))

    def charge(self) -> None:
        raise ValueError("no money")

    async def on_failure(self, status: z0.InstanceStatus) -> None:
        assert status.error is not None
        self.env.append((self.id, status.error.message, status.step))


ORDERED = [
    "workflow_queued", "workflow_started", "step_started", "attempt_started", "attempt_errored", "workflow_waiting",
    "attempt_started", "attempt_completed", "step_completed", "alert_raised", "sleep_started", "workflow_waiting",
    "sleep_completed", "wait_started", "workflow_waiting", "wait_completed", "workflow_completed",
]  # fmt: skip


async def test_events_replay_the_journal_then_follow_it_to_the_end(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[]) as runtime:
        order = await runtime.workflows.create(Order, {"n": 1}, id="x")
        await clock.advance("10 seconds")
        seen: list[z0.InstanceEvent] = []

        async def follow() -> None:
            async for event in order.events():
                seen.append(event)

        following = asyncio.create_task(follow())
        await clock.advance("1 hour")
        assert [event.type for event in seen] == ORDERED[:12]
        assert not runtime.node.hosts  # whoever follows keeps nobody in memory
        await clock.advance("8 hours")
        await order.send_event("paid")
        await order.result("1 second")
        await following
        assert [event.type for event in seen] == ORDERED
        numbers = [event.event_id for event in seen]
        assert numbers == sorted(set(numbers))
        again = [event async for event in order.events(numbers[4])]
        assert again == seen[5:]
        assert [event.type async for event in order.events(types={"step_completed", "sleep_completed"})] == [
            "step_completed",
            "sleep_completed",
        ]


async def test_waiting_for_a_child_is_an_event_and_an_event_that_came_early_is_not_waited_for(
    clock: VirtualClock,
) -> None:
    class Nap(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            await step.sleep("night", "8 hours")

    class Parent(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            await step.sleep("night", "8 hours")
            await step.wait_for_event("paid", type="paid")
            await step.workflow(Nap)

    async with temporary_runtime(memory=True, clock=clock, actors=[Nap, Parent]) as runtime:
        parent = await runtime.workflows.create(Parent, id="x")
        await parent.send_event("paid")
        await clock.advance("17 hours")
        told = [event.type async for event in parent.events()]
        waits = [event async for event in parent.events(types=["workflow_waiting"])]
    assert told == [
        "workflow_queued", "workflow_started", "sleep_started", "workflow_waiting", "sleep_completed", "wait_started",
        "wait_completed", "step_started", "workflow_waiting", "step_started", "attempt_started", "attempt_completed",
        "step_completed", "attempt_started", "attempt_completed", "step_completed", "workflow_completed",
    ]  # fmt: skip
    assert [event.step_name for event in waits] == [None, None]


async def test_the_last_event_is_the_end_whatever_is_heard_of_children_later(clock: VirtualClock) -> None:
    class Parent(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            await step.workflow(Order)

    async with temporary_runtime(memory=True, clock=clock, actors=[Order, Parent], alerts=[]) as runtime:
        parent = await runtime.workflows.create(Parent, id="x")
        await clock.settle()
        following = asyncio.create_task(_types(parent))
        await parent.terminate()
        await clock.advance("1 minute")
        told = await _types(parent)
        assert told[-1] == "workflow_terminated"
        assert (await parent.journal())[-1].event != "workflow_terminated"
        assert await following == told
        await parent.restart()
        await clock.settle()
        await parent.terminate()
        assert (await _types(parent)).count("workflow_terminated") == 2


async def _types(instance: z0.Instance[Any]) -> list[str]:
    return [event.type async for event in instance.events()]


async def test_events_have_the_fields_that_cloudflare_names(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[]) as runtime:
        order = await runtime.workflows.create(Order, {"n": 1}, id="x")
        await clock.advance("9 hours")
        await order.terminate()
        events = [msgspec.to_builtins(event) async for event in order.events()]
        by_type = {event["type"]: event for event in reversed(events)}
        assert by_type["workflow_queued"]["params"] == {"n": 1}
        errored = by_type["attempt_errored"]
        assert (errored["stepName"], errored["attempt"], errored["retryDelayMs"]) == ("charge", 1, 5_000)
        assert errored["error"]["message"] == "declined"
        assert by_type["step_completed"]["output"] == "receipt"
        assert by_type["step_completed"]["durationMs"] == 5_000
        assert by_type["wait_started"]["eventType"] == "paid"
        assert {"instanceId", "eventId", "timestamp"} <= by_type["workflow_terminated"].keys()
        assert events[-1]["type"] == "workflow_terminated"


async def test_the_delay_of_a_retry_is_told_as_it_was_asked_for_although_time_passes_meanwhile() -> None:
    class Ticking(VirtualClock):
        def now_us(self) -> int:
            self.jump(0.000_007)
            return super().now_us()

    clock = Ticking()
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[]) as runtime:
        order = await runtime.workflows.create(Order, id="x")
        await clock.advance("1 minute")
        await order.terminate()
        delays = [event.retry_delay_ms async for event in order.events(types=["attempt_errored"])]
    assert delays == [5_000]


async def test_events_end_when_the_runtime_closes(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[]) as runtime:
        order = await runtime.workflows.create(Order, id="x")
        await clock.settle()

        async def follow() -> None:
            async for _ in order.events():
                pass

        following = asyncio.create_task(follow())
        waiting = asyncio.create_task(order.result())
        await clock.settle()
    for task in (following, waiting):
        with pytest.raises(z0.RuntimeClosed):
            await task


async def test_a_step_is_shown_by_its_name_with_its_result_and_attempts(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[]) as runtime:
        order = await runtime.workflows.create(Order, id="x")
        await clock.advance("6 seconds")
        charge = await order.step("charge")
        assert (charge.status, charge.output, charge.key) == ("complete", "receipt", "do:charge#1")
        assert [(each.attempt, each.error and each.error["message"]) for each in charge.attempts] == [
            (1, "declined"),
            (2, None),
        ]
        assert [(each.name, each.status) for each in await order.steps()] == [
            ("charge", "complete"),
            ("charged", "complete"),
            ("night", "waiting"),
        ]
        with pytest.raises(z0.StepNotFound, match="'charge', 'charged', 'night'"):
            await order.step("refund")


async def test_a_prefix_of_a_journal_tells_a_prefix_of_its_events(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[]) as runtime:
        order = await runtime.workflows.create(Order, id="x")
        await clock.advance("3 days")
        entries = await order.journal()
        whole = [event async for event in order.events()]
        for end in range(len(entries)):
            expander = Expander("x")
            part = [event for entry in entries[:end] for event in expander.events(entry)]
            assert part == whole[: len(part)]


# Alerts and failures


async def test_an_alert_goes_to_every_sink_and_does_not_hold_up_the_body(clock: VirtualClock) -> None:
    alerts: list[z0.Alert] = []
    down = [True, True]

    async def flaky(alert: z0.Alert) -> None:
        if down:
            down.pop()
            raise OSError("unreachable")
        alerts.append(alert)

    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[flaky]) as runtime:
        order = await runtime.workflows.create(Order, id="x")
        await clock.advance("6 seconds")
        assert (await order.status()).waiting_for[0].startswith("sleep:night")
        assert alerts == []
        await clock.advance("30 minutes")
        (alert,) = alerts
        assert (alert.name, alert.data, alert.workflow, alert.instance) == ("charged", {"amount": 7}, "Order", "x")
        await clock.advance("3 days")
        assert len(alerts) == 1  # replays tell nobody anything
        assert b'z0_workflow_alerts_total{outcome="failed",workflow="Order"} 2.0' in runtime.metrics_text()


async def test_no_sink_keeps_an_alert_from_the_others_and_one_that_is_cancelled_is_told_again(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def cancels(alert: z0.Alert) -> None:
        told.append("cancels")
        if told.count("cancels") == 1:
            raise asyncio.CancelledError

    async def cancelled(alert: z0.Alert) -> None:
        told.append("cancelled")
        if told.count("cancelled") == 1:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(0)

    async def hangs(alert: z0.Alert) -> None:
        told.append("hangs")
        if told.count("hangs") == 1:
            await asyncio.Event().wait()

    def good(alert: z0.Alert) -> None:
        told.append("good")

    sinks = [cancels, cancelled, hangs, good]
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=sinks) as runtime:
        order = await runtime.workflows.create(Order, id="x")
        await clock.advance("30 seconds")
        assert told == ["cancels", "cancelled", "hangs", "good"]
        assert "errand_done" not in [entry.event for entry in await order.journal()]
        await clock.advance("10 minutes")
        assert told == ["cancels", "cancelled", "hangs", "good"] * 2
        assert "errand_done" in [entry.event for entry in await order.journal()]
    assert "CancelledError" in caplog.text


async def test_a_sink_has_a_minute_for_an_alert(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    async def hangs(alert: z0.Alert) -> None:
        await asyncio.Event().wait()

    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[hangs]) as runtime:
        await runtime.workflows.create(Order, id="x")
        await clock.advance("64 seconds")
        assert "alert@" not in caplog.text
        await clock.advance("2 seconds")
    assert "took more than 60 s" in caplog.text


async def test_an_alert_that_a_closing_runtime_cuts_off_is_told_by_the_next_one(clock: VirtualClock) -> None:
    told: list[str] = []

    async def hangs(alert: z0.Alert) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cut off")

    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[hangs]) as runtime:
        await runtime.workflows.create(Order, id="x")
        await clock.advance("6 seconds")
        await runtime.close()
        assert told == ["cut off"]
        async with z0.Runtime(
            runtime.path, clock=clock, actors=[Order], alerts=[lambda alert: told.append(alert.name)]
        ):
            await clock.advance("1 second")
            assert told == ["cut off", "charged"]


async def test_alerts_are_logged_at_error_level_when_nothing_else_is_said(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Order]) as runtime:
        await runtime.workflows.create(Order, id="x")
        await clock.advance("6 seconds")
    (record,) = [each for each in caplog.records if "alert charged" in each.message]
    assert record.levelno == logging.ERROR
    assert '{"amount":7}' in record.message


@contextmanager
def server(answers: list[int]) -> Iterator[tuple[str, list[Any]]]:
    """A server on a real socket that answers posts with these statuses, and what was posted to it, or asked for."""
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0))
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            posted.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}/alerts", posted
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


async def test_alerts_are_posted_to_a_webhook_until_it_takes_them(clock: VirtualClock) -> None:
    with server([500, 204]) as (url, posted):
        sink = z0.WebhookAlerts(url)
        async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[sink]) as runtime:
            order = await runtime.workflows.create(Order, id="x")
            for _ in range(200):
                await clock.advance("1 second")
                await asyncio.sleep(0.01)
                if "errand_done" in [entry.event for entry in await order.journal()]:
                    break
        assert [alert["name"] for alert in posted] == ["charged", "charged"]
        assert posted[0]["id"] == posted[1]["id"]
    with pytest.raises(ValueError, match="not a URL"):
        z0.WebhookAlerts("file:///etc/passwd")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_webhook_that_answers_with_a_redirect_has_not_taken_the_alert(status: int, clock: VirtualClock) -> None:
    alert = z0.Alert(
        id="W 'x'#3", name="a", data=None, workflow="W", instance="x", tenant="default", timestamp=clock.now()
    )
    with server([status]) as (url, posted):
        with pytest.raises(OSError, match=f"answered {status}"):
            await z0.WebhookAlerts(url)(alert)
        assert [each["name"] for each in posted] == ["a"]


async def test_hooks_of_class_and_runtime_are_told_of_a_failure_and_theirs_do_no_harm(clock: VirtualClock) -> None:
    told: list[Any] = []
    failing = [True]

    def on_failure(failed: z0.FailedInstance) -> None:
        if failing:
            failing.pop()
            raise RuntimeError("the pager is out of order")
        told.append(failed)

    env: list[Any] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Failing], env=env, on_failure=on_failure) as runtime:
        instance = await runtime.workflows.create(Failing, id="x")
        await clock.settle()
        assert (await instance.status()).status == "errored"
        assert env == [("x", "no money", "do:charge#1")]
        assert told == []
        await clock.advance("1 minute")
        assert [(each.workflow, each.status.id) for each in told] == [("Failing", "x")]
        await clock.advance("1 day")
        assert len(told) == len(env) == 1
        done = [entry.detail["errand"] for entry in await instance.journal() if entry.event == "errand_done"]
        assert sorted(each.partition("@")[0] for each in done) == ["on_failure", "tell_failure"]


async def test_a_hook_that_is_cancelled_is_called_again(clock: VirtualClock) -> None:
    class Cancelled(Failing):
        async def on_failure(self, status: z0.InstanceStatus) -> None:
            self.env.append(status.id)
            if len(self.env) == 1:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(0)

    env: list[str] = []
    async with temporary_runtime(memory=True, clock=clock, actors=[Cancelled], env=env) as runtime:
        await runtime.workflows.create(Cancelled, id="x")
        await clock.advance("1 minute")
        assert env == ["x", "x"]


async def test_an_instance_outlives_its_retention_for_as_long_as_it_owes_an_alert_or_a_failure(
    clock: VirtualClock,
) -> None:
    class Brief(z0.Workflow):
        retention = "10 minutes"

        async def run(self, event: z0.Event[str], step: z0.Step) -> None:
            if event.payload == "fail":
                raise ValueError("no money")
            if event.payload == "alert":
                await step.alert("review")

    down, told = [True], list[str]()

    def tell(news: z0.Alert | z0.FailedInstance) -> None:
        if down:
            raise OSError("unreachable")
        told.append(news.instance if isinstance(news, z0.Alert) else news.status.id)

    async with temporary_runtime(memory=True, clock=clock, actors=[Brief], alerts=[tell], on_failure=tell) as runtime:
        workflows = runtime.workflows
        for payload in ("alert", "fail", "nothing", "deleted"):
            await workflows.create(Brief, payload.replace("deleted", "fail"), id=payload)
        await clock.advance("30 minutes")
        assert [each.id for each in await workflows.list(Brief)] == ["alert", "deleted", "fail"]
        await workflows.get(Brief, "deleted").delete()  # that is the user's word
        down.clear()
        await clock.advance("40 minutes")
        assert sorted(told) == ["alert", "fail"]
        assert await workflows.list(Brief) == []


async def test_a_runtime_that_performs_no_errands_leaves_them_owed_to_the_next_one(clock: VirtualClock) -> None:
    class Limited(Failing):
        concurrency = z0.Concurrency(limit=1)

    told: list[str] = []
    env: list[Any] = []

    def sink(alert: z0.Alert) -> None:
        told.append(f"alert of {alert.instance}")

    def on_failure(failed: z0.FailedInstance) -> None:
        told.append(f"failure of {failed.status.id}")

    actors: list[type[z0.Actor]] = [Order, Failing, Limited]
    async with temporary_runtime(memory=True, clock=clock, actors=actors, env=env, alerts=[sink]) as runtime:
        services(runtime.node).performs_errands = False
        await runtime.workflows.create(Order, id="order")
        await runtime.workflows.create(Failing, id="failing")
        limited = await runtime.workflows.create(Limited, id="limited")
        await clock.advance("1 hour")
        assert told == env == []
        assert (await limited.status()).status == "queued"
        await runtime.close()
        options: dict[str, Any] = {"clock": clock, "actors": actors, "env": env}
        async with z0.Runtime(runtime.path, **options, alerts=[sink], on_failure=on_failure) as owner:
            await clock.advance("2 hours")
            assert sorted(told) == ["alert of order", "failure of failing", "failure of limited"]
            assert sorted(name for name, *_ in env) == ["failing", "limited"]
            assert await owner.workflows.counts(Limited) == {"errored": 1}
            await clock.advance("1 day")
            assert len(told) == 3


async def test_what_is_owed_already_is_not_touched_by_a_runtime_that_performs_no_errands(clock: VirtualClock) -> None:
    told: list[str] = []

    def down(alert: z0.Alert) -> None:
        raise OSError("unreachable")

    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[down]) as runtime:
        await runtime.workflows.create(Order, id="x")
        await clock.advance("6 seconds")
        await runtime.close()
        looking = z0.Runtime(runtime.path, clock=clock, actors=[Order])
        services(looking.node).performs_errands = False
        async with looking:
            await looking.workflows.get(Order, "x").send_event("paid")
            clock.jump("8 hours")
            await clock.advance("1 minute")
            assert (await looking.workflows.get(Order, "x").status()).status == "complete"
        async with z0.Runtime(
            runtime.path, clock=clock, actors=[Order], alerts=[lambda alert: told.append(alert.name)]
        ):
            await clock.advance("1 hour")
            assert told == ["charged"]


async def crash_while_telling(point: Any, nth: int) -> bool:
    """Crash at that commit, go on, and see who was told; whether it came to that commit."""
    clock, env, alerts = VirtualClock(), list[Any](), list[z0.Alert]()
    options: dict[str, Any] = {"clock": clock, "actors": [Order, Failing], "env": env, "alerts": [alerts.append]}
    async with temporary_runtime(memory=True, **options) as runtime:
        with fault(runtime, point, nth=nth) as struck, suppress(z0.Z0Error):
            await runtime.workflows.create(Order, id="x")
            await runtime.workflows.create(Failing, id="x")
            await clock.advance("1 hour")
        await crash(runtime)
        async with z0.Runtime(runtime.path, **options) as again:
            for cls in (Order, Failing):
                await again.workflows.create(cls, id="x", on_conflict="existing")
            await clock.advance("3 hours")
    assert {(alert.name, alert.id) for alert in alerts} == {("charged", alerts[0].id)}
    assert set(env) == {("x", "no money", "do:charge#1")}
    if not struck.hits:
        assert len(alerts) == len(env) == 1  # without a crash exactly once
    return bool(struck.hits)


@pytest.mark.proof
@pytest.mark.parametrize("point", ["crash-before-commit", "crash-after-commit"])
async def test_wherever_a_crash_comes_alerts_and_failures_are_told(point: Any, proof: Proof) -> None:
    for nth in range(1, 60, 1 if proof.amount != "quick" else 5):
        proof.count("crashes")
        if not await crash_while_telling(point, nth):
            break
    assert 8 < nth < 59


async def test_an_errand_that_is_forgotten_by_a_crash_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: z0.Workflow) -> None:  # as it is, without what was owed
        if not self._z0_engine.rested:
            self._z0_engine.body.go_on()

    monkeypatch.setattr(z0.Workflow, "start", start)
    noticed = 0
    for nth in range(1, 60):
        try:
            if not await crash_while_telling("crash-after-commit", nth):
                break
        except (AssertionError, IndexError):
            noticed += 1
    assert noticed


# Spans and numbers


class Spans:
    """A tracer that keeps what it is given."""

    listens = True

    def __init__(self) -> None:
        self.spans: list[tuple[str, str | None, Any, str]] = []
        self.open: str | None = None

    def here(self) -> str | None:
        return self.open

    @contextmanager
    def span(self, name: str, parent: str | None, attributes: dict[str, str | int]) -> Iterator[object]:
        try:
            yield self
        except Exception as error:
            self.spans.append((name, parent, attributes.get("z0.attempt"), type(error).__name__))
            raise
        self.spans.append((name, parent, attributes.get("z0.attempt"), "ok"))


async def test_one_trace_of_an_instance_goes_on_across_suspensions_and_restarts(clock: VirtualClock) -> None:
    class Two(z0.Workflow):
        async def run(self, event: z0.Event[Any], step: z0.Step) -> None:
            await step.do("first", lambda: 1)
            await step.sleep("night", "8 hours")
            await step.do("second", lambda: 2)

    tracer = Spans()
    async with temporary_runtime(memory=True, clock=clock, actors=[Two, Order], alerts=[], tracer=tracer) as runtime:
        await runtime.workflows.create(Two, id="x")
        await runtime.workflows.create(Two, id="y")
        await clock.advance("1 hour")
        await crash(runtime)
        async with z0.Runtime(runtime.path, clock=clock, actors=[Two, Order], alerts=[], tracer=tracer) as again:
            await clock.advance("8 hours")
            tracer.open = f"00-{7:032x}-{8:016x}-01"
            await again.workflows.create(Order, id="z")
            await clock.advance("1 hour")
    by_name = {name: [span[1] for span in tracer.spans if span[0] == name] for name, *_ in tracer.spans}
    first, second = by_name["z0.workflow.Two.first"], by_name["z0.workflow.Two.second"]
    assert set(first) == set(second)
    assert (len(first), len(second), len(set(first))) == (2, 2, 2)
    charges = [span for span in tracer.spans if span[0] == "z0.workflow.Order.charge"]
    assert [(parent, attempt, status) for _, parent, attempt, status in charges] == [
        (tracer.open, 1, "ValueError"),
        (tracer.open, 2, "ok"),
    ]


def open_telemetry(ratio: float = 1.0) -> tuple[Any, Any]:
    """A provider that samples so many traces, and what its spans are exported to."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling")
    provider, exporter = sdk.TracerProvider(sampling.ParentBasedTraceIdRatio(ratio)), memory.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    return provider, exporter


def tree(exporter: Any) -> list[tuple[str, str | None, str]]:
    """The spans in the order in which they ended: name, name of the one above, status."""
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name.removeprefix("z0.workflow.") for span in spans}
    above = [None if span.parent is None else names[span.parent.span_id] for span in spans]
    return [(names[s.context.span_id], up, s.status.status_code.name) for s, up in zip(spans, above, strict=True)]


async def test_spans_go_to_opentelemetry_with_status_and_attempt(clock: VirtualClock) -> None:
    provider, exporter = open_telemetry()
    tracer = OpenTelemetry(provider)
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[], tracer=tracer) as runtime:
        with provider.get_tracer("test").start_as_current_span("request") as request:
            await runtime.workflows.create(Order, id="x")
        await clock.advance("1 minute")
    spans = [span for span in exporter.get_finished_spans() if span.name == "z0.workflow.Order.charge"]
    assert [(span.status.status_code.name, span.attributes["z0.attempt"]) for span in spans] == [
        ("ERROR", 1),
        ("OK", 2),
    ]
    assert {span.context.trace_id for span in spans} == {request.get_span_context().trace_id}
    assert len(exporter.get_finished_spans()) == 3


class Steps(z0.Workflow):
    """A step, a night and another step; two runs of that, or one."""

    async def run(self, event: z0.Event[int], step: z0.Step) -> None:
        await step.do("first", lambda: 1)
        await step.sleep("night", "8 hours")
        await step.do("second", lambda: 2)
        if not event.payload:
            await step.continue_as_new(1)


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("traced", ["from its creation", "from its night on"])
async def test_the_sampler_decides_of_an_instance_that_was_created_outside_of_a_span(
    sampled: bool, traced: str, clock: VirtualClock
) -> None:
    provider, exporter = open_telemetry(float(sampled))
    late = traced != "from its creation"
    async with temporary_runtime(memory=True, clock=clock, actors=[Steps], tracer=OpenTelemetry(provider)) as runtime:
        if late:
            services(runtime.node).tracer = None
        await runtime.workflows.create(Steps, 0, id="x")
        await clock.advance("1 hour")
        await crash(runtime)
        async with z0.Runtime(runtime.path, clock=clock, actors=[Steps], tracer=OpenTelemetry(provider)) as again:
            await clock.advance("1 day")
            assert await again.workflows.counts(Steps) == {"complete": 1}
    steps = ["second", "first", "second"] if late else ["first", "second", "first", "second"]
    assert tree(exporter) == ([("Steps", None, "OK"), *[(f"Steps.{name}", "Steps", "OK") for name in steps]] * sampled)
    assert len({span.context.trace_id for span in exporter.get_finished_spans()}) == sampled


async def test_a_fork_begins_a_trace_of_its_own(clock: VirtualClock) -> None:
    provider, exporter = open_telemetry()
    tracer = OpenTelemetry(provider)
    async with temporary_runtime(memory=True, clock=clock, actors=[Steps], tracer=tracer) as runtime:
        instance = await runtime.workflows.create(Steps, 1, id="x")
        await clock.advance("9 hours")
        exporter.clear()
        await instance.fork("second", "y")
        await clock.advance("1 hour")
    assert tree(exporter) == [("Steps", None, "OK"), ("Steps.second", "Steps", "OK")]
    assert [span.attributes["z0.instance"] for span in exporter.get_finished_spans()] == ["y", "y"]


async def test_a_step_inside_another_is_a_part_of_its_span_and_a_sleep_ends_that_well(clock: VirtualClock) -> None:
    provider, exporter = open_telemetry()

    class Nested(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            await step.do("outer", self.outer)
            await step.do("next", lambda: None)

        async def outer(self, ctx: z0.StepContext) -> None:
            await ctx.do("before", lambda: None)
            await ctx.sleep("night", "8 hours")
            with provider.get_tracer("test").start_as_current_span("own"):
                await ctx.all([ctx.do("after", lambda: None)])

    tracer = OpenTelemetry(provider)
    async with temporary_runtime(memory=True, clock=clock, actors=[Nested], tracer=tracer) as runtime:
        instance = await runtime.workflows.create(Nested, id="x")
        await clock.advance("1 day")
        await instance.result("1 second")
    spans = tree(exporter)
    assert spans[0] == ("Nested", None, "OK")
    assert spans[1:] == [
        ("Nested.before", "Nested.outer", "OK"),
        ("Nested.outer", "Nested", "OK"),  # it sleeps, and leaves the memory
        ("Nested.after", "own", "OK"),
        ("own", "Nested.outer", "UNSET"),
        ("Nested.outer", "Nested", "OK"),
        ("Nested.next", "Nested", "OK"),
    ]


async def test_the_span_of_an_attempt_that_is_cut_off_ends_as_an_error(clock: VirtualClock) -> None:
    provider, exporter = open_telemetry()

    class Long(z0.Workflow):
        async def run(self, event: z0.Event[None], step: z0.Step) -> None:
            await step.do("terminated", lambda: self.clock.sleep("1 hour"))

    tracer = OpenTelemetry(provider)
    async with temporary_runtime(memory=True, clock=clock, actors=[Long], tracer=tracer) as runtime:
        instance = await runtime.workflows.create(Long, id="x")
        await clock.advance("1 minute")
        await instance.terminate()
        await clock.settle()
    assert tree(exporter) == [("Long", None, "OK"), ("Long.terminated", "Long", "ERROR")]
    assert "was cut off" in exporter.get_finished_spans()[-1].status.description


async def test_numbers_are_published_by_workflow_and_event(clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, actors=[Order], alerts=[]) as runtime:
        for n in range(3):
            await runtime.workflows.create(Order, id=f"{n}")
        await clock.advance("6 seconds")
        page = runtime.metrics_text().decode()
        assert 'z0_workflow_events_total{event="step_completed",workflow="Order"} 3.0' in page
        assert 'z0_workflow_waiting{reason="sleep"} 3.0' in page
        assert "z0_workflow_attempt_seconds_count 3.0" in page
        await clock.advance("1 minute")
        assert 'z0_workflow_instances{status="waiting",workflow="Order"} 3.0' in runtime.metrics_text().decode()
