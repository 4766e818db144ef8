"""Fuzzes what reads a file: mutated inputs, guided by the branches that they reach, until one breaks a rule of invariants.py.

    python bench/fuzz/run.py container --runs 20000000 [--seed 1] [--corpus FOLDER] [--jsonl FILE]
    python bench/fuzz/run.py program --runs 2000000
    python bench/fuzz/run.py numbers --runs 2000000

Needs Atheris (pip install atheris), which is none of the project's dependencies. Seeds come from seeds.py; what is found goes
to the corpus folder, a temporary one by default, so that a run starts anew. An input that breaks a rule, takes over 2 seconds
or makes the process pass 1 GiB ends the run; it is written to build/fuzz/TARGET-* and replayed by naming it:

    python bench/fuzz/run.py container build/fuzz/container-crash-...

The last line has the figures of the run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from random import Random

SECONDS, MEGABYTES = 2, 1024
LONGEST = {"container": 800, "program": 600, "numbers": 600}  # bytes of an input; seeds have up to 600
HERE = Path(__file__).resolve().parent
CRASHES = HERE.parent.parent / "build" / "fuzz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=LONGEST)
    parser.add_argument("inputs", nargs="*", type=Path, help="inputs to replay instead of fuzzing")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="folder that is read and added to")
    parser.add_argument("--jsonl", type=Path, help="file to which the figures are added")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("Atheris is missing: pip install atheris")
    if options.worker:
        fuzz(options.target, rest)
    elif rest:
        parser.error(f"unknown arguments {rest}")
    elif options.inputs:
        replay(options.target, options.inputs)
    else:
        with tempfile.TemporaryDirectory(prefix="nvc-fuzz-") as folder:
            figures = supervise(options.target, options.runs, options.seed, options.corpus or Path(folder))
        print(json.dumps(figures))
        if options.jsonl:
            with options.jsonl.open("a") as file:
                file.write(json.dumps(figures) + "\n")
        raise SystemExit(figures["exit"])


def fuzz(target: str, arguments: list[str]) -> None:
    """Runs libFuzzer in this process, which it ends."""
    import atheris
    from atheris.import_hook import HookManager

    # The loops of header.py over field tables are the same few branches for every field, and would take a third of the time.
    # Atheris 3.0.0 never frees the outcome of a traced comparison of arrays, which grows by kilobytes an execution: comparisons
    # are traced in the container alone, which has no arrays. instrument_imports() is this class without the choice.
    with HookManager({"nvc"}, {"nvc.bitstream.header"}, enable_loader_override=False, trace_dataflow=target == "container"):
        import invariants
        import mutators
    run, change = invariants.TARGETS[target], mutators.MUTATORS[target]

    def mutate(data: bytes, most: int) -> bytes:
        return bytes(atheris.Mutate(data, max(most, 1)))

    def custom(data: bytes, most: int, seed: int) -> bytes:
        return change(data, most, Random(seed), mutate)

    # bench/fuzz/run.py is the program for libFuzzer, which takes the rest as its own
    atheris.Setup([str(HERE / "run.py"), *arguments], lambda data: run(data) and None, custom_mutator=custom)
    atheris.Fuzz()


def supervise(target: str, runs: int, seed: int, corpus: Path) -> dict[str, object]:
    """Runs the fuzzer in a process of its own and reads the figures off what it prints, which is passed on."""
    import seeds

    corpus.mkdir(parents=True, exist_ok=True)
    CRASHES.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds.SEEDS[target]()):
        (corpus / f"seed-{number:03}").write_bytes(data)
    # a mutator changes as much as it wants to at once, hence the depth of 1
    flags = {
        "runs": runs,
        "seed": seed,
        "max_len": LONGEST[target],
        "dict": HERE / "dictionary.txt",
        "mutate_depth": 1,
        "timeout": SECONDS,
        "report_slow_units": SECONDS,
        "rss_limit_mb": MEGABYTES,
        "artifact_prefix": f"{CRASHES / target}-",
        "print_final_stats": 1,
    }
    command = [sys.executable, __file__, target, "--worker", *(f"-{name}={value}" for name, value in flags.items()), str(corpus)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", env=environment)
    assert process.stderr is not None
    seen: dict[str, int] = {}
    for line in process.stderr:
        print(line, end="", file=sys.stderr, flush=True)
        seen |= figures_of(line)
    status = process.wait()
    seconds = time.monotonic() - started
    return {
        "target": target,
        "atheris": version("atheris"),
        "seed": seed,
        **seen,
        "seconds": round(seconds, 1),
        "per_second": round(seen.get("executions", 0) / seconds, 1),
        "exit": status,
    }


def figures_of(line: str) -> dict[str, int]:
    """The figures in one line of libFuzzer's output."""
    patterns = {"edges": r"\bcov: (\d+)", "features": r"\bft: (\d+)", "corpus": r"\bcorp: (\d+)/"}
    stats = {"executions": "number_of_executed_units", "slowest_seconds": "slowest_unit_time_sec", "peak_rss_mb": "peak_rss_mb"}
    patterns |= {name: rf"^stat::{stat}: +(\d+)" for name, stat in stats.items()}
    found = {name: re.search(pattern, line) for name, pattern in patterns.items()}
    return {name: int(match[1]) for name, match in found.items() if match}


def replay(target: str, inputs: list[Path]) -> None:
    """Runs the target on inputs without a fuzzer; what breaks a rule ends in its traceback."""
    import invariants

    for path in inputs:
        print(f"{path}: {invariants.TARGETS[target](path.read_bytes())}")


if __name__ == "__main__":
    main()
