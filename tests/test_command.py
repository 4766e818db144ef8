"""Decoders under test that are commands, and `nvc conformance run`: what is wrong with them is seen from outside."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from vector_files import CASES, NAMES, failures, one, run, write

from nvc.cli.conformance import conformance
from nvc.cli.main import main
from nvc.conformance import command, manifest, runner, suite
from nvc.conformance.command import Command
from nvc.conformance.report import FAIL, PASS, SKIP
from nvc.conformance.suite import Vector

Found = list[tuple[int, bytes]]
Saved = tuple[Iterable[tuple[int, bytes]], Sequence[tuple[int, int, str]]]
Answer = Callable[[str, Sequence[tuple[int, int]] | None], Iterable[tuple[int, bytes]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vectors"), CASES)


@pytest.fixture(scope="module")
def vectors(folder: Path) -> tuple[Vector, ...]:
    return manifest.load(folder)


FAKE_COMMAND = '''
import os, signal, sys, time
from pathlib import Path
mode, source, out = sys.argv[1:4]
assert out.endswith(".yuv") and not os.path.exists(out), out
answer = Path(__file__).parent / "answers" / "/".join(Path(source).with_suffix("").parts[-2:])
refused, text = answer.with_suffix(".code").exists(), b""
frames = sorted(answer.glob("*")) if answer.is_dir() else []
frames = [path.read_bytes() for path in frames]

def leave(code, name="truncated.chunk"):
    print("a line of talk", file=sys.stderr)
    print(f"fake: error: cannot [{name}] be read [{name}]", file=sys.stderr)
    sys.exit(code)

exec((Path(__file__).parent / f"{mode}.py").read_text())
code = answer.with_suffix(".code").read_text() if refused else ""
if code:
    leave(4, code)
Path(out).write_bytes(b"".join(frames) + text)
'''
MODES: dict[str, tuple[str, str, str]] = {  # what it does, which vector then fails, why
    "drops-the-last": ("frames = frames[:-1]", "valid/second", "1 of 14 frames are missing, from frame 13 on"),
    "keeps-only-one": ("frames = frames[:1]", "valid/second", "13 of 14 frames are missing"),
    "one-more": ("frames += frames[:1]", "valid/second", "more than 14 frames"),
    "swaps-two": ("frames[:2] = frames[1::-1]", "valid/second", "frame 0 is wrong: it is frame 1 (2 of 14 frames differ)"),
    "garbage": ("frames = [bytes(len(frame)) for frame in frames]", "valid/second", "frame 0 is wrong: SHA-256 "),
    "last-wrong": ("frames[-1:] = [bytes(len(frame)) for frame in frames[-1:]]", "valid/second", "frame 13 is wrong"),
    "a-byte-more": ("text = b'' if refused else b'x'", "valid/second", "not whole frames"),
    "empty": ("frames = []", "valid/second", "14 of 14 frames are missing"),
    "no-output": ("if not refused: sys.exit(0)", "valid/second", "exit code 0, but no output file"),
    "a-folder": ("if not refused: os.mkdir(out); sys.exit(0)", "valid/second", "exit code 0, but no output file"),
    "frames-but-an-exit-code": (
        "if not refused: Path(out).write_bytes(b''.join(frames)); leave(3)",
        "valid/second",
        "refused, but left out.yuv behind",
    ),
    "frames-but-killed": (
        "if not refused: Path(out).write_bytes(b''.join(frames)); os.kill(os.getpid(), signal.SIGKILL)",
        "valid/second",
        "crashed by SIGKILL",
    ),
    "refuses-what-is-right": ("if not refused: leave(4)", "valid/second", "refused with truncated.chunk after 0 of 14 frames"),
    "segfaults": ("if refused: os.kill(os.getpid(), signal.SIGSEGV)", "invalid/cut", "crashed by SIGSEGV"),
    "traceback": ("if refused: raise RuntimeError('[truncated.chunk]')", "invalid/cut", "crashed with a traceback"),
    "bug": ("if refused: leave(70)", "invalid/cut", "crashed with exit code 70"),
    "another-code": ("if refused: leave(4, 'truncated.end')", "invalid/cut", "truncated.chunk expected: refused with truncated."),
    "no-code": ("if refused: sys.exit('no [truncated.chunk]!')", "invalid/cut", "without a [code]"),
    "silent": ("if refused: sys.exit(4)", "invalid/cut", "without a [code]"),
    "code-too-early": (
        "if refused: print('[truncated.chunk]', file=sys.stderr); sys.exit('bye')",
        "invalid/cut",
        "without a [code]",
    ),
    "code-on-stdout": ("if refused: print('[truncated.chunk]'); sys.exit(4)", "invalid/cut", "without a [code]"),
    "exit-0": ("if refused: leave(0)", "invalid/cut", "truncated.chunk expected: exit code 0, but no output file"),
    "decodes-all": (
        "if refused: refused, frames = False, [bytes(50 * 1024)]",
        "invalid/cut",
        "truncated.chunk expected: ",
    ),
    "leaves-a-file": ("if refused: Path(out).touch()", "invalid/cut", "refused, but left out.yuv behind"),
    "leaves-a-part": ("if refused: Path(out + '.part').touch()", "invalid/cut", "refused, but left out.yuv.part behind"),
    "hangs": ("if refused: time.sleep(600)", "invalid/cut", "no answer within 0.5 s"),
    "child-hangs": (
        "if refused: import subprocess; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])",
        "invalid/cut",
        "no answer within 0.5 s",
    ),
}
RIGHT = {
    "right": "",
    "noisy": "print('x' * 300000); print('y' * 300000, file=sys.stderr)",
    "a-blank-line-behind": "if refused: sys.exit('e [' + answer.with_suffix('.code').read_text() + ']\\n')",
}


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a blank in its name, of the fake decoder, its modes, and the answers it knows."""
    place = tmp_path_factory.mktemp("fake decoders")
    (place / "fake.py").write_text(FAKE_COMMAND)
    for mode, text in {**{mode: text for mode, (text, _, _) in MODES.items()}, **RIGHT}.items():
        (place / f"{mode}.py").write_text(text)
    for case in CASES:
        answer = place / "answers" / case.name
        if case.expect == "ok":
            answer.mkdir(parents=True)
            for number, samples in enumerate(case.samples):
                (answer / f"{number:03}").write_bytes(samples)
        else:
            answer.parent.mkdir(parents=True, exist_ok=True)
            answer.with_suffix(".code").write_text(case.expect)
    return place


