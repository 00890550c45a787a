"""Storage: key-value pairs and SQL, synchronous, kept or taken back with the message that wrote them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import z0
from z0.testing import VirtualClock, crash, temporary_runtime

T = TypeVar("T")
INT64 = (-(2**63), -(2**63) + 1, -1, 0, 1, 2**53 + 1, 2**63 - 1)


class Script(z0.Actor):
    """Runs what a test hands it through the environment: a function as one segment, a coroutine as many."""

    env: list[Callable[[Any], Any]]

    def __init__(self) -> None:
        self.kept: Any = None

    async def run(self, number: int) -> Any:
        return self.env[number](self)

    async def run_slowly(self, number: int) -> Any:
        return await self.env[number](self)


class Lab:
    """An actor that does what it is told."""

    def __init__(self, runtime: z0.Runtime) -> None:
        self.runtime = runtime
        self.actor = runtime.get(Script, "lab")

    async def run(self, script: Callable[[Script], T]) -> T:
        env = self.runtime.node.env
        env.append(script)  # type: ignore[attr-defined]
        reply: T = await self.actor.run(len(env) - 1)  # type: ignore[arg-type]
        return reply

    async def run_slowly(self, script: Callable[[Script], Any]) -> Any:
        env = self.runtime.node.env
        env.append(script)  # type: ignore[attr-defined]
        return await self.actor.run_slowly(len(env) - 1)  # type: ignore[arg-type]

    async def sql(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        return await self.run(lambda actor: actor.storage.sql(query, *params).all())

    async def kv(self) -> dict[str, Any]:
        return await self.run(lambda actor: actor.storage.list())

    async def reopen(self) -> None:
        """Drop the actor's memory."""
        assert await self.runtime.evict(Script, "lab")


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    limits = z0.Limits(close_seconds=1)
    async with temporary_runtime(memory=True, clock=VirtualClock(), env=[], limits=limits) as runtime:
        yield Lab(runtime)


# Key-value


async def test_a_key_has_the_value_that_was_put_last(lab: Lab) -> None:
    def script(actor: Script) -> list[Any]:
        seen = [actor.storage.get("k")]
        actor.storage.put("k", 1)
        seen.append(actor.storage.get("k"))
        actor.storage.put("k", [2])
        seen.append(actor.storage.get("k"))
        return seen

    assert await lab.run(script) == [None, 1, [2]]
    await lab.reopen()
    assert await lab.run(lambda actor: actor.storage.get("k")) == [2]


async def test_a_missing_key_is_its_default_and_a_stored_none_is_not_missing(lab: Lab) -> None:
    await lab.run(lambda actor: actor.storage.put("none", None))
    assert await lab.run(lambda actor: actor.storage.get("none", "default")) is None
    assert await lab.run(lambda actor: actor.storage.get("missing", "default")) == "default"


async def test_deleting_tells_whether_the_key_was_there(lab: Lab) -> None:
    await lab.run(lambda actor: actor.storage.put("k", 1))
    assert [await lab.run(lambda actor: actor.storage.delete("k")) for _ in range(2)] == [True, False]
    assert await lab.kv() == {}


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        *INT64,
        2**64 - 1,
        1.5,
        math.inf,
        "",
        "text\0é🦀",
        b"",
        b"\x00\xff",
        [],
        [1, [2, {"a": None}]],
        {"a": 1, "b": {"c": [1.5]}},
        {1: "int key"},
        datetime(2026, 11, 22, 12, 30, tzinfo=UTC),
    ],
    ids=repr,
)
async def test_a_value_comes_back_as_it_was_put(lab: Lab, value: object) -> None:
    await lab.run(lambda actor: actor.storage.put("k", value))
    await lab.reopen()
    back = await lab.run(lambda actor: actor.storage.get("k"))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [object(), lambda: None, 1j, [object()]], ids=lambda value: type(value).__name__)
async def test_a_value_that_cannot_be_stored_is_refused_and_changes_nothing(lab: Lab, value: object) -> None:
    def script(actor: Script) -> Any:
        actor.storage.put("k", "before")
        with pytest.raises(TypeError):
            actor.storage.put("k", value)
        return actor.storage.get("k")

    assert await lab.run(script) == "before"


