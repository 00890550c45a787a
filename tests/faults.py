"""A disk that fails on demand: SQLite's own file system with faults, and a log of what was asked of it.

    with faulty_disk() as disk:
        async with z0.Runtime(path, vfs=disk.name) as runtime:
            disk.fail("sync", 3)            # the third sync from here on fails, once
            disk.fail("write", forever=True)
            disk.heal()

Only actors' files fail: the catalogue has a life of its own. Calls come from several threads.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import apsw

Kind = Literal["open", "read", "write", "sync", "truncate", "delete", "size"]

_numbers = itertools.count()


class Call(NamedTuple):
    """One call of SQLite, as it was made."""

    kind: Kind
    file: str
    failed: bool


class Fault(NamedTuple):
    """What will fail: the `at`-th call of a kind, or every one from there on, of files whose path ends so."""

    kind: Kind
    at: int
    forever: bool
    suffix: str
    error: type[Exception]


class Disk(apsw.VFS):
    """The file system that actors' files are on."""

    def __init__(self) -> None:
        self.name = f"z0-faulty-{next(_numbers)}"
        self.log: list[Call] = []
        self.volatile: set[str] = set()
        """Files that hold writes which no sync has made durable."""
        self._fault: Fault | None = None
        self._seen = 0
        self._lock = threading.Lock()
        super().__init__(self.name, "unix")

    def fail(
        self,
        kind: Kind,
        at: int = 1,
        *,
        forever: bool = False,
        suffix: str = "",
        error: type[Exception] = apsw.IOError,
    ) -> None:
        """Have a coming call fail. Replaces what was to fail before."""
        with self._lock:
            self._fault = Fault(kind, at, forever, suffix, error)
            self._seen = 0

    def heal(self) -> None:
        """Have nothing fail any more."""
        with self._lock:
            self._fault = None

    @property
    def failures(self) -> list[Call]:
        """The calls that failed so far."""
        with self._lock:
            return [call for call in self.log if call.failed]

    def calls(self, kind: Kind, file: str = "") -> int:
        """How many calls of a kind there were for files whose path ends so."""
        with self._lock:
            return sum(call.kind == kind and call.file.endswith(file) for call in self.log)

    def asked(self, kind: Kind, file: str) -> None:
        """Note a call, and fail it when it is due."""
        if not _of_an_actor(file):
            return
        with self._lock:
            fault = self._fault
            due = False
            if fault is not None and fault.kind == kind and _main(file).endswith(fault.suffix):
                self._seen += 1
                due = self._seen == fault.at or (fault.forever and self._seen > fault.at)
            self.log.append(Call(kind, file, due))
            if due:
                assert fault is not None
                raise fault.error("injected")
            if kind == "write":
                self.volatile.add(file)
            elif kind == "sync":
                self.volatile.discard(file)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.asked("delete", filename)
        super().xDelete(filename, syncdir)
        self.volatile.discard(filename)


class _File(apsw.VFSFile):
    """One open file of the disk."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = str(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        disk.asked("open", self._path)
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.asked("read", self._path)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.asked("write", self._path)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.asked("sync", self._path)  # the log is the device: a real sync would only take time

    def xTruncate(self, newsize: int) -> None:
        self._disk.asked("truncate", self._path)
        super().xTruncate(newsize)

    def xFileSize(self) -> int:
        self._disk.asked("size", self._path)
        return super().xFileSize()


def _main(file: str) -> str:
    """The database that a -wal or a -journal belongs to."""
    return file.removesuffix("-wal").removesuffix("-journal")


def _of_an_actor(file: str) -> bool:
    return _main(file).endswith(".sqlite") and not _main(file).endswith("/catalog.sqlite")


@contextmanager
def faulty_disk() -> Iterator[Disk]:
    """A disk that works until it is told to fail; SQLite forgets it afterwards."""
    disk = Disk()
    try:
        yield disk
    finally:
        disk.unregister()
