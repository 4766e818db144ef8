"""Who may import whom: the rules that keep bytes, networks, commands and proof apart, checked on the source and at run time."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nvc_files import encoded

from nvc.codec.config import MODELS, VERSION

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bitstream", "codec", "cli", "conformance")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EXTRA = {"bjontegaard", "jinja2", "matplotlib"}
BYTES = {"numpy", "constriction", "msgpack", "zstandard"}
TRAINERS = (
    *("fit", "encode", "plan", "rate", "steer", "optimiser", "recovery", "search", "precision", "size", "distortion", "ssim"),
    *("pool", "prices", "curvature"),
)
PARTS = ("models", "network", "layers", "steps", "quant", "latents", "codebook", "haar", "coupling")  # of networks to fit
TRAINING = {*TRAINERS, *PARTS, "video"}


@dataclass(frozen=True)
class Import:
    """One imported module by its full name; `top` where it runs on import of the file, `relative` as it is written."""

    name: str
    top: bool
    relative: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("nvc", *parts)).removesuffix(".__init__")


def imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of `source`; `from a import b` counts as a.b, which may be a module or a name in one."""
    tree = ast.parse(source)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, id(node) not in guarded, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level or None] if node.level else []
            if node.level and is_package:
                base = module.split(".")[: len(module.split(".")) - node.level + 1]
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{origin}.{alias.name}", id(node) not in guarded, node.level > 0)


