"""Life: actors open with their first message, rest, close and come back; a directory has one owner."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
import uvloop

import z0
from z0.actors import catalog
from z0.actors.gates import pass_once
from z0.actors.lock import LOCK_FILE
from z0.actors.names import file_path
from z0.testing import VirtualClock, crash, temporary_runtime


class World:
    """What actors of a test have as their environment."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.go = asyncio.Event()
        self.fail_start = 0
        self.open = 0
        self.most_open = 0


class Oops(Exception):
    pass


class Home(z0.Actor):
    """Remembers in memory and on disk, and tells the world of its life."""

    env: World

    def __init__(self) -> None:
        self.seen = 0

    async def visit(self) -> tuple[int, int]:
        """How often since it was opened, and how often ever."""
        self.seen += 1
        ever: int = self.storage.get("ever", 0) + 1
        self.storage.put("ever", ever)
        return self.seen, ever

    async def look(self) -> int:
        return int(self.storage.get("ever", 0))

    async def wait(self) -> str:
        await self.env.go.wait()
        self.storage.put("waited", True)
        return "waited"

    async def sleep(self, span: str) -> None:
        await self.clock.sleep(span)

    async def call(self, other: str) -> int:
        await self.env.go.wait()
        return await self.get(Home, other).look()


class Hooked(Home):
    async def start(self) -> None:
        self.env.log.append("start")
        if self.env.fail_start:
            self.env.fail_start -= 1
            self.storage.put("half", 1)
            raise Oops("not today")

    async def stop(self, reason: str) -> None:
        self.env.log.append(f"stop: {reason}")
        self.storage.put("stopped", reason)

    async def stopped(self) -> Any:
        return self.storage.get("stopped"), self.storage.get("half")


