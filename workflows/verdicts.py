"""What branches came to, and what was given up for it; and how it is when that must be found out anew. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from z0.actors import codec

from .keys import around, is_below

if TYPE_CHECKING:
    from .history import History, Record
    from .lifecycle import Child

KINDS = ("all", "race")
"""The steps that come to one."""


class Verdict(msgspec.Struct, frozen=True):
    """What the branches came to."""

    decided: int
    """The branch that won, or that failed them all."""
    lost: list[int]
    """Those that were under way then, and were given up; those behind the last that was begun never were."""
    begun: int


class GivenUp(msgspec.Struct, frozen=True):
    """What a step waited for when others had won."""

    verdict: str
    """The key of what they won."""
    due: int | None
    child: Child | None


def verdict_of(value: bytes) -> Verdict:
    """The verdict that is stored so."""
    return msgspec.convert(codec.decode(value), Verdict)


def orphan(history: History, keys: list[str], *, rollback: bool) -> None:
    """Nobody waits for the children of these steps any more: they are to be told."""
    for key in keys:
        record = history.records[key]
        if record.child is not None and not record.done and not record.child.outlives:
            history.orphans[record.child] = rollback


def close(history: History, verdict: str, keys: list[str]) -> None:
    """What these steps wait for is waited for no more: others have won."""
    known = [key for key in keys if key in history.records]
    orphan(history, known, rollback=False)
    for key in known:
        record: Record = history.records[key]
        if record.given_up is None:
            record.given_up = GivenUp(verdict, record.due, record.child)
        history.shut(record)
        record.type = record.child = None


def reopen(history: History, key: str) -> None:
    """Forget what these branches came to: those that were given up for it go on where they were."""
    history.forget(history.records[key])
    for record in history.below(key):
        given_up = record.given_up
        if given_up is None or given_up.verdict != key:
            continue
        record.given_up = None
        if record.kind == "wait":  # its event may have come by now
            history.forget(record)
            continue
        record.due, record.child = given_up.due, given_up.child
        if record.due is not None or record.child is not None:
            history.open[record.key] = record
        if record.child is not None:
            record.again += 1  # it may have been told that nobody waits for it
            history.orphans.pop(record.child, None)


def led_to(history: History, step: str) -> list[str]:
    """The verdicts on branches around the step whose deciding one it stands in, and on such as stand in it."""
    outer = [key for key in around(step) if is_below(step, _deciding(history, key))]
    inner = [each.key for each in history.below(step) if _failed(history, each)]
    return outer + inner


def decided(history: History, keys: Iterable[str]) -> list[str]:
    """Those of the keys that have a verdict."""
    return [key for key in keys if _deciding(history, key)]


def _deciding(history: History, key: str) -> str:
    """The key of the branch that decided; "": there are no such branches, or it is open."""
    record = history.records.get(key)
    if record is None or record.kind not in KINDS or record.value is None:
        return ""
    return f"{key}/{verdict_of(record.value).decided}"


def _failed(history: History, record: Record) -> bool:
    """Whether the branches came to their verdict by something that failed."""
    branch = _deciding(history, record.key)
    if not branch or record.kind == "all":
        return bool(branch)
    return any(each.failure is not None and is_below(each.key, branch) for each in history.below(record.key))
