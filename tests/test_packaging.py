"""pyproject.toml lists all that must be in a wheel: an editable install works without, and only the wheel would break."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

from nvc.conformance.manifest import load

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
BUILT = {"build", "dist", "venv", "node_modules"}


def packages_on_disk() -> set[Path]:
    """Every folder of the repository with an __init__.py, but for hidden and built ones."""
    found = (path.parent.relative_to(ROOT) for path in ROOT.glob("*/**/__init__.py"))
    return {path for path in found if not any(part.startswith(".") or part in BUILT for part in path.parts)}


def folder_of(package: str) -> Path:
    """Where setuptools finds a package: the longest prefix in package-dir decides."""
    prefix = max((name for name in FOLDERS if (package + ".").startswith(name + ".")), key=len)
    return Path(FOLDERS[prefix], *package.removeprefix(prefix).strip(".").split("."))


def test_every_package_folder_is_in_the_wheel_and_no_other() -> None:
    assert {folder_of(package) for package in SETUPTOOLS["packages"]} == packages_on_disk()


def test_every_mapped_folder_is_a_package_below_nvc() -> None:
    assert set(FOLDERS) <= set(SETUPTOOLS["packages"])
    assert {f"nvc.{folder}": folder for folder in FOLDERS.values()} == FOLDERS


def test_types_and_the_specification_are_shipped() -> None:
    data = SETUPTOOLS["package-data"]
    assert all((ROOT / folder / "py.typed").is_file() for folder in FOLDERS.values())
    assert "py.typed" in data["*"]
    assert "SPEC.md" in data["nvc.bitstream"]


def test_every_pattern_of_shipped_data_finds_something() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        for folder in FOLDERS.values() if package == "*" else [folder_of(package)]:
            assert all(any((ROOT / folder).glob(pattern)) for pattern in patterns), (package, patterns)


def test_all_parts_of_the_report_are_shipped() -> None:
    folder = ROOT / "codec" / "report"
    shipped = {path for pattern in SETUPTOOLS["package-data"]["nvc.codec.report"] for path in folder.glob(pattern)}
    assert shipped == {path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}


def test_every_vector_is_shipped_so_that_an_installed_nvc_can_be_tested() -> None:
    folder = ROOT / "conformance"
    shipped = {path for pattern in SETUPTOOLS["package-data"]["nvc.conformance"] for path in folder.glob(pattern)}
    needed = {folder / "vectors" / vector.file for vector in load()} | {folder / "vectors" / "manifest.json"}
    assert needed <= shipped
    assert {path for path in (folder / "vectors").rglob("*") if path.is_file()} == shipped


def test_the_command_exists() -> None:
    module, _, function = PROJECT["project"]["scripts"]["nvc"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_what_the_product_imports_is_what_it_depends_on() -> None:
    names = set()
    for path in (path for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).split(".")[0])
    third_party = {name.replace("_", "-") for name in names - set(sys.stdlib_module_names) - {"nvc"}}
    listed = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["report"]]
    assert third_party == {re.split(r"[<>=~! ]", dependency)[0] for dependency in listed}
