"""`make demo`: the main job on a clip it makes itself, or on one that is given, beside x265 at the nearest size.

    python bench/demo.py [--clip FILE --scale WxH --frames N] [--bpp X] [--preset P]

Encodes, decodes and verifies through the command line, each in a fresh process, then prints one table. Both PSNRs are
measured the same way, on decoded files against the source; x265's bytes are its elementary stream without the encoder's
info message.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nvc.codec.ffmpeg import ffmpeg_exe
from nvc.codec.metrics import Quality
from nvc.codec.video import read_clip

WIDTH, HEIGHT, FRAMES, RATE = 256, 144, 48, 25
# a zoom into smooth structure with two moving shapes: texture, motion and still background in one small clip
SOURCE = (
    f"mandelbrot=size={WIDTH}x{HEIGHT}:rate={RATE}:start_scale=1.2:end_scale=0.6:end_pts={FRAMES},"
    "drawbox=x='20+3*t*25':y=30:w=40:h=30:color=orange:t=fill,drawbox=x='200-2*t*25':y=90:w=24:h=24:color=teal:t=fill,"
    "format=yuv420p"
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    bytes: int
    psnr_y: float
    psnr_611: float
    encode_seconds: float
    decode_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip")
    parser.add_argument("--scale", default=f"{WIDTH}x{HEIGHT}")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--bpp", type=float, default=0.15)
    parser.add_argument("--preset", default="draft")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nvc-demo-") as folder:
        root = Path(folder)
        source = root / "source.mkv"
        width, height = options.scale.split("x")
        made = ["-f", "lavfi", "-i", SOURCE]
        if options.clip:
            made = ["-i", options.clip, "-vf", f"scale={width}:{height}:flags=bicubic"]
        run(ffmpeg_exe(), "-v", "error", *made, "-frames:v", str(options.frames), "-an", "-c:v", "ffv1", str(source))
        rows = [nvc(root, source, options.bpp, options.preset)]
        rows.append(x265(root, source, rows[0].bytes))
    pixels = int(width) * int(height) * options.frames
    name = Path(options.clip).name if options.clip else "a clip made by ffmpeg"
    print(f"\n{options.frames} frames of {options.scale} from {name}; preset {options.preset}, target {options.bpp} bpp\n")
    print(f"{'':<22}{'bytes':>8}{'bpp':>9}{'PSNR-Y':>9}{'6:1:1':>8}{'encode s':>10}{'decode s':>10}")
    for row in rows:
        bpp = 8 * row.bytes / pixels
        quality = f"{row.psnr_y:>9.2f}{row.psnr_611:>8.2f}"
        print(f"{row.name:<22}{row.bytes:>8}{bpp:>9.4f}{quality}{row.encode_seconds:>10.1f}{row.decode_seconds:>10.1f}")


def run(*command: str) -> float:
    """Run a command; the seconds it took."""
    started = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - started


def command(*arguments: str) -> list[str]:
    """A call of this environment's nvc."""
    return [sys.executable, "-m", "nvc.cli", *arguments]


def nvc(root: Path, source: Path, bpp: float, preset: str) -> Row:
    """Encode, decode and verify with nvc."""
    stream, decoded = root / "demo.nvc", root / "demo.y4m"
    encode = command("encode", str(source), str(stream), "--bpp", str(bpp), "--preset", preset, "--json")
    started = time.monotonic()
    printed = subprocess.run(encode, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout
    encode_seconds = time.monotonic() - started
    result = json.loads(printed)
    decode_seconds = run(*command("decode", str(stream), str(decoded), "-q"))
    run(*command("verify", str(stream)))
    if stream.stat().st_size != result["bytes"]:
        raise SystemExit("the reported size is not that of the file")
    psnr = quality(source, decoded)
    return Row(f"nvc {result['model']}", result["bytes"], psnr["y"], psnr["yuv611"], encode_seconds, decode_seconds)


def x265(root: Path, source: Path, wanted: int) -> Row:
    """x265 medium with -tune psnr at the crf whose size is nearest to `wanted` bytes."""
    rows = []
    low, high = 0, 51
    while low <= high:
        crf = (low + high) // 2
        row = _x265(root, source, crf)
        rows.append(row)
        if row.bytes > wanted:
            low = crf + 1
        else:
            high = crf - 1
    return min(rows, key=lambda row: abs(row.bytes - wanted))


def _x265(root: Path, source: Path, crf: int) -> Row:
    stream = root / "demo.hevc"
    seconds = run(
        *(ffmpeg_exe(), "-y", "-v", "error", "-i", str(source), "-c:v", "libx265", "-preset", "medium", "-tune", "psnr"),
        *("-x265-params", f"crf={crf}:info=0:log-level=none", str(stream)),
    )
    decode = run(ffmpeg_exe(), "-v", "error", "-i", str(stream), "-f", "null", "-")
    psnr = quality(source, stream)
    return Row(f"x265 medium, crf {crf}", stream.stat().st_size, psnr["y"], psnr["yuv611"], seconds, decode)


def quality(reference: Path, decoded: Path) -> dict[str, float]:
    """PSNR per plane, mean over frames."""
    return Quality.of(read_clip(str(reference)).planes, read_clip(str(decoded)).planes, rgb=False).as_dict()


if __name__ == "__main__":
    main()
