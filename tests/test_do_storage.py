"""As Durable Objects: transactions, SQL and key-value. What other tests prove is named in docs/durable_objects.md."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import z0
from tests.scripted import Room, World, quiet
from z0.testing import VirtualClock, temporary_runtime

Run = Callable[[Callable[[Any], Any]], Any]


class Oops(Exception):
    pass


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World) -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, env=world, clock=VirtualClock()) as runtime:
        yield runtime


@pytest.fixture
def run(runtime: z0.Runtime, world: World) -> Run:
    """Run a script in the actor."""
    room = runtime.get(Room, "a")

    async def run(script: Callable[[Any], Any]) -> Any:
        world.scripts[name := f"script {len(world.scripts)}"] = script
        return await (room.slowly(name) if inspect.iscoroutinefunction(script) else room.at_once(name))

    return run


# Transactions


async def test_an_asynchronous_transaction_is_a_block_whose_segments_stand_alone(run: Run) -> None:
    """Durable Objects' transaction(async) takes back all; block() keeps what earlier segments wrote, and resets."""

    async def script(room: Room) -> None:
        async with room.block():
            room.storage.put("earlier", 1)
            await asyncio.sleep(0)
            room.storage.put("last", 1)
            raise Oops

    with pytest.raises(Oops):
        await run(script)
    assert await run(lambda room: room.storage.list()) == {"earlier": 1}


