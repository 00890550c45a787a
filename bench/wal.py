"""The state of the WAL files: a file that still grows costs twice the sync of one that is reused.

Sizes are taken by stat. Opening a live file here, in its owner's process, would drop SQLite's locks on
closing it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from .settings import Settings

WARM_STEPS_MAX = 20


async def until_warm(settings: Settings, folder: Path, step: Callable[[], Awaitable[None]]) -> None:
    """Take steps until no WAL file below the folder grows any more; a smoke run takes one."""
    size = 0
    for _ in range(settings.size(1, WARM_STEPS_MAX)):
        await step()
        before, size = size, wal_bytes(folder)
        if size <= before:
            return


def wal_sizes(folder: Path) -> tuple[int, int]:
    """WAL bytes of z0's files (below `z0`) and of the bare ones."""
    ours = wal_bytes(folder / "z0")
    return ours, wal_bytes(folder) - ours


def wal_note(before: tuple[int, int], after: tuple[int, int]) -> str:
    """Whether both sides really reused their WAL."""
    kib = [size // 1024 for size in (*before, *after)]
    return f"WAL files, KiB, before → after measuring: z0 {kib[0]} → {kib[2]}, bare {kib[1]} → {kib[3]}"


def wal_bytes(folder: Path) -> int:
    """Size of all WAL files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*-wal"))
