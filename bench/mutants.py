"""Does the suite bite? Plants one fault at a time in a copy of the reader, the decoder or the runner, and names what notices it.

    python bench/mutants.py [--only TEXT] [--list]

Two kinds of faults: every `raise` of the reader and decoder is taken out in turn (a check dropped), and those of
`mutant_list.py` are put in (off by one, wrong rounding, wrong order). A fault is killed by the first conformance vector that
is answered wrongly, or by the first test that fails. The exit code is 1 where one survives.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutant_list import DECODER, NO_CHECK, RUNNER, RUNNER_TESTS, TESTS

ROOT = Path(__file__).resolve().parent.parent
READERS = (
    *("chunks", "container", "segment", "index", "header", "canonical", "packing", "salvage"),
    *("program", "analysis", "bounds", "coefficients", "tensors", "tokens", "coders", "rangecoder"),
)
SUBJECTS = (*(f"bitstream/{name}.py" for name in READERS), "codec/decode.py", "codec/salvage.py")
MISUSE = {"ValueError", "TypeError", "KeyError", "NotImplementedError"}  # of the library, not of a file
OTHER_WAYS = ("pipe, reads of 7", "random order", "batch 4")  # tried where whole files show nothing; not all, to save time
SECONDS = 120  # for the vectors under one mutant; what takes longer hangs
MEMORY = 8 << 30


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` at `offset` of the file becomes `new`."""

    file: str
    offset: int
    old: str
    new: str

    @property
    def name(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())[:70]} -> {' '.join(self.new.split())[:50]}"

    def planted(self, source: str) -> str:
        return source[: self.offset] + self.new + source[self.offset + len(self.old) :]


def dropped_checks(file: str) -> Iterator[Mutant]:
    """Every `raise` of a refusal in a file, replaced by nothing."""
    source = (ROOT / file).read_text(encoding="utf-8")
    starts = [0, *(place + 1 for place, letter in enumerate(source) if letter == "\n")]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            called = ast.unparse(node.exc.func)
            assert node.end_lineno is not None and node.end_col_offset is not None
            first = starts[node.lineno - 1] + node.col_offset
            old = source[first : starts[node.end_lineno - 1] + node.end_col_offset]
            if called not in MISUSE and not any(text in old for text in NO_CHECK):
                yield Mutant(file, first, old, "pass")


def listed(entries: tuple[tuple[str, str, str], ...]) -> Iterator[Mutant]:
    """The mutants of a list of (file, old text, new text); the old text must be there once."""
    for file, old, new in entries:
        source = (ROOT / file).read_text(encoding="utf-8")
        if source.count(old) != 1:
            raise SystemExit(f"mutant_list.py: {file} has {source.count(old)} times: {old}")
        yield Mutant(file, source.index(old), old, new)


def copy_of_tree(folder: Path) -> None:
    """The tracked files of the repository, with a namespace in which they are nvc.*."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    (folder / "build/ns/nvc").mkdir(parents=True)
    for package in ("bitstream", "codec", "cli", "conformance"):
        (folder / "build/ns/nvc" / package).symlink_to(folder / package)


def killed_by_vector(folder: Path) -> str | None:
    """The first vector that the copy answers wrongly, found in a process of its own that inherits torch but nothing of nvc."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        answer = "crashed before the first vector"
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            signal.alarm(SECONDS)
            sys.path.insert(0, str(folder / "build/ns"))
            answer = _first_failure(write)
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps({"answer": answer}).encode() + b"\n")
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    last = json.loads(lines[-1]) if lines else {"vector": "the import"}
    if "answer" in last:
        return last["answer"] or None
    return f"vector {last['vector']}: hangs or dies"


def _first_failure(write: int) -> str:
    """Runs in the child: the first vector that fails in any way of decoding; whole files first, for they are quickest."""
    from nvc.codec.subject import Subject
    from nvc.conformance import manifest, runner, suite

    subject = Subject(["cpu"])
    vectors = manifest.load(suite.FOLDER)

    class Some:
        """The subject with some of its ways."""

        name, refusals, takes_limits = subject.name, subject.refusals, subject.takes_limits

        def __init__(self, first: bool) -> None:
            self.first = first

        def ways(self, valid: bool):  # type: ignore[no-untyped-def]
            ways = subject.ways(valid)
            return ways[:1] if self.first else [way for way in ways if way.name.startswith(OTHER_WAYS)]

        def salvagers(self):  # type: ignore[no-untyped-def]
            return subject.salvagers()[:1] if self.first else subject.salvagers()[1:3]

    for first in (True, False):
        for vector in vectors:
            os.write(write, json.dumps({"vector": vector.name}).encode() + b"\n")
            report = runner.run([vector], suite.FOLDER, Some(first), timeout=60)
            for result in report.results:
                if result.verdict == "fail":
                    return f"vector {result.vector} ({result.way}): {result.reason[:90]}"
    return ""


def killed_by_test(folder: Path, tests: tuple[str, ...]) -> str | None:
    """The first test that fails in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "build/ns"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"test {failures[0].split(' - ')[0].split(' ', 1)[1]}" if failures else "the tests cannot run"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--skip", type=int, default=0, help="so many at the beginning, to go on with a run that was cut off")
    parser.add_argument("--no-tests", action="store_true", help="vectors alone")
    given = parser.parse_args()
    mutants = [mutant for file in SUBJECTS for mutant in dropped_checks(file)] + list(listed(DECODER))
    runners = list(listed(RUNNER))
    chosen = [mutant for mutant in mutants + runners if given.only in mutant.name][given.skip :]
    if given.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0
    import torch  # inherited by every child, for it takes seconds to import

    torch.set_num_threads(1)
    started, survivors, by_vector = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_of_tree(folder)
        for mutant in chosen:
            source = (ROOT / mutant.file).read_text(encoding="utf-8")
            (folder / mutant.file).write_text(mutant.planted(source), encoding="utf-8")
            tests = RUNNER_TESTS if mutant in runners else TESTS.get(Path(mutant.file).stem, ())
            killer = None if mutant in runners else killed_by_vector(folder)
            by_vector += killer is not None
            if killer is None and not given.no_tests and tests:
                killer = killed_by_test(folder, tests)
            survivors += killer is None
            print(f"{'SURVIVES' if killer is None else 'killed'}  {mutant.name}\n    {killer or ''}", flush=True)
            (folder / mutant.file).write_text(source, encoding="utf-8")
    count, minutes = len(chosen), (time.monotonic() - started) / 60
    print(f"{count} mutants, {count - survivors} killed, {by_vector} of them by vectors, in {minutes:.1f} minutes")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
