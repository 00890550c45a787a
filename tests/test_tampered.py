"""Stored bytes that somebody changed: an error of z0's that names what is wrong, never a traceback of a library.

Each seed puts a strange value into one column of one table of ours, then uses the actor and reads it with the
command. What still works may work; what does not must say so as a Z0Error, and the runtime closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import z0
from tests.proofs import Proof
from z0 import cli
from z0.actors import codec
from z0.actors.codec import ATOMS
from z0.testing import VirtualClock

STRANGE: list[Any] = [
    None,
    "",
    "text",
    "\0",
    "'; DROP TABLE facts; --",
    "9" * 30,
    "[" * 5_000,
    '{"a":' * 3_000,
    '{"a": 1e999}',
    -1,
    0,
    2**62,
    -(2**63),
    1.5,
    float("inf"),
    b"",
    b"\xff",
    b"\xc1",
    b"\x91" * 5_000,
    b"\x81\xa6amount\xa1x",
    msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"\xff?")),
    msgspec.msgpack.encode({"by_currency": msgspec.msgpack.Ext(9, b"NaN?")}),
    msgspec.msgpack.encode(msgspec.msgpack.Ext(4, b"\x91\x90")),
    msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"theirs")),
]


class Ledger(z0.Entity):
    namespace = "Ledger"
    accepts = {"*"}
    indexes = ("source_id",)
    balance: z0.Balance
    migrations = ["CREATE TABLE mine(x)"]

    async def arm(self) -> None:
        self.storage.put("k", (1, 2))
        self.storage.set_alarm("1 second", "y")
        self.storage.set_alarm("1 second", "every", every="1 day")

    async def look(self) -> Any:
        return self.storage.list(), self.storage.get_alarm("y"), self.storage.get_alarm("every")

    @z0.idempotent("key")
    async def once(self, value: int, *, key: str) -> tuple[int, ...]:
        return (value,)

    async def wipe(self) -> None:
        self.storage.delete_all()

    async def alarm(self, info: z0.AlarmInfo) -> None:
        self.ledger.append("rang")


def append(ledger: Ledger, number: int) -> Awaitable[z0.Fact]:
    return ledger.append(
        "t", amount=number, currency="EUR", source_id="s", idempotency_key=f"k{number}", data={"n": number}
    )


USES: list[Callable[[z0.Runtime, Ledger], Awaitable[Any]]] = [
    lambda runtime, ledger: append(ledger, 99),
    lambda runtime, ledger: append(ledger, 1),
    lambda runtime, ledger: ledger.query_facts(source_id="s"),
    lambda runtime, ledger: ledger.get_fact(3),
    lambda runtime, ledger: ledger.sum_facts("amount", currency="EUR"),
    lambda runtime, ledger: ledger.verify(),
    lambda runtime, ledger: ledger.projection("balance"),
    lambda runtime, ledger: ledger.projection("balance", seq=3),
    lambda runtime, ledger: ledger.once(5, key="i"),
    lambda runtime, ledger: ledger.look(),
    lambda runtime, ledger: ledger.arm(),
    lambda runtime, ledger: runtime.list(Ledger),
    lambda runtime, ledger: runtime.versions(Ledger),
    lambda runtime, ledger: ledger.wipe(),
]


async def use(folder: Path) -> list[str]:
    """Use the actor in every way; what was wrong with how that ended."""
    wrong: list[str] = []
    clock = VirtualClock()
    try:
        async with z0.Runtime(folder, actors=[Ledger], clock=clock) as runtime:
            await clock.advance("2 seconds")  # its alarms are due
            for number, each in enumerate(USES):
                try:
                    await each(runtime, runtime.get(Ledger, "a"))
                except z0.Z0Error:
                    continue
                except Exception as error:
                    wrong.append(f"use {number}: {type(error).__name__}: {error}"[:200])
    except z0.Z0Error:
        pass
    return wrong


def read(folder: Path, file: Path, chance: random.Random) -> list[str]:
    """Read the actor with every command, some of them for programs; what was wrong with how that ended."""
    wrong: list[str] = []
    one = [("show", str(file)), ("facts", str(file)), ("alarms", str(file)), ("verify", str(file))]
    for words in [*one, ("ls", str(folder)), ("alarms", str(folder)), ("verify", str(folder))]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                code = cli.main([*words, *(["--json"] if chance.random() < 0.5 else [])])
            except Exception as error:
                wrong.append(f"z0 {words[0]}: {type(error).__name__}: {error}"[:200])
            else:
                assert code in (0, 1, 2)
    return wrong


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as it should be."""
    folder = tmp_path_factory.mktemp("whole") / "data"

    async def fill() -> None:
        limits = z0.Limits(snapshot_facts=2)
        async with z0.Runtime(folder, actors=[Ledger], clock=VirtualClock(), limits=limits) as runtime:
            ledger = runtime.get(Ledger, "a")
            for number in range(5):
                await append(ledger, number)
            await ledger.once(5, key="i")
            await ledger.arm()

    asyncio.run(fill())
    return folder


