"""The inspector reads live directories and copied files, disturbs nobody, and tells what is broken."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

import z0
from z0 import check, inspect
from z0.actors.errors import ActorFileError


class Total(z0.Projection):
    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.amount += fact.amount or 0


class Purse(z0.Entity):
    accepts = frozenset({"in", "out"})
    total: Total


class Notes(z0.Actor):
    async def write(self, key: str, value: str) -> None:
        self.storage.put(key, value)

    async def table(self) -> None:
        self.storage.sql('CREATE TABLE "odd ""name"""(x)')
        self.storage.sql('INSERT INTO "odd ""name""" VALUES(1), (2)')


async def fill(runtime: z0.Runtime, name: str, count: int) -> None:
    purse = runtime.get(Purse, name)
    for number in range(1, count + 1):
        await purse.append("in" if number % 2 else "out", amount=number, data={"n": number})


def file_of(data: Path, name: str, namespace: str = "Purse") -> Path:
    return inspect.find(data, f"{namespace}/{name}")


async def test_a_live_directory_shows_what_was_acknowledged(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await fill(runtime, "a", 5)
        await runtime.get(Notes, "n").write("k", "v")
        listed = inspect.actors(tmp_path)
        assert [(actor.namespace, actor.name, actor.facts) for actor in listed] == [
            ("Notes", "n", None),
            ("Purse", "a", 5),
        ]
        details = inspect.show(file_of(tmp_path, "a"))
        facts = list(inspect.facts(file_of(tmp_path, "a")))
        checked = check.check(file_of(tmp_path, "a"))
        assert facts == await runtime.get(Purse, "a").query_facts()
        assert (await runtime.get(Purse, "a").verify()).head.hex() == checked.head == details.head
        assert (details.facts, checked.facts, checked.problem) == (5, 5, None)
        assert details.last_fact == facts[-1].timestamp
        await fill(runtime, "a", 5)
        assert inspect.show(file_of(tmp_path, "a")).facts == 10


async def test_a_copied_file_is_enough(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path / "data") as runtime:
        await fill(runtime, "a", 5)
    copy = tmp_path / "copy.sqlite"
    shutil.copy(file_of(tmp_path / "data", "a"), copy)
    copy.chmod(0o400)
    details = inspect.show(copy)
    assert (details.namespace, details.name, details.facts) == ("Purse", "a", 5)
    assert [snapshot.state for snapshot in details.snapshots] == [{"amount": 15}]
    assert [fact.amount for fact in inspect.facts(copy)] == [1, 2, 3, 4, 5]
    assert check.check(copy).problem is None
    assert sorted(os.listdir(tmp_path)) == ["copy.sqlite", "data"]


async def test_an_actor_shows_keys_tables_and_no_ledger(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await runtime.get(Notes, "n").write("greeting", "hello")
        await runtime.get(Notes, "n").table()
    details = inspect.show(file_of(tmp_path, "n", "Notes"))
    assert details.facts is None
    assert (details.keys, details.first_keys[0].key) == (1, "greeting")
    assert details.tables == {'odd "name"': 2}
    assert list(inspect.facts(file_of(tmp_path, "n", "Notes"))) == []
    assert [checked.problem for checked in check.check_all(tmp_path)] == [None]


@pytest.mark.parametrize(
    ("filters", "seqs"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"types": ["out"]}, [2, 4, 6]),
        ({"types": ["out", "in"], "limit": 2}, [1, 2]),
        ({"after": 5}, [6, 7]),
        ({"reverse": True, "limit": 3}, [7, 6, 5]),
        ({"reverse": True, "after": 5}, [7, 6]),
        ({"types": ["in"], "after": 1, "reverse": True, "limit": 2}, [7, 5]),
        ({"types": ["none"]}, []),
        ({"limit": 0}, []),
    ],
)
async def test_filters_choose_facts_across_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filters: dict[str, object], seqs: list[int]
) -> None:
    monkeypatch.setattr(inspect, "PAGE", 2)
    monkeypatch.setattr(check, "PAGE", 2)
    async with z0.Runtime(tmp_path) as runtime:
        await fill(runtime, "a", 7)
        found = inspect.facts(file_of(tmp_path, "a"), **filters)  # type: ignore[arg-type]
        assert [fact.seq for fact in found] == seqs
        assert check.check(file_of(tmp_path, "a")).facts == 7