async def test_a_stored_value_is_a_copy(lab: Lab) -> None:
    def script(actor: Script) -> Any:
        value = [1]
        actor.storage.put("k", value)
        value.append(2)
        actor.storage.get("k").append(3)
        return actor.storage.get("k")

    assert await lab.run(script) == [1]


@pytest.mark.parametrize("key", [None, 1, b"k", ("k",)])
@pytest.mark.parametrize("use", ["get", "put", "delete"])
async def test_a_key_is_a_string(lab: Lab, key: Any, use: str) -> None:
    def script(actor: Script) -> Any:
        return actor.storage.put(key, 1) if use == "put" else getattr(actor.storage, use)(key)

    with pytest.raises(TypeError, match="a key is a string"):
        await lab.run(script)


@pytest.mark.parametrize("use", ["get", "put", "delete", "list"])
@pytest.mark.parametrize("key", ["k" * 2_049, "é" * 1_025, "\ud800"], ids=["long", "long in bytes", "surrogate"])
async def test_a_key_is_unicode_of_at_most_2048_bytes(lab: Lab, key: str, use: str) -> None:
    def script(actor: Script) -> Any:
        if use == "list":
            return actor.storage.list(start="\ud800")
        return actor.storage.put(key, 1) if use == "put" else getattr(actor.storage, use)([key])

    with pytest.raises(ValueError, match="a key"):
        await lab.run(script)
    longest = "é" * 1_024
    await lab.run(lambda actor: actor.storage.put(longest, 1))
    assert await lab.kv() == {longest: 1}


# Many keys at once


async def test_several_keys_are_read_as_those_that_are_there_in_key_order(lab: Lab) -> None:
    await lab.run(lambda actor: actor.storage.put({"b": 2, "a": None, "c": 3, "\U00010000": 5, "\uffff": 4}))
    found = await lab.run(lambda actor: actor.storage.get(["\U00010000", "\uffff", "b", "x", "a", "b"]))
    assert list(found.items()) == [("a", None), ("b", 2), ("\uffff", 4), ("\U00010000", 5)]
    assert await lab.run(lambda actor: actor.storage.get([])) == {}


async def test_deleting_several_keys_tells_how_many_were_there(lab: Lab) -> None:
    await lab.run(lambda actor: actor.storage.put({"a": 1, "b": 2, "c": 3}))
    assert await lab.run(lambda actor: actor.storage.delete(["a", "x", "c", "a"])) == 2
    assert await lab.kv() == {"b": 2}


async def test_putting_several_keys_is_all_or_nothing(lab: Lab) -> None:
    def script(actor: Script) -> None:
        wrongs: list[Any] = [{"a": 1, "b": object()}, {"a": 1, 2: 2}, {"a": 1, "\ud800": 2}]
        for wrong in wrongs:
            with pytest.raises((TypeError, ValueError)):
                actor.storage.put(wrong)

    await lab.run(script)
    assert await lab.kv() == {}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda storage: storage.put("k"),
        lambda storage: storage.put({"k": 1}, 2),
        lambda storage: storage.get(["k"], 1),
    ],
    ids=["put without a value", "put of a dict and a value", "get of several with a default"],
)
async def test_one_key_and_several_are_not_mixed_up(lab: Lab, wrong: Callable[[z0.Storage], Any]) -> None:
    with pytest.raises(TypeError):
        await lab.run(lambda actor: wrong(actor.storage))
    assert await lab.kv() == {}


characters = st.sampled_from("ab/\0\x7fé\ud7ff\ue000\uffff\U00010000\U0010ffff")
keys = st.text(characters, max_size=4)
bounds = st.none() | keys
listings = st.fixed_dictionaries(
    {},
    optional={
        "start": bounds,
        "start_after": bounds,
        "end": bounds,
        "prefix": keys,
        "reverse": st.booleans(),
        "limit": st.none() | st.integers(1, 6),
    },
).filter(lambda options: options.get("start") is None or options.get("start_after") is None)


def model_list(model: dict[str, int], **options: Any) -> list[tuple[str, int]]:
    """What `list` promises, said in another way."""

    def listed(key: str) -> bool:
        start, after, end = (options.get(name) for name in ("start", "start_after", "end"))
        return (
            key.startswith(options.get("prefix", ""))
            and (start is None or key.encode() >= start.encode())
            and (after is None or key.encode() > after.encode())
            and (end is None or key.encode() < end.encode())
        )

    found = sorted((key for key in model if listed(key)), key=str.encode, reverse=options.get("reverse", False))
    return [(key, model[key]) for key in found[: options.get("limit")]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(keys, st.integers(0, 9), max_size=12), listing=listings)