def places(file: Path) -> list[tuple[str, str]]:
    """Each column of each table of ours."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")]


def tamper(folder: Path, chance: random.Random) -> str:
    """Put a strange value somewhere; where and which."""
    name = chance.choice(["default/Ledger/a.sqlite"] * 5 + ["catalog.sqlite"])
    file, value = folder / name, chance.choice(STRANGE)
    table, column = chance.choice(places(file))
    with contextlib.closing(sqlite3.connect(file)) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        rows = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        with contextlib.suppress(sqlite3.Error), database:  # what SQLite itself refuses is no damage
            if table == "facts":
                which = chance.randrange(1, rows + 1)
                database.execute(f"UPDATE facts SET {column} = ? WHERE seq = ?", (value, which))
            elif table == "z0_meta" and column == "value":
                key = chance.choice(database.execute("SELECT key FROM z0_meta ORDER BY key").fetchall())[0]
                database.execute("UPDATE z0_meta SET value = ? WHERE key = ?", (value, key))
            else:
                database.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
    return f"{table}.{column} = {value!r:.40}"


@pytest.mark.proof
def test_tampered_bytes_are_an_error_of_z0_and_no_traceback(proof: Proof, whole: Path, tmp_path: Path) -> None:
    found: list[str] = []
    for seed in proof.seeds(300):
        folder = tmp_path / "data"
        shutil.copytree(whole, folder)
        chance = random.Random(seed)
        what = tamper(folder, chance)
        wrong = read(folder, folder / "default" / "Ledger" / "a.sqlite", chance) + asyncio.run(use(folder))
        found += [f"--seed {seed}: {what}: {each}" for each in wrong]
        shutil.rmtree(folder)
        proof.count("tampered values")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("UPDATE facts SET seq = 4611686018427387904 WHERE seq = 5", z0.LedgerCorrupt),  # would be folded for ever
        ("UPDATE facts SET hash = 'text' WHERE seq = 5", z0.LedgerCorrupt),
        ("UPDATE facts SET data = '[' WHERE seq = 5", z0.LedgerCorrupt),
        ("UPDATE z0_alarms SET due = 'text'", z0.ActorFileError),
        ("UPDATE z0_meta SET value = 'text' WHERE key = 'migrations'", z0.ActorFileError),
        ("UPDATE z0_snapshots SET seq = 1.5, state = x'c1'", None),  # never authoritative
    ],
)
def test_what_is_tampered_with_is_named(
    whole: Path, tmp_path: Path, change: str, error: type[Exception] | None
) -> None:
    shutil.copytree(whole, tmp_path / "data")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "default" / "Ledger" / "a.sqlite")) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute(change)
        database.commit()

    async def look() -> None:
        async with z0.Runtime(tmp_path / "data", clock=VirtualClock()) as runtime:
            with pytest.raises(error) if error else contextlib.nullcontext():
                assert len(await runtime.get(Ledger, "a").query_facts()) == 5

    asyncio.run(look())


# Extensions

ALLOWED = (*ATOMS, list, tuple, dict, set, frozenset, msgspec.msgpack.Ext, bytearray)


def is_plain(value: Any) -> bool:
    """Whether the value is data, all through."""
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_plain, value))
    return type(value) in ALLOWED


def is_plain_or_damaged(stored: bytes) -> bool:
    try:
        return is_plain(codec.decode_as(stored, Any, "the value"))
    except z0.InvalidValue as error:
        return "the value is damaged" in str(error)


@given(st.integers(-128, 127), st.binary(max_size=64))
@settings(max_examples=300, deadline=None)
def test_an_extension_of_random_bytes_is_plain_data_or_a_clear_error(code: int, payload: bytes) -> None:
    for stored in msgspec.msgpack.encode(msgspec.msgpack.Ext(code, payload)), payload:
        assert is_plain_or_damaged(stored)


@pytest.mark.parametrize("code", range(1, 11))
def test_a_well_formed_payload_of_the_wrong_shape_is_plain_data_or_a_clear_error(code: int) -> None:
    chance = random.Random(code)
    for _ in range(300):
        payload = msgspec.msgpack.encode([chance.choice([0, 1, "a", b"\xc7\x00\x01", -1, None])] * chance.randrange(6))
        stored = msgspec.msgpack.encode(msgspec.msgpack.Ext(code, chance.choice([payload, chance.randbytes(16)])))
        assert is_plain_or_damaged(stored)