async def test_a_transaction_is_taken_back_by_raising_and_the_actor_lives_on(run: Run) -> None:
    def script(room: Room) -> str:
        room.memory = "kept"  # type: ignore[attr-defined]
        room.storage.put("before", 1)
        try:
            with room.storage.transaction():
                room.storage.put("inside", 1)
                room.storage.sql("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
                raise Oops
        except Oops:
            room.storage.put("after", 1)
        return "reply"

    assert await run(script) == "reply"
    assert await run(lambda room: room.memory) == "kept"
    assert await run(lambda room: room.storage.list()) == {"before": 1, "after": 1}
    assert await run(lambda room: room.storage.sql("SELECT count(*) FROM sqlite_schema WHERE name = 't'").one()) == (0,)


async def test_a_caught_error_of_one_statement_leaves_the_rest_of_a_transaction(run: Run) -> None:
    def script(room: Room) -> None:
        with room.storage.transaction():
            room.storage.sql("CREATE TABLE t(x UNIQUE); INSERT INTO t VALUES(1)")
            with pytest.raises(z0.ConstraintFailed):
                room.storage.sql("INSERT INTO t VALUES(2), (1)")
            room.storage.sql("INSERT INTO t VALUES(3)")

    await run(script)
    assert await run(lambda room: room.storage.sql("SELECT x FROM t ORDER BY x").all()) == [(1,), (3,)]


# SQL


async def test_parameters_of_several_statements_are_taken_in_order(run: Run) -> None:
    """Durable Objects give them all to the last statement."""

    def script(room: Room) -> Any:
        room.storage.sql("CREATE TABLE t(x)")
        return room.storage.sql("INSERT INTO t VALUES(?); INSERT INTO t VALUES(?); SELECT x, ? FROM t", 1, 2, 3).all()

    assert await run(script) == [(1, 3), (2, 3)]


async def test_too_few_parameters_for_several_statements_leave_no_statement_behind_when_the_message_fails(
    run: Run,
) -> None:
    await run(lambda room: room.storage.sql("CREATE TABLE t(x)") and None)
    with pytest.raises(z0.QueryError):
        await run(lambda room: room.storage.sql("INSERT INTO t VALUES(?); INSERT INTO t VALUES(?)", 1))
    assert await run(lambda room: room.storage.sql("SELECT * FROM t").all()) == []


async def test_the_same_statement_again_does_not_end_the_cursor_that_is_read(run: Run) -> None:
    def script(room: Room) -> Any:
        sql = room.storage.sql
        sql("CREATE TABLE t(x); INSERT INTO t VALUES(1), (2), (3)")
        first = sql("SELECT x FROM t")
        begun = next(first)
        second = sql("SELECT x FROM t").all()
        sql("DELETE FROM t")
        return begun, second, first.all()

    assert await run(script) == ((1,), [(1,), (2,), (3,)], [(2,), (3,)])


SELECTS = " UNION ".join(f"SELECT {n}" for n in range(20))


@pytest.mark.parametrize(
    ("query", "params", "row"),
    [
        (f"SELECT count(*) FROM ({SELECTS})", (), 20),
        (f"SELECT {' + '.join(['?'] * 50)} + max({', '.join(['?'] * 90)})", tuple(range(140)), sum(range(50)) + 139),
        ("SELECT ? LIKE ?", ("x" * 100, "x" * 100), 1),
        (f"SELECT length('{'x' * 200_000}')", (), 200_000),
        ("SELECT length(?)", (b"x" * 5_000_000,), 5_000_000),
        ("SELECT sqlite_version() > '3'", (), 1),
        ("SELECT 9007199254740993 + ?", (0,), 2**53 + 1),
    ],
    ids=["compound", "parameters", "pattern", "statement", "blob", "version", "integer"],
)
async def test_sql_goes_beyond_these_limits_of_durable_objects(
    run: Run, query: str, params: tuple[Any, ...], row: object
) -> None:
    assert await run(lambda room: room.storage.sql(query, *params).one()) == (row,)


async def test_a_table_may_have_more_than_100_columns(run: Run) -> None:
    columns = ", ".join(f"c{n}" for n in range(300))
    await run(lambda room: room.storage.sql(f"CREATE TABLE t({columns})") and None)
    assert await run(lambda room: len(room.storage.sql("SELECT * FROM t").columns)) == 300


async def test_full_text_search_json_and_window_functions_are_there(run: Run) -> None:
    def script(room: Room) -> Any:
        sql = room.storage.sql
        sql("CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES('a quick fox'), ('a slow fox')")
        return (
            sql("SELECT rowid FROM words WHERE words MATCH 'quick'").one(),
            sql("SELECT json_extract(?, '$.a[1]')", '{"a": [1, 2]}').one(),
            sql("SELECT sum(value) OVER (ORDER BY key) FROM json_each('[1, 2, 3]')").all(),
        )

    assert await run(script) == ((1,), (2,), [(1,), (3,), (6,)])


# Key-value


async def test_more_than_128_keys_go_at_once(run: Run) -> None:
    many = {f"k{n:04}": n for n in range(1_000)}
    await run(lambda room: room.storage.put(many))
    assert await run(lambda room: room.storage.get(list(many))) == many
    assert await run(lambda room: room.storage.delete(list(many))) == 1_000


async def test_a_value_may_have_more_than_2_megabytes(run: Run) -> None:
    value = {"bytes": b"x" * 3_000_000}
    await run(lambda room: room.storage.put("k", value))
    assert await run(lambda room: room.storage.get("k")) == value


async def test_a_list_stays_as_it_was_whatever_is_listed_or_changed_after_it(run: Run) -> None:
    def script(room: Room) -> Any:
        room.storage.put({"a": 1, "b": 2})
        first = room.storage.list()
        second = room.storage.list(limit=1)
        room.storage.delete(["a", "b"])
        return first, second

    assert await run(script) == ({"a": 1, "b": 2}, {"a": 1})


async def test_an_increment_that_waits_in_between_needs_a_block(world: World, run: Run) -> None:
    """Storage is synchronous, so only a real wait lets others in; Durable Objects' storage operations never do."""

    async def racing(room: Room) -> None:
        n = room.storage.get("n", 0)
        await world.go.wait()
        room.storage.put("n", n + 1)

    async def guarded(room: Room) -> None:
        async with room.block():
            n = room.storage.get("n")
            await asyncio.sleep(0)
            room.storage.put("n", n + 1)

    await run(lambda room: room.storage.put("n", 0))
    racers = [asyncio.create_task(run(racing)) for _ in range(5)]
    await quiet()
    world.go.set()
    await asyncio.gather(*racers)
    assert await run(lambda room: room.storage.get("n")) == 1, "all five had read 0"
    await asyncio.gather(*(run(guarded) for _ in range(5)))
    assert await run(lambda room: room.storage.get("n")) == 6