class Slow(Hooked):
    async def start(self) -> None:
        self.env.log.append("start")
        await asyncio.sleep(0)
        await super().start()
        self.env.log.append("started")

    async def stop(self, reason: str) -> None:
        self.env.log.append("stop")
        await self.env.go.wait()
        self.storage.put("stopped", reason)
        self.env.log.append("stopped")


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, clock: VirtualClock) -> AsyncIterator[z0.Runtime]:
    limits = z0.Limits(close_seconds=1)
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits) as runtime:
        yield runtime
        world.go.set()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new directory on a RAM disk where there is one."""
    with tempfile.TemporaryDirectory(prefix="z0-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as path:
        yield Path(path)


async def quiet() -> None:
    for _ in range(50):
        await pass_once()


def file_of(runtime: z0.Runtime, cls: type[z0.Actor], name: str) -> Path:
    return runtime.path / file_path("default", cls.__name__, name)


def files_of(runtime: z0.Runtime, cls: type[z0.Actor], name: str) -> list[str]:
    return sorted(file.name for file in file_of(runtime, cls, name).parent.glob("*"))


def edit(path: Path, sql: str) -> None:
    """Change a file that nobody has open."""
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


# start() and stop()


@pytest.mark.parametrize("cls", [Hooked, Slow])
async def test_start_runs_once_before_the_first_message_of_an_incarnation(
    runtime: z0.Runtime, world: World, cls: type[Hooked]
) -> None:
    world.go.set()
    await asyncio.gather(*(runtime.get(cls, "a").visit() for _ in range(3)))
    assert world.log.count("start") == (1 if cls is Hooked else 2)
    world.log.clear()
    assert await runtime.evict(cls, "a")
    await runtime.get(cls, "a").visit()
    assert world.log.count("start") == (1 if cls is Hooked else 2)


@pytest.mark.parametrize("cls", [Hooked, Slow])
@pytest.mark.parametrize("state", ["new", "evicted"])
async def test_a_failing_start_fails_its_message_and_the_next_one_tries_anew(
    runtime: z0.Runtime, world: World, cls: type[Hooked], state: str
) -> None:
    world.go.set()
    actor = runtime.get(cls, "a")
    if state == "evicted":
        await actor.visit()
        assert await runtime.evict(cls, "a")
    world.fail_start = 2
    for _ in range(2):
        with pytest.raises(Oops, match="not today") as caught:
            await actor.look()
        assert caught.value.__cause__ is not caught.value
    assert await actor.visit() == (1, 2 if state == "evicted" else 1)
    assert (await actor.stopped())[1] is None


async def test_a_failing_start_fails_all_messages_that_waited_for_it(runtime: z0.Runtime, world: World) -> None:
    world.fail_start = 1
    outcomes = await asyncio.gather(*(runtime.get(Slow, "a").look() for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Oops] * 3
    assert await runtime.get(Slow, "a").look() == 0


async def test_messages_wait_while_start_waits(runtime: z0.Runtime, world: World) -> None:
    class Patient(Home):
        async def start(self) -> None:
            await self.env.go.wait()
            self.env.log.append("started")

    call = asyncio.create_task(runtime.get(Patient, "a").visit())
    while not runtime.node.hosts or runtime.node.catalog.writing:
        await pass_once()
    await quiet()
    assert not call.done()
    world.go.set()
    await call
    assert world.log == ["started"]


async def test_a_constructor_that_raises_fails_its_message_and_the_next_one_tries_anew(runtime: z0.Runtime) -> None:
    class Fragile(Home):
        broken = True

        def __init__(self) -> None:
            super().__init__()
            if self.broken:
                raise Oops("built badly")

    for _ in range(2):
        with pytest.raises(Oops, match="built badly"):
            await runtime.get(Fragile, "a").visit()
    Fragile.broken = False
    assert await runtime.get(Fragile, "a").visit() == (1, 1)


async def test_what_stop_writes_is_kept(runtime: z0.Runtime) -> None:
    await runtime.get(Hooked, "a").visit()
    assert await runtime.evict(Hooked, "a")
    assert (await runtime.get(Hooked, "a").stopped())[0] == "asked"


async def test_a_failing_stop_is_logged_undone_and_does_not_keep_the_actor(
    runtime: z0.Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(Home):
        async def stop(self, reason: str) -> None:
            self.storage.put("ever", 99)
            raise Oops("never")

    await runtime.get(Stubborn, "a").visit()
    with caplog.at_level(logging.ERROR):
        assert await runtime.evict(Stubborn, "a")
    assert "stop() of actor Stubborn/a failed" in caplog.text
    assert await runtime.get(Stubborn, "a").visit() == (1, 2)


class Social(Home):
    async def start(self) -> None:
        self.storage.put("met", await self.get(Home, "friend").look())

    async def stop(self, reason: str) -> None:
        self.storage.put("left", reason)
        await self.get(Home, "friend").visit()
        self.env.log.append(f"stop: {reason}")

    async def met(self) -> Any:
        return self.storage.get("met")


async def test_start_and_stop_may_call_other_actors(runtime: z0.Runtime, world: World) -> None:
    assert await runtime.get(Social, "a").met() == 0
    assert await runtime.evict(Social, "a")
    assert await runtime.get(Social, "a").met() == 1
    await runtime.close()
    assert world.log == ["stop: asked", "stop: closing"]
    async with z0.Runtime(runtime.path, env=world, clock=VirtualClock()) as again:
        assert await again.get(Home, "friend").look() == 2


async def test_a_message_that_arrives_during_stop_waits_and_reopens_the_actor(
    runtime: z0.Runtime, world: World
) -> None:
    await runtime.get(Slow, "a").visit()
    world.log.clear()
    evicting = asyncio.create_task(runtime.evict(Slow, "a"))
    await quiet()
    calls = [asyncio.create_task(runtime.get(Slow, "a").visit()) for _ in range(2)]
    await quiet()
    assert world.log == ["stop"]
    world.go.set()
    assert await asyncio.gather(*calls) == [(1, 2), (2, 3)]
    assert world.log[:3] == ["stop", "stopped", "start"]
    assert not await evicting


async def test_stop_has_a_time_limit(runtime: z0.Runtime, world: World, clock: VirtualClock) -> None:
    await runtime.get(Slow, "a").visit()
    evicting = asyncio.create_task(runtime.evict(Slow, "a"))
    await quiet()
    call = asyncio.create_task(runtime.get(Slow, "a").look())
    async with asyncio.timeout(2):
        await clock.advance("5 seconds")
    assert await call == 1
    world.go.set()
    await evicting


async def test_time_passes_for_a_stop_that_sleeps(world: World, clock: VirtualClock) -> None:
    class Sleepy(Home):
        async def stop(self, reason: str) -> None:
            await self.clock.sleep("3 seconds")
            self.env.log.append("slept")

    async with asyncio.timeout(3), temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        await runtime.get(Sleepy, "a").visit()
        await clock.advance("20 seconds")
        assert world.log == ["slept"]


# Rest


async def test_an_idle_actor_is_evicted_and_comes_back(runtime: z0.Runtime, world: World, clock: VirtualClock) -> None:
    actor = runtime.get(Hooked, "a")
    assert [await actor.visit(), await actor.visit()] == [(1, 1), (2, 2)]
    await clock.advance("9 seconds")
    assert await actor.visit() == (3, 3)
    await clock.advance("12 seconds")
    assert world.log == ["start", "stop: idle"]
    assert await actor.visit() == (1, 4)


async def test_an_actor_in_use_is_not_evicted(runtime: z0.Runtime, clock: VirtualClock) -> None:
    actor = runtime.get(Home, "a")
    for number in range(1, 20):
        assert (await actor.visit())[0] == number
        await clock.advance("5 seconds")


async def test_an_actor_that_waits_is_not_evicted_until_it_has_rested(runtime: z0.Runtime, clock: VirtualClock) -> None:
    actor = runtime.get(Home, "a")
    await actor.visit()
    sleeping = asyncio.create_task(actor.sleep("1 hour"))
    await clock.advance("59 minutes")
    assert await actor.visit() == (2, 2)
    await clock.advance("1 minute")
    await sleeping
    assert await actor.visit() == (3, 3)
    await clock.advance("12 seconds")
    assert await actor.visit() == (1, 4)


async def test_the_idle_time_is_a_limit(world: World, clock: VirtualClock) -> None:
    limits = z0.Limits(idle_seconds=100)
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits) as runtime:
        await runtime.get(Home, "a").visit()
        await clock.advance("90 seconds")
        assert await runtime.get(Home, "a").visit() == (2, 2)
        await clock.advance("120 seconds")
        assert await runtime.get(Home, "a").visit() == (1, 3)


async def test_many_idle_actors_are_all_evicted(runtime: z0.Runtime, clock: VirtualClock) -> None:
    await asyncio.gather(*(runtime.get(Home, f"a{number}").visit() for number in range(40)))
    await clock.advance("15 seconds")
    assert not runtime.node.hosts
    assert files_of(runtime, Home, "a0") == sorted(f"a{number}.sqlite" for number in range(40))


async def test_evicting_leaves_one_complete_file_without_a_wal(runtime: z0.Runtime) -> None:
    await runtime.get(Home, "a").visit()
    assert "a.sqlite-wal" in files_of(runtime, Home, "a")
    assert await runtime.evict(Home, "a")
    assert files_of(runtime, Home, "a") == ["a.sqlite"]
    copy = file_of(runtime, Home, "a").with_name("copy.db")
    shutil.copy(file_of(runtime, Home, "a"), copy)
    connection = apsw.Connection(str(copy))
    assert connection.execute("SELECT count(*) FROM z0_kv").fetchall() == [(1,)]
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_evicting_by_hand_tells_whether_the_actor_is_out_of_memory(runtime: z0.Runtime, world: World) -> None:
    assert await runtime.evict(Home, "never seen")
    waiting = asyncio.create_task(runtime.get(Home, "a").wait())
    while not runtime.node.hosts:
        await pass_once()
    assert not await runtime.evict(Home, "a")
    world.go.set()
    await waiting
    assert await runtime.evict(Home, "a")
    assert await runtime.evict(Home, "a")


# Room


Opened = Callable[[int], Any]


@pytest.fixture
def few_files(world: World, clock: VirtualClock) -> Opened:
    def opened(files: int) -> Any:
        limits = z0.Limits(open_files=files, close_seconds=1)
        return temporary_runtime(memory=True, clock=clock, env=world, limits=limits)

    return opened


class Counted(Home):
    """Counts how many of its kind are open at once."""

    async def start(self) -> None:
        self.env.open += 1
        self.env.most_open = max(self.env.most_open, self.env.open)

    async def stop(self, reason: str) -> None:
        self.env.open -= 1
        self.env.log.append((self.name, reason))


async def test_the_least_recently_used_actor_makes_room(few_files: Opened, world: World, clock: VirtualClock) -> None:
    async with few_files(3) as runtime:
        for name in "a", "b", "c", "a", "d":
            await runtime.get(Counted, name).visit()
            await clock.advance("2 seconds")  # uses are told apart by the second
        assert world.log == [("b", "room")]
        assert await runtime.get(Counted, "a").visit() == (3, 3)
        assert await runtime.get(Counted, "b").visit() == (1, 2)


@pytest.mark.parametrize("message", ["visit", "look"])
async def test_the_cap_on_open_files_is_hard_and_everybody_is_served(
    few_files: Opened, world: World, message: str
) -> None:
    async with asyncio.timeout(5), few_files(3) as runtime:
        for _ in range(3):
            await asyncio.gather(*(getattr(runtime.get(Counted, f"a{number}"), message)() for number in range(20)))
        assert world.most_open <= 3


async def test_actors_that_only_read_make_room_too(few_files: Opened, world: World) -> None:
    async with asyncio.timeout(5), few_files(1) as runtime:
        assert await asyncio.gather(*(runtime.get(Home, name).look() for name in "abc")) == [0, 0, 0]


async def test_opening_one_more_waits_until_a_busy_actor_rests(few_files: Opened, world: World) -> None:
    async with few_files(2) as runtime:
        busy = [asyncio.create_task(runtime.get(Home, name).wait()) for name in "ab"]
        await quiet()
        third = asyncio.create_task(runtime.get(Home, "c").visit())
        await quiet()
        assert not third.done()
        world.go.set()
        assert await third == (1, 1)
        assert await asyncio.gather(*busy) == ["waited", "waited"]


@pytest.mark.parametrize("end", [z0.Runtime.close, crash], ids=["close", "crash"])
async def test_actors_that_wait_for_room_do_not_keep_the_runtime_open(
    few_files: Opened, world: World, end: Callable[[z0.Runtime], Any]
) -> None:
    async with asyncio.timeout(5), few_files(1) as runtime:
        calls = [asyncio.create_task(runtime.get(Home, name).wait()) for name in "abc"]
        while not runtime.node.hosts:
            await pass_once()
        await quiet()
        await end(runtime)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [z0.ActorReset] * 3
        async with z0.Runtime(runtime.path, env=world) as again:
            assert await again.get(Home, "b").visit() == (1, 1)


async def test_resident_actors_are_capped_too(world: World, clock: VirtualClock) -> None:
    limits = z0.Limits(resident_actors=2)
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits) as runtime:
        await asyncio.gather(*(runtime.get(Counted, f"a{number}").visit() for number in range(6)))
        assert world.most_open <= 2


def test_the_cap_stays_within_the_descriptors_of_the_process() -> None:
    assert 1 <= z0.Limits().open_files_max() <= 2_000
    assert z0.Limits(open_files=7).open_files_max() <= 7
    assert z0.Limits(open_files=10**9, resident_actors=10**9).open_files_max() < 10**9
    assert z0.Limits(resident_actors=3).open_files_max() <= 3


# The catalogue


async def listed(runtime: z0.Runtime, **options: Any) -> list[str]:
    return [info.name for info in await runtime.list(Home, **options)]


async def test_actors_are_listed_in_order_of_their_names(runtime: z0.Runtime) -> None:
    names = ["b", "a", "C", "ab", "é", "🦀", "b0", "100%", "a_b", "a%b"]
    for name in names:
        await runtime.get(Home, name).visit()
    ordered = sorted(names, key=str.encode)
    assert await listed(runtime) == ordered
    assert await listed(runtime, limit=3) == ordered[:3]
    assert await listed(runtime, after="a") == ordered[ordered.index("a") + 1 :]
    assert await listed(runtime, after="aa") == [name for name in ordered if name.encode() > b"aa"]
    assert await listed(runtime, prefix="a") == ["a", "a%b", "a_b", "ab"]
    assert await listed(runtime, prefix="a_") == ["a_b"]
    assert await listed(runtime, prefix="a%") == ["a%b"]
    assert await listed(runtime, prefix="a", after="a%b", limit=1) == ["a_b"]
    assert await listed(runtime, prefix="zzz") == []
    assert await listed(runtime, prefix="' OR 1=1 --") == []


async def test_a_long_list_is_read_in_pages(runtime: z0.Runtime) -> None:
    names = [f"{number:03}" for number in range(25)]
    await asyncio.gather(*(runtime.get(Home, name).look() for name in names))
    pages, after = [], None
    while page := await listed(runtime, after=after, limit=10):
        pages.append(len(page))
        after = page[-1]
    assert pages == [10, 10, 5]


async def test_lists_are_per_class_and_tenant(runtime: z0.Runtime) -> None:
    await runtime.get(Home, "a").look()
    await runtime.get(Hooked, "b").look()
    await runtime.tenant("t").get(Home, "c").look()
    assert await listed(runtime) == ["a"]
    assert [info.name for info in await runtime.tenant("t").list(Home)] == ["c"]


async def test_an_entry_tells_how_the_actor_was_left(runtime: z0.Runtime, clock: VirtualClock) -> None:
    await runtime.get(Home, "a").visit()
    (info,) = await runtime.list(Home)
    assert (info.tenant, info.namespace, info.name) == ("default", "Home", "a")
    assert info.path == "default/Home/a.sqlite"
    assert info.last_use == datetime(2026, 1, 1, tzinfo=UTC)
    assert (info.size, info.facts, info.next_alarm) == (None, None, None)
    await clock.advance("1 minute")
    (info,) = await runtime.list(Home)
    assert info.size == file_of(runtime, Home, "a").stat().st_size
    assert info.last_use is not None
    assert info.last_use - datetime(2026, 1, 1, tzinfo=UTC) <= timedelta(minutes=1)


async def test_an_actor_is_listed_when_its_first_message_is_answered(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, env=world) as first:
        await first.get(Home, "a").look()
        await crash(first)
        async with z0.Runtime(first.path, clock=clock, env=world) as second:
            assert await listed(second) == ["a"]


async def restarted(runtime: z0.Runtime, world: World, *, damage: Callable[[], Any]) -> list[str]:
    """What is listed after a restart that found the directory changed."""
    await runtime.close()
    damage()
    async with z0.Runtime(runtime.path, clock=VirtualClock(), env=world) as again:
        names = await listed(again)
        assert [await again.get(Home, name).visit() for name in names] == [(1, 2)] * len(names)
        return names


async def test_a_missing_catalogue_is_made_again_from_the_actors_files(runtime: z0.Runtime, world: World) -> None:
    names = ["a", "B", "../x", "é" * 100]
    for name in names:
        await runtime.get(Home, name).visit()
    await runtime.tenant("t").get(Home, "c").visit()
    found = await restarted(runtime, world, damage=(runtime.path / "catalog.sqlite").unlink)
    assert found == sorted(names, key=str.encode)


async def test_a_missing_catalogue_is_made_again_after_a_crash_too(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, env=world) as first:
        await first.get(Home, "a").visit()
        await crash(first)
        for file in first.path.glob("catalog.sqlite*"):
            file.unlink()
        async with z0.Runtime(first.path, clock=clock, env=world) as second:
            assert await listed(second) == ["a"]
            assert await second.get(Home, "a").visit() == (1, 2)


async def test_a_damaged_actor_does_not_keep_the_others_out_of_a_new_catalogue(
    runtime: z0.Runtime, world: World
) -> None:
    for name in "a", "b":
        await runtime.get(Home, name).visit()

    def damage() -> None:
        (runtime.path / "catalog.sqlite").unlink()
        (runtime.path / "default" / "Home" / "junk.sqlite").write_bytes(b"no database" * 1_000)
        (runtime.path / "default" / "Home" / "empty.sqlite").touch()

    assert await restarted(runtime, world, damage=damage) == ["a", "b"]


async def test_a_catalogue_whose_making_was_interrupted_is_made_again(
    runtime: z0.Runtime, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.get(Home, "a").visit()

    def killed(directory: Path) -> Any:
        raise KeyboardInterrupt

    def damage() -> None:
        (runtime.path / "catalog.sqlite").unlink()

    await runtime.close()
    damage()
    monkeypatch.setattr(catalog, "addresses_on_disk", killed)
    with pytest.raises(KeyboardInterrupt):
        await z0.Runtime(runtime.path).open()
    monkeypatch.undo()
    async with z0.Runtime(runtime.path, clock=VirtualClock(), env=world) as again:
        assert await listed(again) == ["a"]


async def test_a_catalogue_of_another_schema_is_refused(runtime: z0.Runtime) -> None:
    await runtime.close()
    edit(runtime.path / "catalog.sqlite", "UPDATE z0_meta SET value = 99 WHERE key = 'schema'")
    with pytest.raises(z0.ActorFileError, match="schema 99"):
        await z0.Runtime(runtime.path).open()


# Files that are not what they should be


async def refusal(runtime: z0.Runtime, name: str = "a") -> z0.ActorFileError:
    """How an evicted actor's file is refused; others are not concerned."""
    for _ in range(2):
        with pytest.raises(z0.ActorFileError) as caught:
            await runtime.get(Home, name).visit()
    assert caught.value.path == str(file_of(runtime, Home, name))
    assert not caught.value.retryable
    assert await runtime.get(Home, "another").visit() == (1, 1)
    return caught.value


