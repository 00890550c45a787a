"""The folders beside z0/ are its subpackages, in the checkout as in the wheel."""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import z0

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
MAPPING: dict[str, str] = SETUPTOOLS["package-dir"]
SUBPACKAGES = {name.removeprefix("z0."): folder for name, folder in MAPPING.items() if name != "z0"}


@pytest.mark.parametrize(("package", "folder"), SUBPACKAGES.items())
def test_link_leads_where_the_wheel_maps(package: str, folder: str) -> None:
    link = ROOT / "z0" / package
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


def test_every_package_of_the_checkout_is_in_the_wheel() -> None:
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} == set(MAPPING.values())
    assert SETUPTOOLS["packages"] == list(MAPPING)


def test_packages_are_flat() -> None:
    assert [
        str(file)
        for folder in MAPPING.values()
        for file in (ROOT / folder).glob("*/__init__.py")
        if not file.parent.is_symlink()
    ] == []


def test_no_folder_is_imported_under_a_second_name() -> None:
    assert not sys.modules.keys() & SUBPACKAGES.keys()


def test_public_names_are_importable() -> None:
    assert [name for name in z0.__all__ if not hasattr(z0, name)] == []


def test_commands_lead_to_something_callable() -> None:
    installed = metadata.distribution("z0").entry_points
    declared = {"z0": PYPROJECT["project"]["scripts"], **PYPROJECT["project"]["entry-points"]}
    assert {point.name for point in installed} == {name for group in declared.values() for name in group}
    commands = [point for point in installed if point.group != "pytest11"]  # pytest's is a module
    assert [point.name for point in commands if not callable(point.load())] == []


def test_users_get_the_types() -> None:
    assert (ROOT / "z0" / "py.typed").is_file()
    assert "py.typed" in SETUPTOOLS["package-data"]["z0"]
