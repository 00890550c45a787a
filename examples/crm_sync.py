"""Sync customers from a CRM, page by page, however many there are: a run takes a few pages, and the next run goes on.

    python examples/crm_sync.py [DATA]

The customers are the accounts of the bank sample. Another sync of the same CRM writes only what has changed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import msgspec

import z0
from sample import histories
from services import Crm, Customer, CustomerPage
from wire import Client, Refused

PAGES_PER_RUN = 3
"""So a run's history stays short. A real sync may take hundreds: a run may have 1,000 steps."""


class Profile(z0.Projection):
    """A customer as the CRM had it last."""

    revision: int = 0
    name: str = ""

    def apply(self, fact: z0.Fact) -> None:
        """Take the newer revision."""
        data = fact.data or {}
        if fact.type == "customer_synced" and data["revision"] > self.revision:
            self.revision, self.name = data["revision"], data["name"]


class Account(z0.Entity):
    """The account of a customer."""

    accepts = {"customer_synced"}
    profile: Profile


class Progress(msgspec.Struct, frozen=True):
    """How far a sync has come: what one run hands to the next."""

    after: str = ""
    """The cursor of the next page; "": the first one, also when the sync has come to its end."""
    pages: int = 0
    customers: int = 0


class CrmSync(z0.Workflow):
    """One sync, from the first page to the last."""

    env: Client
    retries = z0.Retries(limit=8, delay="1 second")
    timeout = "10 seconds"

    async def run(self, event: z0.Event[Progress], step: z0.Step) -> Progress:
        """Some pages, then the next run: with an empty history, and the cursor as its payload."""
        progress = event.payload
        for _ in range(PAGES_PER_RUN):
            page = await self.fetch(progress.after, step)
            await step.do("store the page", self.store(page.customers))
            progress = Progress(page.next, progress.pages + 1, progress.customers + len(page.customers))
            if not page.next:
                return progress
        step.continue_as_new(progress)

    async def fetch(self, after: str, step: z0.Step) -> CustomerPage:
        """The customers behind the cursor. A CRM that refuses us ends the sync, and the ledger says why."""

        async def fetch() -> CustomerPage:
            return await self.env.get("/customers", CustomerPage, after=after)

        try:
            return await step.do("fetch a page", fetch)
        except Refused as error:
            why = {"reason": str(error), "after": after}
            await step.do("record the failure", lambda: self.ledger.append("lifecycle", subtype="failed", data=why))
            raise

    def store(self, customers: list[Customer]) -> Callable[[], Awaitable[None]]:
        """A callback that tells each account; a revision that it knows already writes nothing."""

        async def tell(customer: Customer) -> None:
            await self.get(Account, customer.id).append(
                "customer_synced",
                external_source="crm",
                external_id=customer.id,
                idempotency_key=f"crm/{customer.id}/{customer.revision}",
                data={"revision": customer.revision, "name": customer.name},
            )

        async def store() -> None:
            await asyncio.gather(*[tell(each) for each in customers])
            self.ledger.append("page_synced", data={"customers": len(customers)})  # in one transaction with the result

        return store


def customers() -> list[Customer]:
    """The sample's accounts as customers of a CRM."""
    return [Customer(name, 1, f"Owner of {name}") for name in histories()]


async def main(data: str = "var/crm_sync") -> None:
    """Sync 74 customers; the CRM fails once."""
    async with Crm(customers()) as crm, z0.Runtime(data, actors=[Account, CrmSync], env=crm.client) as runtime:
        crm.misbehave("GET /customers", "fail")
        sync = await runtime.workflows.create(CrmSync, Progress(), id="first", on_conflict="existing")
        progress: Progress = await sync.result("1 minute")
        runs = (await sync.status()).run
        print(f"{progress.customers} customers, {progress.pages} pages, {runs} runs, {len(crm.requests)} requests")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
