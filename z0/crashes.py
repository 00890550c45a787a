"""What a power cut may leave of files and folders. Pure: what was asked of a disk goes in, images of it come out.

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
from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from z0.actors.clock import seeded

SECTOR = 512


class Found(NamedTuple):
    """A file that was there before, durably."""

    path: str
    content: bytes


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
Mode = Literal["nothing", "everything", "whole files", "some", "torn"]
"""What an image keeps of what was not durable: nothing, everything, all or nothing of each file, any part of it."""
MODES: tuple[Mode, ...] = get_args(Mode)
CHANCES = (0.1, 0.5, 0.9)


class _Later:
    """A change of a file's content that is not in its durable base yet."""

    __slots__ = ("certain", "change", "doubtful")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.certain = self.doubtful = False


class _File:
    __slots__ = ("base", "later", "made")

    def __init__(self, content: bytes = b"") -> None:
        self.base = content
        self.later: list[_Later] = []
        self.made: dict[bool, tuple[bytes, bytes]] = {}

    def changed(self, change: Change) -> None:
        self.later.append(_Later(change))
        self.made.pop(True, None)

    def synced(self, failed: bool) -> None:
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
        return any(not later.certain for later in self.later)

    def content(self, keep: Callable[[Change], Sequence[Change]]) -> bytes:
        kept = [change for later in self.later for change in ([later.change] if later.certain else keep(later.change))]
        return _changed(self.base, kept) if kept else self.base

    def whole(self, kept: bool) -> tuple[bytes, bytes]:
        """The content with all or nothing of what is not durable, and its hash."""
        if kept not in self.made:
            content = self.content(lambda change: [change] if kept else [])
            self.made[kept] = content, _hash(content)
        return self.made[kept]


class _Entry(NamedTuple):
    """A change of a folder's names."""

    removed: str | None
    added: str | None
    node: _File | _Folder | None

    def apply(self, names: dict[str, _File | _Folder]) -> None:
        if self.removed is not None:
            names.pop(self.removed, None)
        if self.added is not None and self.node is not None:
            names[self.added] = self.node


class _Folder:
    __slots__ = ("durable", "later", "now")

    def __init__(self) -> None:
        self.durable: dict[str, _File | _Folder] = {}
        self.now: dict[str, _File | _Folder] = {}
        self.later: list[_Entry] = []

    def changed(self, entry: _Entry) -> None:
        entry.apply(self.now)
        self.later.append(entry)

    def synced(self) -> None:
        self.durable = dict(self.now)
        self.later.clear()

    def names(self, keep: Callable[[], bool]) -> dict[str, _File | _Folder]:
        if not self.later:
            return self.durable
        names = dict(self.durable)
        for entry in self.later:
            if keep():
                entry.apply(names)
        return names


def _hash(content: bytes) -> bytes:
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


