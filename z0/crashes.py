"""What a power cut may leave: images of a disk at every moment of what was asked of it. Pure but for `write`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from z0.actors.clock import seeded
from z0.medium import Change, Event, File, Folder, Mark, Medium, Write, digest, sectors

Mode = Literal["nothing", "everything", "whole files", "some", "torn"]
"""What an image keeps of what was not durable: nothing, everything, all or nothing of each file, any part of it."""
MODES: tuple[Mode, ...] = get_args(Mode)
CHANCES = (0.1, 0.5, 0.9)


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
        root = os.path.abspath(of)
        for folder in sorted(self.folders):
            if f"{folder}{os.sep}".startswith(f"{root}{os.sep}"):
                os.makedirs(f"{os.fspath(directory)}{folder[len(root) :]}", exist_ok=True)
        for path, content in self.files.items():
            if path.startswith(f"{root}{os.sep}"):
                file = f"{os.fspath(directory)}{path[len(root) :]}"
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with open(file, "wb") as written:
                    written.write(content)


class _Choice:
    """What is kept of what is not durable."""

    def __init__(self, mode: Mode, chance: Callable[[], float]) -> None:
        self._mode = mode
        self._chance = chance
        self._likely = CHANCES[int(chance() * len(CHANCES))]

    def _kept(self) -> bool:
        return self._chance() < self._likely

    def of_folder(self, folder: Folder) -> Callable[[], bool]:
        match self._mode:
            case "nothing" | "everything":
                return lambda: self._mode == "everything"
            case "whole files":
                kept = bool(folder.later) and self._kept()
                return lambda: kept
            case _:
                return self._kept

    def of_file(self, file: File) -> tuple[bytes, bytes]:
        if self._mode in ("nothing", "everything") or not file.volatile:
            return file.whole(self._mode == "everything")
        if self._mode == "whole files":
            return file.whole(self._kept())
        content = file.content(self._part)
        return content, digest(content)

    def _part(self, change: Change) -> list[Change]:
        if self._mode == "torn" and isinstance(change, Write):
            return [sector for sector in sectors(change) if self._kept()]
        return [change] if self._kept() else []


def left(
    medium: Medium, mode: Mode, chance: Callable[[], float]
) -> tuple[dict[str, tuple[bytes, bytes]], frozenset[str]]:
    """The files that a power cut leaves now, each with its hash, and the folders."""
    choice = _Choice(mode, chance)
    files: dict[str, tuple[bytes, bytes]] = {}
    folders = set()
    waiting = list(medium.roots.items())
    while waiting:
        path, folder = waiting.pop()
        folders.add(path)
        for name, node in folder.names(choice.of_folder(folder)).items():
            if isinstance(node, Folder):
                waiting.append((f"{path}{os.sep}{name}", node))
            else:
                files[f"{path}{os.sep}{name}"] = choice.of_file(node)
    return files, frozenset(folders)


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
                files, folders = left(medium, mode, seeded(hash((seed, point, MODES.index(mode), number))))
                key = hash((frozenset((path, digest) for path, (_, digest) in files.items()), folders))
                if key not in seen:
                    seen.add(key)
                    contents = {path: content for path, (content, _) in files.items()}
                    yield CrashImage(point, mode, number, marks[:marked], contents, folders)
