"""delete_all: everything that is the actor's own goes, whatever refers to what; never facts, never half."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import z0
from z0.testing import VirtualClock, temporary_runtime


class Oops(Exception):
    pass


class Box(z0.Entity):
    env: list[Callable[[Any], Any]]

    async def run(self, number: int) -> Any:
        return self.env[number](self)

    @z0.idempotent("key")
    async def once(self, *, key: str) -> str:
        return "first"


class Lab:
    def __init__(self, runtime: z0.Runtime) -> None:
        self.runtime = runtime
        self.actor = runtime.get(Box, "a")

    async def run(self, script: Callable[[Box], Any]) -> Any:
        env: list[Any] = self.runtime.node.env  # type: ignore[assignment]
        env.append(script)
        return await self.actor.run(len(env) - 1)

    async def schema(self) -> set[str]:
        rows = await self.run(lambda box: box.storage.sql("SELECT name FROM sqlite_schema").all())
        return {name for (name,) in rows}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with temporary_runtime(memory=True, clock=VirtualClock(), env=[]) as runtime:
        yield Lab(runtime)


EVERYTHING = """
    CREATE TABLE "odd ""name"(id INTEGER PRIMARY KEY AUTOINCREMENT, x UNIQUE);
    CREATE INDEX i ON "odd ""name"(x);
    CREATE VIEW v AS SELECT * FROM "odd ""name"; CREATE VIEW w AS SELECT * FROM v;
    CREATE TABLE log(x);
    CREATE TRIGGER tr AFTER DELETE ON "odd ""name" BEGIN SELECT RAISE(ABORT, 'never'); END;
    CREATE TRIGGER insteadof INSTEAD OF DELETE ON v BEGIN INSERT INTO log VALUES(1); END;
    CREATE VIRTUAL TABLE text USING fts5(body);
    CREATE VIRTUAL TABLE words USING fts5vocab(text, row);
    CREATE VIRTUAL TABLE area USING rtree(id, a, b);
    INSERT INTO "odd ""name"(x) VALUES(1), (2);
    INSERT INTO text VALUES('hello world');
    INSERT INTO area VALUES(1, 0, 1)
"""


def fill(box: Box) -> None:
    box.storage.put({"a": 1, "b": 2})
    box.storage.sql(EVERYTHING)
    box.storage._writes.write("INSERT INTO z0_alarms(name, id, due, scheduled) VALUES('', 1, 1, 1)", ())


def content(box: Box) -> Any:
    sql = box.storage.sql
    return (
        box.storage.list(),
        box.ledger.count(),
        sql("SELECT count(*) FROM z0_alarms").one(),
        sql("SELECT count(*) FROM sqlite_schema").one(),
    )


@pytest.mark.parametrize("state", ["same message", "later", "reopened"])
async def test_everything_of_the_actor_goes_and_facts_and_replies_stay(lab: Lab, state: str) -> None:
    await lab.actor.once(key="k")
    await lab.run(lambda box: box.ledger.append("deposit", amount=1))
    new = await lab.schema()

    def both(box: Box) -> None:
        fill(box)
        box.storage.delete_all()

    if state == "same message":
        await lab.run(both)
    else:
        await lab.run(fill)
        if state == "reopened":
            assert await lab.runtime.evict(Box, "a")
        await lab.run(lambda box: box.storage.delete_all())
    for _ in range(2):
        assert await lab.schema() - {"sqlite_sequence"} == new
        assert (await lab.run(content))[:3] == ({}, 1, (0,))
        assert (await lab.actor.verify()).facts == 1
        assert await lab.actor.once(key="k") == "first"
        assert await lab.runtime.evict(Box, "a")
    await lab.run(fill)  # the actor is usable as ever
    assert (await lab.run(content))[:3] == ({"a": 1, "b": 2}, 1, (1,))


@pytest.mark.parametrize("caught", [True, False])
async def test_it_is_taken_back_with_its_segment(lab: Lab, caught: bool) -> None:
    await lab.run(fill)
    before = await lab.run(content)

    def fail(box: Box) -> None:
        box.storage.put("c", 3)
        box.storage.delete_all()
        assert box.storage.list() == {}
        raise Oops

    with pytest.raises(Oops):
        await lab.run(fail)
    assert await lab.run(content) == before


async def test_it_is_refused_inside_a_transaction_and_changes_nothing(lab: Lab) -> None:
    await lab.run(fill)
    before = await lab.run(content)

    def script(box: Box) -> None:
        with box.storage.transaction(), pytest.raises(RuntimeError, match="before or after the block"):
            box.storage.delete_all()

    await lab.run(script)
    assert await lab.run(content) == before


NUMBERS = itertools.count()
actions = st.sampled_from(["", "ON DELETE RESTRICT", "ON DELETE CASCADE", "ON DELETE SET NULL"])
deferred = st.sampled_from(["", "DEFERRABLE INITIALLY DEFERRED"])
references = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), actions, deferred), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(references=references, violated=st.booleans())
async def test_foreign_keys_of_any_shape_are_not_in_the_way(
    lab: Lab, references: list[tuple[int, int, str, str]], violated: bool
) -> None:
    """Tables that refer to each other and to themselves, in circles too, each with a row that uses all of it."""

    def make(box: Box) -> None:
        sql = box.storage.sql
        sql("PRAGMA defer_foreign_keys = ON")
        columns = []
        for table in range(4):
            keys = [
                f"r{n} REFERENCES t{to} {action} {late}"
                for n, (by, to, action, late) in enumerate(references)
                if by == table
            ]
            columns.append(len(keys) + 1)
            sql(f"CREATE TABLE t{table}({', '.join(['id INTEGER PRIMARY KEY', *keys])})")
        for table, count in enumerate(columns):
            sql(f"INSERT INTO t{table} VALUES({', '.join('1' * count)})")
        sql("CREATE TABLE v(x REFERENCES t0 DEFERRABLE INITIALLY DEFERRED)")

    def wipe(box: Box) -> None:
        if violated:  # to be gone before anybody looks
            box.storage.sql("INSERT INTO v VALUES(99)")
        box.storage.delete_all()
        box.storage.sql("CREATE TABLE p(x PRIMARY KEY); CREATE TABLE c(x REFERENCES p)")
        with pytest.raises(z0.ConstraintFailed):  # enforced at once, as ever
            box.storage.sql("INSERT INTO c VALUES(1)")
        box.storage.sql("DROP TABLE c; DROP TABLE p")

    lab.actor = lab.runtime.get(Box, f"{next(NUMBERS)}")  # a failing example leaves nothing to the next
    before = await lab.schema()
    await lab.run(make)
    await lab.run(wipe)
    assert await lab.schema() == before
