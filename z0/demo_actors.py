"""The actors of `z0 demo`: a bank's accounts, their invoices, and the workflow that bills an account."""

from __future__ import annotations

import msgspec

from z0.bank import CURRENCY
from z0.demo_outside import Letter, Outside
from z0.ledger.entity import Entity
from z0.ledger.fact import Fact
from z0.ledger.projection import Projection
from z0.workflows.event import Event
from z0.workflows.step import Step
from z0.workflows.steps import StepContext
from z0.workflows.workflow import Workflow

CHARGES = frozenset({"SLUZBY", "SANKC. UROK"})
"""The bank's symbols for what it takes for itself: a fee for the statement, and interest on a debt."""


class AccountBalance(Projection):
    """What the facts of an account add up to, in hellers, and the balance printed with the last one."""

    facts: int = 0
    credits: int = 0
    debits: int = 0
    printed: int | None = None

    @property
    def balance(self) -> int:
        """Credits less debits."""
        return self.credits - self.debits

    def apply(self, fact: Fact) -> None:
        """Add one posting."""
        self.facts += 1
        if fact.type == "credit":
            self.credits += fact.amount or 0
        else:
            self.debits += fact.amount or 0
        self.printed = fact.data["balance"] if fact.data else None


class Charge(msgspec.Struct, frozen=True):
    """What the bank took for itself: its transaction, the business date, the hellers."""

    id: str
    date: str
    amount: int


class Account(Entity):
    """One bank account; whoever holds the bank's file may post to it."""

    accepts = frozenset({"credit", "debit"})
    balance: AccountBalance

    async def charges(self) -> list[Charge]:
        """All that the bank took for itself, in its order."""
        return [_charge(fact) for fact in self.ledger.query(type="debit") if _is_charge(fact)]


def _is_charge(fact: Fact) -> bool:
    return fact.subtype == "fee" or (fact.data or {}).get("k_symbol") in CHARGES


def _charge(fact: Fact) -> Charge:
    return Charge(str(fact.external_id), (fact.data or {})["date"], fact.amount or 0)


class Invoices(Entity):
    """What one account was billed, and has paid."""

    accepts = frozenset({"invoice", "payment"})


class Bill(msgspec.Struct, frozen=True):
    """Whom to bill, for the charges up to which business date."""

    account: str
    until: str

    @property
    def id(self) -> str:
        """Of the instance that bills it."""
        return f"{self.account}-{self.until}"


class Receipt(msgspec.Struct, frozen=True):
    """How a bill ended: the charges, their sum in hellers, who has paid; nobody had to when there was no charge."""

    charges: int
    amount: int
    paid_by: str | None


class Billing(Workflow):
    """Bills an account for the charges that are in no invoice yet, and waits to be paid. Its env is an `Outside`.

    One at a time of an account: else both would find the same charges.
    """

    async def run(self, event: Event[Bill], step: Step) -> Receipt:
        """The id of the instance is the invoice's number."""
        bill = event.payload
        outside: Outside = self.env
        invoices = self.get(Invoices, bill.account)

        async def gather(ctx: StepContext) -> list[Charge]:
            outside.called(ctx)
            billed = {id for fact in await invoices.query_facts(type="invoice") for id in (fact.data or {})["charges"]}
            charges = await self.get(Account, bill.account).charges()
            return [charge for charge in charges if charge.date <= bill.until and charge.id not in billed]

        async def create(ctx: StepContext) -> int:
            outside.called(ctx)
            data = {"until": bill.until, "charges": [charge.id for charge in charges]}
            fact = await invoices.append("invoice", amount=amount, currency=CURRENCY, external_id=self.id, data=data)
            outside.die(ctx)  # the hardest place: the fact is on the disk, the step's result is not
            return fact.seq

        def send(ctx: StepContext) -> None:
            outside.called(ctx)
            outside.send(Letter(ctx.idempotency_key, self.id, bill.account, amount, CURRENCY))

        async def record(ctx: StepContext) -> int:
            outside.called(ctx)
            data = {"by": paid.payload["by"]}
            fact = await invoices.append("payment", amount=amount, currency=CURRENCY, external_id=self.id, data=data)
            return fact.seq

        charges = await step.do("gather charges", gather)
        amount = sum(charge.amount for charge in charges)
        if not charges:
            return Receipt(0, 0, None)
        await step.do("create invoice", create)
        await step.do("send invoice", send)
        paid = await step.wait_for_event("payment", type="paid", timeout="30 days")
        await step.do("record payment", record)
        return Receipt(len(charges), amount, paid.payload["by"])


STEPS = ("gather charges", "create invoice", "send invoice", "record payment")
"""In the order in which the body takes them."""
