"""`z0 workflows ...` as people and programs use it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

import z0
from z0.cli import main
from z0.testing import VirtualClock
from z0.workflows.history import Status

CODE = "tests.test_workflow_commands:Bill"


class Bill(z0.Workflow):
    async def run(self, event: z0.Event[Any], step: z0.Step) -> str:
        invoice = await step.do("create invoice", lambda: {"no": 7})
        if event.payload == "verbose":
            raise ValueError(f"{'word ' * 200}\nsecond line")
        if event.payload == "patient":
            await step.do("long", lambda: {"text": "long " * 200})
            with suppress(RuntimeError):
                await step.do("caused", self.caused, retries=z0.Retries(limit=0))
        await step.do("send", self.send, retries=z0.Retries(limit=1, delay="1 ms"))
        await step.sleep("grace", "30 days" if event.payload == "patient" else "1 ms")
        paid = await step.wait_for_event("payment", type="invoice.paid")
        return f"{invoice['no']} {paid.payload}"

    def caused(self) -> None:
        raise RuntimeError("it has a cause") from ValueError("the cause")

    def send(self) -> None:
        if "BROKEN" in os.environ:
            raise ConnectionError("no route\x1b[31m to host")


Data = Path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """A directory with an instance that sleeps, one that waits for an event and one that has failed."""
    monkeypatch.chdir(tmp_path)

    async def make() -> None:
        clock = VirtualClock(datetime.now(UTC))  # for the commands go by the machine's clock
        async with z0.Runtime("data", actors=[Bill], clock=clock) as runtime:
            await runtime.workflows.create(Bill, "patient", id="sleeps")
            await runtime.workflows.create(Bill, id="waits")
            await runtime.tenant("t2").workflows.create(Bill, "verbose", id="verbose")
            await clock.advance("1 second")
            os.environ["BROKEN"] = "yes"
            await runtime.workflows.create(Bill, id="failed")
            await runtime.tenant("t1").workflows.create(Bill, id="theirs")
            await clock.advance("1 second")
            del os.environ["BROKEN"]

    asyncio.run(make())
    return tmp_path / "data"


def output(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main(["workflows", *map(str, words)]) == code
    captured = capsys.readouterr()
    return captured.out if code in (0, 1) and captured.out else captured.err


def document(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    return json.loads(output(capsys, *words, "--json", code=code))


def test_instances_are_listed_with_their_statuses(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "ls", data)["instances"]
    assert [(each["tenant"], each["id"], each["status"]) for each in found] == [
        ("default", "failed", "errored"),
        ("default", "sleeps", "waiting"),
        ("default", "waits", "waiting"),
        ("t1", "theirs", "errored"),
        ("t2", "verbose", "errored"),
    ]
    only = document(capsys, "ls", data, "--status", "errored", "--tenant", "t1", "--class", "Bill")
    assert [each["id"] for each in only["instances"]] == ["theirs"]
    assert document(capsys, "ls", data, "--limit", "1")["more"] is True
    assert "sleeps" in output(capsys, "ls", data, "--prefix", "s")
    assert "no such data directory" in output(capsys, "ls", data / "none", code=2)


def test_a_status_that_there_is_not_is_answered_with_those_that_there_are(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "".join(
        each for each in output(capsys, "ls", data, "--status", "bogus", code=2) if each.isalpha() or each == "_"
    )
    assert all(status in told for status in get_args(Status))
    assert output(capsys, "ls", data, "--limit", "-1", code=2)


def test_one_instance_is_shown_with_what_it_waits_for_or_why_it_failed(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, "show", data, "Bill/failed")
    assert "ConnectionError: no route\\x1b[31m to host" in text
    assert "create invoice" in text
    shown = document(capsys, "show", data, "Bill/waits")
    assert shown["status"]["waiting_for"][0].startswith("wait:payment#1: event 'invoice.paid'")
    assert [each["name"] for each in shown["steps"]] == ["create invoice", "send", "grace", "payment"]
    assert "has no actor Bill/none" in output(capsys, "show", data, "Bill/none", code=2)


def test_one_copied_file_is_enough_to_read(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.sqlite"
    shutil.copy(data / "default" / "Bill" / "failed.sqlite", copy)
    shutil.rmtree(data)
    assert document(capsys, "show", copy)["status"]["status"] == "errored"
    lines = output(capsys, "journal", copy, "--json").splitlines()
    assert [json.loads(line)["event"] for line in lines][:3] == [
        "workflow_queued",
        "workflow_started",
        "step_completed",
    ]
    events = output(capsys, "journal", copy, "--events", "--json").splitlines()
    assert [json.loads(line)["type"] for line in events][-1] == "workflow_errored"
    step = document(capsys, "step", copy, "send")
    assert [attempt["error"]["message"] for attempt in step["attempts"]] == ["no route\x1b[31m to host"] * 2
    assert document(capsys, "step", copy, "create invoice")["output"] == {"no": 7}
    assert "ConnectionError" in output(capsys, "step", copy, "send")
    assert "workflow_errored" in output(capsys, "journal", copy, "--events")
    assert "step_completed" in output(capsys, "journal", copy)
    assert "has no step 'refund'" in output(capsys, "step", copy, "refund", code=2)
    assert copy.read_bytes() and not copy.with_name("copy.sqlite-wal").exists()  # noqa: PT018


def test_a_step_is_shown_whole_with_the_traceback_of_each_attempt_line_by_line(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, "step", data, "Bill/failed", "send")
    assert text.count("Traceback (most recent call last):\n") == 2
    assert "\nattempt 2 failed:\nTraceback" in text
    assert text.count("\nConnectionError: no route\\x1b[31m to host\n") == 2
    text = output(capsys, "step", data, "Bill/sleeps", "long")
    assert f'"text": "{"long " * 200}"' in text
    assert "it has a cause" in output(capsys, "step", data, "Bill/sleeps", "caused")


def test_an_error_is_shown_whole(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "show", data, "Bill/verbose", "--tenant", "t2")
    assert text.count("word") == 200
    assert "second line" in text
    assert "\\n" not in text


def test_a_file_that_is_no_instance_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def make() -> None:
        async with z0.Runtime(tmp_path) as runtime:
            await runtime.get(z0.Entity, "a").verify()

    asyncio.run(make())
    assert "no workflow instance" in output(capsys, "show", tmp_path, "Entity/a", code=2)


def test_a_failed_instance_is_retried(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    status = document(capsys, "retry", data, "Bill/failed", "--actors", CODE)
    assert status["status"] in ("running", "waiting")
    assert "only a failed instance is retried" in output(capsys, "retry", data, "Bill/failed", "--actors", CODE, code=1)
    assert document(capsys, "ls", data, "--status", "errored", "--tenant", "default")["instances"] == []


def test_an_event_is_sent_and_its_effect_waited_for(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("send-event", data, "Bill/waits", "invoice.paid", "--payload", "5", "--id", "e1", "--actors", CODE)
    assert document(capsys, *words, "--wait", "10 seconds")["output"] == "7 5"
    assert "is complete" in output(capsys, "terminate", data, "Bill/waits", "--actors", CODE, code=1)
    wrong = ("send-event", data, "Bill/waits", "invoice.paid", "--actors", CODE, "--payload", "{")
    assert "is not JSON" in output(capsys, *wrong, code=2)


def test_an_instance_is_created_and_terminated(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(capsys, "create", data, "Bill", "--id", "new", "--payload", '"patient"', "--actors", CODE)
    assert made["id"] == "new"
    assert "Bill/new is terminated" in output(capsys, "terminate", data, "Bill/new", "--actors", CODE)
    assert "exists already" in output(capsys, "create", data, "Bill", "--id", "new", "--actors", CODE, code=1)


def test_code_that_is_not_there_and_instances_that_are_not_change_nothing(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "MODULE:CLASS" in output(capsys, "retry", data, "Bill/failed", "--actors", "no.such:Class", code=2)
    assert "has no actor" in output(capsys, "retry", data, "Bill/none", "--actors", CODE, code=2)
    assert "--actors" in output(capsys, "retry", data, "Bill/failed", code=2)
    assert [path.stem for path in sorted((data / "default" / "Bill").glob("*.sqlite"))] == ["failed", "sleeps", "waits"]


async def test_reading_works_while_the_owner_runs_and_changing_names_the_owner(
    data: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    async with z0.Runtime(data, actors=[Bill], clock=VirtualClock()) as runtime:
        await runtime.workflows.create(Bill, "patient", id="live")
        await runtime.node.clock.settle()  # type: ignore[attr-defined]
        shown = await asyncio.to_thread(document, capsys, "show", data, "Bill/live")
        assert shown["status"]["status"] == "waiting"
        listed = await asyncio.to_thread(document, capsys, "ls", data, "--prefix", "live")
        assert [each["status"] for each in listed["instances"]] == ["waiting"]
        refused = await asyncio.to_thread(output, capsys, "terminate", data, "Bill/live", "--actors", CODE, code=2)
        assert "process" in refused
        assert (await runtime.workflows.get(Bill, "live").status()).status == "waiting"


def test_an_instance_is_paused_and_resumed(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "pause", data, "Bill/waits", "--actors", CODE)["status"] == "paused"
    assert document(capsys, "show", data, "Bill/waits")["status"]["status"] == "paused"
    assert document(capsys, "resume", data, "Bill/waits", "--actors", CODE)["status"] in ("running", "waiting")
    assert "only a paused instance" in output(capsys, "resume", data, "Bill/waits", "--actors", CODE, code=1)
