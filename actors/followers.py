"""Who wants to know when something has become of an actor, whether it is in memory or not."""

from __future__ import annotations

import asyncio

from .names import Address


class Followers:
    """Waiting for news of actors, without keeping these in memory."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: dict[Address, asyncio.Future[None]] = {}

    def follow(self, address: Address) -> asyncio.Future[None]:
        """Done when there is news of the actor. Many may wait for it: never cancel it."""
        future = self._waiting.get(address)
        if future is None:
            future = self._waiting[address] = asyncio.get_running_loop().create_future()
        return future

    def tell(self, address: Address) -> None:
        """There is news."""
        future = self._waiting.pop(address, None)
        if future is not None and not future.done():
            future.set_result(None)
