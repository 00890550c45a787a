"""What is done with whole files: making, opening, checkpointing and closing them. One seam, which tests replace."""

from __future__ import annotations

from pathlib import Path

from .database import Database
from .files import Files
from .names import Address


class FileOps(Files):
    """As it is done for real. `checkpoint`, `close` and what makes an actor's file run in threads."""

    def open(self, _address: Address, path: Path, *, vfs: str | None, sync: bool) -> Database:
        """The actor's file, opened. Raises NotADatabase, DatabaseFailure."""
        return Database(path, vfs=vfs, sync=sync)

    def checkpoint(self, _address: Address, database: Database, *, wait: bool) -> bool:
        """As Database.checkpoint. Raises DatabaseFailure."""
        return database.checkpoint(wait=wait)

    def close(self, _address: Address, database: Database) -> None:
        """Close a file that was left well. Raises DatabaseFailure, with the file closed all the same."""
        database.close()
