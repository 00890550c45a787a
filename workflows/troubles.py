"""Why schedules have not run: kept by the calendar of a class, in its file, until they run again."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from z0.actors.clock import to_us
from z0.actors.errors import said
from z0.actors.schedule import retry_seconds
from z0.actors.storage import Storage

_PREFIX = "trouble/"


class Trouble(msgspec.Struct, frozen=True):
    """What kept a schedule from its last run."""

    error: str
    tries: int = 0
    """That have failed of the run that is still to be made; 0: that run was passed over."""
    again: int = 0
    """When it is tried again, in µs since the epoch."""


class Troubles:
    """Of the schedules of one calendar, by their names."""

    def __init__(self, storage: Storage) -> None:
        """Kept there."""
        self._storage = storage

    def get(self, name: str) -> Trouble | None:
        """That of one schedule."""
        return self._storage.get(_PREFIX + name, type=Trouble)

    def all(self) -> dict[str, Trouble]:
        """Of all that have one."""
        found = self._storage.list(prefix=_PREFIX, type=Trouble)
        return {key.removeprefix(_PREFIX): trouble for key, trouble in found.items()}

    def passed_over(self, name: str, error: Exception) -> None:
        """The run is not made."""
        self._storage.put(_PREFIX + name, Trouble(_text(error)))

    def delayed(self, name: str, error: Exception, now: int, random: Callable[[], float]) -> int:
        """The run is tried again, the later the more often it failed, up to 21 minutes; when."""
        before = self.get(name)
        tries = 1 if before is None else before.tries + 1
        again = now + to_us(retry_seconds(tries, random))
        self._storage.put(_PREFIX + name, Trouble(_text(error), tries, again))
        return again

    def clear(self, name: str) -> None:
        """It ran, or is another schedule now."""
        self._storage.delete(_PREFIX + name)


def _text(error: Exception) -> str:
    return said(error)[:2_000].encode(errors="backslashreplace").decode()
