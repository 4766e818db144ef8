"""The README's commands parse, the quick ones run, and what it says of options and exit codes is what the code says."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nvc.bitstream import errors
from nvc.cli.main import nvc
from nvc.codec.config import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks() -> Iterator[str]:
    """Lines of the README's code blocks, without comments."""
    for block in re.findall(r"^```\w*\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE):
        yield from (line.split(" #")[0].strip() for line in block.splitlines() if line.strip())


def nvc_commands() -> list[list[str]]:
    """The arguments of every nvc call, also within a pipe."""
    parts = [part.strip() for line in blocks() for part in line.split(" | ")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("nvc ")]


def test_readme_shows_every_command() -> None:
    assert {arguments[0] for arguments in nvc_commands()} == set(nvc.commands)


@pytest.mark.parametrize("arguments", nvc_commands(), ids=" ".join)
def test_readme_commands_parse(arguments: list[str]) -> None:
    command = nvc.commands[arguments[0]]
    with click.Context(nvc, info_name="nvc") as parent:
        command.make_context(arguments[0], list(arguments[1:]), parent=parent)


def test_readme_decode_info_and_verify_run(tmp_path: Path, ffmpeg) -> None:  # type: ignore[no-untyped-def]
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x24:r=25", "-frames:v", "3", "-pix_fmt", "yuv420p", str(tmp_path / "in.mp4"))
    encode = ["encode", "in.mp4", "out.nvc", "--preset", "draft", "-q"]
    ran = [encode]
    for arguments in nvc_commands():
        if arguments[0] not in ("encode", "conformance", "report") and arguments[-1] != "-":  # these have tests of their own
            quick = ["1:3" if argument == "100:110" else argument for argument in arguments]
            ran.append([*quick, "-y"] if arguments[0] == "decode" else quick)
    for arguments in ran:
        done = subprocess.run(
            [sys.executable, "-m", "nvc.cli", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"nvc {' '.join(arguments)}: {done.stderr}"
    assert (tmp_path / "out.y4m").stat().st_size > 3 * 32 * 24
    assert len(list((tmp_path / "frames").glob("*.png"))) == 2


def test_every_command_and_option_has_help() -> None:
    for name, command in nvc.commands.items():
        assert command.help, name
        undocumented = [
            option.name
            for option in command.params
            if isinstance(option, click.Option) and not option.help and option.name not in ("pix_fmt", "activation", "seed")
        ]
        assert not undocumented, f"{name}: {undocumented}"


def test_readme_table_of_presets_is_complete() -> None:
    rows = re.findall(r"^\| `?(\w+)`? \| (\d+) \|", README, flags=re.MULTILINE)
    assert {name: int(passes) for name, passes in rows if name in PRESETS} == {n: c.passes for n, c in PRESETS.items()}


def test_readme_exit_codes_are_those_of_the_errors() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \| [a-z]", README, flags=re.MULTILINE)}
    raised = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.NvcError)}
    assert raised | {0, 130} <= documented


def test_readme_bd_rates_are_those_of_the_recorded_report() -> None:
    recorded = json.loads((ROOT / "bench/results/2026-11-21-report.json").read_text(encoding="utf-8"))
    labels = {codec["id"]: codec["label"] for codec in recorded["codecs"]}
    found = {
        (f"{labels[row['codec']]} against {labels[row['anchor']]}", row["clip"] or "mean"): f"{row['pchip']:+.0f} %"
        for row in recorded["bd"]
        if row["metric"] == "psnr_y"
    }
    table = [line for line in README.splitlines() if re.match(r"\| (BD-rate in PSNR-Y|nvc .* against )", line)]
    head, *rows = (line.strip("|").split("|") for line in table)
    names = [cell.strip() for cell in head[1:]]
    shown = {(row[0].strip(), name): cell.strip() for row in rows for name, cell in zip(names, row[1:], strict=True)}
    assert shown == found
    assert recorded["verdict"][0].startswith("nvc loses all")


def test_readme_tables_are_made_from_the_recorded_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    tables = importlib.import_module("readme")
    assert tables.filled(README) == README
    for name in tables.TABLES:
        monkeypatch.setitem(tables.TABLES, name, lambda name=name: f"| {name} |\n")
    changed = tables.filled(README)
    assert all(f"<!-- table: {name} -->\n\n| {name} |\n\n<!-- end -->" in changed for name in tables.TABLES)
    with pytest.raises(ValueError, match="native"):
        tables.filled(README.replace("table: native", "table: other"))


def test_make_targets_of_the_readme_exist() -> None:
    targets = {line.split()[1] for line in blocks() if line.startswith("make ")}
    assert targets == {"demo", "report", "test"}
    assert all(re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE) for target in targets)


def test_repository_names_no_machine_paths() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    names = [name for name in listed if name.endswith((".py", ".md", ".toml", "Makefile")) and name != "tests/test_docs.py"]
    paths = re.compile(r"/(root|home)/\w+|\.\./shared")
    assert not [name for name in names if paths.search((ROOT / name).read_text(encoding="utf-8"))]
