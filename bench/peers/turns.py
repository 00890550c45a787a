"""What both sides of a comparison share: how a player is told to take a turn, and the bare row beside it.

A player is a process that waits until it is told to take one of its turns, takes it, and says how long each operation
took. So engines that cannot share a process or an environment still run in turn, within a second of each other. Needs
nothing but the standard library, for each player has its own.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

now_ns = time.perf_counter_ns

TABLE = "CREATE TABLE bare(seq INTEGER PRIMARY KEY, at INTEGER, key TEXT UNIQUE, value TEXT)"
INSERT = "INSERT INTO bare VALUES(NULL, ?, ?, ?)"
PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
VALUE = "x" * 200

_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what an engine prints is no answer


def answer(message: dict[str, Any]) -> None:
    """Tell the one who gives the orders."""
    _answers.write(json.dumps(message) + "\n")
    _answers.flush()


def next_order() -> tuple[str, int] | None:
    """Which turn to take, and how many operations; None: no more. Blocks. The heap is collected and frozen."""
    line = sys.stdin.readline()
    if not line:
        return None
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    order = json.loads(line)
    return order["turn"], order["count"]


def bare_table(execute: Callable[[str], Any]) -> None:
    """Make the table of the bare side, in a file that syncs each commit."""
    for sql in (*PRAGMAS, TABLE):
        execute(sql)


def insert(execute: Callable[[str, tuple[Any, ...]], Any], count: int) -> list[int]:
    """Durable rows, one transaction each: what each took. Keys are random, as those of payments are."""
    samples = []
    for _ in range(count):
        row = (time.time_ns() // 1000, os.urandom(16).hex(), VALUE)
        start = now_ns()
        execute(INSERT, row)
        samples.append(now_ns() - start)
    return samples
