"""`nvc decode`: an .nvc file in, a video out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import options
from .progress import ProgressLine

if TYPE_CHECKING:
    from nvc.codec.salvage import Salvager

EXIT_PARTIAL = 10


@click.command()
@click.argument("source", metavar="IN.nvc")
@click.argument("output", metavar="[OUT]", required=False)
@click.option("--frames", type=options.FrameRange(), help="Only frames A to B - 1.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip", "hold"]),
    default="fail",
    show_default=True,
    help="Of a damaged file: write nothing, leave lost frames out, or repeat the last good one for each.",
)
@click.option("--batch", type=click.IntRange(1, 4096), help="Frames computed together.")
@options.computing
@options.writing
@options.as_json
def decode(source: str, output: str | None, as_json: bool, **given: Any) -> int:
    """Reconstruct the frames of IN.nvc.

    OUT decides the format: .y4m, .mkv (FFV1, exact), .mp4 (H.264, a second, visually lossless encode), .yuv, a folder of PNG,
    or - for Y4M on standard output. By default it is IN.y4m, for RGB files IN.mkv. Every frame is checked against its hash.

    With --on-error skip or hold, what is left of a damaged file is decoded too. The frames that are lost are listed on stderr
    and by --json, and the exit code is 10 if there are any.
    """
    from nvc.bitstream.errors import OutputError, UsageError
    from nvc.codec import outputs
    from nvc.codec.decode import Decoder, open_device
    from nvc.codec.salvage import Salvager
    from nvc.codec.sinks import open_sink

    if output is None and source == "-":
        raise UsageError("output", "-: name an output too, standard input has no name to derive it from")
    if output == "-" and as_json:
        raise UsageError("json", "--json and the output -: standard output cannot take both; give one of them a file")
    options.set_threads(given["threads"])
    progress = ProgressLine(given["quiet"], given["verbose"])
    first, last = given["frames"] or (0, None)
    with options.open_input(source) as file:
        decoder = Decoder(file, open_device(given["device"]), given["batch"])
        header = decoder.header
        progress.detail(f"{header.width}x{header.height}, batches of {decoder.batch}, {options.machine(decoder.device)}")
        target = output or os.path.splitext(source)[0] + (".y4m" if header.pixel_format == 0 else ".mkv")
        if outputs.same_file(source, target):
            raise OutputError("same", f"{target}: is the input; choose another name")
        if header.frame_count is not None and first >= header.frame_count:
            raise UsageError("frames", f"--frames {first}: the file has {header.frame_count} frames")
        total = min(last or 1 << 62, header.frame_count or 1 << 62) - first
        salvager = Salvager(decoder, given["on_error"] == "hold") if given["on_error"] != "fail" else None
        done = 0
        with open_sink(target, header, overwrite=given["overwrite"]) as sink:
            for batch in (salvager or decoder).frames(first, last):
                sink.write(batch.planes, batch.pts)
                done += len(batch.pts)
                if done < total:
                    progress.show(_status(progress, done, total if header.frame_count else None))
            if not done:  # a live file does not say how long it is
                raise UsageError("frames", f"--frames {first}: the file has fewer frames")
            progress.show(_status(progress, done, total if header.frame_count else None), final=True)
            sink.finish()
    for note in (*sink.notes, *(_account(salvager) if salvager else ())):
        progress.note(note)
    if as_json:
        result = {"output": target, "frames": done, "width": header.width, "height": header.height}
        if salvager:
            lost = [
                {"first": gap.first, "frames": gap.frames, "code": gap.error.code, "offset": gap.offset}
                for gap in salvager.lost
            ]
            result |= {"held": salvager.held, "lost": lost}
        options.echo_json({**result, "seconds": round(progress.elapsed(), 2)})
    return EXIT_PARTIAL if salvager and salvager.partial else 0


def _status(progress: ProgressLine, done: int, total: int | None) -> str:
    share = f"/{total}  {progress.left(done / total)} left" if total else ""
    return f"decode  frame {done}{share}  {done / max(progress.elapsed(), 1e-3):.1f} fps"


def _account(salvager: Salvager) -> Iterator[str]:
    """A line for each run of lost frames, and for each error that cost none."""
    for gap in salvager.lost:
        last = gap.first + gap.frames - 1
        which = f"frames {gap.first}-{last}" if gap.frames > 1 else f"frame {last}"
        yield f"{which} lost: {gap.error} [{gap.error.code}]"
    for gap in salvager.harmless:
        what = "behind which nobody knows how many frames are lost" if gap.open else "where no frame is lost"
        yield f"damaged at byte {gap.offset}, {what}: {gap.error} [{gap.error.code}]"
