"""A disk that fails on demand: SQLite's own file system with faults, and a log of what was asked of it.

    with faulty_disk() as disk:
        async with z0.Runtime(path, vfs=disk.name) as runtime:
            disk.fail("sync", 3)            # the third sync from here on fails, once
            disk.fail("write", forever=True)
            disk.heal()

Only actors' files fail, unless a suffix names others: the catalogue has a life of its own. What z0 does to files
without SQLite fails as well. Calls come from several threads.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw

import z0
from z0.actors import files

Kind = Literal[
    "open", "read", "short read", "size", "write", "truncate", "sync", "delete", "create", "rename", "sync folder"
]
Error = Literal["io", "full"]

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
    error: Error


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
        error: Error = "io",
    ) -> None:
        """Have a coming call fail. Replaces what was to fail before."""
        with self._lock:
            self._fault = Fault(kind, at, forever, suffix, error)
            self._seen = 0

    def heal(self) -> None:
        """Have nothing fail any more."""
        with self._lock:
            self._fault = None

    def runtime(self, path: str | os.PathLike[str], **options: Any) -> z0.Runtime:
        """A runtime whose files are on this disk."""
        return z0.Runtime(path, vfs=self.name, **options)

    @property
    def failures(self) -> list[Call]:
        """The calls that failed so far."""
        with self._lock:
            return [call for call in self.log if call.failed]

    def calls(self, kind: Kind, file: str = "") -> int:
        """How many calls of a kind there were for files whose path ends so."""
        with self._lock:
            return sum(
                call.kind == kind and call.file.endswith(file) and _counts(call.file, file and _main(file))
                for call in self.log
            )

    def strikes(self, kind: Kind, file: str) -> Error | None:
        """Note a call; how it fails, if it does."""
        with self._lock:
            fault = self._fault
            failing: Error | None = None
            if fault is not None and fault.kind == kind and _counts(file, fault.suffix):
                self._seen += 1
                if self._seen == fault.at or (fault.forever and self._seen > fault.at):
                    failing = fault.error
            self.log.append(Call(kind, file, failing is not None))
            if failing is None and kind == "write" and _counts(file, ""):
                self.volatile.add(file)
            elif failing is None and kind == "sync":
                self.volatile.discard(file)
            return failing

    def asked(self, kind: Kind, file: str) -> None:
        """Note a call of SQLite, and fail it when it is due."""
        failing = self.strikes(kind, file)
        if failing is not None:
            other = apsw.CantOpenError if kind == "open" else apsw.IOError
            raise (apsw.FullError if failing == "full" else other)("injected")

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
        content = super().xRead(amount, offset)
        return content[: amount // 2] if self._disk.strikes("short read", self._path) else content

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


class _Os:
    """The module `os` as z0.actors.files sees it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._paths: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _ask(self, kind: Kind, path: object) -> None:
        failing = self._disk.strikes(kind, str(path))
        if failing is not None:
            raise OSError(errno.ENOSPC if failing == "full" else errno.EIO, "injected", str(path))

    def open(self, path: Path, flags: int, *mode: int) -> int:
        if not flags & os.O_DIRECTORY:
            self._ask("create", path)
        descriptor = os.open(path, flags, *mode)
        self._paths[descriptor] = str(path)
        return descriptor

    def write(self, descriptor: int, content: Any) -> int:
        self._ask("write", self._paths[descriptor])
        return os.write(descriptor, content)

    def fsync(self, descriptor: int) -> None:
        self._ask("sync folder" if os.path.isdir(self._paths[descriptor]) else "sync", self._paths[descriptor])

    def rename(self, path: Path, to: Path) -> None:
        self._ask("rename", to)
        os.rename(path, to)


def _main(file: str) -> str:
    """The database that a -wal, a -journal or a file in the making belongs to."""
    return file.removesuffix("-wal").removesuffix("-journal").removesuffix(".new")


def _counts(file: str, suffix: str) -> bool:
    main = _main(file)
    return main.endswith(suffix) if suffix else os.path.basename(main) != "catalog.sqlite"


@contextmanager
def faulty_disk() -> Iterator[Disk]:
    """A disk that works until it is told to fail; SQLite forgets it afterwards."""
    disk = Disk()
    vars(files)["os"] = _Os(disk)
    try:
        yield disk
    finally:
        vars(files)["os"] = os
        disk.unregister()
