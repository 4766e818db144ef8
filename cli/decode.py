"""`nvc decode`: an .nvc file in, a video out."""

from __future__ import annotations

import os
from typing import Any

import click

from . import options
from .progress import ProgressLine


@click.command()
@click.argument("source", metavar="IN.nvc")
@click.argument("output", metavar="[OUT]", required=False)
@click.option("--frames", type=options.FrameRange(), help="Only frames A to B - 1.")
@click.option("--batch", type=click.IntRange(1, 4096), help="Frames computed together.")
@options.computing
@options.writing
@options.as_json
def decode(source: str, output: str | None, as_json: bool, **given: Any) -> None:
    """Reconstruct the frames of IN.nvc.

    OUT decides the format: .y4m, .mkv (FFV1, exact), .mp4 (H.264, a second, visually lossless encode), .yuv, a folder of PNG,
    or - for Y4M on standard output. By default it is IN.y4m, for RGB files IN.mkv. Every frame is checked against its hash.
    """
    from nvc.bitstream.errors import OutputError, UsageError
    from nvc.codec import outputs
    from nvc.codec.decode import Decoder, open_device
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
        done = 0
        with open_sink(target, header, overwrite=given["overwrite"]) as sink:
            for batch in decoder.frames(first, last):
                sink.write(batch.planes, batch.pts)
                done += len(batch.pts)
                share = f"/{total}  {progress.left(done / total)} left" if header.frame_count is not None else ""
                progress.show(
                    f"decode  frame {done}{share}  {done / max(progress.elapsed(), 1e-3):.1f} fps", final=done == total
                )
            if not done:  # a live file does not say how long it is
                raise UsageError("frames", f"--frames {first}: the file has fewer frames")
            sink.finish()
    for note in sink.notes:
        progress.note(note)
    if as_json:
        seconds = round(progress.elapsed(), 2)
        options.echo_json(
            {"output": target, "frames": done, "width": header.width, "height": header.height, "seconds": seconds}
        )
