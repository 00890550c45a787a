"""The side of DBOS, on SQLite: steps of sync and async workflows, whole workflows, many at once.

It runs with DBOS' own settings, which are SQLite's defaults: a rollback journal and synchronous=FULL. With "wal" as its
mode the database is in WAL mode before DBOS opens it, as z0's files are; synchronous is FULL then as well.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from importlib import metadata
from pathlib import Path

from turns import answer, bare_table, insert, next_order, now_ns

try:  # DBOS needs SQLite >= 3.42
    sys.modules["sqlite3"] = importlib.import_module("pysqlite3")
    sys.modules["sqlite3.dbapi2"] = importlib.import_module("pysqlite3.dbapi2")
except ModuleNotFoundError:
    pass

import sqlite3

from dbos import DBOS
from dbos._dbos import _get_dbos_instance

LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")
samples: list[int] = []


@DBOS.step()
def nothing() -> int:
    """What a step does: what is measured is the step."""
    return 1


@DBOS.step()
async def nothing_async() -> int:
    """The same."""
    return 1


@DBOS.workflow()
def steps(count: int) -> int:
    """Take so many steps."""
    for _ in range(count):
        start = now_ns()
        nothing()
        samples.append(now_ns() - start)
    return count


@DBOS.workflow()
async def steps_async(count: int) -> int:
    """Take so many steps."""
    for _ in range(count):
        start = now_ns()
        await nothing_async()
        samples.append(now_ns() - start)
    return count


async def _many(count: int) -> None:
    await asyncio.gather(*(steps_async(count) for _ in range(64)))


def take(turn: str, count: int, bare: sqlite3.Connection, runner: asyncio.Runner) -> list[int]:
    """What each operation of the turn took."""
    samples.clear()
    start = now_ns()
    match turn:
        case "insert":
            return list(insert(bare.execute, count))
        case "step":
            steps(count)
            return list(samples)
        case "async step":
            runner.run(steps_async(count))
            return list(samples)
        case "workflow":
            steps(count)
            return [now_ns() - start]
        case "64":
            runner.run(_many(count))
            return []
        case _:
            raise ValueError(turn)


def main(folder: Path, warm: int, mode: str) -> None:
    """Launch DBOS; then take turns."""
    file = folder / "dbos.sqlite"
    if mode == "wal":
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
    config = {"name": "bench", "system_database_url": f"sqlite:///{file}", "run_admin_server": False}
    DBOS(config={**config, "log_level": "ERROR"})
    DBOS.launch()
    bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    bare_table(lambda sql: bare.execute(sql).fetchall())
    with asyncio.Runner() as runner:
        for turn, count in (("insert", warm), ("step", warm // 20), ("async step", 10)):
            take(turn, count, bare, runner)
        answer({"engine": f"DBOS {metadata.version('dbos')}, SQLite {sqlite3.sqlite_version}", "durability": _said()})
        while order := next_order():
            start = now_ns()
            found = take(order[0], order[1], bare, runner)
            answer({"elapsed_ns": now_ns() - start, "samples": found})
    DBOS.destroy()


def _said() -> str:
    """What a connection of DBOS' own says that its settings are."""
    with _get_dbos_instance()._sys_db.engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    return f"journal_mode={mode}, synchronous={LEVELS[level]}; one file for all"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