async def test_listing_filters_by_class_prefix_tenant_and_limit(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        for name in ("a1", "a2", "b1", "%", "_"):
            await fill(runtime, name, 1)
        await runtime.get(Notes, "a1").write("k", "v")
        await runtime.tenant("t2").get(Purse, "a1").append("in", amount=1)

    def names(**filters: object) -> list[str]:
        return [actor.name for actor in inspect.actors(tmp_path, **filters)]  # type: ignore[arg-type]

    assert names(namespace="Purse", prefix="a", tenant="default") == ["a1", "a2"]
    assert names(prefix="%") == ["%"]
    assert names(prefix="_") == ["_"]
    assert names(tenant="t2") == ["a1"]
    assert len(names()) == 7
    assert names(limit=1) == ["a1"]
    assert inspect.find(tmp_path, "Purse/a1", "t2") != inspect.find(tmp_path, "Purse/a1")


@pytest.mark.parametrize("name", ["../x", "%2e", "a/b", "CON", "\x1b[31mred", "ž", "ž".upper(), "x" * 512])
async def test_any_name_is_found_again(tmp_path: Path, name: str) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await fill(runtime, name, 1)
    assert [actor.name for actor in inspect.actors(tmp_path)] == [name]
    assert inspect.show(file_of(tmp_path, name)).name == name


def test_what_is_no_actors_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello" * 1000)
    (tmp_path / "empty").touch()
    with sqlite3.connect(tmp_path / "foreign") as foreign:
        foreign.execute("CREATE TABLE t(x)")
    foreign.close()
    for name in ("text", "empty", "foreign", "nothing"):
        for read in (inspect.show, check.check, lambda file: list(inspect.facts(file))):
            with pytest.raises(ActorFileError, match=name):
                read(tmp_path / name)
    for actor in (None, "Purse", "/a", "Purse/", "Purse/a"):
        with pytest.raises(ActorFileError):
            inspect.find(tmp_path, actor)
    for data in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ActorFileError):
            inspect.actors(data)


def tamper(file: Path, *statements: str) -> None:
    with sqlite3.connect(file) as database:
        triggers = database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (trigger,) in triggers:
            database.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    ("change", "facts", "problem"),
    [
        ("UPDATE facts SET amount = 30 WHERE seq = 3", 2, "fact 3 does not match its hash"),
        ("UPDATE facts SET data = '{}' WHERE seq = 2", 1, "fact 2 does not match its hash"),
        ("DELETE FROM facts WHERE seq = 3", 2, "fact 3 is missing"),
        ("DELETE FROM facts WHERE seq = 1", 0, "fact 1 is missing"),
        ("DELETE FROM facts WHERE seq = 5", 4, "the catalogue remembers 5"),
        ("UPDATE facts SET seq = 6 WHERE seq = 5", 4, "fact 5 is missing"),
        ("UPDATE z0_meta SET value = 'b' WHERE key = 'name'", 0, "fact 1 does not match its hash"),
    ],
)
async def test_every_change_to_history_is_found(tmp_path: Path, change: str, facts: int, problem: str) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await fill(runtime, "a", 5)
        await fill(runtime, "b", 5)
    tamper(file_of(tmp_path, "a"), change)
    broken, good = check.check_all(tmp_path)
    assert (good.problem, good.facts) == (None, 5)
    assert broken.facts == facts
    assert problem in (broken.problem or "")


async def test_a_lost_damaged_or_foreign_file_is_found(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        for name in ("damaged", "good", "lost"):
            await fill(runtime, name, 100)
    damaged = file_of(tmp_path, "damaged")
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    file_of(tmp_path, "lost").unlink()
    damaged.with_name("foreign.sqlite").write_text("?")
    results = {Path(checked.path).stem: checked.problem for checked in check.check_all(tmp_path)}
    assert results.pop("good") is None
    assert len(results) == 3
    assert all(results.values())


async def test_damaged_data_of_a_fact_is_an_error_that_names_it(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await fill(runtime, "a", 3)
    tamper(file_of(tmp_path, "a"), "UPDATE facts SET data = '{' WHERE seq = 2")
    with pytest.raises(ActorFileError, match="fact 2 is damaged"):
        list(inspect.facts(file_of(tmp_path, "a")))


async def test_a_damaged_snapshot_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await fill(runtime, "a", 3)
    tamper(file_of(tmp_path, "a"), "UPDATE z0_snapshots SET state = x'c1'")
    with pytest.raises(ActorFileError, match="snapshot is damaged"):
        inspect.show(file_of(tmp_path, "a"))


async def test_a_plain_fact_has_every_field_under_its_name(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        fact = await runtime.get(Purse, "a").append("in", amount=1, idempotency_key="k")
    plain = inspect.plain(fact)
    assert list(plain) == list(z0.Fact.__struct_fields__)
    assert (plain["id"], plain["hash"], plain["idempotency_key"]) == ("Purse/a@1", fact.hash.hex(), "k")


async def test_a_directory_of_the_first_schema_is_read_as_it_is(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path / "data") as runtime:
        await runtime.get(Purse, "a").append("in", amount=1)
    with sqlite3.connect(tmp_path / "data/catalog.sqlite") as catalogue:
        catalogue.executescript(
            "DROP INDEX actors_active; ALTER TABLE actors DROP COLUMN active; ALTER TABLE actors DROP COLUMN version;"
            "DROP INDEX actors_status; ALTER TABLE actors DROP COLUMN status; DROP TABLE removals;"
        )
    catalogue.close()
    file = tmp_path / "data/default/Purse/a.sqlite"
    with sqlite3.connect(file) as actor:
        actor.executescript(
            "DROP TABLE z0_alarms; CREATE TABLE z0_alarms(name TEXT PRIMARY KEY, due INTEGER NOT NULL,"
            " scheduled INTEGER NOT NULL, retries INTEGER NOT NULL DEFAULT 0, error TEXT) WITHOUT ROWID;"
            "INSERT INTO z0_alarms VALUES('', 5, 5, 0, NULL)"
        )
    actor.close()
    assert [actor.version for actor in inspect.actors(tmp_path / "data")] == [None]
    assert inspect.wakeups(tmp_path / "data") == []
    assert inspect.show(file).alarms == [inspect.Alarm("", 5, 5, 0, None, None)]
