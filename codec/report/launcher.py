"""The small process between the stopwatch and what it times: starts a command, waits for it, writes down what it took.

Run as a program: `python -I -S launcher.py RESULT COMMAND...`. It leads a process group of its own. Standard output and error
are the command's. Standard input is a pipe that the stopwatch holds and never writes to: when that closes, because the
stopwatch gives up or because its process is gone, however it went, the whole group ends. RESULT gets one JSON object: status,
seconds, cpu_seconds, peak_bytes; or `error` alone, where the command cannot be started.

Only the lightest modules of the standard library: the memory of this process is the least that the stopwatch can see.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import time


def main(result: str, command: list[str]) -> None:
    """Run `command` and write the file `result`."""
    _thread.start_new_thread(_end_with_the_stopwatch, ())
    found: dict[str, object]
    try:
        found = _timed(command)
    except OSError as error:
        found = {"error": error.strerror or str(error)}
    with open(result, "w", encoding="utf-8") as file:
        json.dump(found, file)
    os._exit(0)  # not by way of the interpreter's end, which would wait for nothing of ours


def _timed(command: list[str]) -> dict[str, object]:
    if not hasattr(os, "wait4"):  # Windows
        return _only_seconds(command)
    began = time.perf_counter()
    pid = os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores, and a command must not
    )
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * unit,
    }


def _only_seconds(command: list[str]) -> dict[str, object]:
    import subprocess

    began = time.perf_counter()
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    return {"status": status, "seconds": time.perf_counter() - began, "cpu_seconds": None, "peak_bytes": None}


def _end_with_the_stopwatch() -> None:
    while os.read(0, 1):
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    else:
        os.system(f"taskkill /F /T /PID {os.getpid()}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
