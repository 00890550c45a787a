"""An actor whose file is damaged, or not its own, answers with an error until the file is right again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

import z0
from tests.vaults import Vault, file_of, read, write
from z0.actors.names import Address
from z0.testing import VirtualClock, crash


@pytest.fixture
async def runtime(clock: VirtualClock, tmp_path: Path) -> AsyncIterator[z0.Runtime]:
    async with z0.Runtime(tmp_path / "data", clock=clock, actors=[Vault]) as runtime:
        for name in "ab":
            await write(runtime.get(Vault, name), 20)
            assert await runtime.evict(Vault, name)
        await runtime.list(Vault)
        yield runtime


def blank_facts(file: Path) -> bytes:
    """Destroy every page of facts but the first; what the file was."""
    good = file.read_bytes()
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'facts'").fetchone()
    content = bytearray(good)
    content[(page - 1) * 4_096 : page * 4_096] = b"\xff" * 4_096
    file.write_bytes(content)
    return good


def metric(runtime: z0.Runtime, name: str) -> float | None:
    labels = {"namespace": "Vault"} if name.endswith("_total") else {}
    return runtime.metrics.get_sample_value(name, labels)


async def test_a_damaged_actor_is_quarantined_with_an_event_and_a_metric_and_the_file_is_left_as_it_is(
    runtime: z0.Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_of(runtime.path, "a")
    blank_facts(file)
    left = file.read_bytes()
    for _ in range(3):
        with pytest.raises(z0.ActorFileError, match="quarantined: put a backup in its place") as caught:
            await runtime.get(Vault, "a").append("x")
        assert not caught.value.retryable
    assert await runtime.get(Vault, "b").count_facts() == 20
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"actor Vault/a is quarantined: {file}: Corrupt: database disk image is malformed"
    ]
    assert metric(runtime, "z0_quarantines_total") == metric(runtime, "z0_quarantined_actors") == 1
    assert file.read_bytes() == left
    assert {path.name for path in file.parent.glob("a.*")} <= {"a.sqlite", "a.sqlite-wal", "a.sqlite-shm"}


async def test_a_quarantined_file_is_not_read_again_for_each_message(
    runtime: z0.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank_facts(file_of(runtime.path, "a"))
    with pytest.raises(z0.ActorFileError):
        await runtime.get(Vault, "a").count_facts()
    monkeypatch.setattr(runtime.node.file_ops, "open", lambda *_args, **_options: pytest.fail("it was opened"))
    for _ in range(3):
        with pytest.raises(z0.ActorFileError):
            await runtime.get(Vault, "a").count_facts()


async def test_a_good_file_in_its_place_ends_the_quarantine_at_once(
    runtime: z0.Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_of(runtime.path, "a")
    good = blank_facts(file)
    with pytest.raises(z0.ActorFileError):
        await runtime.get(Vault, "a").count_facts()
    file.write_bytes(good)
    assert await runtime.get(Vault, "a").count_facts() == 20
    assert "actor Vault/a is out of quarantine" in caplog.text
    assert metric(runtime, "z0_quarantined_actors") == 0


async def test_a_file_that_was_misread_is_looked_at_again_after_a_while_as_a_whole(
    runtime: z0.Runtime, clock: VirtualClock
) -> None:
    quarantine, file = runtime.node.quarantine, file_of(runtime.path, "a")
    quarantine.put(Address("default", "Vault", "a"), file, "it was misread")
    with pytest.raises(z0.ActorFileError, match="misread"):
        await runtime.get(Vault, "a").count_facts()
    await clock.advance("10 seconds")
    assert await runtime.get(Vault, "a").count_facts() == 20


async def test_an_actor_whose_file_is_damaged_in_use_is_quarantined_and_verify_names_the_fact(
    runtime: z0.Runtime,
) -> None:
    vault = runtime.get(Vault, "a")
    await vault.append("x")
    assert await runtime.evict(Vault, "a")
    file = file_of(runtime.path, "a")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'facts'").fetchone()
    content = bytearray(file.read_bytes())
    at = (page - 1) * 4_096
    content[at + 12 : at + 14] = b"\xff\xff"  # where the first cell is; the last ones are all right
    file.write_bytes(content)
    assert (await vault.append("y")).seq == 22
    with pytest.raises(z0.LedgerCorrupt, match="fact 1 or one after it cannot be read"):
        await vault.verify()
    with pytest.raises(z0.ActorFileError, match="quarantined"):
        await vault.append("z")


async def test_an_alarm_of_a_quarantined_actor_runs_when_its_file_is_right(
    runtime: z0.Runtime, clock: VirtualClock
) -> None:
    file = file_of(runtime.path, "a")
    good = blank_facts(file)
    await clock.advance("2 days")
    assert metric(runtime, "z0_quarantined_actors") == 1
    file.write_bytes(good)
    await clock.advance("1 day")
    assert (await runtime.get(Vault, "a").kept())[0]["fired"]


async def test_a_file_of_a_future_z0_is_refused_but_not_called_damaged(runtime: z0.Runtime) -> None:
    with closing(sqlite3.connect(file_of(runtime.path, "a"))) as file, file:
        file.execute("UPDATE z0_meta SET value = 3 WHERE key = 'schema'")
    with pytest.raises(z0.ActorFileError, match=r"schema version 3, but this z0 knows 2; use a newer z0$"):
        await runtime.get(Vault, "a").count_facts()
    assert metric(runtime, "z0_quarantined_actors") == 0


async def test_an_actor_whose_file_vanishes_does_not_begin_anew(runtime: z0.Runtime, tmp_path: Path) -> None:
    vault = runtime.get(Vault, "new")
    await vault.append("x")
    file_of(runtime.path, "new").unlink()  # while it is in memory
    await runtime.list(Vault)
    await crash(runtime)
    async with z0.Runtime(runtime.path, actors=[Vault]) as again:
        with pytest.raises(z0.ActorFileError, match="gone"):
            await again.get(Vault, "new").append("x")


async def test_an_actor_whose_file_vanishes_before_it_is_evicted_does_not_begin_anew(runtime: z0.Runtime) -> None:
    await runtime.get(Vault, "a").append("x")
    file_of(runtime.path, "a").unlink()
    assert await runtime.evict(Vault, "a")
    with pytest.raises(z0.ActorFileError, match="gone"):
        await runtime.get(Vault, "a").append("x")


# Files that somebody has prepared

EVIL = {
    "a view in the place of a table": (
        "DROP TABLE z0_meta",
        "CREATE VIEW z0_meta AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
        " SELECT x AS key, x AS value FROM c",
    ),
    "a trigger that changes facts": (
        "CREATE TRIGGER z0_evil AFTER INSERT ON facts BEGIN UPDATE z0_kv SET value = x'c0'; END",
    ),
    "a trigger of ours, changed": (
        "DROP TRIGGER z0_facts_no_update",
        "CREATE TRIGGER z0_facts_no_update BEFORE UPDATE ON facts BEGIN DELETE FROM z0_kv; END",
    ),
    "a virtual table": ("DROP TABLE z0_replies", "CREATE VIRTUAL TABLE z0_replies USING fts5(message, key)"),
}


@pytest.mark.parametrize("name", EVIL)
async def test_a_file_that_was_prepared_to_run_something_is_refused(runtime: z0.Runtime, name: str) -> None:
    with closing(sqlite3.connect(file_of(runtime.path, "a"))) as file, file:
        for statement in EVIL[name]:
            file.execute(statement)
    async with asyncio.timeout(10):
        with pytest.raises(z0.ActorFileError, match="was not made by z0"):
            await runtime.get(Vault, "a").count_facts()


async def test_a_foreign_trigger_and_a_foreign_view_of_another_name_change_nothing_of_ours(
    runtime: z0.Runtime,
) -> None:
    before = await read(runtime.get(Vault, "a"))
    assert await runtime.evict(Vault, "a")
    with closing(sqlite3.connect(file_of(runtime.path, "a"))) as file, file:
        file.execute("CREATE TRIGGER evil AFTER INSERT ON facts BEGIN UPDATE z0_kv SET value = x'c0'; END")
        file.execute("CREATE VIEW evil_too AS SELECT load_extension('evil')")
    vault = runtime.get(Vault, "a")
    await vault.append("y")
    with suppress(z0.Z0Error):
        await vault.note("SQL of users turns triggers on")
        await vault.append("z")
    kept, _ = await vault.kept()
    assert kept["key"] == "value" * 50
    assert (await read(vault))[: len(before)] == before


# What is in a file may be of any type


async def changed(runtime: z0.Runtime, *statements: str) -> Vault:
    """The actor, after somebody has changed its file."""
    with closing(sqlite3.connect(file_of(runtime.path, "a"))) as file, file:
        for name, _ in file.execute("SELECT name, 1 FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            file.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            file.execute(statement)
    return runtime.get(Vault, "a")


@pytest.mark.parametrize("data", ["'{'", "''", "x'00'"])
async def test_a_fact_whose_data_is_no_json_is_named(runtime: z0.Runtime, data: str) -> None:
    vault = await changed(runtime, f"UPDATE facts SET data = {data} WHERE seq = 3")
    for call in (vault.query_facts(), vault.get_fact(3), vault.projection("balance", seq=5)):
        with pytest.raises(z0.LedgerCorrupt, match="Vault/a: fact 3 has damaged data"):
            await call
    assert len(await vault.query_facts(after_seq=3)) == 17


@pytest.mark.parametrize("column", ["hash = 'text'", "timestamp = 'text'"])
async def test_a_last_fact_that_is_damaged_is_named_when_the_actor_opens(runtime: z0.Runtime, column: str) -> None:
    vault = await changed(runtime, f"UPDATE facts SET {column} WHERE seq = 20")
    with pytest.raises(z0.LedgerCorrupt, match="fact 20 has no hash, or no time"):
        await vault.append("x")


@pytest.mark.parametrize("column", ["seq = NULL", "seq = 2.5", "seq = 'x'", "state = 7", "version = 'x'", "seq = -1"])
async def test_a_snapshot_that_is_damaged_is_folded_anew(runtime: z0.Runtime, column: str) -> None:
    vault = await changed(
        runtime,
        "CREATE TABLE copy AS SELECT * FROM z0_snapshots",
        "DROP TABLE z0_snapshots",
        "CREATE TABLE z0_snapshots(projection, version, seq, state)",
        "INSERT INTO z0_snapshots SELECT * FROM copy",
        f"UPDATE z0_snapshots SET {column}",
    )
    assert (await vault.projection("balance")).amounts == {"EUR": sum(range(20))}


async def test_an_alarm_that_is_due_at_no_time_quarantines_its_actor(runtime: z0.Runtime) -> None:
    vault = await changed(runtime, "UPDATE z0_alarms SET due = 'tomorrow'")
    with pytest.raises(z0.ActorFileError, match="a row of z0_alarms is damaged"):
        await vault.append("x")
