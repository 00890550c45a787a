"""The chain of hashes is what the format says, and no change of a file escapes it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import z0
from z0.actors.names import file_path
from z0.testing import VirtualClock, temporary_runtime

FACTS = 8
COLUMNS = (
    "seq", "type", "subtype", "timestamp", "tenant_id", "entity_id", "source_id", "from_entity", "to_entity", "amount",
    "currency", "config_id", "config_version", "trace_id", "external_source", "external_id", "idempotency_key", "data",
    "hash",
)  # fmt: skip
INTEGERS = ("seq", "timestamp", "amount", "config_version")
TRIGGERS = ("z0_facts_no_update", "z0_facts_no_delete", "z0_facts_append_only")


class Book(z0.Entity):
    """Takes any fact."""

    accepts = {"*"}

    async def verify_inside(self) -> z0.Verification:
        return self.ledger.verify()


def hashed(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=32).digest()


def pack(values: Any) -> bytes:
    return msgspec.msgpack.encode(list(values))


def file_of(data: Path, name: str = "b", tenant: str = "default") -> Path:
    return data / file_path(tenant, "Book", name)


async def fill(book: Book, count: int = FACTS) -> list[z0.Fact]:
    """Facts that together use every column."""
    optional = [name for name in COLUMNS[2:17] if name not in ("timestamp", "tenant_id", "entity_id")]
    facts = []
    for n in range(count):
        given_: dict[str, Any] = {name: f"{name} {n}" for number, name in enumerate(optional) if (n + number) % 3}
        given_ |= {"amount": (-1) ** n * n, "config_version": n, "data": {"ü": [n, None, 0.5]}}
        facts.append(await book.append(f"type {n}", **given_))
    return facts


# The format, computed from its description alone


@pytest.mark.parametrize("tenant", ["default", "t1"])
async def test_the_chain_is_what_the_format_says(tenant: str) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        book = runtime.tenant(tenant).get(Book, "b/ü")
        assert (await book.verify()).head == hashed(pack([1, tenant, "Book", "b/ü"]))
        facts = await fill(book)
        assert await runtime.tenant(tenant).evict(Book, "b/ü")
        head = hashed(pack([1, tenant, "Book", "b/ü"]))
        with closing(sqlite3.connect(file_of(runtime.path, "b/ü", tenant))) as file:
            rows = file.execute("SELECT * FROM facts ORDER BY seq").fetchall()
            assert tuple(name for _, name, *_ in file.execute("PRAGMA table_info(facts)")) == COLUMNS
        for row, fact in zip(rows, facts, strict=True):
            head = hashed(head, pack(row[:-1]))
            assert row[-1] == fact.hash == head
        verified = await book.verify()
        assert verified == await book.verify_inside() == z0.Verification(facts=FACTS, head=head)


async def test_the_same_facts_elsewhere_have_other_hashes() -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        entities = [runtime.get(Book, "a"), runtime.get(Book, "b"), runtime.tenant("t").get(Book, "a")]
        hashes = {(await entity.append("x")).hash for entity in entities}
        assert len(hashes) == 3


async def test_a_long_chain_is_verified_in_steps_while_others_run() -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        book = runtime.get(Book, "b")
        for _ in range(5):
            await book.append_many([{"type": "x"}] * 1_000)
        verified = await book.verify()
        assert (verified.facts, verified.head) == (5_000, (await book.get_fact(5_000)).hash)  # type: ignore[union-attr]


# Tampering


def strip(file: sqlite3.Connection | apsw.Connection) -> None:
    """Take away what the file defends itself with, as somebody who wants to change it would."""
    for trigger in TRIGGERS:
        file.execute(f"DROP TRIGGER {trigger}")


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as file:
        strip(file)
        yield file
        file.commit()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one ledger, closed."""
    path = tmp_path_factory.mktemp("chain") / "data"
    async with z0.Runtime(path, clock=VirtualClock()) as runtime:
        await fill(runtime.get(Book, "b"))
    return path


