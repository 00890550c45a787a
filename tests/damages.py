"""What can happen to a file while nobody looks: damages to an actor's file, chosen and placed by a seed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

PAGE = 4_096


class Files(NamedTuple):
    """The file to be damaged, and what it can be taken for."""

    file: Path
    other: Path
    """The file of another actor, of the same class and directory."""
    older: Path
    """A copy of the file, and of its WAL, as they once were."""

    @property
    def wal(self) -> Path:
        return wal_of(self.file)


def wal_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _change(path: Path, chance: random.Random, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    if content:
        change(content)
    path.write_bytes(content)


def _flip(path: Path, chance: random.Random) -> None:
    def change(content: bytearray) -> None:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)

    _change(path, chance, change)


def _cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size or 1))


def _blank(path: Path, chance: random.Random) -> None:
    """A page, or a part of one, of zeros or of anything."""

    def change(content: bytearray) -> None:
        start = chance.randrange(0, len(content), 512)
        length = min(chance.choice((512, PAGE)), len(content) - start)
        content[start : start + length] = bytes(length) if chance.random() < 0.5 else chance.randbytes(length)

    _change(path, chance, change)


def _noise(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.randrange(20_000)))


def _swap(path: Path, chance: random.Random) -> None:
    """One page in the place of another."""

    def change(content: bytearray) -> None:
        one, other = (PAGE * chance.randrange(len(content) // PAGE or 1) for _ in range(2))
        content[one : one + PAGE], content[other : other + PAGE] = (
            content[other : other + PAGE],
            content[one : one + PAGE],
        )

    _change(path, chance, change)


def _replace(file: Path, by: Path | None) -> None:
    """Another file in its place, with its WAL."""
    for path in (file, wal_of(file)):
        path.unlink(missing_ok=True)
    if by is not None:
        shutil.copy(by, file)
        if wal_of(by).exists():
            shutil.copy(wal_of(by), wal_of(file))


def _edit(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def _foreign(files: Files, chance: random.Random) -> None:
    _replace(files.file, None)
    _edit(files.file, "CREATE TABLE customers(name)", "INSERT INTO customers VALUES('Ada')")


def _newer(files: Files, chance: random.Random) -> None:
    value = chance.choice(["99", "'two'", "NULL", "2.5", "x'02'"])
    _edit(files.file, f"UPDATE z0_meta SET value = {value} WHERE key = 'schema'")


def _value(files: Files, chance: random.Random) -> None:
    """Some value of a table of ours is another one, of any type."""
    with closing(sqlite3.connect(files.file)) as connection, connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        table = chance.choice(tables)
        column = chance.choice([name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")])
        value = chance.choice(["NULL", "7", "-1", "2.5", "'text'", "x'ff00'", "CAST(x'61ff' AS TEXT)", "''", "'{'"])
        one = f"(SELECT {column} FROM {table} ORDER BY random() LIMIT 1)"
        with suppress(sqlite3.IntegrityError):
            connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {column} IS {one}")
        for _, statement in triggers:
            connection.execute(statement)


def _folder(files: Files, chance: random.Random) -> None:
    target = chance.choice((files.file, files.wal))
    target.unlink(missing_ok=True)
    target.mkdir()


def _pipe(files: Files, chance: random.Random) -> None:
    target = chance.choice((files.file, files.wal))
    target.unlink(missing_ok=True)
    os.mkfifo(target)


def _link(files: Files, chance: random.Random) -> None:
    target = chance.choice((files.file, files.wal))
    target.unlink(missing_ok=True)
    target.symlink_to(chance.choice((files.other, files.other.with_name("nowhere"))))


def _in_either(damage: Callable[[Path, random.Random], None]) -> Callable[[Files, random.Random], None]:
    def either(files: Files, chance: random.Random) -> None:
        there = [path for path in (files.file, files.wal) if path.exists()]
        damage(chance.choice(there), chance)

    return either


DAMAGES: dict[str, Callable[[Files, random.Random], None]] = {
    "a bit flipped": _in_either(_flip),
    "cut off": _in_either(_cut),
    "a page overwritten": _in_either(_blank),
    "pages swapped": _in_either(_swap),
    "emptied": _in_either(lambda path, chance: os.truncate(path, 0)),
    "random bytes": _in_either(_noise),
    "the WAL of another actor": lambda files, chance: _take(wal_of(files.other), files.wal),
    "the WAL gone": lambda files, chance: files.wal.unlink(missing_ok=True),
    "a former WAL": lambda files, chance: _take(wal_of(files.older), files.wal),
    "another actor's file": lambda files, chance: _replace(files.file, files.other),
    "a former copy": lambda files, chance: _replace(files.file, files.older),
    "a database of another program": _foreign,
    "another schema": _newer,
    "another value": _value,
    "a folder": _folder,
    "a pipe": _pipe,
    "a link": _link,
    "gone": lambda files, chance: _replace(files.file, None),
}
OTHERS = {"another actor's file", "a link"}
"""Nothing is wrong with what can be read there, but that it is another actor's."""
OLDER = {"the WAL gone", "a former WAL", "a former copy"}
"""After these the file may be as it once was, which one file alone cannot tell."""
COMMON = ("a bit flipped", "cut off", "a page overwritten", "pages swapped", "another value")


def _take(source: Path, target: Path) -> None:
    if source.exists():
        shutil.copy(source, target)


def damage(files: Files, seed: int) -> str:
    """Damage a file; which way. Half of the seeds flip bits, cut off or overwrite, somewhere."""
    chance = random.Random(seed)
    name = chance.choice(COMMON) if seed % 2 else list(DAMAGES)[seed // 2 % len(DAMAGES)]
    DAMAGES[name](files, chance)
    return name
