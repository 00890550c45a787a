"""Replaying a copied journal with today's code, to know before a deployment whether instances can go on with it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from z0.actors.clock import Span, seconds
from z0.actors.errors import ActorFileError
from z0.actors.within import within
from z0.importing import imported
from z0.inspect import moment
from z0.runtime import Runtime
from z0.workflows import blobs, journal
from z0.workflows.replay import Replayed, Replaying
from z0.workflows.workflow import Workflow

__all__ = ["Replayed", "class_of", "replay"]


class _Limited(Replaying):
    z0_seconds: float | None

    async def z0_replay(self, rows: list[tuple[Any, ...]]) -> Replayed:
        replaying = super().z0_replay(rows)
        if self.z0_seconds is None:
            return await replaying
        exceeded = (
            f"{self._z0_engine.address}: the body came neither to its end nor to a step that the journal does not have "
            f"within {self.z0_seconds:g} seconds; does it wait for something that is no step?"
        )
        return await within(self.clock, self.z0_seconds, replaying, exceeded)


async def replay(
    file: str | Path, cls: type[Workflow], *, env: Any = None, limit: Span | None = "30 seconds"
) -> Replayed:
    """Run the class's body against an instance's file, live or copied, which is only read: no step is executed.

    `env`: what the body finds as `self.env`. `limit`: for a body that waits for what no replay brings about. Raises
    ActorFileError for what is no instance's file, LimitExceeded after so long, ValueError for what is no span.
    """
    longest = None if limit is None else seconds(limit)
    path = Path(file)
    with moment(path) as (reader, address, _):
        if not reader.has_table("z0_journal"):
            raise ActorFileError(str(path), f"{address} is no workflow instance")
        rows = reader.rows(journal.ENTRIES)
    names = {"namespace": address.namespace, "z0_blobs": blobs.folder_of(path), "__module__": cls.__module__}
    alone = {"schedules": (), "z0_seconds": longest}  # nothing is begun here by a calendar
    replaying: Any = type(cls.__name__, (_Limited, cls), {**names, **alone})
    folder = tempfile.mkdtemp(prefix="z0-replay-")
    try:
        async with Runtime(Path(folder) / "data", actors=[replaying], env=env, durability="relaxed") as runtime:
            found = await runtime.tenant(address.tenant).get(replaying, address.name).z0_replay(rows)
            assert isinstance(found, Replayed)
            return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def class_of(name: str) -> type[Workflow]:
    """The class of "module:Class", imported from the working directory too. Raises ValueError."""
    found = imported(name)
    if not (isinstance(found, type) and issubclass(found, Workflow)):
        raise ValueError(f"{name!r} is no subclass of z0.Workflow")
    return found
