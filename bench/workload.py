"""The entity, the actor and the facts of every case: the full field set of a payment, with random keys.

Monotone idempotency keys would flatter the unique index, so they are random; the amounts and parties follow
the seed.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import msgspec

import z0

from .measure import now_ns

Fields = dict[str, Any]
FactRow = tuple[Any, ...]


class Balance(z0.Projection):
    """What the entity folds from its facts."""

    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        """Deposits raise the balance, charges lower it."""
        match fact.type:
            case "deposit":
                self.amount += fact.amount or 0
            case "charge":
                self.amount -= fact.amount or 0


class Account(z0.Entity):
    """A ledger with one projection, open to deposits."""

    namespace = "bench-account"
    balance: Balance
    accepts = {"deposit"}

    async def rebuild_ns(self) -> int:
        """How long folding the balance from the first fact takes."""
        start = now_ns()
        self.ledger.rebuild("balance")
        return now_ns() - start

    async def verify_ns(self) -> int:
        """How long checking the whole hash chain takes."""
        start = now_ns()
        self.ledger.verify()
        return now_ns() - start


class Echo(z0.Actor):
    """An actor with a message that writes nothing."""

    namespace = "bench-echo"

    async def ping(self) -> int:
        """Answer at once."""
        return 1


async def evicted(runtime: z0.Runtime, name: str) -> None:
    """Drop the account's memory and have its file closed; the next message finds it cold."""
    if not await runtime.evict(Account, name):
        raise RuntimeError(f"account {name} is busy, so it cannot be evicted")


def fact_fields(rng: random.Random, count: int) -> list[Fields]:
    """What a caller passes to `append`, apart from the type."""
    return [_fields(rng) for _ in range(count)]


def fact_rows(rng: random.Random, first_seq: int, count: int, *, entity: str = "bare") -> list[FactRow]:
    """The same facts as rows of the `facts` table, ready to bind."""
    stamp = time.time_ns() // 1000
    return [_row(fields, seq, stamp, entity) for seq, fields in enumerate(fact_fields(rng, count), first_seq)]


def _fields(rng: random.Random) -> Fields:
    number = rng.randrange(10**9)
    return {
        "subtype": "card",
        "amount": rng.randrange(1, 1_000_000),
        "currency": "EUR",
        "source_id": f"src_{number % 997:06d}",
        "from_entity": f"acct_{rng.randrange(10**6):08d}",
        "to_entity": f"acct_{rng.randrange(10**6):08d}",
        "external_source": "bank",
        "external_id": f"tx_{number:012d}",
        "idempotency_key": os.urandom(16).hex(),
        "data": {"memo": f"invoice 2026-{number % 10**6:06d}", "line": number % 7, "settled": True},
    }


def _row(fields: Fields, seq: int, stamp: int, entity: str) -> FactRow:
    return (
        seq,
        "deposit",
        fields["subtype"],
        stamp + seq,
        "default",
        entity,
        fields["source_id"],
        fields["from_entity"],
        fields["to_entity"],
        fields["amount"],
        fields["currency"],
        None,
        None,
        None,
        fields["external_source"],
        fields["external_id"],
        fields["idempotency_key"],
        msgspec.json.encode(fields["data"]).decode(),
        os.urandom(32),
    )
