"""What is durable on a disk, and what is not yet, after what was asked of it. Pure.

The model, as unkind as file systems may be:

- A file's content is durable after a sync of the file. Of later writes any may be lost, alone or with others, and one
  may be torn: each of its sectors of 512 bytes survives or does not.
- A name (made, renamed, deleted; of a file or a folder) is durable after a sync of the folder that it is in. Of later
  changes to a folder any may be lost. A rename happens as a whole.
- After a sync that failed, what it was to make durable is in doubt for ever: the kernel may hold it as written, so that
  no later sync writes it (only writing it again does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

SECTOR = 512


class Found(NamedTuple):
    """Files that were there before, durably: their contents by path."""

    files: dict[str, bytes]


class Create(NamedTuple):
    """A new, empty file."""

    path: str


class Write(NamedTuple):
    """Bytes written at an offset."""

    path: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    """A file cut, or grown by zeros, to this size."""

    path: str
    size: int


class Sync(NamedTuple):
    """A sync of a file; `failed` ones leave in doubt what they were to write."""

    path: str
    failed: bool = False


class Rename(NamedTuple):
    """Another name for a file, in place of a file that has it."""

    path: str
    to: str


class Delete(NamedTuple):
    """A name that is there no more."""

    path: str


class MakeFolder(NamedTuple):
    """A new, empty folder."""

    path: str


class SyncFolder(NamedTuple):
    """A sync of a folder: of the names in it."""

    path: str


class Mark(NamedTuple):
    """What the program says has happened, such as an acknowledgement."""

    label: object


Event = Found | Create | Write | Truncate | Sync | Rename | Delete | MakeFolder | SyncFolder | Mark
Change = Write | Truncate


class Later:
    """A change of a file's content that is not in its durable base yet; `certain`: it is durable all the same."""

    __slots__ = ("certain", "change", "doubtful")

    def __init__(self, change: Change) -> None:
        """Neither durable nor in doubt."""
        self.change = change
        self.certain = self.doubtful = False


class File:
    """A file: its content, whatever it is called."""

    __slots__ = ("base", "later", "made")

    def __init__(self, content: bytes = b"") -> None:
        """A file whose content is durable."""
        self.base = content
        self.later: list[Later] = []
        self.made: dict[bool, tuple[bytes, bytes]] = {}

    def changed(self, change: Change) -> None:
        """Note a change."""
        self.later.append(Later(change))
        self.made.pop(True, None)

    def synced(self, failed: bool) -> None:
        """Note a sync."""
        for later in self.later:
            if failed:
                later.doubtful |= not later.certain
            else:
                later.certain |= not later.doubtful
        settled = next((n for n, later in enumerate(self.later) if not later.certain), len(self.later))
        if settled:
            self.base = _changed(self.base, [later.change for later in self.later[:settled]])
            del self.later[:settled]
        self.made.clear()

    @property
    def volatile(self) -> bool:
        """Whether a power cut might take something of it."""
        return any(not later.certain for later in self.later)

    def content(self, keep: Callable[[Change], Sequence[Change]]) -> bytes:
        """The content with the parts that are kept of each change that is not durable."""
        kept = [change for later in self.later for change in ([later.change] if later.certain else keep(later.change))]
        return _changed(self.base, kept) if kept else self.base

    def whole(self, kept: bool) -> tuple[bytes, bytes]:
        """The content with all or nothing of what is not durable, and its hash."""
        if kept not in self.made:
            content = self.content(lambda change: [change] if kept else [])
            self.made[kept] = content, digest(content)
        return self.made[kept]


class Entry(NamedTuple):
    """A change of a folder's names."""

    removed: str | None
    added: str | None
    node: File | Folder | None

    def apply(self, names: dict[str, File | Folder]) -> None:
        """Let it happen."""
        if self.removed is not None:
            names.pop(self.removed, None)
        if self.added is not None and self.node is not None:
            names[self.added] = self.node


