"""What a run was asked for, and the folder it works in."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One run: how many rounds, where, and whether it only has to prove that it works."""

    directory: Path
    rounds: int
    rng: random.Random
    smoke: bool

    def size(self, smoke: int, real: int) -> int:
        """A size of the workload: tiny in a smoke run, meaningful otherwise."""
        return smoke if self.smoke else real

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A fresh folder for one case, removed afterwards."""
        path = self.directory / name
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