def _sectors(write: Write) -> Iterator[Write]:
    begin, end = write.offset, write.offset + len(write.data)
    while begin < end:
        stop = min(end, (begin // SECTOR + 1) * SECTOR)
        yield Write(write.path, begin, write.data[begin - write.offset : stop - write.offset])
        begin = stop


class CrashImage(NamedTuple):
    """What a power cut may leave, at one moment."""

    point: int
    """How many events there were before it."""
    mode: Mode
    number: int
    """Which one of the random images of that mode."""
    marks: Sequence[object]
    """What the program had said has happened."""
    files: dict[str, bytes]
    """By absolute path."""
    folders: frozenset[str]

    def write(self, directory: str | os.PathLike[str], *, of: str | os.PathLike[str]) -> None:
        """Make the folder `of` again as `directory`, which is not there or empty."""
        target, root = Path(directory), Path(of).absolute()
        for folder in sorted(self.folders):
            if Path(folder).is_relative_to(root):
                (target / Path(folder).relative_to(root)).mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            if Path(path).is_relative_to(root):
                file = target / Path(path).relative_to(root)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)


class Medium:
    """A disk as it stands after some events: what is durable, and what is not yet."""

    def __init__(self) -> None:
        """An empty one. Folders that nobody is seen to make have always been there."""
        self._roots: dict[str, _Folder] = {}

    def apply(self, event: Event) -> None:
        """Let this happen. Raises KeyError for a file that is not there."""
        match event:
            case Found(path, content):
                folder, name = self._folder(os.path.dirname(path)), os.path.basename(path)
                folder.now[name] = folder.durable[name] = _File(content)
            case Create(path):
                self._enter(path, None, os.path.basename(path), _File())
            case MakeFolder(path):
                self._enter(path, None, os.path.basename(path), _Folder())
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

    def _enter(self, path: str, removed: str | None, added: str | None, node: _File | _Folder | None) -> None:
        self._folder(os.path.dirname(path)).changed(_Entry(removed, added, node))

    def _folder(self, path: str) -> _Folder:
        root = self._roots.get(path)
        if root is not None:
            return root
        parent = os.path.dirname(path)
        above = self._roots.get(parent) or (self._folder(parent) if self._is_made(parent) else None)
        made = above.now.get(os.path.basename(path)) if above is not None else None
        return made if isinstance(made, _Folder) else self._roots.setdefault(path, _Folder())

    def _is_made(self, path: str) -> bool:
        """Whether the folder is one that somebody was seen to make, or lies in one."""
        return any(path == root or path.startswith(f"{root}{os.sep}") for root in self._roots)

    def _file(self, path: str) -> _File:
        node = self._folder(os.path.dirname(path)).now[os.path.basename(path)]
        assert isinstance(node, _File)
        return node

    def volatile(self, path: str) -> bool:
        """Whether a power cut might take something of this file or folder: of its content, its name, or a parent's."""
        try:
            node: _File | _Folder = self._file(path)
        except KeyError:
            return False
        if isinstance(node, _File) and node.volatile:
            return True
        while path not in self._roots and os.path.dirname(path) != path:
            above, name = self._folder(os.path.dirname(path)), os.path.basename(path)
            if above.durable.get(name) is not node:
                return True
            path, node = os.path.dirname(path), above
        return False

    def left(self, mode: Mode, chance: Callable[[], float]) -> tuple[dict[str, tuple[bytes, bytes]], frozenset[str]]:
        """The files that a power cut leaves now, each with its hash, and the folders."""
        choice = _Choice(mode, chance)
        files: dict[str, tuple[bytes, bytes]] = {}
        folders = set()
        waiting = list(self._roots.items())
        while waiting:
            path, folder = waiting.pop()
            folders.add(path)
            for name, node in folder.names(choice.of_folder(folder)).items():
                if isinstance(node, _Folder):
                    waiting.append((f"{path}{os.sep}{name}", node))
                else:
                    files[f"{path}{os.sep}{name}"] = choice.of_file(node)
        return files, frozenset(folders)


class _Choice:
    """What is kept of what is not durable."""

    def __init__(self, mode: Mode, chance: Callable[[], float]) -> None:
        self._mode = mode
        self._chance = chance
        self._likely = CHANCES[int(chance() * len(CHANCES))]

    def _kept(self) -> bool:
        return self._chance() < self._likely

    def of_folder(self, folder: _Folder) -> Callable[[], bool]:
        match self._mode:
            case "nothing" | "everything":
                return lambda: self._mode == "everything"
            case "whole files":
                kept = bool(folder.later) and self._kept()
                return lambda: kept
            case _:
                return self._kept

    def of_file(self, file: _File) -> tuple[bytes, bytes]:
        if self._mode in ("nothing", "everything") or not file.volatile:
            return file.whole(self._mode == "everything")
        if self._mode == "whole files":
            return file.whole(self._kept())
        content = file.content(self._part)
        return content, _hash(content)

    def _part(self, change: Change) -> list[Change]:
        if self._mode == "torn" and isinstance(change, Write):
            return [sector for sector in _sectors(change) if self._kept()]
        return [change] if self._kept() else []


def crash_images(
    events: Sequence[Event], *, seed: int = 0, each: int = 2, points: Collection[int] | None = None
) -> Iterator[CrashImage]:
    """What a power cut may leave, at each moment or at `points` only: `each` images of every random mode.

    An image that is like an earlier one, content and marks, is left out.
    """
    medium, marks = Medium(), [event.label for event in events if isinstance(event, Mark)]
    marked, seen = 0, set[int]()
    for point, event in enumerate(events, 1):
        medium.apply(event)
        if isinstance(event, Mark):
            marked += 1
            seen.clear()
        if points is not None and point not in points:
            continue
        for mode in MODES:
            for number in range(1 if mode in ("nothing", "everything") else each):
                files, folders = medium.left(mode, seeded(hash((seed, point, MODES.index(mode), number))))
                key = hash((frozenset((path, digest) for path, (_, digest) in files.items()), folders))
                if key not in seen:
                    seen.add(key)
                    contents = {path: content for path, (content, _) in files.items()}
                    yield CrashImage(point, mode, number, marks[:marked], contents, folders)