class Folder:
    """A folder: what is in it by which name."""

    __slots__ = ("durable", "later", "now")

    def __init__(self) -> None:
        """An empty one."""
        self.durable: dict[str, File | Folder] = {}
        self.now: dict[str, File | Folder] = {}
        self.later: list[Entry] = []

    def changed(self, entry: Entry) -> None:
        """Note a change."""
        entry.apply(self.now)
        self.later.append(entry)

    def synced(self) -> None:
        """Note a sync."""
        self.durable = dict(self.now)
        self.later.clear()

    def names(self, keep: Callable[[], bool]) -> dict[str, File | Folder]:
        """What is in it with the changes that are kept of those that are not durable."""
        if not self.later:
            return self.durable
        names = dict(self.durable)
        for entry in self.later:
            if keep():
                entry.apply(names)
        return names


def digest(content: bytes) -> bytes:
    """A hash of a file's content."""
    return blake2b(content, digest_size=16).digest()


def _changed(content: bytes, changes: Sequence[Change]) -> bytes:
    image = bytearray(content)
    for change in changes:
        end = change.size if isinstance(change, Truncate) else change.offset + len(change.data)
        if len(image) < end:
            image.extend(bytes(end - len(image)))
        if isinstance(change, Truncate):
            del image[end:]
        else:
            image[change.offset : end] = change.data
    return bytes(image)


def sectors(write: Write) -> Iterator[Write]:
    """The parts of a write that survive or do not, each as a whole."""
    begin, end = write.offset, write.offset + len(write.data)
    while begin < end:
        stop = min(end, (begin // SECTOR + 1) * SECTOR)
        yield Write(write.path, begin, write.data[begin - write.offset : stop - write.offset])
        begin = stop


class Medium:
    """A disk as it stands after some events: what is durable, and what is not yet."""

    def __init__(self) -> None:
        """An empty one. Folders that nobody is seen to make have always been there."""
        self.roots: dict[str, Folder] = {}

    def apply(self, event: Event) -> None:
        """Let this happen. Raises KeyError for a file that is not there."""
        match event:
            case Found(files):
                for path, content in files.items():
                    folder, name = self._folder(os.path.dirname(path)), os.path.basename(path)
                    folder.now[name] = folder.durable[name] = File(content)
            case Create(path):
                self._enter(path, None, os.path.basename(path), File())
            case MakeFolder(path):
                self._enter(path, None, os.path.basename(path), Folder())
            case Rename(path, to):
                self._enter(path, os.path.basename(path), os.path.basename(to), self._file(path))
            case Delete(path):
                self._enter(path, os.path.basename(path), None, None)
            case Write(path) | Truncate(path):
                self._file(path).changed(event)
            case Sync(path, failed):
                self._file(path).synced(failed)
            case SyncFolder(path):
                self._folder(path).synced()
            case Mark():
                pass

    def _enter(self, path: str, removed: str | None, added: str | None, node: File | Folder | None) -> None:
        self._folder(os.path.dirname(path)).changed(Entry(removed, added, node))

    def _folder(self, path: str) -> Folder:
        root = self.roots.get(path)
        if root is not None:
            return root
        parent = os.path.dirname(path)
        above = self.roots.get(parent) or (self._folder(parent) if self._is_made(parent) else None)
        made = above.now.get(os.path.basename(path)) if above is not None else None
        return made if isinstance(made, Folder) else self.roots.setdefault(path, Folder())

    def _is_made(self, path: str) -> bool:
        """Whether the folder is one that somebody was seen to make, or lies in one."""
        return any(path == root or path.startswith(f"{root}{os.sep}") for root in self.roots)

    def _file(self, path: str) -> File:
        node = self._folder(os.path.dirname(path)).now[os.path.basename(path)]
        assert isinstance(node, File)
        return node

    def unsynced(self, path: str) -> bool:
        """Whether a power cut might take bytes of this file, if it is there."""
        try:
            return self._file(path).volatile
        except KeyError:
            return False

    def nameless(self, path: str) -> bool:
        """Whether this file might not be found after a power cut, if it is there now: its name, or a folder's."""
        try:
            node: File | Folder = self._file(path)
        except KeyError:
            return False
        while path not in self.roots and os.path.dirname(path) != path:
            above, name = self._folder(os.path.dirname(path)), os.path.basename(path)
            if above.durable.get(name) is not node:
                return True
            path, node = os.path.dirname(path), above
        return False
