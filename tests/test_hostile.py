"""Hostile names, links, values and command lines: each is refused by name, or taken as what it is and no more."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import z0
from z0 import cli
from z0.actors.names import check_name, file_path
from z0.testing import VirtualClock, temporary_runtime

MIB = 1024 * 1024
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


class Inbox(z0.Entity):
    """Takes anything, gives anything back."""

    namespace = "Inbox"
    accepts = {"*"}

    async def take(self, value: Any) -> None:
        pass

    async def take_slowly(self, value: Any) -> None:
        await asyncio.sleep(0)

    async def put(self, value: Any) -> None:
        self.storage.put("k", value)

    @z0.idempotent("key")
    async def once(self, value: Any, *, key: str) -> None:
        pass

    async def give(self, what: str) -> Any:
        self.storage.put("gave", what)
        return GIVEN[what]

    async def give_slowly(self, what: str) -> Any:
        await asyncio.sleep(0)
        return await self.give(what)

    async def kept(self) -> dict[str, Any]:
        return self.storage.list()

    async def raise_it(self, name: str) -> None:
        self.storage.put("raised", name)
        raise ENDS[name]("oops")


GIVEN = {"circle": CIRCLE, "deep": deep(50_000)}


class Odd(BaseException):
    pass


ENDS: dict[str, type[BaseException]] = {"odd": Odd, "generator": GeneratorExit, "cancelled": asyncio.CancelledError}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with one actor in it."""

    async def fill() -> None:
        async with z0.Runtime(tmp_path / "data") as runtime:
            await runtime.get(Inbox, "a").append("t", amount=1, idempotency_key="k", data={"n": 1})

    asyncio.run(fill())
    return tmp_path / "data"


# Names and folders


@given(st.text(max_size=600), st.text(max_size=20), st.text(max_size=20))
@example("x" * 10_240, "..", "con")
@example("../../etc/passwd", "\0", "%2e%2e")
@example("a\n*>.", ".", "\ud800")
def test_any_text_is_refused_or_names_a_file_inside_its_folder(name: str, namespace: str, tenant: str) -> None:
    try:
        address = [check_name(text) for text in (tenant, namespace, name)]
    except z0.InvalidName:
        texts = (tenant, namespace, name)
        odd = ["\0" in text or not text or len(text.encode("utf-8", "replace")) > 512 for text in texts]
        assert any(odd) or any("\ud800" <= character <= "\udfff" for text in texts for character in text)
        return
    inside = os.path.normpath(os.path.join("/data", *file_path(*address).parts))
    assert inside == f"/data/{file_path(*address)}"
    assert inside.count("/") == 4


@pytest.mark.parametrize("where", ["default", "default/Inbox", "default/Inbox/b.sqlite", "catalog.sqlite"])
@pytest.mark.parametrize("there", [True, False])
async def test_no_link_leads_out_of_the_data_directory(folder: Path, where: str, there: bool) -> None:
    outside, place = folder.parent / "outside", folder / where
    if there:  # as it would be if it were ours
        async with z0.Runtime(outside) as runtime:
            await runtime.get(Inbox, "b").append("t")
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    with contextlib.suppress(FileNotFoundError):
        place.rename(folder / "moved")
    place.symlink_to(outside / where)
    try:
        async with z0.Runtime(folder) as runtime:
            await runtime.get(Inbox, "b").append("t")
    except z0.ActorFileError as error:
        assert "link" in str(error)  # noqa: PT017  # or it was replaced, which is as good
    else:
        assert not place.is_symlink()
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before


async def test_the_data_directory_itself_may_be_reached_by_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    async with z0.Runtime(link) as runtime:
        assert runtime.path == link
        assert await runtime.get(Inbox, "a").count_facts() == 1
        with pytest.raises(z0.DataDirLocked):
            await z0.Runtime(folder).open()


async def test_a_program_that_changes_its_folder_keeps_its_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    async with z0.Runtime("data") as runtime:
        monkeypatch.chdir(tmp_path / "elsewhere")
        await runtime.get(Inbox, "a").append("t")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(tmp_path / "data" / "default" / "Inbox") == ["a.sqlite"]


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    yield
    os.umask(old)


@pytest.mark.usefixtures("umask")
async def test_folders_and_files_are_their_owners_whatever_the_umask(tmp_path: Path) -> None:
    odd = type("Odd", (Inbox,), {"namespace": "../*"})
    async with z0.Runtime(tmp_path / "new" / "data") as runtime:
        await runtime.get(Inbox, "a").append("t")
        await runtime.tenant("../t").get(odd, "..").append("t")
        for path in [runtime.path, *runtime.path.rglob("*")]:  # write-ahead logs as well
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# Values in messages


async def send(inbox: Inbox, message: str, value: Any) -> None:
    if message == "append":
        await inbox.append("t", data={"value": value})
    elif message == "once":
        await inbox.once(value, key="k")
    else:
        await getattr(inbox, message)(value)


@pytest.mark.parametrize("message", ["take", "take_slowly", "put", "once", "append"])
@pytest.mark.parametrize("value", [CIRCLE, deep(50_000), {"a": deep(5_000)}, (CIRCLE,)], ids=range(4))
async def test_what_is_too_deep_or_a_circle_is_refused_as_an_argument(message: str, value: Any) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        inbox = runtime.get(Inbox, "a")
        for _ in range(2):  # in its caller's own step as well, beside others of the turn
            beside = asyncio.create_task(inbox.put(1))
            await asyncio.sleep(0)
            with pytest.raises((z0.InvalidMessage, z0.InvalidFact), match="nested"):
                await send(inbox, message, value)
            await beside
        assert await inbox.kept() == {"k": 1}
        assert runtime.node.load.bytes == 0


