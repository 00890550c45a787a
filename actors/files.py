"""Files and folders of ours, made durable: SQLite syncs a file and, once, its folder; the rest is done here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import DatabaseFailure, NotADatabase


def is_there(path: Path | str) -> bool:
    """Whether there is a file. Raises NotADatabase for a folder, a link or a device, DatabaseFailure."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DatabaseFailure(f"cannot look at {path}: {error}") from error
    if not stat.S_ISREG(mode):
        raise NotADatabase(f"{os.path.basename(path)} is not a regular file, but a folder, a link or a device")
    return True


class Files:
    """How files and folders are made. Every step of it is a method, so that a simulated disk can stand in for each."""

    def __init__(self) -> None:
        """No folder is known to be durable."""
        self._durable: set[Path] = set()

    def create_file(self, path: Path, content: bytes, wal: bytes = b"") -> None:
        """Make a new file, and its WAL if it is a database; durable but for their entries in the folder.

        SQLite syncs the folder with the first commit to the file. Raises DatabaseFailure.
        """
        new, log, index = (path.with_name(f"{path.name}{suffix}") for suffix in (".new", "-wal", "-shm"))
        contents = {log: wal, new: content} if wal else {new: content}
        try:
            for left in (index,) if wal else (log, index):  # of a file that was here before: not of this one
                self.remove(left)
            self._write(contents)
            self.rename(new, path)
        except OSError as error:
            raise DatabaseFailure(f"cannot create {path}: {error}") from error

    def _write(self, contents: dict[Path, bytes]) -> None:
        """Write new files and sync them. All are begun before the first sync, which then is nearly all the syncs."""
        made: list[tuple[Path, int]] = []
        try:
            for path, content in contents.items():
                made.append((path, self.create(path)))
                self.fill(*made[-1], content)
                _begin_writing(made[-1][1])
            for path, descriptor in made:
                self.sync(path, descriptor)
        finally:
            for _, descriptor in made:
                os.close(descriptor)

    def renew_wal(self, path: Path) -> None:
        """Write what the WAL of this database holds, if it has one, once more and sync it. Raises DatabaseFailure.

        A sync that failed may have left bytes that the kernel shows to everybody and takes for written: no later sync
        writes them, only writing them again does. A checkpoint of such bytes could be cut off half-way, and then
        neither file would hold the rest.
        """
        wal = path.with_name(f"{path.name}-wal")
        try:
            if not wal.exists():
                return
            content = wal.read_bytes()
            descriptor = os.open(wal, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                self.fill(wal, descriptor, content)
                self.sync(wal, descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DatabaseFailure(f"cannot renew {wal}: {error}") from error

    def make_folder(self, path: Path) -> None:
        """Make a folder of ours and its parents, durably. Raises DatabaseFailure.

        One that is there is synced as well, once: whoever made it may not have come to that yet, or been killed.
        """
        if path in self._durable:
            return
        try:
            made = not path.is_dir()
            if made:
                self.make_folder(path.parent)
                self.add_folder(path)
            try:
                self.sync_folder(path.parent)
            except PermissionError:  # somebody else has made it for us
                if made:
                    raise
            self._durable.add(path)
        except OSError as error:
            raise DatabaseFailure(f"cannot create {path}: {error}") from error

    def remove_folder(self, path: Path) -> None:
        """Remove a folder, which may be there, and the files in it. Raises OSError."""
        if path.is_dir() and not path.is_symlink():
            for file in sorted(path.iterdir()):
                self.remove(file)
            self.drop_folder(path)
            self._durable.discard(path)

    # Steps; each raises OSError

    def create(self, path: Path) -> int:
        """Open a new file for writing, or an old one without its content; the descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def fill(self, _path: Path, descriptor: int, content: bytes) -> None:
        """Write all of this from the file's beginning."""
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]

    def sync(self, _path: Path, descriptor: int) -> None:
        """Make the file's content durable."""
        os.fsync(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file that may be there."""
        path.unlink(missing_ok=True)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name in its folder."""
        os.rename(path, to)

    def add_folder(self, path: Path) -> None:
        """Make a folder whose parent is there."""
        path.mkdir(mode=0o700, exist_ok=True)

    def drop_folder(self, path: Path) -> None:
        """Remove a folder that is empty."""
        path.rmdir()

    def sync_folder(self, path: Path) -> None:
        """Make the folder's entries durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _begin_writing(descriptor: int) -> None:
    """Have the device begin with what was written."""
    if hasattr(os, "posix_fadvise"):  # on Linux, this is what it does with pages that the device does not have yet
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
