"""The simulated disk and its model: what is durable when, what a power cut may take, and what fails on demand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.power_check import folder
from z0.crashes import MODES, CrashImage, Mode, crash_images
from z0.disk import Kind
from z0.medium import Create, Delete, Event, Found, MakeFolder, Mark, Medium, Rename, Sync, SyncFolder, Truncate, Write
from z0.testing import SimulatedDisk, VirtualClock, simulated_disk

F, G = "/d/f", "/d/g"
MADE: list[Event] = [Create(F), SyncFolder("/d")]


class Till(z0.Entity):
    """Takes any fact."""

    accepts = {"*"}


@pytest.fixture
def path() -> Iterator[Path]:
    with folder() as path:
        yield path


def left(*events: Event, mode: Mode = "nothing", each: int = 20) -> list[dict[str, bytes]]:
    """The files in the images that there may be after these events."""
    images = crash_images(events, points=[len(events)], each=each)
    return [image.files for image in images if image.mode == mode]


def contents(*events: Event, each: int = 40) -> set[bytes | None]:
    """What may be left of one file."""
    return {files.get(F) for mode in MODES for files in left(*events, mode=mode, each=each)}


# What is durable


def test_a_write_is_durable_after_a_sync() -> None:
    assert left(*MADE, Write(F, 0, b"abc")) == [{F: b""}]
    assert left(*MADE, Write(F, 0, b"abc"), Sync(F)) == [{F: b"abc"}]


def test_any_of_the_writes_since_the_last_sync_may_be_lost() -> None:
    events: list[Event] = [*MADE, Write(F, 0, b"a"), Sync(F), Write(F, 1, b"b"), Write(F, 2, b"c"), Truncate(F, 4)]
    assert {b"a", b"ab", b"a\0c", b"abc\0"} <= contents(*events)
    assert left(*events, mode="everything") == [{F: b"abc\0"}]


def test_a_write_may_be_torn_at_its_sectors_only() -> None:
    content = b"a" * 12 + b"b" * 512 + b"c" * 100
    torn = contents(*MADE, Write(F, 500, content))
    parts = [image.ljust(1_124, b"\0")[500:] for image in torn if image is not None]
    assert len(parts) == 8
    assert {part[:12] for part in parts} == {b"a" * 12, bytes(12)}
    assert {part[12:524] for part in parts} == {b"b" * 512, bytes(512)}


def test_files_are_lost_independently() -> None:
    events: list[Event] = [*MADE, Create(G), SyncFolder("/d"), Write(F, 0, b"f"), Write(G, 0, b"g")]
    images = left(*events, mode="whole files", each=40) + left(*events) + left(*events, mode="everything")
    assert {(files[F], files[G]) for files in images} == {(b"", b""), (b"f", b""), (b"", b"g"), (b"f", b"g")}


def test_a_name_is_durable_after_a_sync_of_its_folder() -> None:
    assert left(Create(F), Write(F, 0, b"abc"), Sync(F)) == [{}]
    assert left(*MADE, Delete(F)) == [{F: b""}]
    assert left(*MADE, Delete(F), SyncFolder("/d")) == [{}]
    assert left(MakeFolder("/d/e"), Create("/d/e/f"), SyncFolder("/d/e")) == [{}]
    assert left(MakeFolder("/d/e"), Create("/d/e/f"), SyncFolder("/d/e"), SyncFolder("/d")) == [{"/d/e/f": b""}]


def test_a_rename_happens_as_a_whole_or_not_at_all() -> None:
    events: list[Event] = [Found({F: b"old", G: b"new"}), Rename(G, F)]
    assert left(*events) == [{F: b"old", G: b"new"}]
    assert left(*events, mode="everything") == [{F: b"new"}]
    assert left(*events, SyncFolder("/d")) == [{F: b"new"}]


def test_what_a_failed_sync_left_is_in_doubt_until_it_is_written_again() -> None:
    events: list[Event] = [*MADE, Write(F, 0, b"abc"), Sync(F, failed=True), Write(F, 3, b"d"), Sync(F)]
    assert contents(*events) == {b"\0\0\0d", b"abcd"}
    assert contents(*events, Write(F, 0, b"abcd"), Sync(F)) == {b"abcd"}


def test_a_medium_says_what_a_power_cut_might_take() -> None:
    medium = Medium()
    for event in (MakeFolder("/d/e"), Create("/d/e/f"), SyncFolder("/d/e"), Write("/d/e/f", 0, b"a")):
        medium.apply(event)
    assert medium.unsynced("/d/e/f")
    assert medium.nameless("/d/e/f")
    medium.apply(SyncFolder("/d"))
    medium.apply(Sync("/d/e/f"))
    assert not medium.unsynced("/d/e/f")
    assert not medium.nameless("/d/e/f")
    assert not medium.nameless("/d/e/other")


def test_images_are_the_same_for_one_seed_and_none_comes_twice() -> None:
    events: list[Event] = [*MADE, *(Write(F, n, bytes([n])) for n in range(20)), Mark("now"), Sync(F)]

    def seen(seed: int) -> list[CrashImage]:
        return list(crash_images(events, seed=seed))

    assert seen(1) == seen(1) != seen(2)
    images = [(tuple(image.marks), *image.files.items(), image.folders) for image in seen(1)]
    assert len(set(images)) == len(images)
    assert {image.mode for image in seen(1)} == {"nothing", "everything", "some", "torn"}  # there is one file only


# A runtime on it


async def run(disk: SimulatedDisk, path: Path, **options: Any) -> None:
    async with disk.runtime(path / "data", clock=VirtualClock(), **options) as runtime:
        await runtime.get(Till, "a").append("x", amount=1)
        disk.mark("acknowledged")


async def test_the_last_image_is_the_directory_as_it_is(path: Path) -> None:
    with simulated_disk(trace=True) as disk:
        await run(disk, path)
    for image in disk.images(points=[len(disk.trace)]):
        if image.mode == "everything":
            image.write(path / "left", of=path / "data")
    files = {file.relative_to(path / "data") for file in (path / "data").rglob("*") if file.name != "z0.lock"}
    assert {file.relative_to(path / "left") for file in (path / "left").rglob("*")} == files
    for file in files:
        if (path / "data" / file).is_file():
            assert (path / "data" / file).read_bytes() == (path / "left" / file).read_bytes()


async def test_a_trace_goes_on_from_what_was_there(path: Path) -> None:
    with simulated_disk() as disk:
        await run(disk, path)
        assert disk.trace == []
    with simulated_disk(trace=True) as disk:
        await run(disk, path)
    image = next(disk.images(points=[1]))
    image.write(path / "left", of=path / "data")
    async with z0.Runtime(path / "left") as runtime:
        assert await runtime.get(Till, "a").count_facts() == 1


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("create", ""), ("rename", ""), ("make folder", "/Till"), ("sync folder", "/default"), ("write", ".new")],
)
@pytest.mark.parametrize("error", ["io", "full"])
async def test_an_actor_that_could_not_be_made_is_made_by_the_next_message(
    path: Path, kind: Kind, suffix: str, error: Any
) -> None:
    with simulated_disk() as disk:
        async with disk.runtime(path, clock=VirtualClock()) as runtime:
            disk.fail(kind, suffix=suffix if suffix != ".new" else "", error=error)
            with pytest.raises(z0.ActorReset):
                await runtime.get(Till, "a").append("x")
            assert len(disk.failures) == 1
            assert (await runtime.get(Till, "a").append("x")).seq == 1


async def test_a_short_read_is_no_silent_one(path: Path, clock: VirtualClock) -> None:
    with simulated_disk() as disk:
        async with disk.runtime(path, clock=clock) as runtime:
            till = runtime.get(Till, "a")
            for _ in range(50):
                await till.append("x", data={"text": "x" * 500})
            assert await runtime.evict(Till, "a")
            disk.fail("short read", 4, forever=True)
            with pytest.raises(z0.Z0Error):
                await till.query_facts()
            assert disk.failures
            disk.heal()
            await clock.advance("11 seconds")  # a file that looked damaged is looked at again
            assert await till.count_facts() == 50


async def test_the_catalogue_fails_when_it_is_named(path: Path) -> None:
    with simulated_disk() as disk:
        async with disk.runtime(path, clock=VirtualClock()) as runtime:
            disk.fail("sync", suffix="catalog.sqlite")
            with pytest.raises(z0.ActorReset):
                await runtime.get(Till, "a").append("x")
            assert [call.file for call in disk.failures] == [str(path / "catalog.sqlite-wal")]
            assert (await runtime.get(Till, "a").append("x")).seq == 1
