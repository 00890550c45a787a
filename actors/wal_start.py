"""The beginning of a new file's WAL, as SQLite would have written it. Pure.

SQLite begins a WAL with a header and syncs that by itself, and the file grows with each commit, so that the first
commits to a new file cost two to three times what later ones do. So the WAL is made together with the file: one
frame, which repeats the first page and commits nothing new, for SQLite to go on behind, and room for more. The
format: https://sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from functools import lru_cache

_MAGIC = 0x377F0682  # checksums over little-endian words
_VERSION = 3_007_000
_SALT = (1, 0x7A300000)  # any two numbers: what they tell apart, frames of an earlier use, a new file has none of
_ROOM = 65_536  # bytes; what an actor that does little will ever need


@lru_cache(maxsize=16)  # the first page is that of the file before, nearly always
def wal_start(page: bytes, pages: int) -> bytes:
    """The WAL of a new database that has so many pages and this first one, with room for more frames behind it."""
    header = struct.pack(">6I", _MAGIC, _VERSION, len(page), 0, *_SALT)
    sums = _checksum(header, (0, 0))
    frame = struct.pack(">2I", 1, pages)
    start = b"".join((
        header, struct.pack(">2I", *sums),
        frame, struct.pack(">4I", *_SALT, *_checksum(frame + page, sums)), page,
    ))  # fmt: skip
    return start.ljust(_ROOM, b"\0")


def _checksum(data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"<{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
