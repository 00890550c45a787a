"""Names: any string of 1 to 512 bytes is an actor of its own, and its file never leaves the data directory."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path, PurePath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import z0
from z0.actors.names import DEFAULT_TENANT, NAME_BYTES_MAX, Address, check_name, file_path
from z0.testing import VirtualClock, temporary_runtime

HOSTILE = [
    "../x",
    "../../../../etc/passwd",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:\\x",
    "%2e%2e%2f",
    "%2e",
    "%2E",
    "~",
    "-rf",
    " ",
    "a ",
    "a.",
    ".hidden",
    "x.sqlite",
    "x.sqlite-wal",
    "line\nbreak",
    "tab\there",
    "bell\x07",
    "del\x7f",
    "quote'; DROP TABLE actors; --",
    '"double"',
    "glob*?[x]",
    "$HOME `id` |;&<>",
    "CON",
    "con",
    "con.txt",
    "nul",
    "LPT1",
    "Straße",
    "STRASSE",
    "é",
    "e\u0301",
    "\u212b",
    "\u00c5",
    "ﬁ",
    "fi",
    "а",  # noqa: RUF001  # Cyrillic
    "a",
    "A",
    "\u200b",
    "\u202etxt.exe",
    "\ufeff",
    "🦀",
    "\U0010ffff",
    "x" * NAME_BYTES_MAX,
    "X" * NAME_BYTES_MAX,
    "é" * (NAME_BYTES_MAX // 2),
    "x" * (NAME_BYTES_MAX - 1) + "y",
]

texts = st.text(min_size=1, max_size=60).filter(lambda text: "\0" not in text and not has_surrogate(text))
twins = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.text("aAbBéÉ\u017fsSKk\u212a\u0301.~%-_/0", min_size=1, max_size=4),
        texts,
    ),
    min_size=2,
    max_size=20,
    unique=True,
)


def has_surrogate(text: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def confused(path: PurePath) -> str:
    """The path as the most confusing file system sees it: without case and Unicode forms."""
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFC", str(path)).casefold())
    return unicodedata.normalize("NFKC", text).casefold()


@pytest.mark.parametrize("name", ["a", "acct_1", "order-7", "2026.11.22", "x" * 100])
def test_a_plain_name_is_its_file_name(name: str) -> None:
    assert file_path("default", "Account", name) == PurePath("default", "Account", f"{name}.sqlite")


def test_a_changed_name_stays_readable_and_carries_a_hash() -> None:
    file = file_path("default", "Account", "Müller & Co").name
    assert file.startswith("M%C3%BCller%20%26%20Co~")
    assert file.endswith(".sqlite")


@given(texts)
@example("..")
@example("../..")
@example("/")
def test_a_file_stays_inside_its_folder(name: str) -> None:
    path = file_path("default", "Account", name)
    assert path.parts[:2] == ("default", "Account")
    assert len(path.parts) == 3
    assert path.name not in {".", ".."}
    assert not set(path.name) & set("/\\\0\n:*?\"<>|' ")


@given(texts, texts, texts)
def test_tenants_and_namespaces_stay_inside_the_data_directory(tenant: str, namespace: str, name: str) -> None:
    path = file_path(tenant, namespace, name)
    assert len(path.parts) == 3
    assert not path.is_absolute()
    assert not any(part.startswith(".") for part in path.parts)


@given(st.text(min_size=1, max_size=512).filter(lambda text: not has_surrogate(text)))
def test_a_file_name_fits_every_file_system_with_its_suffixes(name: str) -> None:
    path = file_path(name, name, name)
    assert all(len(part.encode()) <= 200 and part.isascii() for part in path.parts)


@given(twins)
@example(HOSTILE)
def test_distinct_names_have_files_that_no_file_system_confuses(names: list[str]) -> None:
    paths = {confused(file_path("default", "Account", name)) for name in names}
    assert len(paths) == len(names)


@given(texts)
def test_a_name_always_has_the_same_file(name: str) -> None:
    assert file_path("t", "N", name) == file_path("t", "N", name)


@pytest.mark.parametrize("tenant", ["catalog.sqlite", "catalog.sqlite-wal", "z0.lock", "..", "a/b"])
def test_a_tenants_folder_is_never_a_file_of_the_runtime(tenant: str) -> None:
    assert "~" in file_path(tenant, "Account", "a").parts[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("x" * 513, "is 513 bytes long"),
        ("é" * 257, "is 514 bytes long"),
        ("a\0b", "holds a NUL"),
        ("\ud800", "holds a lone surrogate"),
        (7, "is a int, not a string"),
        (None, "is a NoneType, not a string"),
        (b"x", "is a bytes, not a string"),
    ],
)
def test_only_empty_long_nul_and_surrogates_are_refused(name: object, reason: str) -> None:
    with pytest.raises(z0.InvalidName) as caught:
        check_name(name)
    assert caught.value.reason == reason
    assert "use 1 to 512 UTF-8 bytes without NUL" in str(caught.value)
    assert not caught.value.retryable


@given(st.text(min_size=1, max_size=128).filter(lambda text: "\0" not in text and not has_surrogate(text)))
def test_every_other_string_is_a_name_and_stays_as_it_is(name: str) -> None:
    assert check_name(name) is name


def test_an_address_reads_as_people_write_it() -> None:
    assert str(Address(DEFAULT_TENANT, "Account", "a")) == "Account/a"
    assert str(Address("t1", "Account", "a")) == "t1:Account/a"


class Keeper(z0.Actor):
    async def keep(self, value: int) -> int:
        self.storage.put("value", value)
        return value

    async def kept(self) -> tuple[str, int | None]:
        return self.name, self.storage.get("value")


@pytest.fixture
async def runtime() -> AsyncIterator[z0.Runtime]:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        yield runtime


def actor_files(runtime: z0.Runtime) -> set[Path]:
    return set(runtime.path.parent.rglob("*.sqlite")) - {runtime.path / "catalog.sqlite"}


async def test_each_hostile_name_is_an_actor_of_its_own_inside_the_data_directory(runtime: z0.Runtime) -> None:
    for number, name in enumerate(HOSTILE):
        await runtime.get(Keeper, name).keep(number)
    for number, name in enumerate(HOSTILE):
        assert await runtime.evict(Keeper, name)
        assert await runtime.get(Keeper, name).kept() == (name, number)
    folder = runtime.path / "default" / "Keeper"
    assert {file.parent for file in actor_files(runtime)} == {folder}
    assert len(actor_files(runtime)) == len(HOSTILE)


async def test_hostile_names_are_listed_as_they_were_given(runtime: z0.Runtime) -> None:
    for name in HOSTILE:
        await runtime.get(Keeper, name).kept()
    listed = [info.name for info in await runtime.list(Keeper, limit=1_000)]
    assert listed == sorted(HOSTILE, key=str.encode)


@pytest.mark.parametrize("name", ["", "x" * 513, "nul\0", "\udcff"])
async def test_an_impossible_name_is_refused_when_the_stub_is_made(runtime: z0.Runtime, name: str) -> None:
    with pytest.raises(z0.InvalidName):
        runtime.get(Keeper, name)
    assert actor_files(runtime) == set()


@pytest.mark.parametrize("tenant", ["", "t" * 513, "nul\0", "\udcff"])
async def test_an_impossible_tenant_is_refused(runtime: z0.Runtime, tenant: str) -> None:
    with pytest.raises(z0.InvalidName, match="tenant"):
        runtime.tenant(tenant)


@pytest.mark.parametrize("namespace", ["x" * 513, "nul\0", "\udcff"])
async def test_an_impossible_namespace_is_refused(runtime: z0.Runtime, namespace: str) -> None:
    cls = type("Odd", (Keeper,), {"namespace": namespace})
    with pytest.raises(z0.InvalidName, match="namespace"):
        runtime.get(cls, "a")


@pytest.mark.parametrize("name", ["..", "a/b", "CON", "é"])
async def test_hostile_tenants_and_namespaces_stay_inside_too(runtime: z0.Runtime, name: str) -> None:
    cls = type("Odd", (Keeper,), {"namespace": name})
    await runtime.tenant(name).get(cls, "a").keep(1)
    (file,) = actor_files(runtime)
    assert file.parent.parent.parent == runtime.path
    assert (await runtime.tenant(name).get(cls, "a").kept()) == ("a", 1)
