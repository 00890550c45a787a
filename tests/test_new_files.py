"""A new actor's file comes with a WAL that SQLite goes on with, and with its row in the catalogue."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import z0
from z0.actors.database import Database, Template
from z0.actors.files import Files
from z0.actors.schema import ACTOR_SCHEMA
from z0.testing import crash, fault, simulated_disk

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=512)


class Account(z0.Entity):
    namespace = "account"
    accepts = {"deposit", "withdrawal"}


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(ACTOR_SCHEMA)


@given(tenant=NAMES, name=NAMES)
def test_sqlite_takes_the_wal_for_its_own(
    tmp_path_factory: pytest.TempPathFactory, template: Template, tenant: str, name: str
) -> None:
    path = tmp_path_factory.mktemp("new") / "0.sqlite"
    image = template.image({"tenant": tenant, "name": name})
    Files().create_file(path, *image)
    database = Database(path, vfs=None, sync=False)
    database.checkpoint_due(1)
    assert database.wal_pages == 1  # the repeated page
    assert database.rows("PRAGMA integrity_check") == [("ok",)]
    assert dict(database.rows("SELECT key, value FROM z0_meta")) == {"tenant": tenant, "name": name}
    database.close()
    assert path.read_bytes()[100:] == image.database[100:]
    assert [each.name for each in path.parent.iterdir()] == ["0.sqlite"]


async def test_the_first_commit_writes_and_syncs_the_wal_once(tmp_path: Path) -> None:
    with simulated_disk() as disk:
        async with disk.runtime(tmp_path, actors=[Account]) as runtime:
            account = runtime.get(Account, "a")
            assert await account.count_facts() == 0
            wal = tmp_path / "default/account/a.sqlite-wal"
            size = wal.stat().st_size
            disk.log.clear()
            await account.append("deposit", amount=1)
            assert [call.kind for call in disk.log if call.file == str(wal) and call.kind == "sync"] == ["sync"]
            assert wal.stat().st_size == size  # it had room


async def test_a_wal_that_lies_there_without_its_file_is_not_read(tmp_path: Path) -> None:
    other = tmp_path / "other"
    async with z0.Runtime(other, actors=[Account]) as runtime:
        await runtime.get(Account, "a").append("withdrawal", amount=7)
        await crash(runtime)
    place = tmp_path / "data/default/account"
    place.mkdir(parents=True)
    (place / "a.sqlite-wal").write_bytes((other / "default/account/a.sqlite-wal").read_bytes())
    async with z0.Runtime(tmp_path / "data", actors=[Account]) as runtime:
        account = runtime.get(Account, "a")
        await account.append("deposit", amount=1)
        assert [fact.type for fact in await account.query_facts()] == ["deposit"]


async def test_relaxed_durability_leaves_the_wal_to_sqlite_which_then_syncs_the_folder(tmp_path: Path) -> None:
    with simulated_disk() as disk:
        async with disk.runtime(tmp_path, actors=[Account], durability="relaxed") as runtime:
            await runtime.get(Account, "a").append("deposit", amount=1)
            wal = str(tmp_path / "default/account/a.sqlite-wal")
            assert [call.kind for call in disk.log if call.file == wal and call.kind == "sync"] == ["sync"]


async def test_an_actor_that_could_not_be_listed_is_made_by_the_next_message(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path, actors=[Account]) as runtime:
        with fault(runtime, "register"), pytest.raises(z0.ActorReset):
            await runtime.get(Account, "a").append("deposit", amount=1)
        await runtime.get(Account, "a").append("deposit", amount=2)
        assert [info.name for info in await runtime.list(Account)] == ["a"]
    with closing(sqlite3.connect(tmp_path / "default/account/a.sqlite")) as file:
        assert file.execute("SELECT amount FROM facts").fetchall() == [(2,)]
