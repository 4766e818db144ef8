"""`nvc compare`: how near videos come to a reference, in every usual measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import options
from .progress import ProgressLine, printable

if TYPE_CHECKING:
    from nvc.codec.report.measure import Measured

# Heading, metric and figure of each column of the table; a column without a figure in any row is left out.
_COLUMNS = (
    ("PSNR-Y", "psnr_y", "mean"),
    ("min", "psnr_y", "min"),
    ("p5", "psnr_y", "p5"),
    ("6:1:1", "psnr_611", "mean"),
    ("RGB", "psnr_rgb", "mean"),
    ("MS-SSIM", "ms_ssim", "mean"),
    ("VMAF", "vmaf", "mean"),
    ("NEG", "vmaf_neg", "mean"),
    ("XPSNR-Y", "xpsnr_y", "mean"),
)
_PLACES = {"ms_ssim": 4}


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("distorted", metavar="DIST...", nargs=-1, required=True)
@click.option("--frames", type=options.FrameRange(), help="Only frames A to B - 1 of REF.")
@click.option("--crop", type=options.Size(), help="Centre crop of REF.")
@click.option("--scale", type=options.Size(), help="Scale REF, as `nvc encode --scale` does.")
@click.option(
    "--metrics", type=options.Names(), default="psnr,ms_ssim,vmaf,xpsnr", show_default=True, help="Any of these, and rgb."
)
@click.option("--per-frame", is_flag=True, help="With --json: every frame's figures too.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
@options.as_json
def compare(reference: str, distorted: tuple[str, ...], as_json: bool, per_frame: bool, quiet: bool, **given: Any) -> None:
    """Measure how near each DIST comes to REF, in the pixel format of REF.

    Each is a video, an .nvc file, a folder of pictures, or - for standard input. PSNR is the mean over the frames; with
    the least frame and the 5th percentile of PSNR-Y; bpp counts the whole file. --frames, --crop and --scale choose what
    is taken of REF, so that what `nvc encode` made with the same options can be measured.

    Where a DIST does not show the same frames in the same order and colour range, nothing is printed: exit code 6.

    --json prints {"reference", "frames", "width", "height", "pix_fmt", "results": [{"file", "bytes", "bpp", "quality",
    "notes"}]}; `quality` has by metric the mean, min, p5 and pooled; --per-frame adds "per_frame" with a list by metric.
    """
    from nvc.bitstream.errors import UsageError
    from nvc.codec.report.measure import check_metrics, measure
    from nvc.codec.video import ReadOptions

    if [reference, *distorted].count("-") > 1:
        raise UsageError("stdin", "-: standard input can be given once")
    if per_frame and not as_json:
        raise UsageError("per_frame", "--per-frame: the figures of all frames are printed by --json only")
    check_metrics(given["metrics"])
    if reference == "-" and len(distorted) > 1:
        raise UsageError("stdin", "-: standard input is read once, so only one DIST can be compared with it")
    progress = ProgressLine(quiet, verbose=False)
    wanted = ReadOptions(frames=given["frames"], crop=given["crop"], scale=given["scale"])
    results = []
    for path in distorted:
        # to be printed when all are known: a table that lacks a row would look like a choice
        results.append(measure(reference, path, wanted, given["metrics"], _Status(progress, path)))
        if progress.terminal:  # or else the table would stand behind what is left of the line
            progress.show(printable(f"compare  {path}  {results[-1].frames} frames"), final=True)
    for path, result in zip(distorted, results, strict=True):
        for note in result.notes:
            progress.note(f"{path}: {note}" if len(distorted) > 1 else note)
    if as_json:
        options.echo_json(_document(reference, distorted, results, per_frame))
    else:
        click.echo("\n".join(map(printable, _table(distorted, results))))


class _Status:
    """Tells how many frames of one file are compared."""

    def __init__(self, progress: ProgressLine, path: str) -> None:
        self._progress, self._path = progress, path

    def __call__(self, frames: int) -> None:
        if frames % 32 == 0:
            self._progress.show(printable(f"compare  {self._path}  frame {frames}"))


def _document(reference: str, paths: tuple[str, ...], results: list[Measured], per_frame: bool) -> dict[str, Any]:
    first = results[0]
    rows = []
    for path, result in zip(paths, results, strict=True):
        row: dict[str, Any] = {"file": path, "bytes": result.file_bytes, "bpp": result.bpp and round(result.bpp, 6)}
        row |= {"quality": result.quality(), "notes": list(result.notes)}
        rows.append(row | ({"per_frame": result.per_frame()} if per_frame else {}))
    shape = {"frames": first.frames, "width": first.width, "height": first.height, "pix_fmt": first.pix_fmt}
    return {"reference": reference, **shape, "results": rows}


def _table(paths: tuple[str, ...], results: list[Measured]) -> list[str]:
    qualities = [result.quality() for result in results]
    columns = [column for column in _COLUMNS if any(column[1] in quality for quality in qualities)]
    rows = [["file", "bytes", "bpp", *(heading for heading, _, _ in columns)]]
    for path, result, quality in zip(paths, results, qualities, strict=True):
        row = [path, str(result.file_bytes or "-"), f"{result.bpp:.4f}" if result.bpp else "-"]
        for _, metric, figure in columns:
            value = quality.get(metric, {}).get(figure)
            row.append("-" if value is None else f"{value:.{_PLACES.get(metric, 2)}f}")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _line(cells: list[str], widths: list[int]) -> str:
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([cells[0].ljust(widths[0]), *numbers])
