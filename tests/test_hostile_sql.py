"""Hostile SQL: whatever an actor runs, facts and tables of ours stay as they were, and the actor goes on.

Each seed spells one statement: a verb, one of our tables as SQLite lets it be written, and a way to hide it. Texts
that come from outside (names, keys, filters) never reach SQL as anything but values.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from typing import Any, Self

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import z0
from tests.proofs import Proof
from z0.actors import guard
from z0.testing import VirtualClock, temporary_runtime

OURS = ["facts", "z0_meta", "z0_kv", "z0_alarms", "z0_replies", "z0_snapshots"]
SPELLED: list[Callable[[str], str]] = [
    str,
    str.upper,
    str.title,
    '"{}"'.format,
    "[{}]".format,
    "`{}`".format,
    "'{}'".format,
    "main.{}".format,
    'main."{}"'.format,
    "/*'*/{}--\n".format,
]
VERBS = [
    "DELETE FROM {t}",
    "DELETE FROM {t} RETURNING *",
    "INSERT INTO {t} DEFAULT VALUES",
    "INSERT INTO {t} SELECT * FROM {t}",
    "INSERT INTO {t} SELECT * FROM {t} WHERE true ON CONFLICT DO UPDATE SET {c} = 'evil'",
    "REPLACE INTO {t} SELECT * FROM {t}",
    "UPDATE {t} SET {c} = 'evil'",
    "UPDATE OR REPLACE {t} SET {c} = 'evil' FROM (SELECT 1)",
    "UPDATE OR IGNORE {t} SET ({c}) = (SELECT 'evil')",
]
DEFINITIONS = [
    "DROP TABLE {t}",
    "DROP TABLE IF EXISTS {t}",
    "ALTER TABLE {t} RENAME TO mine",
    "ALTER TABLE {t} RENAME COLUMN {c} TO evil",
    "ALTER TABLE {t} ADD COLUMN evil",
    "ALTER TABLE {t} DROP COLUMN {c}",
    "CREATE TABLE IF NOT EXISTS {t}(evil)",
    "CREATE VIEW {t} AS SELECT 1",
    "CREATE VIRTUAL TABLE {t} USING fts5(evil)",
    "CREATE TABLE evil(x); ALTER TABLE evil RENAME TO {t}",
    "CREATE TABLE evil(x); ALTER TABLE evil RENAME TO z0_evil",
    "CREATE VIRTUAL TABLE z0 USING fts5(x)",
    "CREATE VIRTUAL TABLE evil USING fts5(x); ALTER TABLE evil RENAME TO z0",
    "CREATE VIRTUAL TABLE evil USING fts5({c}, content={t}); INSERT INTO evil(evil) VALUES('rebuild')",
    "CREATE UNIQUE INDEX evil ON {t}({c})",
    "CREATE TRIGGER evil BEFORE INSERT ON {t} BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TEMP TABLE evil AS SELECT * FROM {t}; DROP TABLE {t}",
    "CREATE TABLE evil(k REFERENCES {t}({c}) ON DELETE CASCADE)",
    "CREATE TABLE evil(k REFERENCES {t}({c}) DEFERRABLE INITIALLY DEFERRED)",
    "DROP TRIGGER IF EXISTS z0_facts_no_update",
    "DROP INDEX IF EXISTS z0_by_idempotency_key",
    "PRAGMA writable_schema = ON",
    "SELECT * FROM pragma_journal_mode; PRAGMA journal_mode = OFF",
    "PRAGMA foreign_keys = 0",
    "PRAGMA ignore_check_constraints = 1",
    "PRAGMA reverse_unordered_selects = 1",
    "DELETE FROM sqlite_schema",
    "UPDATE sqlite_master SET sql = 'CREATE TABLE evil(x)' WHERE name = {t}",
    "UPDATE sqlite_dbpage SET data = zeroblob(4096)",
    "ATTACH ':memory:' AS evil; CREATE TABLE evil.facts(x)",
    "REINDEX; ANALYZE; PRAGMA optimize = -1",
    "BEGIN; COMMIT; DELETE FROM {t}",
    "SELECT load_extension('evil'), writefile('evil', 'x')",
    "SELECT zeroblob(2000000000)",
    "\0; DELETE FROM {t}",
]
HIDDEN = [
    "{s}",
    "SELECT 1; {s}",
    "EXPLAIN {s}",
    "WITH facts AS (SELECT 1), c AS (SELECT 2) {s}",
    "CREATE TABLE mine(x); CREATE TRIGGER mine_t AFTER INSERT ON mine BEGIN {s}; END; INSERT INTO mine VALUES(1)",
    "CREATE TABLE mine(x); CREATE TRIGGER mine_t BEFORE DELETE ON mine WHEN (SELECT true) BEGIN SELECT 1; {s}; END;"
    " INSERT INTO mine VALUES(1); DELETE FROM mine",
    "CREATE VIEW mine AS SELECT * FROM {t}; CREATE TRIGGER mine_t INSTEAD OF DELETE ON mine BEGIN {s}; END;"
    " DELETE FROM mine",
    "CREATE TABLE one(x PRIMARY KEY); CREATE TABLE two(y REFERENCES one ON DELETE CASCADE);"
    " CREATE TRIGGER mine_t AFTER DELETE ON two BEGIN {s}; END;"
    " INSERT INTO one VALUES(1); INSERT INTO two VALUES(1); DELETE FROM one",
]
COLUMNS = {"facts": "type", "z0_alarms": "name", "z0_replies": "key", "z0_snapshots": "projection"}


class Sum(z0.Projection):
    n: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.n += 1


class Victim(z0.Entity):
    """Has a row in each of our tables."""

    accepts = {"*"}
    sum: Sum

    async def fill(self) -> None:
        self.ledger.append("first", amount=1, idempotency_key="first")
        self.storage.put("key", "value")
        self.storage.set_alarm("1 day", "waits")

    @z0.idempotent("key")
    async def once(self, *, key: str) -> int:
        return 1

    async def sql(self, text: str) -> None:
        self.storage.sql(text)

    async def ours(self) -> dict[str, Any]:
        """All that is ours in the file, as it is read."""
        schema = self.storage.sql("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name").all()
        kept = {row[1]: row for row in schema if guard.is_ours(str(row[1])) or guard.is_ours(str(row[2]))}
        tables = [name for name, row in kept.items() if row[0] == "table"]
        return {
            "schema": kept,
            **{name: sorted(self.storage.sql(f'SELECT * FROM "{name}"'), key=repr) for name in tables},
        }

    async def use(self) -> None:
        """An actor's ordinary day."""
        seq = self.ledger.head
        self.ledger.append("day", amount=1, idempotency_key=f"day {seq}")
        assert self.ledger.append("day", amount=1, idempotency_key=f"day {seq}").seq == seq + 1
        assert self.sum.n == self.ledger.verify().facts == seq + 1
        self.storage.put("day", seq)
        assert (self.storage.get("day"), self.storage.get("key")) == (seq, "value")
        self.storage.set_alarm("1 hour", "day")
        self.storage.delete_alarm("day")
        assert self.storage.get_alarm("waits") is not None

    async def alarm(self, info: z0.AlarmInfo) -> None:
        raise AssertionError("nothing is due")


