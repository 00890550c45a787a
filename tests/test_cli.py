"""The command line: right answers, stable JSON, honest exit codes, and nothing hostile on a terminal."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

import z0
from z0 import bank, cli, demo_command, inspect, terminal
from z0.testing import VirtualClock

EVIL = "\x1b[31mred\x1b]0;title\x07\u202e\x9b\u2028[bold]x[/bold]"


class Total(z0.Projection):
    amount: int = 0

    def apply(self, fact: z0.Fact) -> None:
        self.amount += fact.amount or 0


class Purse(z0.Entity):
    accepts = frozenset({"in", "out"})
    total: Total


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A closed data directory with two purses."""
    async with z0.Runtime(tmp_path / "data") as runtime:
        for name in ("a", "b"):
            for number in range(1, 6):
                kind = "in" if number % 2 else "out"
                await runtime.get(Purse, name).append(kind, amount=number, currency="EUR", data={"n": number})
    return tmp_path / "data"


Output = pytest.CaptureFixture[str]


def run(output: Output, *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    out, err = output.readouterr()
    return code, out, err


def run_json(output: Output, *words: object) -> Any:
    code, out, err = run(output, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "z0", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_ls_lists_actors(data: Path, capsys: Output) -> None:
    code, out, _ = run(capsys, "ls", data)
    assert code == 0
    assert "Purse/a" in out
    assert "Purse/b" in out
    assert "there are more" not in out
    found = run_json(capsys, "ls", data, "--limit", 1)
    assert found["more"] is True
    (actor,) = found["actors"]
    assert {"namespace": "Purse", "name": "a", "facts": 5, "tenant": "default"}.items() <= actor.items()
    assert run_json(capsys, "ls", data, "--prefix", "b", "--class", "Purse")["actors"][0]["name"] == "b"
    assert run_json(capsys, "ls", data, "--class", "None") == {"actors": [], "more": False}
    assert run_json(capsys, "ls", data, "--limit", 0)["more"] is False


def test_show_tells_all_about_an_actor(data: Path, capsys: Output) -> None:
    code, out, _ = run(capsys, "show", data, "Purse/a")
    assert code == 0
    assert '{"amount":15}' in out
    details = run_json(capsys, "show", data, "Purse/a")
    assert (details["facts"], details["snapshots"][0]["state"]) == (5, {"amount": 15})
    assert run_json(capsys, "show", details["path"]) == details


class Bell(z0.Actor):
    async def ring_at(self, when: str, name: str | None = None) -> None:
        self.storage.set_alarm(when, name)

    async def alarm(self, info: z0.AlarmInfo) -> None:
        if info.name:
            raise ValueError(EVIL)


async def test_alarms_lists_who_wakes_next_and_how_runs_ended(tmp_path: Path, capsys: Output) -> None:
    clock = VirtualClock()
    data = tmp_path / "data"
    async with z0.Runtime(data, clock=clock, actors=[Bell]) as runtime:
        await runtime.get(Bell, "late").ring_at("2 hours")
        await runtime.get(Bell, "soon").ring_at("1 hour")
        await runtime.get(Bell, "soon").ring_at("1 minute", EVIL)
        await clock.advance("1 minute")
        await runtime.get(Bell, "live").ring_at("3 hours")
        live = run_json(capsys, "alarms", data)["wakeups"]
        assert (live[0]["name"], live[0]["active"]) == ("live", True)
    listed = run_json(capsys, "alarms", data, "--class", "Bell")["wakeups"]
    assert [(each["name"], each["active"]) for each in listed] == [
        ("soon", False),
        ("late", False),
        ("live", False),
    ]
    one = run_json(capsys, "alarms", data, "Bell/soon")
    assert [(alarm["name"], alarm["retries"]) for alarm in one["alarms"]] == [(EVIL, 1), ("", 0)]
    assert [(outcome["outcome"], outcome["times"]) for outcome in one["outcomes"]] == [("retried", 1)]
    for words in (["alarms", data], ["alarms", data, "Bell/soon"], ["show", data, "Bell/soon"]):
        code, out, err = run(capsys, *words)
        assert (code, err) == (0, "")
        assert "2026-01-01" in out
        assert "\x1b" not in out
        assert "\u202e" not in out


def test_facts_are_json_lines_with_the_names_of_the_fields(data: Path, capsys: Output) -> None:
    code, out, _ = run(capsys, "facts", data, "Purse/a", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert list(lines[0]) == list(z0.Fact.__struct_fields__)
    assert lines[1]["data"] == {"n": 2}
    file = inspect.find(data, "Purse/a")
    _, out, _ = run(capsys, "facts", file, "--type", "in", "--after", 1, "--limit", 1, "--reverse", "--json")
    assert json.loads(out)["seq"] == 5
    _, out, _ = run(capsys, "facts", file, "--type", "in", "--type", "out", "--limit", 0, "--json")
    assert len(out.splitlines()) == 5
    _, out, _ = run(capsys, "facts", file)
    assert '{"n":5}' in out


def test_verify_passes_what_is_whole(data: Path, capsys: Output) -> None:
    assert run(capsys, "verify", data)[:2] == (0, "2 actors, 10 facts verified, 0 broken\n")
    assert run_json(capsys, "verify", data, "Purse/a") == {"ok": True, "actors": 1, "facts": 5, "broken": []}


def test_verify_fails_with_the_actor_and_the_fact(data: Path, capsys: Output) -> None:
    file = inspect.find(data, "Purse/b")
    with sqlite3.connect(file) as database:
        database.execute("DROP TRIGGER z0_facts_no_update")
        database.execute("UPDATE facts SET amount = 1000 WHERE seq = 4")
    database.close()
    for words in (("verify", data), ("verify", data, "Purse/b"), ("verify", file)):
        code, out, _ = run(capsys, *words)
        assert code == 1
        assert "BROKEN Purse/b" in out
        assert "fact 4" in out
        code, out, _ = run(capsys, *words, "--json")
        assert (code, json.loads(out)["ok"], json.loads(out)["broken"][0]["facts"]) == (1, False, 3)
    assert run(capsys, "verify", data, "Purse/a")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "nowhere"),
        ("ls", "."),
        ("show", "nowhere"),
        ("show", "DATA"),
        ("show", "DATA", "Purse"),
        ("show", "DATA", "Purse/c"),
        ("show", "DATA", "Purse/a", "--tenant", "t2"),
        ("facts", "DATA", "Other/a"),
        ("verify", "nowhere"),
        ("verify", "DATA", "Purse/c"),
        ("demo", "--input", "nowhere", "--data", "DATA"),
    ],
)
def test_what_is_not_there_is_exit_code_2_and_one_line(
    data: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(data.parent)
    code, out, err = run(capsys, *(word.replace("DATA", str(data)) for word in words))
    assert (code, out) == (2, "")
    assert err.startswith("z0: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("nonsense",), ("ls",), ("facts", "x", "--limit", "y"), ("ls", "x", "-z")])
def test_wrong_usage_is_exit_code_2(capsys: Output, words: tuple[str, ...]) -> None:
    code, _, _ = run(capsys, *words)
    assert code == 2


@pytest.mark.parametrize("name", ["demo", "ls", "show", "facts", "verify"])
def test_every_command_explains_itself_with_an_example(capsys: Output, name: str) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert f"Example: z0 {name}" in out
    assert "--json" in out


def test_the_version_is_that_of_the_package(capsys: Output) -> None:
    assert run(capsys, "--version")[1].strip() in (z0.__version__, "unknown (not installed)")


async def test_hostile_text_reaches_no_terminal(tmp_path: Path, capsys: Output) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        await runtime.get(Purse, EVIL).append("in", external_id=EVIL, idempotency_key=EVIL, data={EVIL: EVIL})
    file = inspect.find(tmp_path, f"Purse/{EVIL}")
    reads: list[tuple[object, ...]] = [
        ("ls", tmp_path),
        ("ls", tmp_path, "--json"),
        ("show", file),
        ("show", file, "--json"),
        ("facts", file),
        ("facts", file, "--json"),
        ("show", tmp_path, f"Nothing/{EVIL}"),
    ]
    for words in reads:
        _, out, err = run(capsys, *words)
        assert not {character for character in EVIL if ord(character) > 126 or character < " "} & {*out, *err}
        if "--json" in words:
            assert EVIL in json.loads(out).get("name", EVIL)
        else:
            assert "[bold]x[/bold]" in (out + err).replace("\n", "")
    _, out, _ = run(capsys, "facts", file, "--json")
    assert json.loads(out)["data"] == {EVIL: EVIL}


def test_text_that_is_only_foreign_is_left_alone() -> None:
    assert terminal.printable("žluťoučký 日本語 émoji 🎉") == "žluťoučký 日本語 émoji 🎉"
    assert terminal.printable("a\nb\t\x7f\U000e0001") == r"a\nb\t\x7f\U000e0001"
    assert json.loads(terminal.json_text({"\U000e0001": "\x7f\u202e"})) == {"\U000e0001": "\x7f\u202e"}


async def test_a_live_directory_is_read_while_its_owner_writes(tmp_path: Path) -> None:
    async with z0.Runtime(tmp_path) as runtime:
        purse = runtime.get(Purse, "a")
        await purse.append("in", amount=1)
        shown = command("show", tmp_path, "Purse/a", "--json")
        assert json.loads(shown.stdout)["facts"] == 1
        await purse.append("in", amount=2)
        listed = command("ls", tmp_path, "--json")
        assert json.loads(listed.stdout)["actors"][0]["facts"] == 2
        assert command("verify", tmp_path).stdout == "1 actors, 2 facts verified, 0 broken\n"
        refused = command("demo", "--data", tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "is owned by process" in refused.stderr
        assert (await purse.append("in", amount=3)).seq == 3


def test_one_copied_file_is_read_where_nothing_can_be_written(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    shutil.copy(inspect.find(data, "Purse/a"), folder / "copy.sqlite")
    folder.chmod(0o500)
    try:
        assert json.loads(command("show", folder / "copy.sqlite", "--json").stdout)["facts"] == 5
        assert command("verify", folder / "copy.sqlite").returncode == 0
    finally:
        folder.chmod(0o700)


def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path, data: Path) -> None:
    line = [sys.executable, "-m", "z0", "facts", str(data), "Purse/a", "--json"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()


def one_transaction(folder: Path) -> Path:
    path = folder / "bank.csv"
    path.write_text(f"{bank.HEADER}\n1;2;930101;PRIJEM;VKLAD;700.00;700.00;;;\n")
    return path


@pytest.mark.parametrize(
    ("called", "on_path", "printed"),
    [
        (["FOLDER/.venv/bin/z0"], False, ".venv/bin/z0"),
        (["FOLDER/.venv/bin/z0"], True, "z0"),
        (["PYTHON", "-m", "z0"], False, "PYTHON -m z0"),
    ],
)
def test_demo_ends_with_commands_that_work_as_typed(
    tmp_path: Path, called: list[str], on_path: bool, printed: str
) -> None:
    script = tmp_path / ".venv" / "bin" / "z0"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom z0.cli import main\nsys.exit(main())\n")
    script.chmod(0o700)
    one_transaction(tmp_path)
    environment = {
        **os.environ,
        "PATH": str(script.parent if on_path else tmp_path),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    python = min(os.path.relpath(sys.executable, tmp_path), sys.executable, key=len)
    printed = printed.replace("PYTHON", shlex.quote(python))
    first = shlex.join(word.replace("FOLDER", str(tmp_path)).replace("PYTHON", sys.executable) for word in called)

    def shell(line: str) -> str:
        result = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    out = shell(f"{first} demo --input bank.csv --data 'my data'")
    lines = [line.strip() for line in out.partition("next:")[2].splitlines() if line]
    assert lines == [
        f"{printed} ls 'my data'",
        f"{printed} facts 'my data' Account/2 --limit 5 --reverse",
        f"{printed} verify 'my data'",
    ]
    assert ["Account/2" in shell(lines[0]), "700" in shell(lines[1]), "0 broken" in shell(lines[2])] == [True] * 3


def test_no_command_waits_for_the_import_of_what_another_one_needs() -> None:
    dear = {"z0.demo", "z0.bench", "urllib.request", "prometheus_client"}
    code = f"import sys, z0.cli; z0.cli._app('ls'); print(*sorted({dear} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b""


def test_a_command_is_named_as_a_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "other"):
        script = tmp_path / name / "z0"
        script.parent.mkdir()
        script.touch(0o700)
    (tmp_path / "mine" / "deep").mkdir()
    mine = tmp_path / "mine"
    monkeypatch.setattr(sys, "argv", [str(mine / "z0")])
    for path, folder, expected in (
        (mine, mine, "z0"),
        (tmp_path / "other", mine, "./z0"),
        (tmp_path / "other", tmp_path, "mine/z0"),
        (tmp_path / "other", mine / "deep", "../z0"),
        (tmp_path / "other", Path("/usr/share"), str(mine / "z0")),
    ):
        monkeypatch.setenv("PATH", str(path))
        monkeypatch.chdir(folder)
        assert demo_command._typed() == expected


def test_demo_as_json_is_one_document_and_a_failed_check_is_exit_code_1(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "bank.csv"
    first, second = (f"{number};2;930101;PRIJEM;VKLAD;700.00;700.00;;;" for number in (1, 2))
    path.write_text(f"{bank.HEADER}\n{first}\n{second}\n")
    code, out, _ = run(capsys, "demo", "--input", path, "--data", tmp_path / "data", "--json")
    assert (code, json.loads(out)["ok"], json.loads(out)["first"]["new"]) == (0, True, 2)
    path.write_text(f"{bank.HEADER}\n{first}\n")
    code, out, _ = run(capsys, "demo", "--input", path, "--data", tmp_path / "data", "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)


class Brought:
    """An entry point of another package."""

    name = "extra"
    loaded = False

    def load(self) -> App:
        Brought.loaded = True
        app = App(name="extra")

        @app.default
        def extra(code: int) -> int:
            return code

        return app


def test_commands_of_other_packages_are_loaded_only_when_called(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: [Brought()] if group == "z0.commands" else [])
    code, out, _ = run(capsys, "--help")
    assert (code, "extra" in out, Brought.loaded) == (0, True, False)
    assert run(capsys, "extra", 7)[0] == 7


def test_a_command_that_is_not_installed_says_how_to_install_it(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Not installed here." not in run(capsys, "--help")[1]
    monkeypatch.setattr(cli, "entry_points", lambda group: [])
    assert "Not installed here." in run(capsys, "--help")[1]
    code, _, err = run(capsys, "bench", "--smoke", "--rounds", 3)
    assert (code, "pip install" in err) == (2, True)


def test_python_dash_m_is_the_same_command() -> None:
    result = command("--help")
    assert result.returncode == 0
    assert "verify" in result.stdout
