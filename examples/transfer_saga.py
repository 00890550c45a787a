"""Transfer money between two accounts by way of a clearing house; what was done is undone when a later step fails.

    python examples/transfer_saga.py [DATA]

The accounts' ledgers are the bank sample's.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

import z0
from sample import histories, post
from services import Clearing, Payment
from wire import Client
from z0.bank import CURRENCY, crowns

UNTIL_IT_WORKS = z0.Retries(limit=1_000, delay="1 minute", max_delay="6 hours")
"""Money that is on its way has to get back, however long a service is down."""


class AccountBalance(z0.Projection):
    """What there is to spend, in hellers, and whether money may come in."""

    amount: int = 0
    blocked: bool = False

    def apply(self, fact: z0.Fact) -> None:
        """Add or take away."""
        match fact.type:
            case "credit" | "transfer_in" | "credit_issued":
                self.amount += fact.amount or 0
            case "debit" | "transfer_out":
                self.amount -= fact.amount or 0
            case "blocked" | "unblocked":
                self.blocked = fact.type == "blocked"


class InsufficientFunds(z0.NonRetryableError):
    """There is less money than was asked for."""


class AccountBlocked(z0.NonRetryableError):
    """The account takes no money."""


class Account(z0.Entity):
    """A bank account. Its messages name the transfer, so each has its effect once, and can be undone by that name."""

    accepts = {"credit", "debit", "blocked", "unblocked"}
    balance: AccountBalance

    async def debit(self, amount: int, transfer: str, target: str) -> z0.Fact:
        """Take the money. Raises InsufficientFunds; NonRetryableError when it was given back before it was taken."""
        key = f"debit/{transfer}"
        if not self.known(key):
            if self.known(f"undo/{transfer}"):
                raise z0.NonRetryableError(f"transfer {transfer} was undone")
            if self.balance.amount < amount:
                raise InsufficientFunds(f"account {self.name} has {crowns(self.balance.amount)}")
        return self.ledger.append(
            "transfer_out", amount=amount, currency=CURRENCY, to_entity=target, source_id=transfer, idempotency_key=key
        )

    async def credit(self, amount: int, transfer: str, source: str) -> z0.Fact:
        """Add the money. Raises AccountBlocked."""
        key = f"credit/{transfer}"
        if self.balance.blocked and not self.known(key):
            raise AccountBlocked(f"account {self.name} is blocked")
        return self.ledger.append(
            "transfer_in", amount=amount, currency=CURRENCY, from_entity=source, source_id=transfer, idempotency_key=key
        )

    async def give_back(self, transfer: str, reason: str) -> None:
        """Compensate the debit; when there was none, see to it that there will not be one."""
        debits = self.ledger.query(idempotency_key=f"debit/{transfer}")
        self.ledger.append(
            "credit_issued",
            amount=debits[0].amount if debits else 0,
            currency=CURRENCY,
            source_id=transfer,
            idempotency_key=f"undo/{transfer}",
            data={"reason": reason, "original_debit": debits[0].id if debits else None},
        )

    def known(self, key: str) -> bool:
        """Whether the ledger has a fact with that idempotency key."""
        return self.ledger.count(idempotency_key=key) > 0


class Order(msgspec.Struct, frozen=True):
    """What to transfer, in hellers."""

    source: str
    target: str
    amount: int


class Transfer(z0.Workflow):
    """One transfer: debit, clear, credit; or nothing of it. Its id names it everywhere."""

    env: Client
    retries = z0.Retries(limit=5, delay="1 second")
    timeout = "10 seconds"

    async def run(self, event: z0.Event[Order], step: z0.Step) -> str:
        """What fails a step for good fails the transfer, after everything before it was undone, the last first."""
        order = event.payload
        source, target = self.get(Account, order.source), self.get(Account, order.target)
        payment = Payment(self.id, order.source, order.target, order.amount)

        async def clear(ctx: z0.StepContext) -> None:
            await self.env.post("/payments", payment, key=ctx.idempotency_key)

        async def cancel(ctx: z0.RollbackContext) -> None:  # also when we never heard whether it was cleared
            await self.env.post("/cancellations", self.id, key=ctx.idempotency_key)

        await step.do(
            "debit",
            lambda: source.debit(order.amount, self.id, order.target),
            rollback=lambda ctx: source.give_back(self.id, str(ctx.error)),
        )
        await step.do("clear", clear, rollback=z0.Rollback(cancel, retries=UNTIL_IT_WORKS))
        await step.do("credit", lambda: target.credit(order.amount, self.id, order.source))
        await step.do("record", lambda: self.ledger.append("lifecycle", subtype="transfer_completed"))
        return "transferred"

    async def on_failure(self, status: z0.InstanceStatus) -> None:
        """Tell people. At least once, so the fact has a key."""
        reason = status.error.text if status.error else "?"
        data = {"reason": reason, "undone": status.rollback.undone if status.rollback else []}
        self.ledger.append("lifecycle", subtype="transfer_failed", data=data, idempotency_key="failed")


async def main(data: str = "var/transfer_saga", source: str = "3374", target: str = "652") -> None:
    """One transfer that succeeds, and one to an account that is blocked, whose money comes back."""
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