async def evicted(runtime: z0.Runtime, name: str = "a") -> Path:
    await runtime.get(Home, name).visit()
    assert await runtime.evict(Home, name)
    return file_of(runtime, Home, name)


async def test_a_file_of_a_newer_schema_is_refused(runtime: z0.Runtime) -> None:
    edit(await evicted(runtime), "UPDATE z0_meta SET value = 99 WHERE key = 'schema'")
    error = await refusal(runtime)
    assert error.reason == "schema version 99, but this z0 knows 2; use a newer z0"


async def test_a_file_of_another_actor_is_refused(runtime: z0.Runtime) -> None:
    shutil.copy(await evicted(runtime, "b"), await evicted(runtime, "a"))
    assert "was it moved?" in (await refusal(runtime)).reason


async def test_a_file_of_another_tenant_is_refused(runtime: z0.Runtime) -> None:
    path = await evicted(runtime)
    target = runtime.path / file_path("t", "Home", "a")
    target.parent.mkdir(parents=True)
    shutil.copy(path, target)
    with pytest.raises(z0.ActorFileError, match="was it moved"):
        await runtime.tenant("t").get(Home, "a").visit()


async def test_a_database_of_somebody_else_is_refused(runtime: z0.Runtime) -> None:
    path = await evicted(runtime)
    path.unlink()
    edit(path, "CREATE TABLE customers(name)")
    assert "not a file of z0" in (await refusal(runtime)).reason


