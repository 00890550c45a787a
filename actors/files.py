"""Files and folders of ours, made durable: SQLite syncs a file and, once, its folder; the rest is done here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import DatabaseFailure, NotADatabase


def is_there(path: Path) -> bool:
    """Whether there is a file. Raises NotADatabase for a folder, a link or a device, DatabaseFailure."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DatabaseFailure(f"cannot look at {path}: {error}") from error
    if not stat.S_ISREG(mode):
        raise NotADatabase(f"{path.name} is not a regular file, but a folder, a link or a device")
    return True


def create_file(path: Path, image: bytes) -> None:
    """Make a new file with this content, durable but for its entry in the folder.

    SQLite syncs the folder with the first commit to the file. Raises DatabaseFailure.
    """
    partial = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            left = memoryview(image)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for suffix in ("-wal", "-shm"):  # of a file that was here before: not of this one
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
        os.rename(partial, path)
    except OSError as error:
        raise DatabaseFailure(f"cannot create {path}: {error}") from error


def make_folder(path: Path) -> None:
    """Make a folder of ours and its parents, durably. Raises DatabaseFailure."""
    try:
        if path.is_dir():
            return
        make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise DatabaseFailure(f"cannot create {path}: {error}") from error


def sync_folder(path: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
