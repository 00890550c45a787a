"""The house keeps its own rules: what a reader may rely on in every module is read off the source here."""

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import z0

ROOT = Path(__file__).parent.parent
ENGINE = ("actors", "ledger", "workflows", "z0")
FOLDERS = (*ENGINE, "bench", "examples")

LINES_PER_MODULE = 400
LINES_PER_FUNCTION = 60

CLOCK = "actors/clock.py"
CLOCK_MODULES = {"random", "secrets", "time"}
CLOCK_CALLS = {"asyncio.sleep", "datetime.now", "datetime.datetime.now", "os.urandom", "uuid.uuid4"}
UNSAFE_MODULES = {"dill", "cloudpickle", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "os.fork"}


class Module(NamedTuple):
    """One file of the house, as written."""

    path: str
    lines: int
    tree: ast.Module

    def imports(self) -> set[str]:
        """Top-level packages that it imports, anywhere in the file; its own siblings do not count."""
        return {name.partition(".")[0] for node in ast.walk(self.tree) for name in imported(node)}

    def calls(self) -> set[str]:
        """Everything that it calls, by the name written there."""
        return {ast.unparse(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call)}

    def functions(self) -> Iterator[tuple[str, int]]:
        """Each function with its length in lines."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                yield f"{self.path}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def imported(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case _:
            return []


def modules(*folders: str) -> list[Module]:
    return [read(path) for folder in folders for path in sorted((ROOT / folder).glob("*.py"))]


@cache
def read(path: Path) -> Module:
    text = path.read_text()
    return Module(path.relative_to(ROOT).as_posix(), len(text.splitlines()), ast.parse(text))


def importers(of: set[str], among: list[Module]) -> set[str]:
    return {module.path for module in among if module.imports() & of}


def callers(of: set[str], among: list[Module]) -> set[str]:
    return {module.path for module in among if module.calls() & of}


def test_a_module_is_read_in_one_sitting() -> None:
    assert [(m.path, m.lines) for m in modules(*FOLDERS) if m.lines > LINES_PER_MODULE] == []


def test_a_function_fits_on_one_screen() -> None:
    functions = [function for module in modules(*FOLDERS) for function in module.functions()]
    assert [function for function in functions if function[1] > LINES_PER_FUNCTION] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [m.path for m in modules(*FOLDERS) if not ast.get_docstring(m.tree)] == []


def test_every_public_name_says_what_it_is_for() -> None:
    public = {name: getattr(z0, name) for name in z0.__all__}
    documented = {name: it for name, it in public.items() if inspect.isclass(it) or inspect.isfunction(it)}
    assert [name for name, it in documented.items() if not vars(it).get("__doc__", it.__doc__)] == []


def test_packages_are_imported_by_one_name_only() -> None:
    assert importers({"actors", "ledger", "workflows", "bench"}, modules(*FOLDERS, "tests")) == set()


def test_only_the_database_its_readers_and_the_simulated_disk_talk_to_sqlite() -> None:
    doors = {"actors/database.py", "actors/reader.py", "z0/disk.py"}
    assert importers({"apsw", "sqlite3"}, modules(*ENGINE)) <= doors


def test_only_the_clock_reads_time_and_randomness() -> None:
    assert importers(CLOCK_MODULES, modules(*ENGINE)) <= {CLOCK}
    assert callers(CLOCK_CALLS, modules(*ENGINE)) <= {CLOCK}


def test_nothing_stored_or_received_is_ever_run() -> None:
    assert importers(UNSAFE_MODULES, modules(*FOLDERS)) == set()
    assert callers(UNSAFE_CALLS, modules(*FOLDERS)) == set()
