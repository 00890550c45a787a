"""A simulated disk: SQLite's own file system, with faults on demand and a trace from which power cuts are made.

    with simulated_disk(trace=True) as disk:
        async with disk.runtime(path) as runtime:
            disk.fail("sync", 3)                     # the third sync of an actor's file from here on fails, once
            disk.fail("write", forever=True, error="full")
            disk.heal()
            await runtime.get(Account, "a").append("deposit", amount=1)
            disk.mark("acknowledged")
        for image in disk.images():                  # whatever a power cut may have left, at any moment
            image.write(somewhere, of=path)

Files are real ones, so use a RAM disk. Calls come from several threads.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw

from z0.actors.catalog import CATALOG_FILE
from z0.actors.fileops import FileOps
from z0.crashes import CrashImage, crash_images
from z0.medium import Create, Delete, Event, Found, MakeFolder, Mark, Rename, Sync, SyncFolder, Truncate, Write
from z0.runtime import Runtime

__all__ = ["Call", "Kind", "SimulatedDisk", "simulated_disk"]

Kind = Literal[
    "open", "read", "short read", "size", "write", "truncate", "sync", "delete",
    "create", "rename", "make folder", "sync folder",
]  # fmt: skip
"""What can fail: calls of SQLite, and (the last four, and writes, syncs and deletes) what z0 does to make new files."""
Error = Literal["io", "full"]

_SYNCS_ITS_FOLDER = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_numbers = itertools.count()


class Call(NamedTuple):
    """One call, as it was made."""

    kind: Kind
    file: str
    failed: bool


class _Fault(NamedTuple):
    kind: Kind
    at: int
    forever: bool
    suffix: str
    error: Error


class SimulatedDisk(apsw.VFS):
    """A disk that works until it is told to fail. `name`: of the VFS, for `Runtime(vfs=...)`."""

    def __init__(self, *, trace: bool = False) -> None:
        """Made by `simulated_disk`. `trace`: remember all that is written, for `images`."""
        self.name = f"z0-simulated-{next(_numbers)}"
        self.log: list[Call] = []
        """The calls so far; may be cleared."""
        self.volatile: set[str] = set()
        """Files that hold writes which no sync has made durable."""
        self.trace: list[Event] = []
        self._tracing = trace
        self._fault: _Fault | None = None
        self._seen = 0
        self.making = threading.Lock()
        self._lock = threading.Lock()
        super().__init__(self.name, "unix")

    def runtime(self, path: str | os.PathLike[str], **options: Any) -> Runtime:
        """A runtime all of whose files are on this disk, those among them that z0 makes without SQLite.

        `options` are those of Runtime. What is in the directory already is taken to be durable.
        """
        runtime = Runtime(path, vfs=self.name, **options)
        runtime.node.file_ops = _Files(self)
        if self._tracing:
            self._find(Path(path).absolute())
        return runtime

    # Faults

    def fail(self, kind: Kind, at: int = 1, *, forever: bool = False, suffix: str = "", error: Error = "io") -> None:
        """Have a coming call fail: the `at`-th of that kind, or (`forever`) every one from there on.

        `suffix`: of files or folders whose path ends so, a -wal counting as its database; without it of all but the
        catalogue. A "short read" gives SQLite half of what it asked for. Replaces what was to fail before.
        """
        with self._lock:
            self._fault = _Fault(kind, at, forever, suffix, error)
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

    def calls(self, kind: Kind, suffix: str = "") -> int:
        """How many calls of a kind there were, of files whose path ends so; without `suffix`: not the catalogue."""
        with self._lock:
            return sum(call.kind == kind and _meant(call.file, suffix) for call in self.log)

    def strikes(self, kind: Kind, file: str) -> Error | None:
        """Note a call; how it fails, if it does."""
        with self._lock:
            fault = self._fault
            failing = None
            if fault is not None and fault.kind == kind and _meant(_main(file), fault.suffix):
                self._seen += 1
                if self._seen == fault.at or (fault.forever and self._seen > fault.at):
                    failing = fault.error
            self.log.append(Call(kind, file, failing is not None))
            return failing

    # The trace

    def mark(self, label: object) -> None:
        """Note in the trace that something has happened, such as an acknowledgement."""
        self.record(Mark(label))

    def images(self, *, seed: int = 0, each: int = 2, points: Collection[int] | None = None) -> Iterator[CrashImage]:
        """What a power cut may have left, at each moment so far or at `points` (events before it) only.

        For each moment: nothing of what was not durable, everything, and `each` random images of every other mode.
        An image like an earlier one, content and marks, is left out.
        """
        with self._lock:
            trace = list(self.trace)
        return crash_images(trace, seed=seed, each=each, points=points)

    def record(self, event: Event) -> None:
        """Note what has happened."""
        with self._lock:
            match event:
                case Write(path):
                    self.volatile.add(path)
                case Sync(path, failed=False) | Delete(path):
                    self.volatile.discard(path)
            if self._tracing:
                self.trace.append(event)

    def _find(self, path: Path) -> None:
        known = {event.path for event in self.trace if not isinstance(event, Mark | Found)}
        known.update(*(event.files for event in self.trace if isinstance(event, Found)))
        known.update(event.to for event in self.trace if isinstance(event, Rename))
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.endswith("-shm")]
        found = {str(file): file.read_bytes() for file in files if str(file) not in known}
        if found:
            self.record(Found(found))

    # What SQLite asks for

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:
        """Open a file."""
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete a file."""
        _fail(self.strikes("delete", filename))
        super().xDelete(filename, syncdir)
        self.record(Delete(filename))
        if syncdir:
            self.record(SyncFolder(os.path.dirname(filename)))


