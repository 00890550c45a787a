"""Bill an account's charges: gather, invoice, send, wait 30 days for the money, remind, wait two weeks more, escalate.

    python examples/invoice_billing.py [DATA]

The account's ledger is the bank sample's; its charges are the household payments, insurances and fees in it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal

import msgspec

import z0
from sample import histories, post
from services import Invoice, Invoicing, Paid
from unreliable import Reply, Request, Service
from wire import Client
from z0.bank import CURRENCY

CHARGES = frozenset({"SIPO", "POJISTNE", "SLUZBY"})
SHOWN = ("attempt_errored", "step_completed", "wait_started", "wait_completed", "workflow_completed")


class Receivable(z0.Projection):
    """Which charges no invoice has yet, and what is still to be paid of each invoice."""

    unbilled: dict[int, int] = {}  # seq of the charge: amount
    owed: dict[str, int] = {}  # number of the invoice: amount

    def apply(self, fact: z0.Fact) -> None:
        """Charge, bill, or settle."""
        amount, data, number = fact.amount or 0, fact.data or {}, fact.source_id or ""
        match fact.type:
            case "debit" if data.get("k_symbol") in CHARGES:
                self.unbilled[fact.seq] = amount
            case "invoice_created":
                for charge in data["charges"]:
                    del self.unbilled[charge]
                self.owed[number] = amount
            case "invoice_voided":
                self.unbilled.update(zip(data["charges"], data["amounts"], strict=True))
                del self.owed[number]
            case "payment_received":
                self.owed[number] = self.owed.get(number, 0) - amount


class Account(z0.Entity):
    """A customer's account: what was charged, billed and paid."""

    accepts = {"credit", "debit", "invoice_issued", "payment_received", "payment_overdue", "invoice_escalated"}
    receivable: Receivable

    async def unbilled(self, until: str) -> list[z0.Fact]:
        """The charges up to that day that are on no invoice."""
        charges = [self.ledger.get(seq) for seq in self.receivable.unbilled]
        return [each for each in charges if each is not None and each.data and each.data["date"] <= until]

    async def invoice(self, number: str, charges: list[z0.Fact], key: str) -> z0.Fact:
        """Put the charges on an invoice; the same one whenever the key is the same."""
        if made := self.ledger.query(idempotency_key=key):
            return made[0]
        if billed := [each.seq for each in charges if each.seq not in self.receivable.unbilled]:
            raise z0.NonRetryableError(f"charges {billed} are on another invoice; gather again")
        data = {"charges": [each.seq for each in charges], "amounts": [each.amount for each in charges]}
        total = sum(each.amount or 0 for each in charges)
        return self.ledger.append(
            "invoice_created", source_id=number, amount=total, currency=CURRENCY, data=data, idempotency_key=key
        )

    async def void(self, number: str) -> None:
        """Take the invoice back, if it was made: its charges are unbilled again."""
        for created in self.ledger.query(type="invoice_created", source_id=number):
            key = f"void/{created.id}"
            self.ledger.append("invoice_voided", source_id=number, data=created.data, idempotency_key=key)

    async def owed(self, number: str) -> int:
        """What is still to be paid of the invoice."""
        return self.receivable.owed.get(number, 0)


class Bill(msgspec.Struct, frozen=True):
    """What to bill: the charges of an account up to a day, such as "1993-12-31"."""

    account: str
    until: str


class Billed(msgspec.Struct, frozen=True):
    """How it ended."""

    outcome: Literal["nothing to bill", "paid", "paid late", "escalated"]
    amount: int = 0
    owed: int = 0


