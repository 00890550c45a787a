"""Messages of several segments and of two actors, whose facts tell how far each has come."""

from __future__ import annotations

import asyncio

import z0


class Mover(z0.Entity):
    """Moves money, slowly or to another one of its class; each part of a message leaves a fact with its own key."""

    async def slow(self, message: str) -> None:
        """Writes, waits, and writes again."""
        self.ledger.append("slow", amount=1, idempotency_key=f"{message}/1")
        await asyncio.sleep(0)
        self.ledger.append("slow", amount=1, idempotency_key=f"{message}/2")
        await self.storage.sync()
        self.ledger.append("slow", amount=1, idempotency_key=f"{message}/3")

    async def transfer(self, message: str, to: str) -> None:
        """Moves money to another one, and notes that it arrived."""
        self.ledger.append("out", amount=-7, idempotency_key=f"{message}/out")
        await self.get(type(self), to).take(message)
        self.ledger.append("arrived", idempotency_key=f"{message}/arrived")

    async def take(self, message: str) -> None:
        """The other side of a transfer."""
        self.ledger.append("in", amount=7, idempotency_key=f"{message}/in")