class _File(apsw.VFSFile):
    """One open file of the disk."""

    def __init__(self, disk: SimulatedDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = str(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        # SQLite's own file system syncs the folder with the first sync of a journal that it may have created.
        self._syncs_its_folder = bool(flags[0] & _SYNCS_ITS_FOLDER and flags[0] & apsw.SQLITE_OPEN_CREATE)
        _fail(disk.strikes("open", self._path), apsw.CantOpenError)
        new = bool(self._path) and not os.path.exists(self._path)
        super().__init__("unix", name, flags)
        if new:
            disk.record(Create(self._path))

    def xRead(self, amount: int, offset: int) -> bytes:
        _fail(self._disk.strikes("read", self._path))
        content = super().xRead(amount, offset)
        return content[: amount // 2] if self._disk.strikes("short read", self._path) else content

    def xWrite(self, data: Any, offset: int) -> None:
        _fail(self._disk.strikes("write", self._path))
        super().xWrite(data, offset)
        self._disk.record(Write(self._path, offset, bytes(data)))

    def xSync(self, flags: int) -> None:
        failing = self._disk.strikes("sync", self._path)
        self._disk.record(Sync(self._path, failing is not None))  # a real sync would only take time
        _fail(failing)
        if self._syncs_its_folder:
            self._syncs_its_folder = False
            self._disk.record(SyncFolder(os.path.dirname(self._path)))

    def xTruncate(self, newsize: int) -> None:
        _fail(self._disk.strikes("truncate", self._path))
        super().xTruncate(newsize)
        self._disk.record(Truncate(self._path, newsize))

    def xFileSize(self) -> int:
        _fail(self._disk.strikes("size", self._path))
        return super().xFileSize()


class _Files(FileOps):
    """What z0 does to files and folders without SQLite, on the disk."""

    def __init__(self, disk: SimulatedDisk) -> None:
        super().__init__()
        self._disk = disk

    def create(self, path: Path) -> int:
        self._ask("create", path)
        new = not path.exists()
        descriptor = super().create(path)
        self._disk.record(Create(str(path)) if new else Truncate(str(path), 0))
        return descriptor

    def fill(self, path: Path, descriptor: int, content: bytes) -> None:
        self._ask("write", path)
        super().fill(path, descriptor, content)
        self._disk.record(Write(str(path), 0, content))

    def sync(self, path: Path, _descriptor: int) -> None:
        failing = self._disk.strikes("sync", str(path))
        self._disk.record(Sync(str(path), failing is not None))
        _fail_os(failing, path)

    def remove(self, path: Path) -> None:
        if path.exists():
            self._ask("delete", path)
            super().remove(path)
            if not path.name.endswith("-shm"):
                self._disk.record(Delete(str(path)))

    def rename(self, path: Path, to: Path) -> None:
        self._ask("rename", to)
        super().rename(path, to)
        self._disk.record(Rename(str(path), str(to)))

    def add_folder(self, path: Path) -> None:
        self._ask("make folder", path)
        with self._disk.making:  # of two that make it, the first one does
            new = not path.exists()
            super().add_folder(path)
            if new:
                self._disk.record(MakeFolder(str(path)))

    def drop_folder(self, path: Path) -> None:
        self._ask("delete", path)
        super().drop_folder(path)
        self._disk.record(Delete(str(path)))

    def sync_folder(self, path: Path) -> None:
        self._ask("sync folder", path)
        self._disk.record(SyncFolder(str(path)))

    def _ask(self, kind: Kind, path: Path) -> None:
        _fail_os(self._disk.strikes(kind, str(path)), path)


def _fail(failing: Error | None, otherwise: type[apsw.Error] = apsw.IOError) -> None:
    if failing is not None:
        raise (apsw.FullError if failing == "full" else otherwise)("injected")


def _fail_os(failing: Error | None, path: Path) -> None:
    if failing is not None:
        raise OSError(errno.ENOSPC if failing == "full" else errno.EIO, "injected", str(path))


def _main(file: str) -> str:
    """The database that a -wal, a -journal or a file in the making belongs to."""
    return file.removesuffix("-wal").removesuffix("-journal").removesuffix(".new")


def _meant(file: str, suffix: str) -> bool:
    return file.endswith(suffix) if suffix else os.path.basename(_main(file)) != CATALOG_FILE


@contextmanager
def simulated_disk(*, trace: bool = False) -> Iterator[SimulatedDisk]:
    """A disk that works until it is told to fail; SQLite forgets it afterwards. `trace`: for `images`."""
    disk = SimulatedDisk(trace=trace)
    try:
        yield disk
    finally:
        disk.unregister()