@example(contents={"\U0010ffff": 1, "\U0010ffffa": 2, "a": 3}, listing={"prefix": "\U0010ffff"})
@example(contents={"\ud7ffa": 1, "\ue000": 2}, listing={"prefix": "\ud7ff"})
@example(contents={"a": 1, "b": 2}, listing={"prefix": "a", "end": ""})
async def test_a_list_is_what_its_options_say_in_order_of_utf_8(
    lab: Lab, contents: dict[str, int], listing: dict[str, Any]
) -> None:
    def script(actor: Script) -> list[tuple[str, int]]:
        for key in actor.storage.list():
            actor.storage.delete(key)
        for key, value in contents.items():
            actor.storage.put(key, value)
        return list(actor.storage.list(**listing).items())

    assert await lab.run(script) == model_list(contents, **listing)


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_is_at_least_one(lab: Lab, limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await lab.run(lambda actor: actor.storage.list(limit=limit))


async def test_a_list_starts_at_a_key_or_after_one_but_not_both(lab: Lab) -> None:
    with pytest.raises(ValueError, match="not both"):
        await lab.run(lambda actor: actor.storage.list(start="a", start_after="a"))


async def test_the_size_grows_with_what_is_stored(lab: Lab) -> None:
    before = await lab.run(lambda actor: actor.storage.size)
    await lab.run(lambda actor: actor.storage.put("k", b"x" * 100_000))
    assert await lab.run(lambda actor: actor.storage.size) >= before + 100_000


# SQL


async def test_a_statement_runs_when_it_is_called_iterated_or_not(lab: Lab) -> None:
    def script(actor: Script) -> list[tuple[Any, ...]]:
        actor.storage.sql("CREATE TABLE t(x)")
        actor.storage.sql("INSERT INTO t VALUES(?), (?)", 1, 2)
        return actor.storage.sql("SELECT x FROM t ORDER BY x").all()

    assert await lab.run(script) == [(1,), (2,)]


async def test_a_cursor_gives_tuples_one_by_one_or_all_that_are_left(lab: Lab) -> None:
    def script(actor: Script) -> Any:
        cursor = actor.storage.sql("VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        first = next(cursor)
        return first, [row for row, _ in zip(cursor, range(1), strict=False)], cursor.all(), cursor.all()

    first, _, _, last = await lab.run(script)
    assert (first, last) == ((1, "a"), [])


async def test_a_cursor_knows_its_columns_also_without_rows(lab: Lab) -> None:
    def script(actor: Script) -> Any:
        actor.storage.sql("CREATE TABLE t(x, y)")
        return (
            actor.storage.sql("SELECT x, y AS z, 1 + 1 AS two FROM t").columns,
            actor.storage.sql("INSERT INTO t VALUES(1, 2)").columns,
        )

    assert await lab.run(script) == (("x", "z", "two"), ())


async def test_one_is_the_only_row(lab: Lab) -> None:
    assert await lab.run(lambda actor: actor.storage.sql("SELECT 1, 'a'").one()) == (1, "a")


@pytest.mark.parametrize(
    ("query", "problem"),
    [("SELECT 1 WHERE 0", "but got none"), ("VALUES (1), (2)", "but got more")],
)
async def test_one_raises_for_no_row_and_for_two(lab: Lab, query: str, problem: str) -> None:
    with pytest.raises(z0.QueryError, match=problem):
        await lab.run(lambda actor: actor.storage.sql(query).one())


async def test_a_returning_statement_gives_its_rows_and_is_complete_without_reading_them(lab: Lab) -> None:
    def script(actor: Script) -> Any:
        actor.storage.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        actor.storage.sql("INSERT INTO t(x) VALUES('a'), ('b') RETURNING id")
        returned = actor.storage.sql("UPDATE t SET x = x || '!' RETURNING x")
        return next(returned), actor.storage.sql("SELECT x FROM t ORDER BY id").all()

    assert await lab.run(script) == (("a!",), [("a!",), ("b!",)])


async def test_several_statements_may_stand_in_one_text(lab: Lab) -> None:
    def script(actor: Script) -> Any:
        actor.storage.sql("CREATE TABLE t(x); INSERT INTO t VALUES(?); INSERT INTO t VALUES(?)", 1, 2)
        return actor.storage.sql("SELECT x FROM t ORDER BY x").all()

    assert await lab.run(script) == [(1,), (2,)]


@pytest.mark.parametrize(
    "query", ["SELECT 1 AS x; -- that is all", "SELECT 1 AS x;; /* nothing */ ;", "SELECT 1 AS x --"]
)
async def test_a_remark_behind_the_last_statement_leaves_it_its_rows(lab: Lab, query: str) -> None:
    """It was taken for a statement without rows."""

    def script(actor: Script) -> Any:
        cursor = actor.storage.sql(query)
        return cursor.columns, cursor.all()

    assert await lab.run(script) == (("x",), [(1,)])


async def test_statements_behind_a_query_run_too_iterated_or_not(lab: Lab) -> None:
    def script(actor: Script) -> Any:
        actor.storage.sql("CREATE TABLE t(x)")
        actor.storage.sql("SELECT 1; INSERT INTO t VALUES(1)")
        return actor.storage.sql("SELECT count(*) FROM t").one()

    assert await lab.run(script) == (1,)


@pytest.mark.parametrize("read", [list, next, lambda cursor: None], ids=["all", "one row", "not at all"])
@pytest.mark.parametrize("hidden", ["DELETE FROM z0_kv", "COMMIT", "PRAGMA user_version = 9", "DROP TABLE z0_meta"])
async def test_a_refused_statement_is_refused_behind_a_query_too(lab: Lab, hidden: str, read: Any) -> None:
    await lab.run(lambda actor: actor.storage.put("kept", 1))

    def script(actor: Script) -> None:
        actor.storage.put("lost", 1)
        read(actor.storage.sql(f"SELECT 1; {hidden}; SELECT 2"))

    with pytest.raises(z0.QueryError):
        await lab.run(script)
    assert await lab.kv() == {"kept": 1}
    assert await lab.sql("SELECT count(*) FROM z0_meta") != [(0,)]


async def test_parameters_are_bound_and_never_read_as_sql(lab: Lab) -> None:
    hostile = "'; DROP TABLE t; --"
    await lab.sql("CREATE TABLE t(x)")
    await lab.sql("INSERT INTO t VALUES(?)", hostile)
    assert await lab.sql("SELECT x FROM t") == [(hostile,)]


@pytest.mark.parametrize("value", [*INT64, 1.5, "é\0x", b"\0\xff", None, ""], ids=repr)
async def test_a_column_keeps_its_value_exactly(lab: Lab, value: object) -> None:
    await lab.sql("CREATE TABLE t(x)")
    await lab.sql("INSERT INTO t VALUES(?)", value)
    await lab.reopen()
    ((back,),) = await lab.sql("SELECT x FROM t")
    assert back == value
    assert type(back) is type(value)


@given(st.integers(-(2**63), 2**63 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_64_bit_integer_is_exact(lab: Lab, number: int) -> None:
    assert await lab.sql("SELECT ?", number) == [(number,)]


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**100])
async def test_an_integer_beyond_64_bits_is_refused_not_rounded(lab: Lab, number: int) -> None:
    with pytest.raises((OverflowError, z0.QueryError)):
        await lab.sql("SELECT ?", number)
    assert await lab.sql("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "query",
    [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE s",
        "ROLLBACK TO s",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO 'copy'",
        "SELECT load_extension('x')",
        "CREATE TEMP TABLE t(x)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA synchronous = OFF",
        "PRAGMA user_version",
        "PRAGMA user_version = 7",
        "PRAGMA writable_schema = 1",
        "PRAGMA page_size = 512",
        "PRAGMA wal_checkpoint",
        "PRAGMA locking_mode = EXCLUSIVE",
        "PRAGMA trusted_schema = 1",
        "PRAGMA temp_store_directory = '/'",
        "SELECT * FROM pragma_user_version",
        "INSERT INTO z0_kv VALUES('k', x'01')",
        "UPDATE z0_meta SET value = 'x'",
        "DELETE FROM Z0_META",
        "DROP TABLE z0_kv",
        "ALTER TABLE z0_kv RENAME TO mine",
        "ALTER TABLE z0_kv ADD COLUMN x",
        "CREATE TABLE z0_mine(x)",
        "CREATE TABLE Z0_mine(x)",
        "CREATE TABLE facts(x)",
        "CREATE VIEW Facts AS SELECT 1",
        "CREATE INDEX z0_index ON z0_kv(value)",
        "CREATE INDEX mine ON z0_kv(value)",
        "CREATE TRIGGER mine AFTER INSERT ON z0_kv BEGIN SELECT 1; END",
        "REPLACE INTO z0_kv VALUES('k', x'01')",
        "INSERT INTO sqlite_schema VALUES(1, 2, 3, 4, 5)",
        "DELETE FROM sqlite_schema",
        "WITH x AS (SELECT 1) DELETE FROM z0_kv",
    ],
)
async def test_a_statement_that_is_the_engines_is_refused_and_the_actor_goes_on(lab: Lab, query: str) -> None:
    await lab.run(lambda actor: actor.storage.put("k", 1))

    def script(actor: Script) -> str:
        actor.storage.put("before", 1)
        with pytest.raises(z0.QueryError) as caught:
            actor.storage.sql(query).all()
        actor.storage.put("after", 1)
        return str(caught.value)

    assert await lab.run(script)
    assert await lab.kv() == {"k": 1, "before": 1, "after": 1}
    assert not list(Path.cwd().glob("copy*"))


async def test_a_refusal_says_what_to_use_instead(lab: Lab) -> None:
    with pytest.raises(z0.QueryError, match=r"use storage\.transaction\(\)"):
        await lab.sql("BEGIN")
    with pytest.raises(z0.QueryError, match="VACUUM is not available to actors"):
        await lab.sql("VACUUM")
    with pytest.raises(z0.QueryError, match="PRAGMA user_version is not available to actors"):
        await lab.sql("PRAGMA user_version")
    with pytest.raises(z0.QueryError, match="names beginning with z0_ and `facts` are reserved"):
        await lab.sql("CREATE TABLE facts(x)")


async def test_a_trigger_of_the_user_cannot_write_tables_of_ours(lab: Lab) -> None:
    await lab.sql("CREATE TABLE t(x)")

    def script(actor: Script) -> None:
        actor.storage.sql("CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM z0_kv; END")
        actor.storage.sql("INSERT INTO t VALUES(1)")

    await lab.run(lambda actor: actor.storage.put("kept", 1))
    with pytest.raises(z0.QueryError):
        await lab.run(script)
    assert await lab.kv() == {"kept": 1}


@pytest.mark.parametrize(
    "query", ["SELECT key FROM z0_kv", "SELECT key, value FROM z0_meta", "SELECT * FROM z0_alarms"]
)
async def test_tables_of_ours_may_be_read(lab: Lab, query: str) -> None:
    await lab.sql(query)


@pytest.mark.parametrize(
    "query",
    ["PRAGMA table_info(t)", "PRAGMA foreign_key_check", "PRAGMA quick_check", "PRAGMA page_size", "PRAGMA table_list"],
)
async def test_the_pragmas_of_durable_objects_are_available(lab: Lab, query: str) -> None:
    await lab.sql("CREATE TABLE t(x)")
    assert isinstance(await lab.sql(query), list)


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("SELEC 1", ()),
        ("SELECT * FROM missing", ()),
        ("SELECT ?", ()),
        ("SELECT 1", (1,)),
        ("SELECT ?", (object(),)),
        ("SELECT abs(-9223372036854775808)", ()),
        ("INSERT INTO t(id) VALUES('text')", ()),
        ("SELECT json('{')", ()),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
async def test_a_wrong_statement_fails_alone_and_the_actor_goes_on(
    lab: Lab, query: str, params: tuple[Any, ...]
) -> None:
    await lab.sql("CREATE TABLE t(id INTEGER PRIMARY KEY)")

    def script(actor: Script) -> Any:
        actor.kept = "memory"
        actor.storage.put("k", 1)
        with pytest.raises((z0.QueryError, TypeError)):
            actor.storage.sql(query, *params).all()
        return actor.storage.get("k")

    assert await lab.run(script) == 1
    assert await lab.run(lambda actor: actor.kept) == "memory"


async def test_a_violated_constraint_changes_nothing_and_may_be_handled(lab: Lab) -> None:
    await lab.sql("CREATE TABLE t(x UNIQUE CHECK(x > 0))")

    def script(actor: Script) -> None:
        actor.storage.sql("INSERT INTO t VALUES(1)")
        for query in "INSERT INTO t VALUES(2), (1)", "INSERT INTO t VALUES(-1)":
            with pytest.raises(z0.ConstraintFailed):
                actor.storage.sql(query)

    await lab.run(script)
    assert await lab.sql("SELECT x FROM t") == [(1,)]


async def test_rows_are_those_of_the_moment_of_the_call_whatever_happens_to_their_table(lab: Lab) -> None:
    await lab.sql("CREATE TABLE t(x); INSERT INTO t VALUES(1), (2)")

    def script(actor: Script) -> list[Any]:
        actor.kept = "memory"
        cursor = actor.storage.sql("SELECT x FROM t")
        rows: list[Any] = [next(cursor)]
        actor.storage.sql("UPDATE t SET x = 9")
        actor.storage.sql("DROP TABLE t")
        return rows + cursor.all()

    assert await lab.run(script) == [(1,), (2,)]
    assert await lab.run(lambda actor: actor.kept) == "memory"


async def test_rows_outlive_a_transaction_that_is_taken_back(lab: Lab) -> None:
    def fail(actor: Script) -> None:
        with actor.storage.transaction():
            actor.storage.sql("CREATE TABLE t(x); INSERT INTO t VALUES(1), (2)")
            actor.kept = actor.storage.sql("SELECT x FROM t")
            raise Stop

    def script(actor: Script) -> Any:
        with pytest.raises(Stop):
            fail(actor)
        return actor.kept.all()

    assert await lab.run(script) == [(1,), (2,)]


@pytest.mark.parametrize("state", ["same turn", "later"])
async def test_a_cursor_is_closed_when_its_segment_ends(lab: Lab, state: str) -> None:
    def keep(actor: Script) -> None:
        actor.kept = actor.storage.sql("VALUES (1), (2), (3)")
        next(actor.kept)

    first = asyncio.create_task(lab.run(keep))
    await (asyncio.sleep(0) if state == "same turn" else first)
    with pytest.raises(z0.QueryError, match="closed"):
        await lab.run(lambda actor: next(actor.kept))
    await first


async def test_a_cursor_is_closed_when_its_handler_waits(lab: Lab) -> None:
    async def script(actor: Script) -> None:
        cursor = actor.storage.sql("VALUES (1), (2), (3)")
        next(cursor)
        await asyncio.sleep(0)
        next(cursor)

    with pytest.raises(z0.QueryError, match="closed"):
        await lab.run_slowly(script)


async def test_a_cursor_may_be_closed_early(lab: Lab) -> None:
    def script(actor: Script) -> None:
        cursor = actor.storage.sql("VALUES (1), (2)")
        cursor.close()
        with pytest.raises(z0.QueryError, match="closed"):
            next(cursor)

    await lab.run(script)


async def test_a_cursor_tells_how_many_rows_were_written_by_triggers_and_foreign_keys_too(lab: Lab) -> None:
    def script(actor: Script) -> list[int]:
        sql = actor.storage.sql
        sql("CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE log(x)")
        sql("CREATE TABLE child(p REFERENCES parent ON DELETE CASCADE)")
        sql("CREATE TRIGGER tr AFTER DELETE ON parent BEGIN INSERT INTO log VALUES(OLD.id); END")
        return [
            sql("INSERT INTO parent VALUES(1), (2)").rows_written,
            sql("INSERT INTO child VALUES(1); INSERT INTO child VALUES(1)").rows_written,
            sql("DELETE FROM parent").rows_written,  # 2 parents, 2 children, 2 log entries
            sql("UPDATE log SET x = 0 WHERE x = 1").rows_written,
            sql("SELECT * FROM log").rows_written,
        ]

    assert await lab.run(script) == [2, 2, 6, 1, 0]


async def test_a_cursor_tells_how_many_rows_were_read(lab: Lab) -> None:
    def script(actor: Script) -> list[int]:
        sql = actor.storage.sql
        sql("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        sql(_HUNDRED)
        return [
            sql("SELECT * FROM t").rows_read,
            sql("SELECT * FROM t WHERE x = 7").rows_read,
            sql("SELECT * FROM t WHERE id = 7").rows_read,
            sql("SELECT id FROM t; SELECT 1").rows_read,
        ]

    assert await lab.run(script) == [100, 99, 1, 101]


_HUNDRED = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t(x) SELECT i FROM n"
)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT " + "+".join("1" * 102), "depth"),
        ("INSERT INTO t VALUES(12)", "nested too deep"),
    ],
)
async def test_sql_has_the_limits_of_durable_objects(lab: Lab, query: str, problem: str) -> None:
    await lab.sql("CREATE TABLE t(n)")
    await lab.sql("PRAGMA recursive_triggers = ON")
    await lab.sql("CREATE TRIGGER tr AFTER INSERT ON t WHEN NEW.n > 0 BEGIN INSERT INTO t VALUES(NEW.n - 1); END")
    await lab.sql("INSERT INTO t VALUES(8)")
    with pytest.raises(z0.QueryError, match=problem):
        await lab.sql(query)
    assert await lab.sql("SELECT count(*) FROM t") == [(9,)]