def hostile(chance: random.Random) -> str:
    table = chance.choice(OURS)
    target, column = chance.choice(SPELLED)(table), COLUMNS.get(table, "key")
    statement = chance.choice(VERBS if chance.random() < 0.6 else DEFINITIONS)
    return chance.choice(HIDDEN).replace("{s}", statement).replace("{t}", target).replace("{c}", column)


class Stage:
    """A runtime on which one victim after the other is attacked."""

    async def __aenter__(self) -> Self:
        self._manager = temporary_runtime(memory=True, clock=VirtualClock())
        self.runtime = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._manager.__aexit__(None, None, None)

    async def attack(self, name: str, text: str) -> tuple[bool, list[str]]:
        """Run the text in a new actor; whether it was refused, and what is wrong afterwards."""
        victim = self.runtime.get(Victim, name)
        await victim.fill()
        await victim.once(key="reply")
        await self.runtime.evict(Victim, name)  # snapshots are written
        before, refused, wrong = await victim.ours(), False, []
        try:
            await victim.sql(text)
        except z0.Z0Error:
            refused = True
        after = await victim.ours()
        wrong += [
            f"{key} changed: {value} -> {after.get(key)}" for key, value in before.items() if after.get(key) != value
        ]
        wrong += [f"{key} is new" for key in after.keys() - before.keys()]
        try:
            await victim.use()
            assert await self.runtime.evict(Victim, name)
            await victim.use()
            await victim.once(key="reply")
        except Exception as error:
            wrong.append(f"the actor cannot be used: {type(error).__name__}: {error}")
        await self.runtime.evict(Victim, name)
        file = sqlite3.connect(self.runtime.path / "default" / "Victim" / f"{name}.sqlite")
        wrong += [problem for (problem,) in file.execute("PRAGMA integrity_check") if problem != "ok"]
        file.close()
        return refused, wrong


@pytest.mark.proof
async def test_no_statement_of_a_user_changes_what_is_ours_and_the_actor_goes_on(proof: Proof) -> None:
    async with Stage() as stage:
        for seed in proof.seeds(1_000):
            text = hostile(random.Random(seed))
            refused, wrong = await stage.attack(f"v{seed}", text)
            assert not wrong, f"{text!r}: {wrong}; again: pytest tests/test_hostile_sql.py --seed {seed}"
            proof.count("hostile statements")
            proof.count("refused", refused)


