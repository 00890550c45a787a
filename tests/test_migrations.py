"""Migrations: an actor's file is brought up to its class once, in order, all or nothing, before the class sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

import z0
from z0.testing import VirtualClock, crash, temporary_runtime

FIRST = "CREATE TABLE item(name TEXT PRIMARY KEY, price INTEGER)"


def fill(storage: z0.Storage) -> None:
    storage.sql("INSERT INTO item VALUES('tea', 250)")
    storage.put("filled", storage.get("filled", 0) + 1)


def shop(*migrations: Any, base: type[z0.Actor] = z0.Actor) -> type[Any]:
    """A class of actors with these migrations, always of the same namespace."""

    class Shop(base):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            self.seen = self.tables()

        def tables(self) -> list[str]:
            listed = self.storage.sql("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").all()
            return [name for (name,) in listed if not name.startswith(("z0_", "sqlite_", "facts"))]

        async def look(self) -> tuple[list[str], dict[str, Any], int]:
            return self.seen, self.storage.list(), self._z0_host.version

        async def items(self) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = self.storage.sql("SELECT * FROM item").all()
            return rows

        async def fail(self) -> None:
            self.storage.put("lost", 1)
            raise KeyError("oops")

        async def wipe(self, then: bool = False) -> list[str]:
            self.storage.sql("CREATE TABLE mine(x)")
            self.storage.delete_all()
            if then:
                raise KeyError("oops")
            return self.tables()

    Shop.migrations = migrations
    return Shop


class Releases:
    """One data directory under successive versions of the code."""

    def __init__(self, runtime: z0.Runtime) -> None:
        self.runtime = runtime

    async def release(self, *migrations: Any, base: type[z0.Actor] = z0.Actor) -> Any:
        node = self.runtime.node
        await node.close()
        self.runtime = z0.Runtime(self.runtime.path, clock=VirtualClock())
        await self.runtime.__aenter__()
        return self.runtime.get(shop(*migrations, base=base), "a")


@pytest.fixture
async def releases() -> AsyncIterator[Releases]:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        releases = Releases(runtime)
        yield releases
        await releases.runtime.__aexit__(None, None, None)


@pytest.mark.parametrize("base", [z0.Actor, z0.Entity])
async def test_each_migration_runs_once_before_the_constructor(releases: Releases, base: type[z0.Actor]) -> None:
    actor = await releases.release(FIRST, fill, base=base)
    for _ in range(2):
        assert await actor.look() == (["item"], {"filled": 1}, 2)
        assert await releases.runtime.evict(type_of(releases), "a")
    actor = await releases.release(FIRST, fill, "CREATE TABLE stock(n)", base=base)
    assert await actor.look() == (["item", "stock"], {"filled": 1}, 3)
    assert await actor.items() == [("tea", 250)]


def type_of(releases: Releases) -> type[z0.Actor]:
    (cls,) = releases.runtime.node.kinds
    return cls


async def test_several_statements_may_stand_in_one_migration(releases: Releases) -> None:
    actor = await releases.release(f"{FIRST}; INSERT INTO item VALUES('tea', 1); CREATE INDEX i ON item(price)")
    assert await actor.items() == [("tea", 1)]


def raising(storage: z0.Storage) -> None:
    storage.put("half", 1)
    raise ValueError("wrong data")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (raising, "ValueError: wrong data"),
        ("INSERT INTO missing VALUES(1)", "no such table: missing"),
        ("COMMIT", "transactions"),
        ("DELETE FROM z0_meta", "belongs to z0"),
        (lambda storage: storage.delete_all(), "delete_all"),
        (lambda storage: asyncio.sleep(0), "plain function"),
        (
            "CREATE TABLE p(x PRIMARY KEY); CREATE TABLE c(x REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
            "INSERT INTO c VALUES(1)",
            "FOREIGN KEY",
        ),
    ],
    ids=["raises", "no table", "commit", "ours", "delete_all", "awaitable", "foreign key"],
)
async def test_a_failing_migration_names_itself_and_leaves_nothing(releases: Releases, bad: Any, reason: str) -> None:
    actor = await releases.release("CREATE TABLE old(x)")
    assert await actor.look() == (["old"], {}, 1)
    actor = await releases.release("CREATE TABLE old(x)", FIRST, bad)
    for _ in range(2):
        with pytest.raises(z0.MigrationFailed, match="migration 3 failed") as caught:
            await actor.look()
        assert reason in str(caught.value)
        assert (caught.value.number, caught.value.retryable) == (3, False)
        assert "Shop/a" in caught.value.actor
    actor = await releases.release("CREATE TABLE old(x)", FIRST)
    assert await actor.look() == (["item", "old"], {}, 2)


async def test_the_next_message_tries_anew(releases: Releases) -> None:
    broken = [True]

    def sometimes(storage: z0.Storage) -> None:
        storage.put("tried", 1)
        if broken:
            raise ValueError(broken.pop())

    actor = await releases.release(sometimes)
    with pytest.raises(z0.MigrationFailed):
        await actor.look()
    assert await actor.look() == ([], {"tried": 1}, 1)


async def test_a_file_of_newer_code_is_refused_untouched(releases: Releases) -> None:
    await (await releases.release(FIRST, fill)).look()
    for older in (FIRST,), ():
        actor = await releases.release(*older)
        with pytest.raises(z0.ActorFileError, match=r"2 migrations, but class Shop declares \d; use the newer code"):
            await actor.look()
    assert await (await releases.release(FIRST, fill)).look() == (["item"], {"filled": 1}, 2)


@pytest.mark.parametrize("migration", [FIRST, lambda storage: storage.put("done", 1)], ids=["sql", "rows"])
@pytest.mark.parametrize("state", ["new", "there"])
async def test_a_failing_first_message_does_not_take_the_migrations_back(
    releases: Releases, migration: Any, state: str
) -> None:
    if state == "there":
        await (await releases.release()).look()
    actor = await releases.release(migration)
    outcomes: Any = await asyncio.gather(actor.fail(), actor.look(), return_exceptions=True)
    assert isinstance(outcomes[0], KeyError)
    kept = {} if migration is FIRST else {"done": 1}
    assert outcomes[1][1:] == (kept, 1)
    assert await releases.runtime.evict(type_of(releases), "a")
    assert (await actor.look())[1:] == (kept, 1)


@pytest.mark.parametrize("durability", ["full", "relaxed"])
async def test_migrations_survive_a_crash_once_a_message_was_answered(durability: Any) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(), durability=durability) as first:
        await first.get(shop(FIRST, fill), "a").look()
        await crash(first)
        async with z0.Runtime(first.path, clock=VirtualClock(), durability=durability) as second:
            assert await second.get(shop(FIRST, fill), "a").look() == (["item"], {"filled": 1}, 2)


async def test_delete_all_runs_the_migrations_anew(releases: Releases) -> None:
    actor = await releases.release(FIRST, fill)
    assert await actor.wipe() == ["item"]
    assert await actor.look() == (["item"], {"filled": 1}, 2)
    with pytest.raises(KeyError):
        await actor.wipe(then=True)
    assert await releases.runtime.evict(type_of(releases), "a")
    assert await actor.look() == (["item"], {"filled": 1}, 2)
    assert await actor.items() == [("tea", 250)]


async def asynchronous(storage: z0.Storage) -> None: ...


class AsyncCallable:
    async def __call__(self, storage: z0.Storage) -> None: ...


WRONG: list[Any] = [[5], [FIRST, None], "CREATE TABLE t(x)", None, [asynchronous], [AsyncCallable()]]


@pytest.mark.parametrize("wrong", [*WRONG, [partial(asynchronous)]], ids=lambda wrong: type(wrong).__name__)
async def test_what_cannot_be_a_migration_is_refused_with_the_class(wrong: Any) -> None:
    cls = shop()
    cls.migrations = wrong
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        with pytest.raises(TypeError, match="migration"):
            runtime.get(cls, "a")


async def test_the_inventory_knows_who_is_behind_in_memory_and_on_disk(releases: Releases) -> None:
    await releases.release(FIRST)
    runtime: z0.Runtime = releases.runtime
    cls: Any = type_of(releases)
    for name in "abc":
        await runtime.get(cls, name).look()
    assert await runtime.versions(cls) == {1: 3}
    assert [info.version for info in await runtime.list(cls)] == [1, 1, 1]
    await releases.release(FIRST, fill)
    runtime, cls = releases.runtime, type_of(releases)
    assert await runtime.versions(cls) == {1: 3}
    await runtime.get(cls, "b").look()
    assert await runtime.versions(cls) == {1: 2, 2: 1}
    assert [info.version for info in await runtime.list(cls)] == [1, 2, 1]
    assert await runtime.evict(cls, "b")
    assert await runtime.versions(cls) == {1: 2, 2: 1}
