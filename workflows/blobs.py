"""Results that are too big for a journal's row: each a file beside the instance's, named by the hash of its content."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from z0.actors.errors import DatabaseFailure, InvalidValue
from z0.actors.files import Files
from z0.actors.removal import BLOBS


def folder_of(file: Path) -> Path:
    """Where the blobs of an instance are whose file this is."""
    return file.with_suffix(BLOBS)


def write(files: Files, folder: Path, content: bytes) -> str:
    """Keep the content, durably; the name by which it is found. Raises DatabaseFailure. For a thread."""
    name = _name(content)
    path = folder / name
    files.make_folder(folder)
    try:
        if not path.exists():
            files.create_file(path, content)
        files.sync_folder(folder)
    except (OSError, DatabaseFailure) as error:
        if not path.exists():  # else somebody else has just kept the same
            raise DatabaseFailure(f"cannot keep {path}: {error}") from error
    return name


def read(folder: Path, name: str) -> bytes:
    """What was kept. Raises InvalidValue when it is gone or damaged. For a thread."""
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidValue(
            f"{path} cannot be read: {error}; it holds a step's result: put it back, or, for a file that was copied, "
            f"copy the folder {BLOBS!r} that stands beside the original as {folder.name!r}"
        ) from error
    if _name(content) != name:
        raise InvalidValue(f"{path} is damaged; put a copy in its place, it holds a step's result")
    return content


def _name(content: bytes) -> str:
    return blake2b(content, digest_size=20).hexdigest()
