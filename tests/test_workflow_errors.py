"""Errors of steps come back as themselves: type, message, cause and attributes, at once and on every replay."""

from __future__ import annotations

import asyncio
import decimal
import email.message
import enum
import json
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import z0
from tests.scripted_workflow import running
from z0.testing import VirtualClock, crash
from z0.workflows.failure import error_of, failure_of


class Colour(enum.Enum):
    RED = "red"


class Told(Exception):
    """Keeps what it is given, and says it in its own words."""

    def __init__(self, colour: Colour, *, where: Path) -> None:
        super().__init__()
        self.colour = colour
        self.where = where
        self.code = 7

    def __str__(self) -> str:
        return f"{self.colour} at {self.where}"


class Refused(Exception):
    """Holds what no journal can keep."""

    def __init__(self, message: str, response: object) -> None:
        super().__init__(message)
        self.status = 418
        self.response = response


class Hidden(Exception):
    """Says what only the value itself knows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __str__(self) -> str:
        return self.path.name


class Deaf(Exception):
    """With a slip in what it says."""

    def __str__(self) -> str:
        return f"code {self.code}"  # type: ignore[attr-defined]


class Missing(FileNotFoundError):
    """With a constructor of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(2, "missing", name)


def group() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        cause = error
    failed = ValueError("a")
    failed.__cause__ = cause
    raise ExceptionGroup("several", [failed, ExceptionGroup("more", [FileNotFoundError(2, "gone", "/x")])])


def raises(error: Exception) -> Callable[[], None]:
    def fails() -> None:
        raise error

    return fails


FAILING: dict[str, Callable[[], object]] = {
    "a file that is not there": lambda: Path("/nope/none.txt").read_text(),
    "two files": lambda: Path("/nope").rename("/nowhere"),
    "a path as the name": raises(FileNotFoundError(2, "missing", Path("/x"))),
    "a subclass": lambda: raises(Missing("/x"))(),
    "an error number": raises(OSError(111, "refused")),
    "a peer": raises(ConnectionResetError("peer")),
    "decoding": lambda: b"\xff".decode(),
    "encoding": lambda: "\xe9".encode("ascii"),
    "translating": raises(UnicodeTranslateError("abc", 0, 1, "why")),
    "a group": group,
    "a number": lambda: decimal.Decimal("x"),
    "syntax": lambda: compile("a b", "f", "exec"),
    "JSON": lambda: json.loads("{"),
    "a module": lambda: __import__("no_module_of_this_name"),
    "an attribute": lambda: Path.no_attribute_of_this_name,  # type: ignore[attr-defined]
    "a key": lambda: vars(Path)["a"],
    "an enum": raises(ValueError(Colour.RED)),
    "an enum as a key": raises(KeyError(Colour.RED)),
    "an enum and a path": raises(ValueError(Colour.RED, Path("/x"), 3)),
    "a lone surrogate": raises(ValueError("\ud800")),
    "an object": raises(Refused("teapot", object())),
    "words of its own": raises(Told(Colour.RED, where=Path("/x"))),
    "a process": raises(subprocess.CalledProcessError(1, ["false"])),
    "an address": raises(urllib.error.URLError(ConnectionRefusedError(111, "refused"))),
}
FIELDS = ("errno", "strerror", "filename2", "encoding", "start", "end", "lineno", "offset", "name", "status", "code")


def shown(error: BaseException | None) -> Any:
    """What is the same of an error that has come back."""
    if error is None:
        return None
    fields = {name: getattr(error, name, None) for name in FIELDS}
    members = [shown(each) for each in error.exceptions] if isinstance(error, BaseExceptionGroup) else []
    return type(error), str(error).encode(errors="backslashreplace"), repr(fields), members, shown(error.__cause__)


async def test_an_error_of_python_comes_back_as_itself_also_on_replay(tmp_path: Path) -> None:
    original: dict[str, Exception] = {}
    for what, fails in FAILING.items():
        with pytest.raises(Exception) as info:  # noqa: PT011  # whatever it is
            fails()
        original[what] = info.value
    caught: list[tuple[str, Exception]] = []

    async def body(step: z0.Step) -> None:
        for what, fails in FAILING.items():
            try:
                await step.do(what, fails, retries=z0.Retries(limit=0))
            except Exception as error:
                caught.append((what, error))
        await step.wait_for_event("w", type="t", timeout=None)

    clock = VirtualClock()
    async with running(tmp_path / "data", clock, body) as (runtime, _):
        await crash(runtime)
    async with running(tmp_path / "data", clock, body) as (_, instance):
        await instance.send_event("t")
        await instance.result("1 second")
    assert len(caught) == 2 * len(FAILING)
    for what, error in caught:
        assert shown(error) == shown(original[what]), what


