"""`nvc report`: videos in, a folder with figures and a page beside x264, x265 and SVT-AV1 out."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .progress import ProgressLine, clock, printable


@click.command()
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="DIR", required=True, help="The folder of results.json, report.html and all files.")
@click.option("--bpp", type=options.Numbers(), help="Sizes that nvc is asked for [default: 0.05,0.1,0.2,0.4].")
@click.option(
    "--codecs",
    type=options.Names(),
    help="Of nvc:hnerv, nvc:vqnerv, x264, x265, svtav1 [default: nvc:hnerv,x264,x265,svtav1].",
)
@click.option(
    "--anchors",
    type=click.Choice(["user", "benchmark"]),
    help="x264 and x265 at medium, default tune, or at veryslow -tune psnr [default: benchmark].",
)
@click.option("--frames", type=options.FrameRange(), help="Only frames A to B - 1 of every video.")
@click.option("--scale", type=options.Size(), help="Scale every video as ffmpeg's scale=W:H:flags=bicubic does.")
@click.option("--preset", metavar="PRESET", help="Of nvc encode: how long to fit [default: fast].")
@click.option("--resume", is_flag=True, help="Go on with the report in DIR: what is done is not done again.")
@options.computing
@options.writing
@options.as_json
def report(sources: tuple[str, ...], output: str, as_json: bool, **given: Any) -> None:
    """Encode every IN with nvc and the anchors at several rates, decode and measure the files, and write the report to DIR.

    IN is a video, or an .nvc file that was made from the video before it and is measured instead of encoding. DIR must be new
    or empty, unless --resume goes on with it or -y starts over. A report that was stopped, in whatever way, goes on with the
    same command and --resume.
    """
    from nvc.codec.report.settings import Settings
    from nvc.codec.report.sweep import sweep

    chosen = {name: given[name] for name in ("bpp", "codecs", "anchors", "frames", "scale", "preset", "device", "threads")}
    settings = Settings(**{name: value for name, value in chosen.items() if value is not None})
    progress = ProgressLine(given["quiet"], given["verbose"])
    try:
        results = sweep(
            sources,
            output,
            settings,
            resume=given["resume"],
            overwrite=given["overwrite"],
            # a line for every file where there is no terminal: one may take hours
            tell=lambda text: progress.show(printable(f"report  {clock(progress.elapsed())}  {text}"), not progress.terminal),
            note=progress.note,
        )
    except KeyboardInterrupt:
        progress.note(f"what is done stays in {output}; the same command with --resume goes on")
        raise
    progress.show(f"report  {clock(progress.elapsed())}  {len(results['runs'])} files measured", final=True)
    if as_json:
        options.echo_json({"report": f"{output}/report.html", "results": f"{output}/results.json", "verdict": results["verdict"]})
    elif not given["quiet"]:
        click.echo("\n".join(map(printable, [*results["verdict"], f"{output}/report.html"])))