async def first_bad_seq(original: Path, tamper: Callable[[sqlite3.Connection], object]) -> int | None:
    """What verify finds in a copy of the directory that was tampered with."""
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        target = file_of(runtime.path)
        target.parent.mkdir(parents=True)
        shutil.copy(file_of(original), target)
        with opened(target) as file:
            tamper(file)
        found = []
        for verify in (runtime.get(Book, "b").verify, runtime.get(Book, "b").verify_inside):
            try:
                await verify()
            except z0.LedgerCorrupt as error:
                found.append(error.seq)
        assert len(found) in (0, 2)
        assert len(set(found)) < 2
        return found[0] if found else None


async def test_an_untouched_copy_holds(original: Path) -> None:
    assert await first_bad_seq(original, lambda file: None) is None


values = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.binary(max_size=3)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, FACTS), st.sampled_from(COLUMNS[1:]), values)
async def test_a_changed_column_is_found(original: Path, seq: int, column: str, value: Any) -> None:
    def tamper(file: sqlite3.Connection) -> None:
        select = f"SELECT {column}, typeof({column}) FROM facts WHERE seq = ?"
        before = file.execute(select, (seq,)).fetchone()
        try:
            file.execute(f"UPDATE facts SET {column} = ? WHERE seq = ?", (value, seq))
        except sqlite3.IntegrityError:  # NOT NULL, or a key that is taken
            assume(False)
        assume(file.execute(select, (seq,)).fetchone() != before)

    assert await first_bad_seq(original, tamper) == seq


@pytest.mark.parametrize("column", [name for name in COLUMNS[:-1] if name not in INTEGERS])
async def test_text_that_is_no_text_is_found(original: Path, column: str) -> None:
    sql = f"UPDATE facts SET {column} = CAST(x'61ff' AS TEXT) WHERE seq = 3"
    assert await first_bad_seq(original, lambda file: file.execute(sql)) == 3


@pytest.mark.parametrize("seq", range(1, FACTS))
async def test_a_deleted_row_is_found(original: Path, seq: int) -> None:
    assert await first_bad_seq(original, lambda file: file.execute("DELETE FROM facts WHERE seq = ?", (seq,))) == seq


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_swapped_rows_are_found(original: Path, data: st.DataObject) -> None:
    one, other = data.draw(st.lists(st.integers(1, FACTS), min_size=2, max_size=2, unique=True))

    def tamper(file: sqlite3.Connection) -> None:
        file.execute("UPDATE facts SET seq = -1 WHERE seq = ?", (one,))
        file.execute("UPDATE facts SET seq = ? WHERE seq = ?", (one, other))
        file.execute("UPDATE facts SET seq = ? WHERE seq = -1", (other,))

    assert await first_bad_seq(original, tamper) == min(one, other)


@pytest.mark.parametrize("seq", [-5, 0])
async def test_a_row_before_the_first_is_found(original: Path, seq: int) -> None:
    columns = "seq, type, timestamp, tenant_id, entity_id, hash"
    sql = f"INSERT INTO facts({columns}) VALUES({seq}, 'x', 1, 'default', 'b', x'00')"
    assert await first_bad_seq(original, lambda file: file.execute(sql)) is not None


@pytest.mark.parametrize("copied", range(1, FACTS + 1))
async def test_a_row_after_the_last_is_found(original: Path, copied: int) -> None:
    columns = ", ".join(name for name in COLUMNS if name not in ("seq", "idempotency_key"))
    sql = f"INSERT INTO facts({columns}) SELECT {columns} FROM facts WHERE seq = {copied}"
    assert await first_bad_seq(original, lambda file: file.execute(sql)) == FACTS + 1