def test_what_has_come_back_is_kept_as_well_as_the_first_time() -> None:
    for fails in FAILING.values():
        with pytest.raises(Exception) as original:  # noqa: PT011  # whatever it is
            fails()
        once = error_of(failure_of(original.value))
        assert shown(error_of(failure_of(once))) == shown(once)


def test_an_attribute_that_cannot_be_stored_costs_itself_alone() -> None:
    error = error_of(failure_of(Refused("teapot", object())))
    assert vars(error) == {"status": 418}


def test_what_an_attribute_looked_like_is_kept_only_where_the_message_needs_it() -> None:
    assert failure_of(Refused("teapot", object())).looks is None
    assert failure_of(Hidden(Path("/x"))).looks is None  # for nothing: they would not do
    assert error_of(failure_of(ValueError(Colour.RED))).args == ("Colour.RED",)
    error: Any = error_of(failure_of(Told(Colour.RED, where=Path("/x"))))
    assert (str(error.colour), str(error.where), error.code) == ("Colour.RED", "/x", 7)


async def test_an_error_that_cannot_say_what_it_is_fails_its_step_and_its_instance_like_others(
    tmp_path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def in_a_step(step: z0.Step) -> None:
        await step.do("x", raises(Deaf()), retries=z0.Retries(limit=1))

    async def in_the_body(step: z0.Step) -> None:
        await step.do("x", lambda: 1, rollback=raises(Deaf()))
        raise Deaf

    async def of_its_own_kind(step: z0.Step) -> None:
        class Stop(BaseException):
            __str__ = Deaf.__str__

        raise Stop

    for number, body in enumerate((in_a_step, in_the_body, of_its_own_kind)):
        async with running(tmp_path / str(number), clock, body) as (_, instance):
            await clock.advance("1 hour")
            status = await instance.status()
            assert status.status == "errored"
            assert status.error is not None
            assert "<its __str__ raised AttributeError>" in status.error.message
            with pytest.raises(RuntimeError if body is of_its_own_kind else Deaf):
                await instance.result()
    assert "Scripted 'one' failed: <its __str__ raised AttributeError>" in caplog.text


def test_what_cannot_be_shown_in_full_is_shown_as_far_as_it_can_be() -> None:
    class Shy:
        def __str__(self) -> str:
            return "shy"

        def __repr__(self) -> str:
            raise ValueError

    error: Any = error_of(failure_of(Told(Colour.RED, where=Shy())))  # type: ignore[arg-type]
    assert (type(error), str(error), error.where) == (Told, "Colour.RED at shy", "shy")


def test_groups_that_are_nested_without_end_are_kept_as_far_as_is_reasonable() -> None:
    error: Exception = ValueError("innermost")
    for _ in range(20):
        error = ExceptionGroup("g", [error])
    again = error_of(failure_of(error))
    for _ in range(8):
        assert isinstance(again, ExceptionGroup)
        again = again.exceptions[0]
    assert isinstance(again, z0.StepFailed)


async def test_an_exit_in_a_callback_is_an_error_of_its_attempt_and_ends_no_process(
    tmp_path: Path, clock: VirtualClock
) -> None:
    def sync() -> None:
        raise SystemExit(3)

    async def late() -> None:
        await clock.sleep("1 second")
        raise SystemExit(4)

    async def body(step: z0.Step) -> list[str]:
        said = []
        for fn in (sync, late):
            try:
                await step.do("exits", fn, retries=z0.Retries(limit=1))
            except RuntimeError as error:
                said.append(f"{error}, by {error.__cause__!r}")
        return said

    async with running(tmp_path / "data", clock, body) as (_, instance):
        await clock.advance("1 minute")
        assert await instance.result("1 second") == [
            "SystemExit: 3, by SystemExit(3)",
            "SystemExit: 4, by SystemExit(4)",
        ]
        assert [len(step.attempts) for step in await instance.steps()] == [2, 2]


async def test_an_exit_in_the_body_is_an_error_like_one_in_a_callback(tmp_path: Path, clock: VirtualClock) -> None:
    async def body(step: z0.Step) -> None:
        await step.do("x", lambda: 1)
        raise SystemExit(3)

    async with running(tmp_path / "data", clock, body) as (_, instance):
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            await instance.result("1 second")


async def test_an_exit_after_the_time_limit_is_a_timeout(tmp_path: Path, clock: VirtualClock) -> None:
    async def stubborn() -> None:
        try:
            await clock.sleep("1 hour")
        except asyncio.CancelledError:
            raise SystemExit from None

    async def body(step: z0.Step) -> str:
        try:
            await step.do("x", stubborn, timeout="1 second", retries=z0.Retries(limit=0))
        except z0.StepTimeout:
            return "timeout"
        return "none"

    async with running(tmp_path / "data", clock, body) as (_, instance):
        await clock.advance("2 seconds")
        assert await instance.result("1 second") == "timeout"


SCRIPT = """
import asyncio, sys
import z0


class Declined(Exception):
    pass


class Charge(z0.Workflow):
    retries = z0.Retries(limit=0)

    async def run(self, event, step):
        try:
            await step.do("charge", self.charge)
        except Declined as error:
            await step.wait_for_event("go", type="go")
            return f"declined: {error}"

    def charge(self):
        raise Declined("no money")


async def main():
    async with z0.Runtime("data", actors=[Charge]) as runtime:
        charge = await runtime.workflows.create(Charge, id="one", on_conflict="existing")
        if len(sys.argv) > 1:
            await charge.send_event("go")
            print(await charge.result("10 seconds"))
        else:
            await charge.wait_for_status("waiting")


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("first", [["charge.py"], ["-c", "import asyncio, charge; asyncio.run(charge.main())"]])
def test_the_errors_of_a_script_are_known_where_it_is_imported_and_the_other_way_round(
    tmp_path: Path, first: list[str]
) -> None:
    (tmp_path / "charge.py").write_text(SCRIPT)

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    run(*first)
    second = ["charge.py", "go"] if first[0] == "-c" else ["-c", first_imported("go")]
    file = "data/default/Charge/one.sqlite"
    assert run("-m", "z0", "replay", file, "charge:Charge").startswith("same")
    assert run(*second) == "declined: no money\n"
    assert run("-m", "z0", "replay", file, "charge:Charge").startswith("same")


def first_imported(argument: str) -> str:
    return f"import asyncio, sys; sys.argv.append({argument!r}); import charge; asyncio.run(charge.main())"


class Delegating(Exception):
    """Asks a part of its own for what it lacks."""

    def __init__(self, response: object) -> None:
        super().__init__("refused")
        self.response = response

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)


class Unsayable(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise RuntimeError("no notes")


def http_error() -> Exception:
    return urllib.error.HTTPError("http://x", 500, "Internal Server Error", email.message.Message(), None)


@pytest.mark.parametrize(
    ("make", "caught", "said"),
    [
        (http_error, urllib.error.HTTPError, "HTTP Error 500: Internal Server Error"),
        (lambda: Delegating(object()), z0.StepFailed, "refused"),
        (lambda: Unsayable("no"), z0.StepFailed, "no"),
    ],
)
@pytest.mark.parametrize("crashes", [False, True])
async def test_errors_that_cannot_be_looked_at_fail_their_step_and_their_instance_as_others_do(
    tmp_path: Path,
    clock: VirtualClock,
    make: Callable[[], Exception],
    caught: type[Exception],
    said: str,
    crashes: bool,
) -> None:
    def fail() -> None:
        raise make()

    async def body(step: z0.Step) -> None:
        try:
            await step.do("fetch", fail, retries=z0.Retries(limit=0))
        except caught:
            await step.sleep("night", "1 day")
            raise

    async with running(tmp_path / "data", clock, body) as (runtime, instance):
        if crashes:
            await crash(runtime)
        else:
            await clock.advance("2 days")
    async with running(tmp_path / "data", clock, body) as (_, instance):
        await clock.advance("2 days")
        status = await instance.status()
        assert status.status == "errored"
        assert status.error is not None
        assert said in status.error.message


async def test_an_error_of_the_body_that_cannot_be_looked_at_fails_the_instance(
    tmp_path: Path, clock: VirtualClock
) -> None:
    async def body(step: z0.Step) -> None:
        raise Unsayable("no")

    async with running(tmp_path / "data", clock, body) as (_, instance):
        status = await instance.status()
        assert (status.status, status.error is not None and status.error.message) == ("errored", "no")