@pytest.mark.parametrize("message", ["give", "give_slowly"])
@pytest.mark.parametrize("what", GIVEN)
async def test_what_is_too_deep_or_a_circle_is_refused_as_a_reply_and_leaves_nothing(message: str, what: str) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        for _ in range(2):
            with pytest.raises(z0.InvalidMessage, match="nested too deeply, or in a circle"):
                await getattr(runtime.get(Inbox, "a"), message)(what)
        assert await runtime.get(Inbox, "a").kept() == {}


@pytest.mark.parametrize("value", ["\ud800", 2**70, {"a": [2**70]}, {1j: 1}])
async def test_arguments_that_cannot_be_hashed_are_refused_by_an_idempotent_message(value: Any) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        with pytest.raises(z0.InvalidValue, match="cannot be compared by its hash"):
            await runtime.get(Inbox, "a").once(value, key="k")


@pytest.mark.parametrize("value", [bytes(2 * MIB), [0] * 2_000_000, {str(n): n for n in range(200_000)}], ids=range(3))
@pytest.mark.parametrize("message", ["take", "take_slowly", "put"])
async def test_a_bomb_is_refused_before_anything_of_it_is_stored(message: str, value: Any) -> None:
    limits = z0.Limits(mailbox_bytes=MIB)
    async with temporary_runtime(memory=True, clock=VirtualClock(), limits=limits) as runtime:
        with pytest.raises(z0.Overloaded, match="mailbox_bytes"):
            await getattr(runtime.get(Inbox, "a"), message)(value)
        assert await runtime.get(Inbox, "a").kept() == {}


@pytest.mark.parametrize("name", ENDS)
async def test_what_a_handler_raises_beside_exceptions_reaches_every_caller_as_an_error(name: str) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        inbox = runtime.get(Inbox, "a")
        for _ in range(2):  # through the mailbox, then in the caller's own step
            with pytest.raises(RuntimeError):
                await inbox.raise_it(name)
        assert await inbox.kept() == {}
        assert (runtime.node.dirty, await runtime.evict(Inbox, "a")) == (0, True)


@pytest.mark.parametrize("asked", [{"prefix": "\ud800"}, {"after": "\ud800"}, {"limit": 2**70}])
async def test_what_the_catalogue_cannot_be_asked_is_an_error_of_z0(asked: dict[str, Any]) -> None:
    async with temporary_runtime(memory=True, clock=VirtualClock()) as runtime:
        with pytest.raises(z0.QueryError):
            await runtime.list(Inbox, **asked)


# Command lines

WORDS = st.one_of(
    st.sampled_from(["--json", "--limit", "--after", "--reverse", "--type", "--tenant", "--class", "--prefix", "--"]),
    st.sampled_from(["Inbox/a", "Inbox/b", "/a", "Inbox/", "..", "", "-1", "0", "9" * 30, "x" * 5_000, "\udcff", "*"]),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_command_line_ends_in_a_traceback(data: st.DataObject, reading: Path) -> None:
    command = data.draw(st.sampled_from(["ls", "show", "facts", "alarms", "verify"]))
    paths = [str(reading), str(reading / "default/Inbox/a.sqlite"), "/dev/null", str(reading / "catalog.sqlite")]
    words = [command, data.draw(st.sampled_from(paths) | WORDS), *data.draw(st.lists(WORDS, max_size=5))]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        assert cli.main(words) in (0, 1, 2)
    assert "Traceback" not in out.getvalue() + err.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "{data}", "--prefix", "\udcff"],
        ["ls", "{data}", "--limit", "9" * 30],
        ["ls", "{data}", "--limit", "-5"],
        ["show", "{data}", "Inbox/\udcff"],
        ["show", "{data}", "Inbox/a", "--tenant", "\udcff"],
        ["facts", "{data}", "Inbox/a", "--type", "\udcff"],
        ["facts", "{data}", "Inbox/a", "--after", "9" * 30],
        ["alarms", "{data}", "--class", "\udcff"],
        ["verify", "{data}", "--tenant", "\udcff"],
        ["show", "x" * 5_000],
    ],
)
def test_what_no_file_can_hold_is_wrong_usage(words: list[str], reading: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert cli.main([word.replace("{data}", str(reading)) for word in words]) == 2
    assert err.getvalue()


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reading") / "data"

    async def fill() -> None:
        async with z0.Runtime(folder) as runtime:
            await runtime.get(Inbox, "a").append("t", amount=1, idempotency_key="k", data={"n": 1})

    asyncio.run(fill())
    return folder


async def test_a_table_of_the_users_hides_nothing_from_the_inspector(folder: Path) -> None:
    class Rude(Inbox):
        async def start(self) -> None:
            self.storage.sql("CREATE TABLE IF NOT EXISTS pragma_table_info(x)")

    async with z0.Runtime(folder) as runtime:
        await runtime.get(Rude, "a").take(1)
    for words in ["show", "alarms", "verify"]:
        assert cli.main([words, str(folder / "default/Inbox/a.sqlite")]) == 0
