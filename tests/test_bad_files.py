"""Damaged, foreign and misplaced files: used with every fact unchanged, or refused with an error that says what to do.

A damaged file is never moved, mended or made anew, others go on, and a good file in its place puts its actor right.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

import z0
from tests.damages import DAMAGES, OLDER, OTHERS, Files, damage, wal_of
from tests.proofs import Proof
from tests.vaults import Original, Vault, copied, file_of, make_originals, read
from z0 import inspect
from z0.check import check, check_all
from z0.cli import main
from z0.testing import VirtualClock, temporary_runtime


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Original]:
    return await make_originals(tmp_path_factory.mktemp("originals"))


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
        older = name in OLDER or only_its_wal(file, original)
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
                assert not lost or (facts and older), f"{lost} facts were lost unnoticed"
                found = "as it once was" if lost else "whole"
            await use(vault)
            assert await read(runtime.get(Vault, "b")) == good["b"]
            await put_back(runtime, clock, original)
            assert await read(vault) == good["a"]
            await vault.append("x")
    return name, found


def only_its_wal(file: Path, original: Original) -> bool:
    """Whether the damage is in the WAL alone: it says itself where it ends, so what comes after that is not missed."""
    return file.is_file() and file.read_bytes() == file_of(original.path, "a").read_bytes()


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


# The catalogue


CATALOGUE_DAMAGES = sorted(set(DAMAGES) - OTHERS - OLDER - {"the WAL of another actor", "another value"})


@pytest.mark.parametrize("name", CATALOGUE_DAMAGES)
async def test_a_damaged_catalogue_says_what_to_do_and_doing_so_loses_nothing(
    originals: list[Original], clock: VirtualClock, tmp_path: Path, name: str
) -> None:
    original, told = originals[0], list[z0.ActorFileError]()
    for seed in range(4):
        data = tmp_path / str(seed)
        shutil.copytree(original.path, data)
        file = data / "catalog.sqlite"
        DAMAGES[name](Files(file, file, file), random.Random(seed))
        try:
            async with z0.Runtime(data, clock=clock, actors=[Vault]) as runtime:
                assert await read(runtime.get(Vault, "a")) == original.facts["a"]
                assert [info.name for info in await runtime.list(Vault)] == ["a", "b"]
        except z0.ActorFileError as refused:
            told.append(refused)
            for path in data.glob("catalog.sqlite*"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        async with z0.Runtime(data, clock=clock, actors=[Vault]) as runtime:
            assert await read(runtime.get(Vault, "a")) == original.facts["a"]
            assert [info.name for info in await runtime.list(Vault)] == ["a", "b"]
            await clock.advance("2 days")
            for vault in "ab":
                assert (await runtime.get(Vault, vault).kept())[0]["fired"]
    assert all("and it is made anew" in error.reason for error in told)


# Who only looks


@pytest.mark.parametrize("name", DAMAGES)
def test_commands_on_damaged_files_say_so_in_one_line(
    originals: list[Original], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = copied(originals[1], tmp_path / "data")
    DAMAGES[name](files, random.Random(1))
    for words in (["show", files.file], ["facts", files.file], ["verify", files.file], ["verify", tmp_path / "data"]):
        code = main([str(word) for word in words])
        told = capsys.readouterr()
        assert code in (0, 1, 2)
        assert len(told.err.splitlines()) == (0 if code == 0 or "verified" in told.out else 1)


async def test_a_file_that_is_not_where_it_belongs_is_found_by_verify(
    originals: list[Original], tmp_path: Path
) -> None:
    files = copied(originals[0], tmp_path / "data")
    shutil.copy(files.other, files.file)
    problems = [checked.problem for checked in check_all(tmp_path / "data") if checked.problem]
    assert problems == [f"{files.file}: is the file of Vault/b; was it moved?"]


# The harness itself


async def test_the_harness_notices_a_chain_that_is_not_verified(
    originals: list[Original], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unverified(ledger: z0.Ledger) -> Iterator[z0.Verification]:
        yield z0.Verification(ledger.head, ledger.hash)

    monkeypatch.setattr(z0.Ledger, "verify_steps", unverified)
    unnoticed = 0
    for seed in range(1, 80, 2):
        try:
            await outcome(seed, originals)
        except AssertionError as error:
            unnoticed += "a changed fact went unnoticed" in str(error)
    assert unnoticed