async def test_foreign_keys_are_enforced(lab: Lab) -> None:
    await lab.sql("CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE child(p REFERENCES parent)")
    with pytest.raises(z0.ConstraintFailed, match="FOREIGN KEY"):
        await lab.sql("INSERT INTO child VALUES(1)")
    await lab.sql("INSERT INTO parent VALUES(1)")
    await lab.sql("INSERT INTO child VALUES(1)")


# Transactions


class Stop(Exception):
    pass


async def test_a_transaction_keeps_its_writes_together(lab: Lab) -> None:
    def script(actor: Script) -> None:
        with actor.storage.transaction():
            actor.storage.put("a", 1)
            actor.storage.put("b", 2)

    await lab.run(script)
    assert await lab.kv() == {"a": 1, "b": 2}


async def test_a_transaction_left_by_an_exception_takes_its_writes_back_and_the_rest_stands(lab: Lab) -> None:
    await lab.sql("CREATE TABLE t(x)")

    def fail(actor: Script) -> None:
        with actor.storage.transaction():
            actor.storage.put("before", 2)
            actor.storage.put("inside", 1)
            actor.storage.sql("INSERT INTO t VALUES(1)")
            actor.storage.sql("CREATE TABLE u(x)")
            raise Stop

    def script(actor: Script) -> Any:
        actor.storage.put("before", 1)
        with pytest.raises(Stop):
            fail(actor)
        actor.storage.put("after", 1)
        return actor.storage.list()

    assert await lab.run(script) == {"after": 1, "before": 1}
    await lab.reopen()
    assert await lab.kv() == {"after": 1, "before": 1}
    assert await lab.sql("SELECT name FROM sqlite_schema WHERE name IN ('t', 'u')") == [("t",)]
    assert await lab.sql("SELECT * FROM t") == []


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("outer", [True, False])
async def test_transactions_nest(lab: Lab, outer: bool, inner: bool) -> None:
    def script(actor: Script) -> None:
        try:
            with actor.storage.transaction():
                actor.storage.put("outer", 1)
                try:
                    with actor.storage.transaction():
                        actor.storage.put("inner", 1)
                        if inner:
                            raise Stop
                except Stop:
                    pass
                actor.storage.put("outer again", 1)
                if outer:
                    raise Stop
        except Stop:
            pass

    await lab.run(script)
    kept = set() if outer else {"outer", "outer again"} | (set() if inner else {"inner"})
    assert set(await lab.kv()) == kept


