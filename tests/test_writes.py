"""The writes of one turn: many messages share a transaction, and each is kept or undone by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import z0
from z0.testing import VirtualClock, crash, temporary_runtime

T = TypeVar("T")


class Oops(Exception):
    pass


class Script(z0.Actor):
    """Runs what a test hands it through the environment: a function as one segment, a coroutine as many."""

    env: list[Callable[[Any], Any]]

    def __init__(self) -> None:
        self.memory: list[Any] = []

    async def run(self, number: int) -> Any:
        return self.env[number](self)

    async def run_slowly(self, number: int) -> Any:
        return await self.env[number](self)


class Lab:
    """An actor that does what it is told, and what it keeps."""

    def __init__(self, runtime: z0.Runtime, cls: type[Script] = Script) -> None:
        self.runtime = runtime
        self.scripts: list[Callable[[Any], Any]] = runtime.node.env  # type: ignore[assignment]
        self.actor = runtime.get(cls, "lab")

    async def run(self, script: Callable[[Script], T]) -> T:
        self.scripts.append(script)
        reply: T = await self.actor.run(len(self.scripts) - 1)
        return reply

    async def run_slowly(self, script: Callable[[Script], Any]) -> Any:
        self.scripts.append(script)
        return await self.actor.run_slowly(len(self.scripts) - 1)

    async def together(self, *scripts: Callable[[Script], Any]) -> list[Any]:
        """Outcomes of messages that share one turn."""
        await self.run(lambda actor: None)
        return await asyncio.gather(*map(self.run, scripts), return_exceptions=True)

    async def kv(self) -> dict[str, Any]:
        return await self.run(lambda actor: actor.storage.list())

    async def sql(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        return await self.run(lambda actor: actor.storage.sql(query, *params).all())

    async def rows(self) -> list[Any]:
        return [row[0] for row in await self.sql("SELECT x FROM t ORDER BY rowid")]

    async def both(self) -> tuple[list[str], list[Any]]:
        return list(await self.kv()), await self.rows()


@pytest.fixture
async def runtime() -> AsyncIterator[z0.Runtime]:
    limits = z0.Limits(close_seconds=1)
    async with temporary_runtime(memory=True, clock=VirtualClock(), env=[], limits=limits) as runtime:
        yield runtime


@pytest.fixture
async def lab(runtime: z0.Runtime) -> Lab:
    lab = Lab(runtime)
    await lab.sql("CREATE TABLE t(x UNIQUE)")
    return lab


def put(*keys: str, then: Exception | None = None) -> Callable[[Script], None]:
    def script(actor: Script) -> None:
        for key in keys:
            actor.storage.put(key, 1)
        if then is not None:
            raise then

    return script


def insert(*rows: int, then: Exception | None = None, by: str = "INSERT") -> Callable[[Script], None]:
    def script(actor: Script) -> None:
        for row in rows:
            actor.storage.sql(f"{by} INTO t VALUES(?)", row)
        if then is not None:
            raise then

    return script


def both(name: str, row: int, then: Exception | None = None) -> Callable[[Script], None]:
    def script(actor: Script) -> None:
        put(name)(actor)
        insert(row, then=then)(actor)

    return script


def failures(outcomes: list[Any]) -> list[int]:
    return [number for number, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)]


# One message fails


@pytest.mark.parametrize("script", [put("a", then=Oops()), insert(1, then=Oops()), both("a", 1, Oops())])
async def test_a_message_that_raises_alone_leaves_nothing(lab: Lab, script: Callable[[Script], None]) -> None:
    with pytest.raises(Oops):
        await lab.run(script)
    assert await lab.both() == ([], [])
    await lab.run(both("b", 2))
    assert await lab.both() == (["b"], [2])


async def test_a_message_that_raises_takes_back_a_new_table(lab: Lab) -> None:
    def script(actor: Script) -> None:
        actor.storage.sql("CREATE TABLE u(x)")
        raise Oops

    outcomes = await lab.together(put("a"), script, put("b"))
    assert failures(outcomes) == [1]
    with pytest.raises(z0.QueryError, match="no such table"):
        await lab.sql("SELECT * FROM u")
    assert list(await lab.kv()) == ["a", "b"]


KINDS: dict[str, Callable[[int], tuple[bool, bool]]] = {
    "kv": lambda number: (True, False),
    "sql": lambda number: (False, True),
    "both": lambda number: (True, True),
    "kv, then sql": lambda number: (number < 2, number >= 2),
    "sql, then kv": lambda number: (number >= 2, number < 2),
    "kv and sql by turns": lambda number: (number % 2 == 0, number % 2 == 1),
}


@pytest.mark.parametrize("failing", [{0}, {1}, {2}, {3}, {0, 1}, {1, 2}, {0, 3}, {0, 1, 2, 3}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
async def test_messages_that_raise_among_others_lose_their_own_writes_only(
    lab: Lab, kind: str, failing: set[int]
) -> None:
    def message(number: int) -> Callable[[Script], None]:
        in_kv, in_sql = KINDS[kind](number)

        def script(actor: Script) -> None:
            if in_kv:
                actor.storage.put(f"k{number}", 1)
            if in_sql:
                actor.storage.sql("INSERT INTO t VALUES(?)", number)
            if number in failing:
                raise Oops

        return script

    outcomes = await lab.together(*map(message, range(4)))
    assert set(failures(outcomes)) == failing
    kept = [number for number in range(4) if number not in failing]
    in_kv = [f"k{number}" for number in kept if KINDS[kind](number)[0]]
    in_sql = [number for number in kept if KINDS[kind](number)[1]]
    assert await lab.both() == (in_kv, in_sql)


async def test_a_value_that_a_failed_message_replaced_comes_back(lab: Lab) -> None:
    def replace(actor: Script) -> None:
        actor.storage.put("k", "lost")
        actor.storage.delete("other")
        raise Oops

    await lab.run(lambda actor: actor.storage.put("other", "kept"))
    outcomes = await lab.together(lambda actor: actor.storage.put("k", "kept"), replace)
    assert failures(outcomes) == [1]
    assert await lab.kv() == {"k": "kept", "other": "kept"}


async def test_many_failures_in_one_turn_leave_the_others_as_they_are(lab: Lab) -> None:
    scripts = [put(f"k{number:02}", then=Oops() if number % 2 else None) for number in range(60)]
    outcomes = await lab.together(*scripts)
    assert failures(outcomes) == list(range(1, 60, 2))
    assert list(await lab.kv()) == [f"k{number:02}" for number in range(0, 60, 2)]


async def test_what_a_failed_turn_left_is_durable(lab: Lab) -> None:
    await lab.together(both("a", 1), both("b", 2, Oops()), both("c", 3))
    await crash(lab.runtime)
    async with z0.Runtime(lab.runtime.path, clock=VirtualClock(), env=[]) as again:
        assert await Lab(again).both() == (["a", "c"], [1, 3])


async def test_attributes_of_the_actor_are_not_rolled_back(lab: Lab) -> None:
    def script(actor: Script) -> None:
        actor.memory.append(1)
        raise Oops

    await lab.together(script)
    assert await lab.run(lambda actor: actor.memory) == [1]


@pytest.mark.parametrize("inner", [put("inner"), insert(7), both("inner", 7)])
async def test_a_transaction_that_was_taken_back_is_not_repeated_when_a_neighbour_fails(
    lab: Lab, inner: Callable[[Script], None]
) -> None:
    def fail(actor: Script) -> None:
        with actor.storage.transaction():
            inner(actor)
            raise Oops

    def script(actor: Script) -> None:
        actor.storage.put("outer", 1)
        with pytest.raises(Oops):
            fail(actor)

    outcomes = await lab.together(script, put("neighbour", then=Oops()), put("last"))
    assert failures(outcomes) == [1]
    assert await lab.both() == (["last", "outer"], [])


async def test_a_transaction_that_was_kept_is_repeated_when_a_neighbour_fails(lab: Lab) -> None:
    def script(actor: Script) -> None:
        with actor.storage.transaction():
            actor.storage.put("inside", 1)

    outcomes = await lab.together(script, put("neighbour", then=Oops()))
    assert failures(outcomes) == [1]
    assert list(await lab.kv()) == ["inside"]


# The neighbours of a bad statement


async def test_a_violated_constraint_fails_its_own_message_only(lab: Lab) -> None:
    outcomes = await lab.together(insert(1), insert(2, 1), insert(3))
    assert [type(outcome) for outcome in outcomes] == [type(None), z0.ConstraintFailed, type(None)]
    assert await lab.rows() == [1, 3]


async def test_or_ignore_and_or_replace_do_what_they_say(lab: Lab) -> None:
    await lab.together(insert(1), insert(1, 2, by="INSERT OR IGNORE"), insert(1, 3, by="INSERT OR REPLACE"))
    assert sorted(await lab.rows()) == [1, 2, 3]


@pytest.mark.parametrize(
    "statement",
    ["INSERT OR ROLLBACK INTO t VALUES(1)", "INSERT INTO strict VALUES(1)", "INSERT INTO watched VALUES(1)"],
)
async def test_a_statement_that_rolls_the_transaction_back_resets_the_actor_and_nothing_is_half_done(
    lab: Lab, statement: str
) -> None:
    await lab.sql("CREATE TABLE strict(x UNIQUE ON CONFLICT ROLLBACK); INSERT INTO strict VALUES(1)")
    await lab.sql("CREATE TABLE watched(x)")
    await lab.sql("CREATE TRIGGER w BEFORE INSERT ON watched BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
    await lab.run(insert(1))

    def script(actor: Script) -> None:
        actor.storage.put("lost", 1)
        try:
            actor.storage.sql(statement)
        except z0.ConstraintFailed:
            actor.storage.put("must not be", 1)

    outcomes = await lab.together(put("before"), script, put("after"))
    assert [type(outcome) for outcome in outcomes[:2]] == [z0.ActorReset, z0.ActorReset]
    assert set(await lab.kv()) <= {"after"}
    assert (outcomes[2] is None) == ("after" in await lab.kv())
    assert await lab.rows() == [1]


CHILDREN = (
    "CREATE TABLE parent(id INTEGER PRIMARY KEY);CREATE TABLE child(p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
)


def child(number: int, parent: bool = False) -> Callable[[Script], None]:
    def script(actor: Script) -> None:
        actor.storage.put(f"k{number}", 1)
        actor.storage.sql("INSERT INTO child VALUES(?)", number)
        if parent:
            actor.storage.sql("INSERT INTO parent VALUES(?)", number)

    return script


async def test_a_deferred_foreign_key_fails_its_own_message_only(lab: Lab) -> None:
    await lab.sql(CHILDREN)
    outcomes = await lab.together(put("a"), child(1), child(2, parent=True), child(3), put("b"))
    assert failures(outcomes) == [1, 3]
    for number in 1, 3:
        assert isinstance(outcomes[number], z0.QueryError)
        assert "FOREIGN KEY constraint failed" in str(outcomes[number])
    assert list(await lab.kv()) == ["a", "b", "k2"]
    assert await lab.sql("SELECT p FROM child") == [(2,)]


async def test_deferring_foreign_keys_by_pragma_lasts_for_the_message(lab: Lab) -> None:
    await lab.sql("CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE child(p REFERENCES parent)")

    def script(actor: Script) -> None:
        actor.storage.sql("PRAGMA defer_foreign_keys = ON")
        actor.storage.sql("INSERT INTO child VALUES(1)")
        actor.storage.sql("INSERT INTO parent VALUES(1)")

    await lab.run(script)
    assert await lab.sql("SELECT p FROM child") == [(1,)]


async def test_a_deferred_foreign_key_that_is_violated_when_a_handler_waits_fails_it_there(lab: Lab) -> None:
    await lab.sql(CHILDREN)
    left: list[str] = []

    async def script(actor: Script) -> None:
        actor.storage.put("first", 1)
        await asyncio.sleep(0)
        child(1)(actor)
        try:
            await asyncio.sleep(0)
        finally:
            left.append("in order")

    with pytest.raises(z0.QueryError, match="FOREIGN KEY"):
        await lab.run_slowly(script)
    assert left == ["in order"]
    assert list(await lab.kv()) == ["first"]


async def test_a_deferred_foreign_key_that_is_violated_inside_a_block_does_not_wedge_the_actor(lab: Lab) -> None:
    await lab.sql(CHILDREN)

    async def script(actor: Script) -> None:
        async with actor.block():
            child(1)(actor)
            await asyncio.sleep(0)

    with pytest.raises((z0.QueryError, z0.ActorReset)):
        await lab.run_slowly(script)
    async with asyncio.timeout(2):
        assert await lab.kv() == {}


# Writes that belong to no message


class Maker(Script):
    def __init__(self) -> None:
        super().__init__()
        self.storage.sql("CREATE TABLE IF NOT EXISTS made(x)")
        self.storage.put("made", 1)


async def test_what_the_constructor_wrote_stands_when_the_first_message_raises(runtime: z0.Runtime) -> None:
    lab = Lab(runtime, Maker)
    await lab.run(lambda actor: None)
    await lab.sql("DROP TABLE made")
    await lab.run(lambda actor: actor.storage.delete("made"))
    assert await runtime.evict(Maker, "lab")
    with pytest.raises(Oops):
        await lab.run(put("lost", then=Oops()))
    assert await lab.sql("SELECT * FROM made") == []
    assert list(await lab.kv()) == ["made"]


async def test_a_constructor_that_raises_leaves_nothing(runtime: z0.Runtime) -> None:
    class Fussy(Script):
        broken = True

        def __init__(self) -> None:
            super().__init__()
            if self.broken:
                self.storage.put("half", 1)
                raise Oops

    lab = Lab(runtime, Fussy)
    for _ in range(2):
        with pytest.raises(Oops):
            await lab.kv()
    Fussy.broken = False
    assert await lab.kv() == {}
    assert await runtime.evict(Fussy, "lab")


BACKGROUND: dict[str, tuple[Callable[[Script], None], list[str], list[int]]] = {
    "kv": (put("background"), ["background"], []),
    "sql": (insert(7), [], [7]),
    "both": (both("background", 7), ["background"], [7]),
}


@pytest.mark.parametrize("kind", BACKGROUND)
async def test_a_task_of_a_handler_may_write_when_the_handlers_own_writes_are_committed(lab: Lab, kind: str) -> None:
    write, keys, rows = BACKGROUND[kind]

    async def background(actor: Script) -> None:
        await go.wait()
        actor.memory.append("running")
        write(actor)

    def script(actor: Script) -> None:
        actor.storage.put("handler", 1)
        tasks.append(asyncio.create_task(background(actor)))

    go = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    await lab.run(script)
    go.set()
    await tasks[0]
    assert await lab.both() == ([*keys, "handler"], rows)
    assert await lab.run(lambda actor: actor.memory) == ["running"]


@pytest.mark.parametrize("fail", [put("lost", then=Oops()), insert(8, then=Oops()), both("lost", 8, Oops())])
@pytest.mark.parametrize("kind", BACKGROUND)
async def test_what_a_task_of_a_handler_wrote_stands_when_a_message_of_the_same_turn_raises(
    lab: Lab, kind: str, fail: Callable[[Script], None]
) -> None:
    write, keys, rows = BACKGROUND[kind]

    async def background(actor: Script) -> None:
        await go.wait()
        write(actor)

    go = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    await lab.run(lambda actor: tasks.append(asyncio.create_task(background(actor))))
    await asyncio.sleep(0)
    go.set()
    await asyncio.sleep(0)
    assert tasks[0].done()
    with pytest.raises(Oops):
        await lab.run(fail)
    assert await lab.both() == (keys, rows)


# Against a model: random turns of random messages

KEYS = "abc"
Op = tuple[Any, ...]
Ending = Literal["return", "raise", "leak"]

writes_ = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, 99)),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
    st.tuples(st.just("insert"), st.integers(0, 5)),
    st.tuples(st.just("bump"), st.integers(1, 9)),
    st.tuples(st.just("remove"), st.integers(0, 5)),
)
ops = st.recursive(
    writes_ | st.just(("read",)),
    lambda inner: st.tuples(st.just("transaction"), st.lists(inner, max_size=4), st.booleans()),
    max_leaves=6,
)
segments = st.lists(ops, max_size=4)
messages = st.tuples(st.lists(segments, min_size=1, max_size=3), st.sampled_from(["return", "raise", "leak"]))
turns = st.lists(st.tuples(st.booleans(), st.lists(messages, min_size=1, max_size=5)), min_size=1, max_size=4)


class Model:
    """What the actor should keep: pairs, and the rows of a table with unique values."""

    def __init__(self) -> None:
        self.kv: dict[str, int] = {}
        self.rows: dict[int, int] = {}

    def copy(self) -> Model:
        copy = Model()
        copy.kv, copy.rows = dict(self.kv), dict(self.rows)
        return copy

    def become(self, other: Model) -> None:
        self.kv, self.rows = other.kv, other.rows

    def apply(self, op: Op) -> None:
        match op:
            case ("put", key, value):
                self.kv[key] = value
            case ("delete", key):
                self.kv.pop(key, None)
            case ("insert", row):
                if row in self.rows:
                    raise Oops
                self.rows[row] = 0
            case ("bump", by):
                self.rows = {row: value + by for row, value in self.rows.items()}
            case ("remove", row):
                self.rows.pop(row, None)


def perform(actor: Any, model: Model, op: Op) -> None:
    """Do it to the actor's storage, then to the model."""
    match op:
        case ("put", key, value):
            actor.storage.put(key, value)
        case ("delete", key):
            actor.storage.delete(key)
        case ("insert", row):
            actor.storage.sql("INSERT INTO t VALUES(?, 0)", row)
        case ("bump", by):
            actor.storage.sql("UPDATE t SET n = n + ?", by)
        case ("remove", row):
            actor.storage.sql("DELETE FROM t WHERE x = ?", row)
        case ("read",):
            assert state(actor) == (model.kv, model.rows)
        case ("transaction", inner, fails):
            before = model.copy()
            try:
                with actor.storage.transaction():
                    for each in inner:
                        perform(actor, model, each)
                    if fails:
                        raise Oops
            except (Oops, z0.ConstraintFailed):
                model.become(before)
    model.apply(op)