async def test_without_the_guard_the_same_statements_do_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "refusal", lambda *_: None)
    harmed = 0
    async with Stage() as stage:
        for seed in range(60):
            try:
                _, wrong = await stage.attack(f"v{seed}", hostile(random.Random(seed)))
            except (z0.Z0Error, sqlite3.Error):  # not even that can be looked at any more
                wrong = ["broken"]
            harmed += bool(wrong)
    assert harmed > 5


@pytest.mark.parametrize(
    "table", ["z0_alarms(name)", "z0_meta(key)", "Z0_replies", '"z0_snapshots"', "FACTS(type)", "z0_kv(value)"]
)
async def test_a_foreign_key_cannot_stand_in_the_way_of_the_engines_own_statements(table: str) -> None:
    async with Stage() as stage:
        victim = stage.runtime.get(Victim, "a")
        await victim.fill()
        with pytest.raises(z0.QueryError, match="names beginning with z0_ and `facts` are reserved"):
            await victim.sql(f"CREATE TABLE evil(k, FOREIGN KEY(k) REFERENCES {table} DEFERRABLE INITIALLY DEFERRED)")
        await victim.sql("CREATE TABLE fine(f REFERENCES facts(seq), g REFERENCES Facts, k REFERENCES z0_kv(key))")
        await victim.use()


# Texts from outside

TEXTS = st.one_of(
    st.sampled_from(
        [
            "'; DELETE FROM facts; --",
            '"; DROP TABLE z0_kv; --',
            "' OR '1'='1",
            "%",
            "_",
            "*",
            "\\",
            "a\0b",
            "\0",
            "?1",
            ":name",
            "$.x",
            "NULL",
            "\ud800",
            "\ue000",
            "\U0010ffff",
            "x" * 513,
        ]
    ),
    st.text(max_size=12),
)


class Echo(z0.Entity):
    accepts = {"*"}
    indexes = ("source_id", "data.path")

    async def use(self, way: str, text: str, unique: str) -> None:
        """Use the text where texts may stand, and find it again."""
        getattr(self, way)(text, unique)

    def _fact(self, text: str, unique: str) -> None:
        fact = self.ledger.append(text, source_id=text, external_id=text, idempotency_key=f"{text}{unique}")
        found = self.ledger.query(type=text, source_id=text, external_id=text, idempotency_key=f"{text}{unique}")
        assert [each.seq for each in found] == [fact.seq]
        assert fact.seq in {each.seq for each in self.ledger.query(type=[text, "other"])}

    def _key(self, text: str, unique: str) -> None:
        self.storage.put(text, unique)
        assert self.storage.get(text) == unique
        assert self.storage.list(prefix=text)[text] == unique
        assert all(key.startswith(text) for key in self.storage.list(prefix=text))
        assert next(iter(self.storage.list(start=text))) == text
        assert self.storage.delete(text)
        assert text not in self.storage.list(prefix=text)

    def _alarm(self, text: str, unique: str) -> None:
        self.storage.set_alarm("1 day", text)
        assert self.storage.get_alarm(text) is not None
        self.storage.delete_alarm(text)
        assert self.storage.get_alarm(text) is None

    def _path(self, text: str, unique: str) -> None:
        self.ledger.query(data={text: None})
        fact = self.ledger.append("data", data={"path": text})
        assert fact.seq in {each.seq for each in self.ledger.query(data={"path": text})}

    @z0.idempotent("key")
    async def once(self, value: str, *, key: str) -> str:
        return value

    async def alarm(self, info: z0.AlarmInfo) -> None:
        raise AssertionError("nothing is due")


def is_storable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@given(st.lists(TEXTS, min_size=1, max_size=20, unique=True))
@example(["'; DELETE FROM facts; --", "\0", "a\0b", "\ud800", ""])
@settings(deadline=None, max_examples=20)
def test_a_text_from_outside_is_only_ever_a_value(texts: list[str]) -> None:
    async def check() -> None:
        async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
            echo = runtime.get(Echo, "a name")
            for number, text in enumerate(texts):
                for way in "_fact", "_key", "_alarm", "_path":
                    try:
                        await echo.use(way, text, str(number))
                    except (z0.Z0Error, ValueError):  # a text that cannot stand there; an ordinary one can
                        assert not (text.isalnum() and is_storable(text) and len(text) <= 128)
                if is_storable(text):
                    found = await runtime.list(Echo, prefix=text)
                    assert [info.name for info in found] == ["a name"] * "a name".startswith(text)
                    if text:
                        assert [await echo.once("v", key=text) for _ in range(2)] == ["v", "v"]
            assert (await echo.verify()).facts == await echo.count_facts()

    asyncio.run(check())
