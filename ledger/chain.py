"""The hash chain: each fact's hash covers its columns and its predecessor's hash. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import msgspec

from .errors import LedgerCorrupt

FORMAT = 1
"""Version of the chain's format; part of the genesis hash."""

encode = msgspec.msgpack.Encoder().encode


class Verification(msgspec.Struct, frozen=True):
    """A ledger whose chain holds."""

    facts: int
    head: bytes
    """Hash of the last fact; of the genesis when there is none."""


def genesis(tenant: str, namespace: str, name: str) -> bytes:
    """What stands before the first fact: so a ledger cannot pass for another entity's."""
    return blake2b(encode((FORMAT, tenant, namespace, name)), digest_size=32).digest()


def link(previous: bytes, columns: tuple[Any, ...]) -> bytes:
    """The hash of a fact: of the predecessor's hash and the msgpack array of the stored columns but `hash`."""
    return blake2b(previous + encode(columns), digest_size=32).digest()


def follow(rows: Iterable[tuple[Any, ...]], head: bytes, entity: str, seq: int = 0) -> tuple[int, bytes]:
    """Check rows that come after fact `seq` with hash `head`; seq and hash of the last.

    Raises LedgerCorrupt with the first bad seq.
    """
    for row in rows:
        seq += 1
        if row[0] != seq:
            raise LedgerCorrupt(entity, seq, f"is missing (the next one is {row[0]})")
        head = link(head, row[:-1])
        if head != row[-1]:
            raise LedgerCorrupt(entity, seq, "does not match its hash")
    return seq, head
