"""Fakes of four services outside: invoicing, a bank's statements, a CRM and a clearing house."""

from __future__ import annotations

import msgspec

from unreliable import Reply, Request, Service
from wire import Client


class Invoice(msgspec.Struct, frozen=True):
    """What is sent to a customer."""

    number: str
    account: str
    amount: int


class Paid(msgspec.Struct, frozen=True):
    """What the invoicing service tells of a payment."""

    id: str
    invoice: str
    account: str
    amount: int


class Invoicing(Service):
    """Sends invoices, reminders and voids to customers, and tells us when they pay."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Invoice]] = []
        """What was sent, each with "/invoices", "/reminders" or "/voids"."""
        self.moved_away: set[str] = set()

    async def handle(self, request: Request) -> Reply:
        """Send it, if the customer can be found; a void reaches who has the invoice, perhaps nobody."""
        invoice = request.read(Invoice)
        if invoice.account in self.moved_away and request.path != "/voids":
            return Reply(422, "no such address")
        self.sent.append((request.path, invoice))
        return Reply(201)

    async def pay(self, paid: Paid, webhook: Client, times: int = 1) -> None:
        """Tell of a payment; more than once, as services do that have not heard that it was noticed."""
        for _ in range(times):
            await webhook.post("/paid", paid, key="")


class Row(msgspec.Struct, frozen=True):
    """One line of a bank statement; amounts are negative when money has left the account."""

    id: str
    date: str
    amount: int


class StatementPage(msgspec.Struct, frozen=True):
    """Lines of a statement, and where the next page begins."""

    rows: list[Row]
    next: int | None


class Statements(Service):
    """A bank's statements, in pages."""

    def __init__(self, statements: dict[str, list[Row]], page_rows: int = 20, repeated_rows: int = 0) -> None:
        super().__init__()
        self.statements = statements
        self._rows = page_rows
        self._repeated = repeated_rows  # of a page, at the beginning of the next

    async def handle(self, request: Request) -> Reply:
        """One page of an account's statement."""
        rows = self.statements.get(request.path.rpartition("/")[2])
        if rows is None:
            return Reply(404, "no such account")
        start = int(request.query["at"])
        end = start + self._rows
        return Reply(200, StatementPage(rows[start:end], end - self._repeated if end < len(rows) else None))


class Customer(msgspec.Struct, frozen=True):
    """A customer as the CRM has it."""

    id: str
    revision: int
    name: str


class CustomerPage(msgspec.Struct, frozen=True):
    """Customers, and the cursor of the next page."""

    customers: list[Customer]
    next: str
    """ "": this is the last one."""


class Crm(Service):
    """Customers in pages, in the order of their ids; a cursor is the last id that was seen."""

    def __init__(self, customers: list[Customer], page_customers: int = 10) -> None:
        super().__init__()
        self.customers = customers
        self.cursors: list[str] = []
        """Those that pages were asked for with, in order."""
        self.locked_out = False
        self._size = page_customers

    async def handle(self, request: Request) -> Reply:
        """The page behind a cursor."""
        if self.locked_out:
            return Reply(401, "the token has expired")
        after = request.query.get("after", "")
        self.cursors.append(after)
        left = sorted((each for each in self.customers if each.id > after), key=lambda each: each.id)
        page = left[: self._size]
        return Reply(200, CustomerPage(page, page[-1].id if len(left) > len(page) else ""))


class Payment(msgspec.Struct, frozen=True):
    """An order to a clearing house; `reference` is ours, and names it ever after."""

    reference: str
    source: str
    target: str
    amount: int


class Clearing(Service):
    """A clearing house: takes orders, and takes them back. One that was taken back before it came is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.cleared: list[Payment] = []
        self.cancelled: list[str] = []

    async def handle(self, request: Request) -> Reply:
        """Clear or cancel."""
        if request.path == "/cancellations":
            self.cancelled.append(request.read(str))
            return Reply(201)
        payment = request.read(Payment)
        if payment.reference in self.cancelled:
            return Reply(409, "it was cancelled")
        self.cleared.append(payment)
        return Reply(201)
