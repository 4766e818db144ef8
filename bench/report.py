"""`make report`: the report of a clip that this makes itself, in `build/report`; further arguments go to `nvc report`.

    python bench/report.py [--clip synthetic:zoom] [--size 160x90] [--count 32] [nvc report's options]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from clips import PREFIX, open_clip, size

from nvc.codec.sinks import open_sink

BUILD = Path(__file__).resolve().parent.parent / "build"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default=PREFIX + "zoom", help="of clips.py")
    parser.add_argument("--size", type=size, default=(160, 90), metavar="WxH")
    parser.add_argument("--count", type=int, default=32, metavar="N", help="frames")
    parser.add_argument("--output", default=str(BUILD / "report"), metavar="DIR")
    chosen, others = parser.parse_known_args()
    output = Path(chosen.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    width, height = chosen.size
    source = output.with_name(f"{chosen.clip.removeprefix(PREFIX)}-{width}x{height}-{chosen.count}.mkv")
    if not source.exists():  # the same frames give other bytes each time, and a report goes on only with the same file
        clip = open_clip(chosen.clip, chosen.size, (0, chosen.count))
        with open_sink(str(source), clip.header, overwrite=True) as sink:
            sink.write(clip.planes, clip.pts)
    # --resume begins where there is nothing yet, so that a report that was stopped goes on with the same command
    report = [sys.executable, "-m", "nvc.cli", "report", str(source), "-o", chosen.output, "--resume", *others]
    sys.exit(subprocess.run(report, check=False).returncode)


if __name__ == "__main__":
    main()
