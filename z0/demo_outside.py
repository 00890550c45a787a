"""The world outside z0, as far as the demo has one: a postbox, and notes of what was run. Both are files of lines.

A note is made outside of all transactions, so that it tells what really ran, and a kill takes none of them back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from z0.workflows.steps import StepContext

T = TypeVar("T")


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """A callback of a step was run; or (`killed`) its process killed itself in it."""

    instance: str
    step: str
    process: int
    killed: bool = False


class Letter(msgspec.Struct, frozen=True):
    """An invoice as it was sent; `key` is of the step that sent it."""

    key: str
    invoice: str
    account: str
    amount: int
    currency: str


class Outside:
    """The files are in `folder`. A process with `kills`, the id of an instance, dies where that one comes to `die`."""

    def __init__(self, folder: Path, kills: str | None = None) -> None:
        """Makes the folder. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._calls = folder / "calls.jsonl"
        self._letters = folder / "letters.jsonl"
        self._kills = kills

    def called(self, ctx: StepContext) -> None:
        """A step's callback begins."""
        _add(self._calls, Call(ctx.instance_id, ctx.name, os.getpid()))

    def die(self, ctx: StepContext) -> None:
        """Leave a note and kill this process, if it is to be killed."""
        if ctx.instance_id == self._kills:
            _add(self._calls, Call(ctx.instance_id, ctx.name, os.getpid(), killed=True))
            os.kill(os.getpid(), signal.SIGKILL)

    def send(self, letter: Letter) -> None:
        """Post a letter. As any good service it takes each key once."""
        if all(letter.key != sent.key for sent in _lines(self._letters, Letter)):
            _add(self._letters, letter)

    def calls(self, instance: str) -> list[Call]:
        """What was run of an instance, in order."""
        return [call for call in _lines(self._calls, Call) if call.instance == instance]

    def letters(self, invoice: str) -> list[Letter]:
        """What was sent of an invoice."""
        return [letter for letter in _lines(self._letters, Letter) if letter.invoice == invoice]


def _add(path: Path, what: Any) -> None:
    """In one write, which a kill cannot cut; a line that a power cut has torn stays alone."""
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + msgspec.json.encode(what) + b"\n")


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    """All lines that are whole."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield msgspec.json.decode(line, type=kind)
        except msgspec.MsgspecError:  # torn
            continue