@pytest.fixture
def fake(fakes: Path) -> Callable[..., Command]:
    """The fake decoder in one of its modes."""

    def make(mode: str, timeout: float = 20.0, places: str = "{in} {out}") -> Command:
        return Command(f"{shlex.quote(sys.executable)} -I -S {shlex.quote(str(fakes / 'fake.py'))} {mode} {places}", timeout)

    return make


@pytest.mark.parametrize("mode", RIGHT)
def test_a_right_command_passes(mode: str, fake: Callable[..., Command], vectors: tuple[Vector, ...], folder: Path) -> None:
    report = run(vectors, folder, fake(mode), jobs=2)
    assert failures(report) == {} and report.passed
    assert report.counts() == {"vectors": 7, "passed": 6, "failed": 0, "skipped": 1}
    assert [result.vector for result in report.reasons(SKIP)] == ["limits/few-frames", "salvage/damaged"]


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_command_fails(mode: str, fake: Callable[..., Command], vectors: tuple[Vector, ...], folder: Path) -> None:
    _, vector, reason = MODES[mode]
    started = time.monotonic()
    report = run(one(vectors, vector), folder, fake(mode, 0.5 if "hangs" in mode else 20.0))
    assert not report.passed and reason in failures(report)[vector, "command"], failures(report)
    assert time.monotonic() - started < 15


def test_nothing_of_a_command_outlives_its_time(fakes: Path, vectors: tuple[Vector, ...], folder: Path, tmp_path: Path) -> None:
    child = f"import time; time.sleep(1); open({str(tmp_path / 'late')!r}, 'w')"
    script = tmp_path / "parent.py"
    script.write_text(f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {child!r}]).wait()")
    decoder = Command(f"{sys.executable} -S {script} {{in}} {{out}}", 0.3)
    assert "no answer" in failures(run(vectors[:1], folder, decoder))["valid/first", "command"]
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()