async def test_transactions_nest_many_deep(lab: Lab) -> None:
    def nest(actor: Script, depth: int) -> None:
        with actor.storage.transaction():
            actor.storage.put(f"{depth:03}", depth)
            if depth < 100:
                nest(actor, depth + 1)
            if depth == 50:
                raise Stop

    def script(actor: Script) -> None:
        with actor.storage.transaction():
            for number in range(40):
                with actor.storage.transaction():
                    actor.storage.put(f"flat {number}", number)
        with pytest.raises(Stop):
            nest(actor, 0)

    await lab.run(script)
    assert len(await lab.kv()) == 40


async def test_a_message_that_raises_takes_its_transactions_back_too(lab: Lab) -> None:
    def script(actor: Script) -> None:
        with actor.storage.transaction():
            actor.storage.put("inside", 1)
        raise Stop

    with pytest.raises(Stop):
        await lab.run(script)
    assert await lab.kv() == {}


async def test_waiting_inside_a_transaction_raises_there_and_takes_it_back(lab: Lab) -> None:
    async def wait_inside(actor: Script) -> None:
        with actor.storage.transaction():
            actor.storage.put("inside", 1)
            await asyncio.sleep(0)

    async def script(actor: Script) -> str:
        actor.storage.put("before", 1)
        with pytest.raises(RuntimeError, match="must not wait inside"):
            await wait_inside(actor)
        await asyncio.sleep(0)
        actor.storage.put("after", 1)
        return "went on"

    assert await lab.run_slowly(script) == "went on"
    assert await lab.kv() == {"after": 1, "before": 1}


