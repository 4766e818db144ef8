"""Where a report was made: versions, the machine, the devices that decode; and whether the optional packages are there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys

from nvc.bitstream.errors import MachineError

from .. import abilities
from ..config import REPORT_PACKAGES, VERSION

_CUDA = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"


def check_extra() -> None:
    """MachineError where a package of the extra `report` is missing."""
    if missing := [name for name in REPORT_PACKAGES if importlib.util.find_spec(name) is None]:
        raise MachineError("extra", f"a report needs {', '.join(missing)}: pip install 'nvc-codec[report]'")


def cuda_name() -> str:
    """The name of the CUDA device, empty without one; asked in another process, so that this one stays small."""
    done = subprocess.run([sys.executable, "-c", _CUDA], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def environment(device: str) -> dict[str, str | int | None]:
    """What results.json says of the machine; `device` is the name of the CUDA device, empty without one."""
    return {
        "nvc": VERSION,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "ffmpeg": abilities.version(),
        "os": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "gpu": device or None,
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