async def test_a_chain_mended_with_new_hashes_still_has_another_head(original: Path) -> None:
    """Whoever can recompute hashes can forge a file, but not the head that somebody has noted elsewhere."""

    def tamper(file: sqlite3.Connection) -> None:
        file.execute("UPDATE facts SET amount = 999 WHERE seq = 3")
        head = hashed(pack([1, "default", "Book", "b"]))
        for row in file.execute("SELECT * FROM facts ORDER BY seq").fetchall():
            head = hashed(head, pack(row[:-1]))
            file.execute("UPDATE facts SET hash = ? WHERE seq = ?", (head, row[0]))

    assert await first_bad_seq(original, tamper) is None
    with closing(sqlite3.connect(file_of(original))) as file:
        noted = file.execute("SELECT hash FROM facts WHERE seq = ?", (FACTS,)).fetchone()[0]
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        target = file_of(runtime.path)
        target.parent.mkdir(parents=True)
        shutil.copy(file_of(original), target)
        with opened(target) as file:
            tamper(file)
        assert (await runtime.get(Book, "b").verify()).head != noted


# Tampering with the file of a live entity


@pytest.fixture
async def live() -> AsyncIterator[tuple[Book, apsw.Connection]]:
    """An entity in memory, and a foreign connection to its file (of the same library, for the sake of its locks)."""
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        book = runtime.get(Book, "b")
        await fill(book)
        connection = apsw.Connection(str(file_of(runtime.path)))
        strip(connection)
        try:
            yield book, connection
        finally:
            connection.close()


@pytest.mark.parametrize("tail", range(1, FACTS + 1))
async def test_a_truncated_tail_is_found_by_the_live_entity(live: tuple[Book, apsw.Connection], tail: int) -> None:
    book, file = live
    file.execute("DELETE FROM facts WHERE seq >= ?", (tail,))
    for verify in (book.verify, book.verify_inside):
        with pytest.raises(z0.LedgerCorrupt) as caught:
            await verify()
        assert caught.value.seq == tail


async def test_a_row_behind_the_head_is_found_by_the_live_entity(live: tuple[Book, apsw.Connection]) -> None:
    book, file = live
    file.execute("INSERT INTO facts(type, timestamp, tenant_id, entity_id, hash) VALUES('x', 1, 'default', 'b', x'00')")
    with pytest.raises(z0.LedgerCorrupt) as caught:
        await book.verify()
    assert caught.value.seq == FACTS + 1


async def test_an_append_that_meets_a_foreign_row_is_refused_with_a_typed_error(
    live: tuple[Book, apsw.Connection],
) -> None:
    book, file = live
    file.execute("INSERT INTO facts(type, timestamp, tenant_id, entity_id, hash) VALUES('x', 1, 'default', 'b', x'00')")
    for _ in range(2):
        with pytest.raises(z0.Z0Error):
            await book.append("y", idempotency_key="k")
    assert await book.count_facts(type="y") == 0


async def test_a_forged_head_is_found_by_the_live_entity(live: tuple[Book, apsw.Connection]) -> None:
    book, file = live
    head = (await book.get_fact(FACTS - 1)).hash  # type: ignore[union-attr]
    row = file.execute("SELECT * FROM facts WHERE seq = ?", (FACTS,)).fetchone()
    assert isinstance(row, tuple)
    forged = [*row[:-1]]
    forged[9] = 999
    file.execute("UPDATE facts SET amount = 999, hash = ? WHERE seq = ?", (hashed(head, pack(forged)), FACTS))
    with pytest.raises(z0.LedgerCorrupt, match="not the head") as caught:
        await book.verify()
    assert caught.value.seq == FACTS


async def test_a_damaged_fact_is_named_in_the_error(live: tuple[Book, apsw.Connection]) -> None:
    book, file = live
    file.execute("UPDATE facts SET amount = amount + 1 WHERE seq = 4")
    with pytest.raises(z0.LedgerCorrupt, match=r"Book/b: fact 4 does not match its hash; restore") as caught:
        await book.verify()
    assert not caught.value.retryable
    assert (await book.append("x")).seq == FACTS + 1  # finding damage does not stop the entity
