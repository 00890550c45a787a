"""Data directories to be damaged: actors that keep a little of everything, closed or left by a kill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import z0
from tests.damages import Files
from z0.actors.names import file_path
from z0.testing import VirtualClock, crash


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


async def make_originals(path: Path) -> list[Original]:
    """One directory that was closed, and one that was left by a kill."""
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
