"""Histories of ledgers: what clients asked and saw, and whether one order of it all explains what they saw.

A history is a list of events, each a list that fits on a line: ["ask", number, client, ledger, what, argument],
["saw", number, answer] when it was answered, ["not", number] when it surely did not happen. What was asked and has
no other event may have happened or not, then or later.

The ledgers are read at the end. They only grow, so their last state says which of the unknown happened, and in which
order; a model of a ledger is then no more than how long it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import z0
from tests.simulation import Operation, why_not_linearizable

Event = list[Any]
DEPOSIT, CHARGE = 10, 25
SURELY_NOT = (z0.ActorReset, z0.Overloaded, z0.RuntimeClosed)


class Refused(Exception):
    pass


class Sum(z0.Projection):
    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.amount += fact.amount or 0


class Book(z0.Entity):
    """A ledger that is asked in every way."""

    namespace = "Book"
    accepts = {"deposit"}
    sum: Sum

    async def head(self) -> int:
        return self.ledger.head

    async def amount(self) -> int:
        return self.sum.amount

    @z0.idempotent("key")
    async def charge(self, key: str) -> int:
        if self.sum.amount < CHARGE:
            raise Refused
        return self.ledger.append("charge", amount=-CHARGE, idempotency_key=key).seq

    async def slowly(self, key: str) -> int:
        """A deposit with a wait before and after."""
        await asyncio.sleep(0)
        fact = self.ledger.append("deposit", amount=DEPOSIT, idempotency_key=key)
        await asyncio.sleep(0)
        return fact.seq


async def ask(book: Book, what: str, argument: Any) -> Any:
    """One operation; its answer as it is told in a history."""
    match what:
        case "deposit":
            return (await book.append("deposit", amount=DEPOSIT, idempotency_key=argument)).seq
        case "slowly":
            return await book.slowly(argument)
        case "charge":
            try:
                return await book.charge(argument)
            except Refused:
                return "refused"
        case "head":
            return await book.head()
        case "amount":
            return await book.amount()
        case _:
            return [fact.idempotency_key for fact in await book.query_facts(after_seq=argument, limit=5)]


class Client:
    """Tells what it asks and sees, by `tell`."""

    def __init__(self, name: str, tell: Callable[[Event], object], get: Callable[[str], Book]) -> None:
        self._name, self._tell, self._get = name, tell, get
        self._asked = 0

    async def ask(self, ledger: str, what: str, argument: Any = None) -> bool:
        """Whether it was answered, or surely did not happen; else its outcome is unknown."""
        number = f"{self._name}.{self._asked}"
        self._asked += 1
        self._tell(["ask", number, self._name, ledger, what, argument])
        try:
            answer = await ask(self._get(ledger), what, argument)
        except SURELY_NOT:
            self._tell(["not", number])
            return True
        except z0.DeadlineExceeded as error:
            if not error.started:
                self._tell(["not", number])
            return not error.started
        except z0.CommitUnknown:
            return False
        self._tell(["saw", number, answer])
        return True


async def last_state(get: Callable[[str], Book], ledger: str) -> list[tuple[str, int]]:
    """Key and amount of every fact."""
    facts = await get(ledger).query_facts()
    return [(fact.idempotency_key or "", fact.amount or 0) for fact in facts]


def operations(events: Sequence[Event]) -> dict[str, list[Operation]]:
    """The operations of each ledger; what surely did not happen is left out."""
    ends = {event[1]: (moment, event) for moment, event in enumerate(events) if event[0] != "ask"}
    found: dict[str, list[Operation]] = {}
    for moment, event in enumerate(events):
        if event[0] != "ask":
            continue
        _, number, client, ledger, what, argument = event
        ended, (kind, *seen) = ends.get(number, (None, ["unknown", number, None]))
        if kind != "not":
            found.setdefault(ledger, []).append(
                Operation(client, what, argument, moment + 1, ended and ended + 1, seen[-1])
            )
    return found


def why_not(events: Sequence[Event], last: dict[str, list[tuple[str, int]]]) -> str | None:
    """Why the history cannot be, with these last states of the ledgers; None when it can."""
    end = len(events) + 1
    asked = operations(events)
    for ledger, facts in last.items():
        seen = Operation("the end", "head", None, end, end + 1, len(facts))
        why = why_not_linearizable([*asked.get(ledger, []), seen], 0, ledger_of(facts))
        if why is not None:
            return f"{ledger}: {why}\nat last: {facts}"
    return None


def ledger_of(facts: Sequence[tuple[str, int]]) -> Callable[[int, Operation], tuple[bool, int]]:
    """The model of a ledger that has come to hold these facts: its state is how many of them it holds."""
    keys, sums = [key for key, _ in facts], [0]
    at: dict[str, int] = {}
    for number, (key, amount) in enumerate(facts):
        at.setdefault(key, number)
        sums.append(sums[-1] + amount)

    def step(length: int, operation: Operation) -> tuple[bool, int]:
        known, output, argument = operation.ended is not None, operation.output, operation.arg
        match operation.f:
            case "deposit" | "slowly" | "charge":
                if output == "refused":
                    return sums[length] < CHARGE and at.get(argument, length) >= length, length
                place = at.get(argument, -1)
                possible = 0 <= place <= length and (not known or output == place + 1)
                return possible, max(length, place + 1) if possible else length
            case "head":
                return not known or output == length, length
            case "amount":
                return not known or output == sums[length], length
            case _:
                return not known or output == keys[:length][argument : argument + 5], length

    return step
