"""The stopwatch: what a command took is its own, what it wrote comes through, and nothing of it outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nvc.bitstream.errors import MachineError
from nvc.codec.report import stopwatch

MB = 1_000_000
FLOOR = 40 * MB  # a bare Python has 10
PYTHON = [sys.executable, "-I", "-S", "-c"]

measured = pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell what a process took")


def touching(megabytes: int) -> list[str]:
    return [*PYTHON, f"b'x' * {megabytes * MB}"]


@measured
def test_memory_of_a_command_is_seen() -> None:
    peak = stopwatch.run(touching(200)).peak_bytes
    assert peak is not None and 200 * MB < peak < 240 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc")
def test_memory_is_what_the_command_itself_sees_of_it() -> None:
    timed = stopwatch.run([*PYTHON, f"b'x' * {200 * MB}; print(open('/proc/self/status').read())"])
    kibibytes = int(timed.stdout.partition(b"VmHWM:")[2].split()[0])
    assert timed.peak_bytes == pytest.approx(kibibytes * 1024, rel=0.01)


@measured
def test_a_command_is_not_charged_with_our_memory() -> None:
    ours = bytearray(b"x") * (400 * MB)
    peak = stopwatch.run(touching(1)).peak_bytes
    assert len(ours) == 400 * MB
    assert peak is not None and MB < peak < FLOOR


@measured
def test_memory_and_seconds_of_what_a_command_waits_for_count() -> None:
    spin = "import time; b'x' * 150_000_000\nwhile time.process_time() < 0.4: pass"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {spin!r}])"
    timed = stopwatch.run([*PYTHON, outer])
    assert timed.peak_bytes is not None and timed.peak_bytes > 150 * MB
    assert timed.cpu_seconds is not None and 0.4 <= timed.cpu_seconds < 3


def test_seconds_are_those_of_the_clock_on_the_wall() -> None:
    began = time.monotonic()
    timed = stopwatch.run([*PYTHON, "import time; time.sleep(0.5)"])
    assert 0.5 <= timed.seconds <= time.monotonic() - began
    assert timed.cpu_seconds is None or timed.cpu_seconds < 0.5


@pytest.mark.parametrize("status", [0, 3, 255])
def test_status_and_output_come_through(status: int) -> None:
    script = f"import os; os.write(1, b'\\xff\\0out'); os.write(2, 'größer\\n'.encode() + b'\\xff'); os._exit({status})"
    timed = stopwatch.run([*PYTHON, script])
    assert (timed.status, timed.stdout, timed.stderr) == (status, b"\xff\0out", "größer\n\ufffd")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_command_that_a_signal_ends_has_its_negative() -> None:
    assert stopwatch.run([*PYTHON, "import os; os.kill(os.getpid(), 11)"]).status == -signal.SIGSEGV


def test_large_outputs_on_both_ends_do_not_block() -> None:
    script = "import os\nfor _ in range(200): os.write(1, b'o' * 50_000); os.write(2, b'e' * 50_000)"
    timed = stopwatch.run([*PYTHON, script])
    assert (len(timed.stdout), len(timed.stderr)) == (10 * MB, 10 * MB)


def test_a_command_has_nothing_to_read(tmp_path: Path) -> None:
    """Run in a process whose standard input is open and holds a line."""
    script = (
        "import sys; from nvc.codec.report.stopwatch import run\n"
        "print(run([sys.executable, '-S', '-c', 'import sys; print(repr(sys.stdin.read()))']).stdout.decode(), input())"
    )
    done = subprocess.run([sys.executable, "-c", script], input="a line\n", capture_output=True, text=True, timeout=30)
    assert done.stdout.split("\n") == ["''", " a line", ""], done.stderr


def test_folder_and_environment_are_the_commands(tmp_path: Path) -> None:
    script = "import os; print(os.getcwd(), os.environ.get('NVC_TEST'), os.environ.get('HOME'))"
    timed = stopwatch.run([*PYTHON, script], cwd=str(tmp_path), env={"NVC_TEST": "yes"})
    assert timed.stdout.decode().split() == [str(tmp_path), "yes", "None"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_command_ends_quietly_when_its_reader_goes() -> None:
    """Python ignores SIGPIPE; what it starts must not."""
    timed = stopwatch.run(["sh", "-c", "yes | head -n 1"])
    assert (timed.stdout, timed.stderr) == (b"y\n", "")


@pytest.mark.parametrize("command", [["/no/such/program"], ["no-such-program-of-any-kind", "x"], [os.path.dirname(__file__)]])
def test_what_cannot_be_started_is_told(command: list[str]) -> None:
    with pytest.raises(MachineError, match="cannot be started") as caught:
        stopwatch.run(command)
    assert caught.value.code == "machine.start" and command[0] in str(caught.value)


# A tree: a shell that starts another in the background; both write their numbers and sleep.
TREE = "echo $$ >> {0}; sh -c 'echo $$ >> {0}; exec sleep 60' & sleep 60"
RUN_TREE = "import sys; from nvc.codec.report.stopwatch import run; run(['sh', '-c', sys.argv[1]])"


def started(path: Path) -> list[int]:
    for _ in range(300):
        numbers = path.read_text().split() if path.exists() else []
        if len(numbers) == 2:
            return [int(number) for number in numbers]
        time.sleep(0.1)
    raise AssertionError("the tree did not start")


def gone(pid: int) -> bool:
    """Whether a process ends soon; one that nobody has waited for yet has ended."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except ProcessLookupError:
            return True
        except FileNotFoundError:  # gone between the two, or a system without /proc
            pass
        time.sleep(0.1)
    return False


@pytest.mark.skipif(os.name != "posix", reason="process groups and signals")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda ending: ending.name)
def test_whatever_ends_us_ends_the_command_and_all_that_it_started(ending: signal.Signals, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    command = [sys.executable, "-c", RUN_TREE, TREE.format(numbers)]
    # A shell that starts a job in the background has it ignore SIGINT, and so would this.
    handled = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, handled)
    try:
        tree = started(numbers)
        process.send_signal(ending)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode
    assert ("KeyboardInterrupt" in error) == (ending == signal.SIGINT)
    assert all(map(gone, tree))


@pytest.mark.skipif(os.name != "posix", reason="process groups and signals")
def test_an_interrupt_passes_on_when_the_command_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = tmp_path / "numbers"
    wait = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        tree.extend(started(numbers))
        raise KeyboardInterrupt

    tree: list[int] = []
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopwatch.run(["sh", "-c", TREE.format(numbers)])
    assert len(tree) == 2 and all(map(gone, tree))


@pytest.mark.skipif(os.name != "posix", reason="process groups and signals")
def test_a_launcher_that_is_ended_from_outside_is_told() -> None:
    with pytest.raises(MachineError, match="ended from outside"):
        stopwatch.run(["sh", "-c", "kill -9 0"])
