"""Quarantine: an actor whose file is damaged, or not its own, answers with an error until the file is right again.

A damaged ledger is all there is of its facts, so it is never moved, mended or made anew: whoever runs the program puts
a backup in its place. Until then messages are refused without reading the file. It is looked at again when it has
changed, and now and then because disks can misread; then it has to pass SQLite's check as a whole.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .database import explain
from .errors import ActorFileError, NotADatabase
from .names import Address

if TYPE_CHECKING:
    from .clock import Clock
    from .metrics import Metrics

log = logging.getLogger("z0.actors")

_LOOK_AGAIN_SECONDS = 10.0
_Seen = tuple[tuple[int, int, int] | None, ...]


class _Mark(NamedTuple):
    path: Path
    reason: str
    seen: _Seen
    until: float


class Quarantine:
    """Which actors' files are not to be trusted as they are."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        """None."""
        self.suspect: set[Address] = set()
        """Their storage failed: a full checkpoint must succeed before the next message."""
        self._clock = clock
        self._metrics = metrics
        self._marks: dict[Address, _Mark] = {}

    def __len__(self) -> int:
        """How many actors are quarantined."""
        return len(self._marks)

    def __contains__(self, address: Address) -> bool:
        """Whether the actor is quarantined."""
        return address in self._marks

    def failed(self, address: Address, path: Path, failure: BaseException) -> None:
        """Note that an actor's storage failed, and quarantine it if its file is damaged."""
        self.suspect.add(address)
        told = explain(failure) if isinstance(failure, Exception) else failure
        if isinstance(told, NotADatabase):
            self.put(address, path, str(told))

    def put(self, address: Address, path: Path, reason: str) -> None:
        """Quarantine an actor."""
        if address not in self._marks:
            self._metrics.quarantines[address.namespace] += 1
            log.error("actor %s is quarantined: %s: %s", address, path, reason)
        self._marks[address] = _Mark(path, reason, _look(path), self._clock.monotonic() + _LOOK_AGAIN_SECONDS)

    def admit(self, address: Address) -> bool:
        """Whether the file must be checked as a whole before it is used. Raises ActorFileError: it is not even read."""
        mark = self._marks.get(address)
        if mark is not None and self._clock.monotonic() < mark.until and _look(mark.path) == mark.seen:
            raise self.refusal(address)
        return mark is not None

    def refusal(self, address: Address) -> ActorFileError:
        """What callers of a quarantined actor get."""
        mark = self._marks[address]
        reason = f"{mark.reason}; the actor is quarantined: put a backup in its place, and no -wal beside it"
        return ActorFileError(str(mark.path), reason)

    def release(self, address: Address) -> None:
        """The file is right."""
        if self._marks.pop(address, None) is not None:
            log.warning("actor %s is out of quarantine: its file is whole", address)


def _look(path: Path) -> _Seen:
    """What tells whether a file was replaced or written to, and its WAL."""
    seen: list[tuple[int, int, int] | None] = []
    for each in (str(path), f"{path}-wal"):
        try:
            found = os.lstat(each)
        except OSError:
            seen.append(None)
        else:
            seen.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(seen)