def test_places_stand_within_words_too(tmp_path: Path, vectors: tuple[Vector, ...], folder: Path) -> None:
    script = tmp_path / "copy.py"
    script.write_text("import sys; open(sys.argv[2][4:], 'wb').write(open(sys.argv[1][5:], 'rb').read())")
    decoder = Command(f"{sys.executable} -S {script} --in={{in}} out={{out}}", 20.0)
    found = failures(run(vectors[:1], folder, decoder))["valid/first", "command"]
    assert "frame" in found and "crash" not in found


def test_no_shell_sees_the_command(tmp_path: Path, vectors: tuple[Vector, ...], folder: Path) -> None:
    decoder = Command(f"{sys.executable} -c pass {{in}} {{out}} ; touch {tmp_path}/shell $(touch {tmp_path}/shell)", 20.0)
    assert not run(vectors[:1], folder, decoder).passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("template", ["", "cat {in}", "cat {out}", "cat in out", "'cat {in} {out}", "no-such-program {in} {out}"])
def test_a_command_that_makes_no_sense_is_an_error(template: str) -> None:
    with pytest.raises(ValueError):
        Command(template, 20.0)


def test_a_command_that_cannot_be_run_fails(tmp_path: Path, vectors: tuple[Vector, ...], folder: Path) -> None:
    program = tmp_path / "program"
    program.write_text("not for this machine")
    program.chmod(0o755)
    report = run(vectors[:1], folder, Command(f"{program} {{in}} {{out}}", 20.0))
    assert "cannot be run" in failures(report)["valid/first", "command"]


def test_the_size_of_frames_is_that_of_the_file(vectors: tuple[Vector, ...], folder: Path, tmp_path: Path) -> None:
    for vector, case in zip(vectors[:2], CASES, strict=False):
        assert command.frame_bytes(folder / vector.file) == len(case.samples[0])
    for head, size in {(5, 3, 0): 15 + 2 * 3 * 2, (5, 3, 1): 45, (1, 1, 0): 3, (640, 360, 0): 345600}.items():
        (tmp_path / "a").write_bytes(bytes(48) + head[0].to_bytes(2, "little") + head[1].to_bytes(2, "little") + bytes([head[2]]))
        assert command.frame_bytes(tmp_path / "a") == size
    (tmp_path / "a").write_bytes(bytes(52))
    assert command.frame_bytes(tmp_path / "a") == 0


# ---- the command line


@dataclass(frozen=True)
class Output:
    code: int
    out: str
    err: str


