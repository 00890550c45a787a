"""Who wants to know when something has become of an actor, whether it is in memory or not."""

from __future__ import annotations

import asyncio

from .names import Address


class Followers:
    """Waiting for news of actors, without keeping these in memory."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: dict[tuple[Address, str], asyncio.Future[None]] = {}

    def follow(self, address: Address, topic: str = "") -> asyncio.Future[None]:
        """Done when there is news of the actor, or the runtime closes. Many may wait for it: never cancel it."""
        future = self._waiting.get((address, topic))
        if future is None:
            future = self._waiting[address, topic] = asyncio.get_running_loop().create_future()
        return future

    def has(self, address: Address, topic: str = "") -> bool:
        """Whether somebody waits for such news of the actor."""
        return (address, topic) in self._waiting

    def tell_all(self) -> None:
        """Nothing will come any more: whoever waits has to look for themselves."""
        for address, topic in list(self._waiting):
            self.tell(address, topic)

    def tell(self, address: Address, topic: str = "") -> None:
        """There is news."""
        future = self._waiting.pop((address, topic), None)
        if future is not None and not future.done():
            future.set_result(None)
