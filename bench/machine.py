"""Facts about the machine that a figure means nothing without."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import msgspec

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs"})


class FileSystem(msgspec.Struct, frozen=True):
    """Where the files of the run live."""

    kind: str
    device: str
    write_cache: str

    @property
    def in_memory(self) -> bool:
        """True where a sync is a no-op, so that every durable figure is meaningless."""
        return self.kind in MEMORY_FILE_SYSTEMS


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a report."""

    cpu: str
    cores: int
    load: float
    kernel: str
    python: str
    versions: dict[str, str]
    file_system: FileSystem
    priority_raised: bool


def describe(directory: Path, *, z0: str, sqlite: str, priority_raised: bool) -> Machine:
    """Everything cheaply known about this machine. `z0`, `sqlite`: their versions."""
    versions = {"z0": z0, **{name: _version(name) for name in ("apsw", "uvloop", "msgspec")}}
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 0,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={**versions, "SQLite": sqlite},
        file_system=file_system(directory),
        priority_raised=priority_raised,
    )


def raise_priority() -> bool:
    """Run ahead of other programs, if this user may: else waking after a sync can wait for them."""
    try:
        os.nice(-19)
    except (OSError, AttributeError):
        return False
    return True


def file_system(directory: Path) -> FileSystem:
    """The file system that holds a directory: the deepest mount above it."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return FileSystem("unknown", "unknown", "unknown")
    target = directory.resolve()
    best = ("unknown", "unknown")
    depth = -1
    for line in mounts:
        device, point, kind = line.split(" ")[:3]
        mount = Path(point.replace("\\040", " "))
        if target.is_relative_to(mount) and len(mount.parts) >= depth:
            best, depth = (kind, device), len(mount.parts)
    return FileSystem(best[0], best[1], _write_cache(best[1]))


def _write_cache(device: str) -> str:
    queue = Path("/sys/class/block") / Path(device).name / "queue" / "write_cache"
    try:
        return queue.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    if distribution == "uvloop" and "uvloop" not in sys.modules:
        return "not used"
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