@pytest.fixture
def nvc(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[..., Output]:
    """Runs `nvc conformance run ARGUMENTS` on the test's vectors, in this process."""

    def call(*arguments: object, vectors: Path = folder) -> Output:
        monkeypatch.setattr(sys, "argv", ["nvc", "conformance", "run", "--vectors", str(vectors), *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        return Output(int(caught.value.code or 0), out, err)

    return call


def test_the_table_ends_with_the_verdict(nvc: Callable[..., Output]) -> None:
    answer = nvc("-q", "--device", "cpu")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    rows = {line.split()[0]: list(map(int, line.split()[1:])) for line in lines[1:7]}
    assert rows == {
        "valid": [2, 2, 0, 0],
        "limits": [1, 1, 0, 0],
        "invalid": [2, 2, 0, 0],
        "unsupported": [1, 1, 0, 0],
        "salvage": [1, 1, 0, 0],
        "all": [7, 7, 0, 0],
    }
    assert lines[-1].startswith("passed: nvc ") and lines[-1].endswith("7 of 7 vectors")


def test_a_failure_is_one_line_in_the_table_and_exit_code_6(nvc: Callable[..., Output], fake: Callable[..., Command]) -> None:
    answer = nvc("-q", "--decoder", fake("drops-the-last").name, "--only", "valid/*", "--only", "invalid/cut")
    assert answer.code == 6 and answer.err == "nvc: error: 1 of 3 vectors passed, 2 failed [verify.conformance]\n"
    found = [line for line in answer.out.splitlines() if line.startswith("FAIL ")]
    assert [line.split()[1] for line in found] == ["valid/first", "valid/second"]
    assert all("(command): 1 of 1" in line and "frames are missing" in line for line in found)
    assert answer.out.splitlines()[-1].startswith("FAILED: ") and answer.out.splitlines()[-1].endswith("1 of 3 vectors")


def test_json_is_one_object_that_holds_every_result(nvc: Callable[..., Output], fake: Callable[..., Command]) -> None:
    decoder = fake("drops-the-last").name
    answer = nvc("--json", "-q", "--decoder", decoder, "--jobs", 2)
    assert answer.code == 6 and answer.err.endswith("[verify.conformance]\n")
    (line,) = answer.out.splitlines()
    found = json.loads(line)
    assert (found["decoder"], found["conforms"]) == (decoder, False)
    assert [found[name] for name in ("vectors", "passed", "failed", "skipped", "decodings")] == [7, 4, 2, 1, 6]
    assert {group: row["failed"] for group, row in found["groups"].items() if row["failed"]} == {"valid": 2}
    assert [failure["vector"] for failure in found["failures"]] == ["valid/first", "valid/second"]
    assert [skip["vector"] for skip in found["skips"]] == ["limits/few-frames", "salvage/damaged"]
    assert len(found["results"]) == 8 and {result["verdict"] for result in found["results"]} == {PASS, FAIL, SKIP}
    assert found["slowest"]["seconds"] <= found["seconds"]


def test_progress_is_on_stderr(nvc: Callable[..., Output], fake: Callable[..., Command]) -> None:
    answer = nvc("--decoder", fake("right").name, "--group", "valid", "--group", "limits")
    assert answer.code == 0 and answer.err.splitlines()[-1] == "conformance  3/3  limits/few-frames"


def test_vectors_can_be_listed(nvc: Callable[..., Output]) -> None:
    answer = nvc("--list", "--group", "invalid")
    assert answer.code == 0 and [line.split()[:2] for line in answer.out.splitlines()] == [
        ["invalid/cut", "truncated.chunk"],
        ["invalid/wrong-frame", "verify.frame"],
    ]
    assert [vector["name"] for vector in json.loads(nvc("--list", "--json").out)["vectors"]] == NAMES


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--decoder", "cat {in}"], "usage.decoder"),
        (["--decoder", "no-such-program-0 {in} {out}"], "usage.decoder"),
        (["--decoder", "cat {in} {out}", "--device", "cpu"], "usage.device"),
        (["--only", "nothing/*"], "usage.vectors"),
        (["--group", "odd"], "usage.vectors"),
        (["--jobs", "2"], "usage.jobs"),
        (["--timeout", "0"], "usage"),
        (["--timeout", "inf"], "usage"),
        (["--device", "tin"], "usage.device"),
        (["more"], "usage"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], code: str, nvc: Callable[..., Output]) -> None:
    answer = nvc(*arguments)
    assert (answer.code, answer.out) == (2, "") and answer.err.endswith(f" [{code}]\n") and answer.err.count("\n") == 1


def test_a_broken_suite_is_no_pass(nvc: Callable[..., Output], folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "invalid" / "cut.nvc"
    path.write_bytes(path.read_bytes()[:-1])
    answer = nvc("--only", "valid/first", vectors=tmp_path)
    assert (answer.code, answer.out) == (2, "") and answer.err.endswith("[usage.vectors]\n") and "invalid/cut" in answer.err
    assert nvc(vectors=tmp_path / "nowhere").err.endswith("No such file or directory [usage.vectors]\n")


def test_without_vectors_given_the_installed_ones_are_used(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert Path(runner.__file__).resolve().parent / "vectors" == suite.FOLDER
    monkeypatch.setattr(suite, "FOLDER", folder)
    monkeypatch.setattr(sys, "argv", ["nvc", "conformance", "run", "--list"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code in (0, None)
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == NAMES


def test_every_option_has_help() -> None:
    for each in conformance.commands.values():
        assert each.help and all(option.help for option in each.params if isinstance(option, click.Option))
