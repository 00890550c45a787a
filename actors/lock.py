"""Ownership of a data directory: one process, one runtime, held by an OS lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from .errors import DataDirLocked

LOCK_FILE = "z0.lock"


class DirectoryLock:
    """Held from construction to `release`. Raises DataDirLocked when somebody else holds it."""

    def __init__(self, directory: Path) -> None:
        """Take the lock; the lock file says which process has it."""
        self._file = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).strip()
            os.close(self._file)
            raise DataDirLocked(str(directory), int(holder) if holder.isdigit() else None) from None
        with suppress(OSError):  # a full disk: the lock is held all the same, and names nobody
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it; harmless when released before."""
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked child may share the descriptor
            self.forget()

    def forget(self) -> None:
        """Close the descriptor without giving the lock up: in a forked child, where it is the parent's."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
