"""The bare things that z0 is compared with: apsw and the same row, the disk and one block."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import apsw
import msgspec

from .workload import FactRow

FACTS_COLUMNS = (
    "seq INTEGER PRIMARY KEY",
    "type TEXT",
    "subtype TEXT",
    "timestamp INTEGER",
    "tenant_id TEXT",
    "entity_id TEXT",
    "source_id TEXT",
    "from_entity TEXT",
    "to_entity TEXT",
    "amount INTEGER",
    "currency TEXT",
    "config_id TEXT",
    "config_version INTEGER",
    "trace_id TEXT",
    "external_source TEXT",
    "external_id TEXT",
    "idempotency_key TEXT",
    "data TEXT",
    "hash BLOB",
)
FACTS_DDL = (
    f"CREATE TABLE facts({', '.join(FACTS_COLUMNS)}); "
    "CREATE UNIQUE INDEX facts_idempotency_key ON facts(idempotency_key) WHERE idempotency_key IS NOT NULL"
)
INSERT = f"INSERT INTO facts VALUES ({', '.join('?' * len(FACTS_COLUMNS))})"
BLOCK_BYTES = 4096
BLOCKS = 256
CHECKPOINT_PAGES = 1000  # SQLite's default; said aloud because apsw's users may have changed it


class BareLedger:
    """The same table and unique index, written by autocommit, with SQLite's default checkpointing."""

    def __init__(self, path: Path, *, synchronous: str = "FULL") -> None:
        self.path = path
        self.connection = open_bare(path, synchronous=synchronous)
        self.connection.execute(f"BEGIN; {FACTS_DDL}; COMMIT")
        self.head = 0

    def insert(self, row: FactRow) -> None:
        """One durable fact."""
        self.connection.execute(INSERT, row)

    def insert_many(self, rows: list[FactRow]) -> None:
        """Many facts in one transaction."""
        with self.connection:
            self.connection.executemany(INSERT, rows)

    def close(self) -> None:
        """Checkpoint and close the file."""
        self.connection.close()


def open_bare(path: Path, *, synchronous: str = "FULL") -> apsw.Connection:
    """A connection with the pragmas that both sides use: WAL, normal locking, 4 KiB pages."""
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA page_size = {BLOCK_BYTES}").fetchall()
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(f"PRAGMA synchronous = {synchronous}").fetchall()
    connection.wal_autocheckpoint(CHECKPOINT_PAGES)
    return connection


def open_and_read(path: Path, seq: int) -> apsw.Connection:
    """The bare counterpart of a cold read: open a file that is in WAL mode and read one fact."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA synchronous = FULL").fetchall()
    row = connection.execute("SELECT * FROM facts WHERE seq = ?", (seq,)).fetchone()
    assert row is not None, f"{path} has no fact {seq}"
    return connection


def create_and_insert(path: Path, row: FactRow) -> BareLedger:
    """The bare counterpart of a first ever append: create the file with its table and write one fact."""
    ledger = BareLedger(path)
    ledger.insert(row)
    return ledger


def fold_rows(connection: apsw.Connection) -> int:
    """Read every column of every fact and add up the deposits."""
    amount = 0
    for row in connection.execute("SELECT * FROM facts ORDER BY seq"):
        if row[1] == "deposit":
            amount += row[9]
    return amount


def hash_rows(connection: apsw.Connection) -> bytes:
    """Read every column of every fact and chain a hash over them."""
    encode = msgspec.msgpack.encode
    head = bytes(32)
    row: tuple[Any, ...]
    for row in connection.execute("SELECT * FROM facts ORDER BY seq"):
        head = hashlib.blake2b(head + encode(row[:-1]), digest_size=32).digest()
    return head


class Blocks:
    """A file of allocated blocks, overwritten one at a time with fdatasync: what the disk itself takes."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self._fd, bytes(BLOCK_BYTES * BLOCKS))
        os.fsync(self._fd)
        self._block = os.urandom(BLOCK_BYTES)
        self._next = 0

    def overwrite(self) -> None:
        """Overwrite the next block and make it durable."""
        os.pwrite(self._fd, self._block, self._next * BLOCK_BYTES)
        getattr(os, "fdatasync", os.fsync)(self._fd)
        self._next = (self._next + 1) % BLOCKS

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def sqlite_version() -> str:
    """The version of the SQLite library inside apsw."""
    return apsw.sqlite_lib_version()
