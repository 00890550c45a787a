"""Damaged, foreign and misplaced files: used with every fact unchanged, or refused with an error that says what to do.

Nothing else happens to them: a damaged file is never moved, mended or made anew, its actor answers with an error until
a good file is in its place, and others go on.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

import z0
from tests.damages import OLDER, OTHERS, Files, damage, wal_of
from tests.proofs import Proof
from z0 import inspect
from z0.actors.names import file_path
from z0.check import check
from z0.testing import VirtualClock, crash, temporary_runtime


class Vault(z0.Entity):
    """Keeps a little of everything."""

    accepts = {"*"}
    indexes = ("source_id",)
    balance: z0.Balance

    async def put(self, key: str, value: str) -> None:
        self.storage.put(key, value)

    async def note(self, text: str) -> None:
        self.storage.sql("CREATE TABLE IF NOT EXISTS notes(text)")
        self.storage.sql("INSERT INTO notes VALUES(?)", text)

    async def kept(self) -> tuple[dict[str, Any], list[Any]]:
        return self.storage.list(), self.storage.sql("SELECT * FROM notes").all()

    async def arm(self) -> None:
        self.storage.set_alarm("1 day")

    async def alarm(self, info: z0.AlarmInfo) -> None:
        self.storage.put("fired", True)


class Original(NamedTuple):
    """A data directory as it was left, and what the ledgers in it hold."""

    path: Path
    facts: dict[str, list[z0.Fact]]


def file_of(data: Path, name: str) -> Path:
    return data / file_path("default", "Vault", name)


async def write(vault: Vault, count: int) -> None:
    for n in range(count):
        text = "x" * (6_000 if n % 7 == 3 else 40 * n)
        await vault.append("x", amount=n, currency="EUR", source_id=str(n % 3), data={"text": text, "n": n})
    await vault.put("key", "value" * 50)
    await vault.note("a note")
    await vault.arm()


async def facts_of(vault: Vault) -> list[z0.Fact]:
    return await vault.query_facts()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Original]:
    """One directory that was closed, and one that was left by a kill."""
    path = tmp_path_factory.mktemp("originals")
    made = []
    for name in ("closed", "killed"):
        data, clock = path / name, VirtualClock()
        limits = z0.Limits(checkpoint_pages=10_000, checkpoint_pages_max=10_000, snapshot_facts=16)
        runtime = z0.Runtime(data, clock=clock, limits=limits)
        await runtime.open()
        for vault in "ab":
            await write(runtime.get(Vault, vault), 20)
        await crash(runtime)
        shutil.copytree(data, path / "older", dirs_exist_ok=True)
        runtime = z0.Runtime(data, clock=clock, limits=limits)
        await runtime.open()
        facts = {}
        for vault in "ab":
            await write(runtime.get(Vault, vault), 15)
            facts[vault] = await facts_of(runtime.get(Vault, vault))
        if name == "closed":
            await runtime.close()
        else:
            await crash(runtime)
        made.append(Original(data, facts))
    return made


def copied(original: Original, target: Path) -> Files:
    shutil.copytree(original.path, target, dirs_exist_ok=True)
    older = file_of(original.path.with_name("older"), "a")
    return Files(file_of(target, "a"), file_of(target, "b"), older)


async def read(vault: Vault) -> list[z0.Fact]:
    """All facts, verified."""
    facts = await facts_of(vault)
    verified = await vault.verify()
    assert verified.facts == len(facts)
    return facts


def inspected(file: Path, facts: list[z0.Fact]) -> bool:
    """Whether who only looks sees no other facts than these; every error is one of ours."""
    try:
        inspect.show(file)
        found = list(inspect.facts(file))
        return check(file).problem is not None or found == facts[: len(found)]
    except z0.Z0Error:
        return True


async def use(vault: Vault) -> None:
    """A little of everything; errors are ours, and no answer is late."""
    for call in (vault.kept(), vault.put("other", "value"), vault.append("y"), vault.note("x")):
        with suppress(z0.Z0Error):
            await call


async def put_back(runtime: z0.Runtime, clock: VirtualClock, original: Original) -> None:
    """Have a backup take the file's place."""
    await clock.settle()
    assert await runtime.evict(Vault, "a")
    file = file_of(runtime.path, "a")
    for path in (file, wal_of(file), file.with_name(f"{file.name}-shm")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in (file, wal_of(file)):
        if (source := file_of(original.path, "a").with_name(path.name)).exists():
            shutil.copy(source, path)


async def outcome(seed: int, originals: list[Original]) -> tuple[str, str]:
    """Damage a file, use it, and put it right again; how it was damaged, and what became of it."""
    original, clock = originals[seed // 2 % 2], VirtualClock()
    good = original.facts
    async with temporary_runtime(memory=True, clock=clock, actors=[Vault]) as runtime:
        await runtime.close()
        name = damage(copied(original, runtime.path), seed)
        file = file_of(runtime.path, "a")
        assert inspected(file, good["a"]) or (name in OTHERS and inspected(file, good["b"]))
        runtime = z0.Runtime(runtime.path, clock=clock, actors=[Vault])
        async with runtime:
            vault = runtime.get(Vault, "a")
            try:
                facts = await read(vault)
            except z0.Z0Error as error:
                found = type(error).__name__
            else:
                lost = len(good["a"]) - len(facts)
                assert facts == good["a"][: len(facts)], "a changed fact went unnoticed"
                assert not lost or (facts and may_be_older(name, original)), f"{lost} facts were lost unnoticed"
                found = "as it once was" if lost else "whole"
            await use(vault)
            assert await read(runtime.get(Vault, "b")) == good["b"]
            await put_back(runtime, clock, original)
            assert await read(vault) == good["a"]
            await vault.append("x")
    return name, found


def may_be_older(name: str, original: Original) -> bool:
    """Whether one file alone cannot tell that something is missing: a WAL says itself where it ends."""
    return name in OLDER or original.path.name == "killed"


@pytest.mark.proof
async def test_a_damaged_file_is_whole_or_refused_and_a_backup_puts_it_right(
    originals: list[Original], proof: Proof
) -> None:
    for seed in proof.seeds(500):
        try:
            _, found = await outcome(seed, originals)
        except BaseException as error:
            error.add_note(f"again: pytest tests/test_bad_files.py -k whole_or_refused --seed {seed}")
            raise
        proof.count("damaged files")
        proof.count(f"of them {found}")
