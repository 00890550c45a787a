"""Transfer money between two accounts by way of a clearing house; when a step fails, what was done is undone.

    python examples/transfer_saga.py [DATA]

The accounts' ledgers are the bank sample's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import msgspec

import z0
from sample import histories, post
from services import Clearing, Payment
from wire import Client
from z0.bank import CURRENCY, crowns

UNTIL_IT_WORKS = z0.Retries(limit=1_000, delay="1 minute", max_delay="6 hours")
"""Money that is on its way has to get back, however long a service is down."""


class Order(msgspec.Struct, frozen=True):
    """What to transfer, in hellers."""

    source: str
    target: str
    amount: int


class AccountBalance(z0.Projection):
    """What there is to spend, in hellers, and whether money may come in."""

    amount: int = 0
    blocked: bool = False

    def apply(self, fact: z0.Fact) -> None:
        """Add or take away."""
        match fact.type:
            case "credit" | "transfer_in" | "transfer_out_reversed":
                self.amount += fact.amount or 0
            case "debit" | "transfer_out" | "transfer_in_reversed":
                self.amount -= fact.amount or 0
            case "blocked" | "unblocked":
                self.blocked = fact.type == "blocked"


class InsufficientFunds(z0.NonRetryableError):
    """There is less money than was asked for."""


class AccountBlocked(z0.NonRetryableError):
    """The account takes no money."""


class Account(z0.Entity):
    """A bank account. Its messages name the transfer, so each has its effect once, and can be reversed by that name."""

    accepts = {"credit", "debit", "blocked", "unblocked"}
    indexes = ("source_id",)
    balance: AccountBalance

    async def debit(self, transfer: str, order: Order) -> None:
        """Take the money, if that was not done. Raises InsufficientFunds."""
        if self.is_done("transfer_out", transfer):
            return
        if self.balance.amount < order.amount:
            raise InsufficientFunds(f"account {self.name} has {crowns(self.balance.amount)}")
        self.move("transfer_out", transfer, order)

    async def credit(self, transfer: str, order: Order) -> None:
        """Add the money, if that was not done. Raises AccountBlocked."""
        if self.is_done("transfer_in", transfer):
            return
        if self.balance.blocked:
            raise AccountBlocked(f"account {self.name} is blocked")
        self.move("transfer_in", transfer, order)

    async def reverse(self, transfer: str) -> None:
        """Make up for what the transfer did here, if it did anything."""
        for fact in self.ledger.query(type=("transfer_out", "transfer_in"), source_id=transfer):
            if not self.ledger.count(type=f"{fact.type}_reversed", source_id=transfer):
                self.ledger.append(
                    f"{fact.type}_reversed",
                    amount=fact.amount,
                    currency=fact.currency,
                    source_id=transfer,
                    data={"reverses": fact.id},
                )

    def is_done(self, type: str, transfer: str) -> bool:
        """Whether the transfer did this here. Raises NonRetryableError when it was reversed: that is for good."""
        done = {fact.type for fact in self.ledger.query(source_id=transfer)}
        if f"{type}_reversed" in done:
            raise z0.NonRetryableError(f"transfer {transfer!r} was reversed; order another one")
        return type in done

    def move(self, type: str, transfer: str, order: Order) -> None:
        """Record the money's way, on either side of it."""
        self.ledger.append(
            type,
            amount=order.amount,
            currency=CURRENCY,
            from_entity=order.source,
            to_entity=order.target,
            source_id=transfer,
        )


class Transfer(z0.Workflow):
    """One transfer: debit, clear, credit; or nothing of it. Its id names it everywhere."""

    env: Client
    retries = z0.Retries(limit=5, delay="1 second")
    timeout = "10 seconds"

    async def run(self, event: z0.Event[Order], step: z0.Step) -> str:
        """Each step says how it is undone, for it may have had its effect also when it failed: nobody heard of it."""
        order = event.payload
        source, target = self.get(Account, order.source), self.get(Account, order.target)
        payment = Payment(self.id, order.source, order.target, order.amount)

        async def clear(ctx: z0.StepContext) -> None:
            await self.env.post("/payments", payment, key=ctx.idempotency_key)

        async def cancel(ctx: z0.RollbackContext) -> None:
            await self.env.post("/cancellations", self.id, key=ctx.idempotency_key)

        def undo(fn: Callable[..., Awaitable[None]]) -> z0.Rollback:
            return z0.Rollback(fn, retries=UNTIL_IT_WORKS)

        await step.do("debit", lambda: source.debit(self.id, order), rollback=undo(lambda: source.reverse(self.id)))
        await step.do("clear", clear, rollback=undo(cancel))
        await step.do("credit", lambda: target.credit(self.id, order), rollback=undo(lambda: target.reverse(self.id)))
        await step.do("record", lambda: self.ledger.append("lifecycle", subtype="transfer_completed"))
        return "transferred"

    async def on_failure(self, status: z0.InstanceStatus) -> None:
        """Record it. This is called at least once for each run that fails, so the fact has a key."""
        reason = status.error.text if status.error else "?"
        data = {"reason": reason, "undone": status.rollback.undone if status.rollback else []}
        self.ledger.append("lifecycle", subtype="transfer_failed", data=data, idempotency_key=f"failed/{status.run}")


async def main(data: str = "var/transfer_saga", source: str = "3374", target: str = "652") -> None:
    """One transfer that succeeds, and one to an account that is blocked: z0 logs why, and the money comes back."""
    async with Clearing() as clearing, z0.Runtime(data, actors=[Account, Transfer], env=clearing.client) as runtime:
        for name in (source, target):
            await post(runtime.get(Account, name), histories()[name])
        blocked = runtime.get(Account, "blocked")
        await blocked.append("blocked", idempotency_key="by court order")
        clearing.misbehave("POST /payments", "drop")
        for id, to in (("rent", target), ("bribe", "blocked")):
            order = Order(source, to, 1_000_00)
            transfer = await runtime.workflows.create(Transfer, order, id=id, on_conflict="existing")
            try:
                print(id, await transfer.result("1 minute"))
            except AccountBlocked as error:
                print(id, "failed:", error)
        for name in (source, target, "blocked"):
            print(name, "has", crowns((await runtime.get(Account, name).projection("balance")).amount))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