def inside(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `source`, which stands in `module`, imports and must not."""
    return [found.name for found in imports(source, module, is_package) if not _allowed(found, module)]


def _allowed(found: Import, module: str) -> bool:
    name, package = found.name, module.split(".")[1]
    top = name.split(".")[0]
    if top == "nvc":
        own = inside(name, f"nvc.{package}")
        return own == found.relative and _allowed_of_ours(found, module, package)
    return top in sys.stdlib_module_names or top in _third_party(found, module, package)


def _third_party(found: Import, module: str, package: str) -> set[str]:
    if package == "bitstream":
        return BYTES
    if package == "conformance":
        return {"numpy"}
    if package == "cli":
        return {"click"} if found.top else {"click", "torch", "numpy"}
    if module in ("nvc.codec.config", "nvc.codec.target"):
        return set()
    if inside(module, "nvc.codec.report"):  # optional packages only where they are used, and never torch
        return {"numpy"} if found.top else {"numpy", *EXTRA}
    return {"numpy", "torch", "imageio_ffmpeg"}


def _allowed_of_ours(found: Import, module: str, package: str) -> bool:
    name = found.name
    if package == "bitstream":
        return inside(name, "nvc.bitstream")
    if package == "conformance":
        writes = inside(module, "nvc.conformance.catalogue")  # what makes vectors has to write what the product reads
        return inside(name, "nvc.conformance") or (writes and inside(name, "nvc.bitstream"))
    if package == "cli":
        light = inside(name, "nvc.cli", "nvc.bitstream.errors", "nvc.codec.config")
        return light or (not found.top and inside(name, "nvc.bitstream", "nvc.codec", "nvc.conformance"))
    if inside(module, "nvc.codec.models") and module != "nvc.codec.models":
        own = module.split(".")[-1]
        earlier = MODELS[: MODELS.index(own)] if own in MODELS else ()  # a family may stand on those before it, a part on none
        others = [f"nvc.codec.models.{family}" for family in MODELS if family not in earlier]
        return not inside(name, *others, *(f"nvc.codec.{trainer}" for trainer in TRAINERS))
    if module in ("nvc.codec.decode", "nvc.codec.salvage"):
        return not inside(name, *(f"nvc.codec.{trainer}" for trainer in TRAINING))
    return inside(name, "nvc.bitstream", "nvc.codec")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_each_file_imports_only_what_its_package_may(path: Path) -> None:
    assert violations(path.read_text(), module_name(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("nvc.bitstream.cdf", "import torch"),
        ("nvc.bitstream.cdf", "from nvc.bitstream import errors"),
        ("nvc.bitstream.cdf", "from ..codec import fit"),
        ("nvc.codec.fit", "import click"),
        ("nvc.codec.fit", "from nvc.cli import main"),
        ("nvc.codec.fit", "from nvc.conformance.ref_operations import render"),
        ("nvc.codec.fit", "from nvc.codec.rate import bits"),
        ("nvc.codec.config", "import torch"),
        ("nvc.codec.target", "import torch.nn"),
        ("nvc.codec.decode", "from . import fit"),
        ("nvc.codec.decode", "def f():\n    from .models import FAMILIES"),
        ("nvc.codec.models.hnerv", "from . import vqnerv"),
        ("nvc.codec.models.vq_block", "from .hnerv import Config"),
        ("nvc.codec.models.vq_block", "from ..pool import FeaturePool"),
        ("nvc.codec.decode", "from .codebook import Codebook"),
        ("nvc.codec.models.hnerv", "from ..fit import Fit"),
        ("nvc.conformance.ref_operations", "from nvc.bitstream import arithmetic"),
        ("nvc.conformance.generate", "from nvc.bitstream.container import Writer"),
        ("nvc.conformance.catalogue.valid", "from nvc.codec import decode"),
        ("nvc.conformance.runner", "from nvc.bitstream.container import Reader"),
        ("nvc.codec.report.bd", "import bjontegaard"),
        ("nvc.codec.report.measure", "def f():\n    import torch"),
        ("nvc.codec.metrics", "def f():\n    import matplotlib"),
        ("nvc.cli.decode", "import torch"),
        ("nvc.cli.decode", "import numpy as np"),
        ("nvc.cli.decode", "from nvc.codec.decode import Decoder"),
    ],
)
def test_the_checker_sees_a_forbidden_import(module: str, line: str) -> None:
    assert violations(line, module)


def test_the_checker_lets_allowed_imports_pass() -> None:
    assert violations("def f():\n    from nvc.codec.decode import Decoder\n    import torch", "nvc.cli.decode") == []
    assert violations("from nvc.bitstream import arithmetic", "nvc.conformance.catalogue.networks") == []
    assert violations("from ..layers import QuantConv", "nvc.codec.models.hnerv") == []
    assert violations("def f():\n    import bjontegaard", "nvc.codec.report.bd") == []
    assert violations("from . import hnerv\nfrom ..codebook import Codebook", "nvc.codec.models.vqnerv") == []


def loaded_after(code: str, *arguments: object) -> set[str]:
    """The modules that a fresh interpreter holds after `code`."""
    report = "import atexit, json, sys\natexit.register(lambda: print('\\n' + json.dumps(list(sys.modules)), file=sys.stderr))\n"
    command = [sys.executable, "-c", report + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "NVC_DEBUG": "1"})
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_decoder_pulls_in_no_training_code() -> None:
    loaded = loaded_after("import nvc.codec.decode")
    assert "nvc.codec.interpreter" in loaded
    assert {name for name in loaded for part in TRAINING if inside(name, f"nvc.codec.{part}")} == set()


def test_bytes_settings_and_targets_need_no_torch() -> None:
    loaded = loaded_after("import nvc.bitstream.summary, nvc.codec.config, nvc.codec.target")
    assert "nvc.bitstream.container" in loaded and "torch" not in loaded


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("encode", "--help"), ("info",)], ids="-".join)
def test_help_and_info_do_not_import_torch(arguments: tuple[str, ...], tmp_path: Path) -> None:
    if arguments == ("info",):
        (tmp_path / "a.nvc").write_bytes(encoded())
        arguments = ("info", str(tmp_path / "a.nvc"))
    loaded = loaded_after("from nvc.cli.main import main; main()", *arguments)
    assert "nvc.cli.main" in loaded and "torch" not in loaded
    assert arguments[0] == "info" or "numpy" not in loaded


def test_the_lists_of_models_agree() -> None:
    from nvc.codec.models import FAMILIES

    assert tuple(FAMILIES) == MODELS


def test_the_version_is_that_of_the_distribution() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