def state(actor: Any) -> tuple[dict[str, int], dict[int, int]]:
    return actor.storage.list(), dict(actor.storage.sql("SELECT x, n FROM t").all())


def end(how: Ending) -> object:
    if how == "raise":
        raise Oops
    return object() if how == "leak" else None


def as_message(model: Model, body: list[list[Op]], how: Ending) -> Callable[[Any], Any]:
    """One segment: a function that takes the model back when it fails, as the actor should its storage."""

    def script(actor: Any) -> object:
        before = model.copy()
        try:
            for op in body[0]:
                perform(actor, model, op)
            return end(how)
        except BaseException:
            model.become(before)
            raise
        finally:
            if how == "leak":
                model.become(before)

    async def script_with_waits(actor: Any) -> object:
        for segment in body:
            before = model.copy()
            try:
                for op in segment:
                    perform(actor, model, op)
            except BaseException:
                model.become(before)
                raise
            if segment is not body[-1]:
                await asyncio.sleep(0)
        if how != "return":
            model.become(before)
        return end(how)

    return script if len(body) == 1 else script_with_waits


async def send(lab: Lab, script: Callable[[Any], Any], waits: bool) -> object:
    """The reply, or the error."""
    try:
        return await (lab.run_slowly(script) if waits else lab.run(script))
    except Exception as error:
        return error


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=turns, restart=st.sampled_from(["go on", "evict", "crash"]))
@example(program=[(True, [([[("insert", 1)]], "return"), ([[("put", "a", 1)]], "raise")])], restart="crash")
@example(program=[(True, [([[("put", "a", 1)]], "raise"), ([[("insert", 1)]], "raise")])], restart="crash")
async def test_whatever_messages_share_a_turn_and_fail_the_actor_keeps_what_the_model_keeps(
    program: list[tuple[bool, list[tuple[list[list[Op]], Ending]]]], restart: str
) -> None:
    model = Model()
    async with temporary_runtime(memory=True, clock=VirtualClock(), env=[]) as runtime:
        lab = Lab(runtime)
        await lab.sql("CREATE TABLE t(x UNIQUE, n)")
        for together, turn in program:
            calls = [send(lab, as_message(model, body, how), len(body) > 1) for body, how in turn]
            outcomes = await asyncio.gather(*calls) if together else [await call for call in calls]
            for (_, how), outcome in zip(turn, outcomes, strict=True):
                assert isinstance(outcome, (type(None), Oops, z0.ConstraintFailed, z0.InvalidMessage)), repr(outcome)
                assert outcome is not None or how == "return"
            assert await lab.run(state) == (model.kv, model.rows)
        if restart == "evict":
            assert await runtime.evict(Script, "lab")
            assert await lab.run(state) == (model.kv, model.rows)
        elif restart == "crash":
            await crash(runtime)
            async with z0.Runtime(runtime.path, clock=VirtualClock(), env=[]) as again:
                assert await Lab(again).run(state) == (model.kv, model.rows)