class Billing(z0.Workflow):
    """One invoice, from its charges to its money. Its id is the invoice's number."""

    env: Client
    retries = z0.Retries(limit=5, delay="1 second")
    timeout = "10 seconds"

    async def run(self, event: z0.Event[Bill], step: z0.Step) -> Billed:
        """Each step is taken once, whatever happens to the process meanwhile."""
        account = self.get(Account, event.payload.account)
        charges = await step.do("gather unbilled charges", lambda: account.unbilled(event.payload.until))
        if not charges:
            return Billed("nothing to bill")
        created = await step.do(
            "create invoice",
            lambda ctx: account.invoice(self.id, charges, ctx.idempotency_key),
            rollback=lambda: account.void(self.id),
        )
        invoice = Invoice(self.id, event.payload.account, created.amount or 0)
        await step.do("send invoice", self.post("/invoices", invoice), rollback=self.post("/voids", invoice))
        await step.do("record that it was issued", self.record("invoice_issued", invoice))
        outcome = await self.wait_for_money(step, invoice)
        owed = await step.do("look what is owed", lambda: account.owed(self.id))
        if owed and outcome != "escalated":
            await step.alert("payment_differs", {"invoice": self.id, "owed": owed})
        return Billed(outcome, invoice.amount, owed)

    async def wait_for_money(self, step: z0.Step, invoice: Invoice) -> Literal["paid", "paid late", "escalated"]:
        """Thirty days, a reminder, two more weeks; then people have to see to it."""
        try:
            await step.wait_for_event("payment", type="paid", timeout="30 days")
            return "paid"
        except z0.EventTimeout:
            await step.do("record that it is overdue", self.record("payment_overdue", invoice))
            await step.do("send reminder", self.post("/reminders", invoice))
        try:
            await step.wait_for_event("late payment", type="paid", timeout="14 days")
            return "paid late"
        except z0.EventTimeout:
            await step.do("record the escalation", self.record("invoice_escalated", invoice))
            await step.alert("invoice_escalated", invoice)
            return "escalated"

    def post(self, path: str, invoice: Invoice) -> Callable[[z0.StepContext], Awaitable[None]]:
        """A callback that has the service send something: once, since every attempt has the same key."""
        return lambda ctx: self.env.post(path, invoice, key=ctx.idempotency_key)

    def record(self, type: str, invoice: Invoice) -> Callable[[], Awaitable[z0.Fact]]:
        """A callback that appends a fact to the account: once, since the step gives it a key."""
        account = self.get(Account, invoice.account)
        return lambda: account.append(type, source_id=invoice.number, amount=invoice.amount, currency=CURRENCY)


class Webhooks(Service):
    """Where we are told of payments, perhaps more than once, and also when nobody waits for them any more."""

    def __init__(self, runtime: z0.Runtime) -> None:
        super().__init__()
        self._runtime = runtime

    async def handle(self, request: Request) -> Reply:
        """Book the payment, then wake who waits for it; both know by its id whether it is new."""
        paid = request.read(Paid)
        billing = self._runtime.workflows.get(Billing, paid.invoice)
        try:
            await billing.status()
        except z0.InstanceNotFound:
            return Reply(404, "no such invoice")
        money: dict[str, Any] = {"amount": paid.amount, "currency": CURRENCY}
        account = self._runtime.get(Account, paid.account)
        await account.append("payment_received", source_id=paid.invoice, idempotency_key=paid.id, **money)
        with suppress(z0.WrongStatus):  # too late for the workflow, but booked
            await billing.send_event("paid", paid, id=paid.id)
        return Reply()


async def main(data: str = "var/invoice_billing", account: str = "3374") -> None:
    """Bill a year; the service drops a connection when it has sent the invoice, and tells twice of the payment."""
    async with (
        Invoicing() as service,
        z0.Runtime(data, actors=[Account, Billing], env=service.client) as runtime,
        Webhooks(runtime) as webhooks,
    ):
        await post(runtime.get(Account, account), histories()[account])
        service.misbehave("POST /invoices", "drop")
        bill, number = Bill(account, "1993-12-31"), f"{account}-1993"
        billing = await runtime.workflows.create(Billing, bill, id=number, on_conflict="existing")
        async for happened in billing.events(types=SHOWN):
            print(happened.type, happened.step_name or "")
            if happened.type == "wait_started":
                (invoice,) = await runtime.get(Account, account).query_facts(type="invoice_created", source_id=number)
                paid = Paid(f"payment-{number}", number, account, invoice.amount or 0)
                await service.pay(paid, webhooks.client, times=2)
        print(await billing.result())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