async def test_a_handler_that_waits_inside_a_transaction_fails(lab: Lab) -> None:
    async def script(actor: Script) -> None:
        actor.storage.put("before", 1)
        with actor.storage.transaction():
            actor.storage.put("inside", 1)
            await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="await before or after the block"):
        await lab.run_slowly(script)
    assert await lab.kv() == {}


async def test_waiting_inside_a_transaction_again_raises_again(lab: Lab) -> None:
    async def script(actor: Script) -> None:
        actor.kept = "memory"
        with actor.storage.transaction():
            actor.storage.put("inside", 1)
            try:
                await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="must not wait inside"):
        await lab.run_slowly(script)
    assert await lab.kv() == {}
    assert await lab.run(lambda actor: actor.kept) == "memory"


async def test_awaiting_what_is_complete_inside_a_transaction_is_no_wait(lab: Lab) -> None:
    async def nothing() -> None: ...

    async def script(actor: Script) -> None:
        with actor.storage.transaction():
            actor.storage.put("inside", 1)
            await nothing()

    await lab.run_slowly(script)
    assert await lab.kv() == {"inside": 1}


async def test_a_transaction_without_writes_is_harmless(lab: Lab) -> None:
    def script(actor: Script) -> None:
        with actor.storage.transaction():
            pass
        with pytest.raises(Stop), actor.storage.transaction():
            raise Stop

    await lab.run(script)
    await lab.reopen()


