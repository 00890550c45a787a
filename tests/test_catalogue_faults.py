"""A catalogue that cannot be read or written: whoever needs it is told, nobody hangs, and it comes right by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import z0
from z0.actors import catalog
from z0.actors.names import file_path
from z0.disk import Kind, SimulatedDisk, simulated_disk
from z0.testing import VirtualClock, temporary_runtime

CATALOGUE = "/catalog.sqlite"


class Till(z0.Entity):
    accepts = {"*"}
    balance: z0.Balance


@pytest.fixture
def disk() -> Iterator[SimulatedDisk]:
    with simulated_disk() as disk:
        yield disk


async def test_an_actor_that_cannot_be_looked_up_once_is_not_lost_for_ever(disk: SimulatedDisk) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(), vfs=disk.name) as runtime:
        till = runtime.get(Till, "a")
        await till.append("x")
        await runtime.evict(Till, "a")
        await runtime.list(Till)
        runtime.node.catalog._reader._connection.release_memory()
        disk.fail("read", suffix=CATALOGUE, forever=True)
        with pytest.raises(z0.ActorReset, match="try again when the disk works"):
            await till.count_facts()
        disk.heal()
        async with asyncio.timeout(5):
            assert await till.count_facts() == 1


@pytest.mark.parametrize("kind", ["open", "read", "size", "write", "sync"])
async def test_a_start_whose_catalogue_fails_says_so_and_frees_the_directory(
    disk: SimulatedDisk, tmp_path: Path, kind: Kind
) -> None:
    async with disk.runtime(tmp_path / "data") as runtime:
        await runtime.get(Till, "a").append("x")
    if kind in ("write", "sync"):
        (tmp_path / "data/catalog.sqlite").unlink()
    disk.fail(kind, suffix=CATALOGUE, forever=True)
    for _ in range(2):
        with pytest.raises(z0.StorageFailed, match="try again when the disk works") as caught:
            await disk.runtime(tmp_path / "data").open()
        assert caught.value.retryable
    disk.heal()
    async with disk.runtime(tmp_path / "data") as runtime:
        assert [info.name for info in await runtime.list(Till)] == ["a"]


async def test_a_runtime_closes_although_its_catalogue_cannot_be_written(disk: SimulatedDisk, tmp_path: Path) -> None:
    async with disk.runtime(tmp_path / "data") as runtime:
        await runtime.get(Till, "a").append("x")
        disk.fail("write", suffix=CATALOGUE, forever=True)
    disk.heal()
    async with disk.runtime(tmp_path / "data") as runtime:
        assert await runtime.get(Till, "a").count_facts() == 1


async def test_listing_a_catalogue_that_cannot_be_read_says_so(disk: SimulatedDisk) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock(), vfs=disk.name) as runtime:
        await runtime.get(Till, "a").append("x")
        disk.fail("read", suffix=CATALOGUE, forever=True)
        runtime.node.catalog._reader._connection.release_memory()
        with pytest.raises(z0.StorageFailed):
            await runtime.list(Till)
        disk.heal()
        assert [info.name for info in await runtime.list(Till)] == ["a"]


async def test_a_full_disk_does_not_keep_a_runtime_from_taking_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with z0.Runtime(tmp_path):
        pass

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("z0.actors.lock.os.pwrite", full)
    for _ in range(2):
        async with z0.Runtime(tmp_path):
            with pytest.raises(z0.DataDirLocked):
                await z0.Runtime(tmp_path).open()


async def test_a_directory_that_nobody_may_write_to_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(z0.StorageFailed):
        await z0.Runtime(tmp_path / "file" / "data").open()


@pytest.mark.parametrize("value", ["7", "NULL", "x'00'"])
async def test_an_actor_whose_file_does_not_say_whose_it_is_keeps_no_other_out_of_a_new_catalogue(
    tmp_path: Path, value: str
) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        for name in "ab":
            await runtime.get(Till, name).append("x")
    with closing(sqlite3.connect(tmp_path / file_path("default", "Till", "a"))) as file, file:
        file.execute(f"UPDATE z0_meta SET value = {value} WHERE key = 'name'")
    os.unlink(tmp_path / "catalog.sqlite")
    async with z0.Runtime(tmp_path) as runtime:
        assert [info.name for info in await runtime.list(Till)] == ["b"]


async def test_a_new_catalogue_leaves_nobody_out_whose_file_cannot_be_read_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await runtime.get(Till, "a").append("x")
    os.unlink(tmp_path / "catalog.sqlite")

    def failing(path: Path) -> Any:
        raise z0.StorageFailed(str(path), "disk I/O error")

    monkeypatch.setattr(catalog, "Reader", failing)
    with pytest.raises(z0.StorageFailed):
        await z0.Runtime(tmp_path).open()
    monkeypatch.undo()
    async with z0.Runtime(tmp_path) as runtime:
        assert [info.name for info in await runtime.list(Till)] == ["a"]


async def test_an_actor_of_a_new_catalogue_does_not_begin_anew_when_its_file_is_gone(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await runtime.get(Till, "a").append("x")
    os.unlink(tmp_path / "catalog.sqlite")
    async with z0.Runtime(tmp_path) as runtime:
        shutil.rmtree(tmp_path / "default")
        with pytest.raises(z0.ActorFileError, match="gone"):
            await runtime.get(Till, "a").count_facts()
