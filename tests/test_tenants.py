"""Tenants: the same names, other actors. What one tenant writes is stamped, stored and read apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import z0
from z0.testing import VirtualClock, temporary_runtime


class Account(z0.Entity):
    """Takes any fact, and may pass one on."""

    accepts = {"*"}
    balance: z0.Balance

    async def pass_on(self, to: str, amount: int) -> z0.Fact:
        self.ledger.append("out", amount=-amount)
        fact: z0.Fact = await self.get(Account, to).append("in", amount=amount)
        return fact


@pytest.fixture
async def runtime() -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        yield runtime


async def test_every_fact_is_stamped_with_its_tenant(runtime: z0.Runtime) -> None:
    account = runtime.tenant("t1").get(Account, "a")
    single = await account.append("x")
    several = await account.append_many([{"type": "x"}] * 2)
    assert {fact.tenant_id for fact in [single, *several]} == {"t1"}
    assert (await runtime.get(Account, "a").append("x")).tenant_id == "default"
    assert await account.query_facts(tenant_id="t1") == [single, *several]
    assert await account.count_facts(tenant_id="default") == 0


async def test_a_caller_cannot_name_a_tenant(runtime: z0.Runtime) -> None:
    with pytest.raises(z0.InvalidFact) as caught:
        await runtime.tenant("t1").get(Account, "a").append("x", tenant_id="t2")  # type: ignore[call-arg]
    assert caught.value.field == "tenant_id"


async def test_tenants_share_nothing(runtime: z0.Runtime) -> None:
    tenants = [runtime, runtime.tenant("t1"), runtime.tenant("t2")]
    for number, tenant in enumerate(tenants):
        account = tenant.get(Account, "a")
        for _ in range(number + 1):
            await account.append("x", amount=number, currency="EUR")
        await account.append("x", amount=1, currency="EUR", idempotency_key="the same key")
    for number, tenant in enumerate(tenants):
        account = tenant.get(Account, "a")
        assert await account.count_facts() == number + 2
        assert await account.projection("balance") == z0.Balance({"EUR": number * (number + 1) + 1})
        assert (await account.verify()).facts == number + 2


async def test_a_fact_has_one_id_in_each_tenant(runtime: z0.Runtime) -> None:
    one = await runtime.tenant("t1").get(Account, "a").append("x", amount=1)
    other = await runtime.tenant("t2").get(Account, "a").append("x", amount=2)
    assert one.id == other.id
    assert await runtime.tenant("t1").get(Account, "a").get_fact(one.id) == one
    assert await runtime.tenant("t2").get(Account, "a").get_fact(one.id) == other


async def test_stubs_of_two_tenants_are_of_two_actors(runtime: z0.Runtime) -> None:
    one, other = runtime.tenant("t1").get(Account, "a"), runtime.tenant("t2").get(Account, "a")
    assert one != other
    assert one == runtime.tenant("t1").get(Account, "a")
    assert runtime.get(Account, "a") == runtime.tenant("default").get(Account, "a")


async def test_calls_between_actors_stay_within_the_tenant(runtime: z0.Runtime) -> None:
    fact = await runtime.tenant("t1").get(Account, "a").pass_on("b", 5)
    assert (fact.tenant_id, fact.entity_id) == ("t1", "b")
    assert await runtime.get(Account, "b").count_facts() == 0
    assert await runtime.tenant("t1").get(Account, "b").query_facts() == [fact]


async def test_files_of_tenants_live_apart(runtime: z0.Runtime) -> None:
    for tenant in (runtime, runtime.tenant("t1"), runtime.tenant("T1"), runtime.tenant("../t2")):
        await tenant.get(Account, "a").append("x")
        assert await tenant.evict(Account, "a")
    folders = sorted(path.parent.parent.name for path in runtime.path.glob("*/*/*.sqlite"))
    assert len(set(map(str.casefold, folders))) == 4
    assert {"default", "t1"} < set(folders)
    assert all(path.resolve().is_relative_to(runtime.path.resolve()) for path in runtime.path.rglob("*"))


async def test_a_tenant_lists_its_own_actors(runtime: z0.Runtime) -> None:
    for tenant, name in (("t1", "a"), ("t1", "b"), ("t2", "c")):
        await runtime.tenant(tenant).get(Account, name).append("x")
    assert [(info.tenant, info.name) for info in await runtime.tenant("t1").list(Account)] == [("t1", "a"), ("t1", "b")]
    assert await runtime.list(Account) == []


async def test_one_tenants_file_is_refused_under_another(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        await runtime.tenant("t1").get(Account, "a").append("x")
        await runtime.tenant("t2").get(Account, "b").append("x")
    (tmp_path / "t1/Account/a.sqlite").rename(tmp_path / "t2/Account/b.sqlite")
    async with z0.Runtime(tmp_path, clock=VirtualClock()) as runtime:
        with pytest.raises(z0.ActorFileError, match="t1"):
            await runtime.tenant("t2").get(Account, "b").query_facts()


@pytest.mark.parametrize("tenant", ["", "a\0b", "x" * 513, "\ud800", 5, None], ids=lambda value: repr(value)[:9])
def test_a_tenant_has_a_name(tenant: object, tmp_path: Path) -> None:
    with pytest.raises(z0.InvalidName, match="tenant"):
        z0.Runtime(tmp_path).tenant(tenant)  # type: ignore[arg-type]