# What stays


async def test_writes_survive_a_crash_once_they_were_acknowledged() -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(), env=[]) as first:
        lab = Lab(first)
        await lab.sql("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        await lab.run(lambda actor: actor.storage.put("k", 1))
        await crash(first)
        async with z0.Runtime(first.path, clock=VirtualClock(), env=[]) as second:
            assert await Lab(second).kv() == {"k": 1}
            assert await Lab(second).sql("SELECT x FROM t") == [(1,)]


async def test_relaxed_writes_survive_a_crash_of_the_process_and_can_be_synced() -> None:
    async def script(actor: Script) -> None:
        actor.storage.put("k", 1)
        await actor.storage.sync()
        actor.storage.put("k", 2)

    clock = VirtualClock()
    async with temporary_runtime(memory=True, clock=clock, env=[], durability="relaxed") as first:
        await Lab(first).run_slowly(script)
        await crash(first)
        async with z0.Runtime(first.path, clock=clock, env=[], durability="relaxed") as second:
            assert await Lab(second).kv() == {"k": 2}


@pytest.mark.parametrize(
    "use",
    [
        lambda storage: storage.put("k", 1),
        lambda storage: storage.get("k"),
        lambda storage: storage.list(),
        lambda storage: storage.delete("k"),
        lambda storage: storage.sql("SELECT 1"),
        lambda storage: storage.size,
        lambda storage: storage.transaction().__enter__(),
    ],
    ids=["put", "get", "list", "delete", "sql", "size", "transaction"],
)
async def test_the_storage_of_an_evicted_actor_raises_actor_reset(lab: Lab, use: Callable[[z0.Storage], Any]) -> None:
    storages: list[z0.Storage] = []
    await lab.run(lambda actor: storages.append(actor.storage))
    await lab.reopen()
    with pytest.raises(z0.ActorReset, match="it was evicted"):
        use(storages[0])
    assert await lab.kv() == {}