@pytest.mark.parametrize(
    "content", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xff" * 4_096, b"\0" * 9_000]
)
async def test_a_file_that_is_no_database_is_refused(runtime: z0.Runtime, content: bytes) -> None:
    (await evicted(runtime)).write_bytes(content)
    await refusal(runtime)


async def test_an_actor_comes_back_when_its_file_is_put_right(runtime: z0.Runtime) -> None:
    path = await evicted(runtime)
    good = path.read_bytes()
    path.write_bytes(b"no database at all" * 500)
    with pytest.raises(z0.Z0Error):
        await runtime.get(Home, "a").visit()
    path.write_bytes(good)
    assert await runtime.get(Home, "a").visit() == (1, 2)


async def test_folders_and_files_are_for_their_owner_only(runtime: z0.Runtime) -> None:
    await runtime.get(Home, "a").visit()
    await runtime.tenant("t").get(Home, "../b").visit()
    for path in [runtime.path, *runtime.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# Ownership


async def test_a_second_runtime_in_the_same_process_is_refused_and_told_who_has_it(runtime: z0.Runtime) -> None:
    with pytest.raises(z0.DataDirLocked, match=f"owned by process {os.getpid()}") as caught:
        await z0.Runtime(runtime.path).open()
    assert (caught.value.pid, caught.value.path) == (os.getpid(), str(runtime.path))
    assert await runtime.get(Home, "a").visit() == (1, 1)


HOLDER = """
import asyncio, sys, z0
async def main():
    async with z0.Runtime(sys.argv[1]):
        print("open", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has a runtime open on `folder`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process
        process.kill()


async def test_a_runtime_of_another_process_is_named_by_its_pid_and_lets_go_when_it_is_killed(
    folder: Path, holder: subprocess.Popen[bytes], world: World
) -> None:
    with pytest.raises(z0.DataDirLocked) as caught:
        await z0.Runtime(folder).open()
    assert caught.value.pid == holder.pid
    holder.kill()
    holder.wait()
    async with z0.Runtime(folder, env=world) as runtime:
        assert await runtime.get(Home, "a").visit() == (1, 1)


async def test_a_lock_that_names_nobody_is_still_a_lock(runtime: z0.Runtime) -> None:
    (runtime.path / LOCK_FILE).write_text("")
    with pytest.raises(z0.DataDirLocked, match="owned by another process") as caught:
        await z0.Runtime(runtime.path).open()
    assert caught.value.pid is None


async def test_a_runtime_that_could_not_open_leaves_the_directory_free(folder: Path) -> None:
    (folder / "catalog.sqlite").write_bytes(b"no database" * 500)
    for _ in range(2):
        with pytest.raises(z0.ActorFileError):
            await z0.Runtime(folder).open()
    (folder / "catalog.sqlite").unlink()
    async with z0.Runtime(folder):
        pass


async def test_two_runtimes_live_in_one_process(world: World, clock: VirtualClock) -> None:
    async with (
        temporary_runtime(memory=True, clock=clock, env=world) as first,
        temporary_runtime(memory=True, clock=clock, env=World()) as second,
    ):
        assert await first.get(Home, "a").visit() == (1, 1)
        assert await second.get(Home, "a").visit() == (1, 1)
        assert first.get(Home, "a") != second.get(Home, "a")
        await second.close()
        assert await first.get(Home, "a").visit() == (2, 2)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_runtime_lives_in_any_event_loop(factory: Any, durability: Any) -> None:
    async def program() -> list[tuple[int, int]]:
        world = World()
        async with temporary_runtime(memory=True, env=world, durability=durability) as runtime:
            waiting = asyncio.create_task(runtime.get(Home, "b").wait())
            visits = await asyncio.gather(*(runtime.get(Home, "a").visit() for _ in range(3)))
            world.go.set()
            await waiting
            assert await runtime.evict(Home, "a")
            return [*visits, await runtime.get(Home, "a").visit()]

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(program()) == [(1, 1), (2, 2), (3, 3), (1, 4)]


# Closing


@pytest.fixture
async def in_real_time(world: World) -> AsyncIterator[z0.Runtime]:
    """A runtime whose closing waits: in virtual time whatever waits then would wait for ever, and is reset."""
    async with temporary_runtime(memory=True, env=world) as runtime:
        yield runtime
        world.go.set()


async def test_closing_answers_what_was_accepted_and_refuses_what_comes_later(
    in_real_time: z0.Runtime, world: World
) -> None:
    runtime = in_real_time
    waiting = asyncio.create_task(runtime.get(Home, "a").wait())
    writing = asyncio.create_task(runtime.get(Home, "b").visit())
    await asyncio.sleep(0)
    closing = asyncio.create_task(runtime.close())
    await quiet()
    for name in "a", "c":
        with pytest.raises(z0.RuntimeClosed, match="open a new Runtime"):
            await runtime.get(Home, name).visit()
    world.go.set()
    assert (await waiting, await writing) == ("waited", (1, 1))
    await closing
    assert files_of(runtime, Home, "a") == ["a.sqlite", "b.sqlite"]


async def test_closing_many_actors_lets_others_run_between(in_real_time: z0.Runtime) -> None:
    runtime, loop, begun = in_real_time, asyncio.get_running_loop(), [0]
    for number in range(200):
        await runtime.get(Home, str(number)).visit()

    def look() -> None:
        """What was begun since the last pass of the loop."""
        begun.append(len(runtime.node.closing))
        if not closing.done():
            loop.call_soon(look)

    closing = asyncio.create_task(runtime.close())
    loop.call_soon(look)
    await closing
    assert max(after - before for before, after in itertools.pairwise(begun)) in range(1, 65)


async def test_closing_lets_a_running_handler_call_other_actors(in_real_time: z0.Runtime, world: World) -> None:
    runtime = in_real_time
    await runtime.get(Home, "b").visit()
    calling = asyncio.create_task(runtime.get(Home, "a").call("b"))
    await quiet()
    closing = asyncio.create_task(runtime.close())
    await quiet()
    world.go.set()
    assert await calling == 1
    await closing


async def test_closing_stops_actors_and_keeps_what_they_write(runtime: z0.Runtime, world: World) -> None:
    await runtime.get(Hooked, "a").visit()
    await runtime.close()
    assert world.log == ["start", "stop: closing"]
    async with z0.Runtime(runtime.path, env=world, clock=VirtualClock()) as again:
        assert (await again.get(Hooked, "a").stopped())[0] == "closing"


async def test_closing_at_once_waits_for_actors_that_are_opening(world: World) -> None:
    async with asyncio.timeout(5), temporary_runtime(memory=True, clock=VirtualClock(), env=world) as runtime:
        reading = [asyncio.create_task(runtime.get(Home, f"a{number}").look()) for number in range(5)]
        await asyncio.sleep(0)
        await runtime.close()
        assert await asyncio.gather(*reading) == [0] * 5


async def test_what_cannot_drain_in_time_is_reset(world: World, clock: VirtualClock) -> None:
    limits = z0.Limits(close_seconds=0.01)
    async with temporary_runtime(memory=True, clock=clock, env=world, limits=limits) as runtime:
        await runtime.get(Home, "a").visit()
        waiting = asyncio.create_task(runtime.get(Home, "a").wait())
        await quiet()
        await runtime.close()
        with pytest.raises(z0.ActorReset, match="close_seconds"):
            await waiting
        async with z0.Runtime(runtime.path, clock=clock, env=world) as again:
            assert await again.get(Home, "a").visit() == (1, 2)


async def test_closing_never_waits_for_virtual_time(world: World, clock: VirtualClock) -> None:
    async with asyncio.timeout(3), temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        sleeping = asyncio.create_task(runtime.get(Home, "a").sleep("1 hour"))
        await clock.advance("1 minute")
        await runtime.close()
        with pytest.raises(z0.ActorReset):
            await sleeping


async def test_closing_never_waits_for_a_stop_that_waits_for_virtual_time(world: World, clock: VirtualClock) -> None:
    class Sleepy(Home):
        async def stop(self, reason: str) -> None:
            await self.clock.sleep("1 hour")

    async with asyncio.timeout(3), temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        await runtime.get(Sleepy, "a").visit()


async def test_closing_never_waits_for_a_start_that_waits(world: World, clock: VirtualClock) -> None:
    class Sleepy(Home):
        async def start(self) -> None:
            await self.clock.sleep("1 hour")

    async with asyncio.timeout(3), temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        calling = asyncio.create_task(runtime.get(Sleepy, "a").visit())
        await clock.advance("10 seconds")
        await runtime.close()
        with pytest.raises(z0.ActorReset):
            await calling


async def test_closing_twice_and_leaving_afterwards_are_harmless(runtime: z0.Runtime) -> None:
    await runtime.get(Home, "a").visit()
    await asyncio.gather(runtime.close(), runtime.close())
    await runtime.close()


async def test_a_closed_runtime_refuses_everything_with_one_error(runtime: z0.Runtime) -> None:
    await runtime.get(Home, "a").visit()
    await runtime.close()
    with pytest.raises(z0.RuntimeClosed):
        await runtime.get(Home, "a").visit()
    with pytest.raises(z0.RuntimeClosed):
        await runtime.list(Home)
    with pytest.raises(z0.RuntimeClosed):
        await runtime.open()
    async with z0.Runtime(runtime.path, clock=VirtualClock()) as again:
        assert await listed(again) == ["a"]


async def test_a_runtime_closes_when_its_program_fails(folder: Path, world: World) -> None:
    async def program() -> None:
        async with z0.Runtime(folder, env=world) as runtime:
            await runtime.get(Home, "a").visit()
            raise Oops

    with pytest.raises(Oops):
        await program()
    async with z0.Runtime(folder, env=world) as again:
        assert await again.get(Home, "a").visit() == (1, 2)


# Crashes


async def test_a_crash_keeps_what_was_committed_and_frees_the_directory(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, env=world) as first:
        for _ in range(3):
            await first.get(Home, "a").visit()
        await crash(first)
        async with z0.Runtime(first.path, clock=clock, env=world) as second:
            assert await second.get(Home, "a").visit() == (1, 4)
        with pytest.raises(z0.RuntimeClosed):
            await first.get(Home, "a").visit()


async def test_callers_that_wait_learn_of_a_crash(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        await runtime.get(Home, "a").visit()
        calls = [
            asyncio.create_task(runtime.get(Home, "a").wait()),
            asyncio.create_task(runtime.get(Home, "a").sleep("1 hour")),
            asyncio.create_task(runtime.get(Home, "new").look()),
        ]
        await asyncio.sleep(0)
        await crash(runtime)
        for call in calls:
            with pytest.raises(z0.ActorReset) as caught:
                await call
            assert caught.value.retryable


async def test_a_crash_does_not_run_stop(world: World, clock: VirtualClock) -> None:
    async with temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        await runtime.get(Hooked, "a").visit()
        await crash(runtime)
        assert world.log == ["start"]


@pytest.mark.parametrize("passes", [1, 2, 5, 50])
async def test_a_crash_while_actors_open_and_close_frees_the_directory(
    world: World, clock: VirtualClock, passes: int
) -> None:
    async with asyncio.timeout(5), temporary_runtime(memory=True, clock=clock, env=world) as runtime:
        await runtime.get(Slow, "a").visit()
        evicting = asyncio.create_task(runtime.evict(Slow, "a"))
        opening = asyncio.create_task(runtime.get(Home, "b").look())
        for _ in range(passes):
            await asyncio.sleep(0)
        await crash(runtime)
        await asyncio.gather(evicting, opening, return_exceptions=True)
        async with z0.Runtime(runtime.path, clock=clock, env=world) as again:
            assert (await again.get(Slow, "a").visit())[1] == 2
            world.go.set()


async def test_a_runtime_says_where_it_is_and_how_durable() -> None:
    runtime = z0.Runtime("var/x", durability="relaxed")
    assert repr(runtime) == "<Runtime 'var/x' durability='relaxed'>"
    assert runtime.path == Path("var/x")
    with pytest.raises(ValueError, match="durability is"):
        z0.Runtime("var/x", durability="maybe")  # type: ignore[arg-type]


async def test_an_actor_whose_file_is_gone_does_not_come_back_empty(runtime: z0.Runtime) -> None:
    await runtime.get(Home, "a").visit()
    assert await runtime.evict(Home, "a")
    await runtime.list(Home)  # the catalogue has noted the eviction
    (file,) = runtime.path.rglob("a.sqlite")
    file.rename(file.with_suffix(".kept"))
    with pytest.raises(z0.ActorFileError, match="gone"):
        await runtime.get(Home, "a").visit()
    file.with_suffix(".kept").rename(file)
    assert await runtime.get(Home, "a").visit() == (1, 2)


async def test_a_start_that_takes_too_long_fails_its_messages_and_the_next_one_tries_anew(
    world: World, clock: VirtualClock
) -> None:
    class Slow(z0.Actor):
        env: World

        async def start(self) -> None:
            await self.env.go.wait()

        async def look(self) -> str:
            return self.name

    async with temporary_runtime(memory=True, env=world, clock=clock) as runtime:
        slow = runtime.get(Slow, "s")
        calls = [asyncio.create_task(slow.look()) for _ in range(2)]
        await clock.advance("29 seconds")
        assert not any(call.done() for call in calls)
        await clock.advance("1 second")
        for call in calls:
            with pytest.raises(z0.LimitExceeded, match=r"start\(\) of Slow/s took more than 30 seconds"):
                await call
        world.go.set()
        assert await slow.look() == "s"
