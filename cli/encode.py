"""`nvc encode`: a video in, an .nvc file out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nvc.codec.config import BLOCKS, MODELS, PRESETS, TUNES, Design, Tokens

from . import options
from .progress import ProgressLine

if TYPE_CHECKING:
    from nvc.codec.encode import EncodeResult, SegmentProgress
    from nvc.codec.video import Clip


@click.command()
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT.nvc")
@click.option("--model", type=click.Choice(MODELS), default="hnerv", show_default=True, help="Family of networks.")
@click.option("--preset", type=click.Choice(tuple(PRESETS)), default="fast", show_default=True, help="How long to fit.")
@click.option(
    "--tune",
    type=click.Choice(TUNES),
    default="psnr",
    show_default=True,
    help="What the fit minimises: the squared error, or 0.7 L1 + 0.3 (1 - MS-SSIM), which takes longer and reports MS-SSIM.",
)
@click.option("--bpp", type=float, help="Size of the file in bits per luma sample.")
@click.option("--bitrate", type=options.Amount(), help="Size of the file in bits per second, e.g. 300k.")
@click.option("--size", type=options.Amount(), help="Size of the file in bytes, e.g. 200k.")
@click.option("--target-psnr", type=float, help="PSNR of the file in dB: 6:1:1, or RGB. Takes several fits.")
@click.option("--frames", type=options.FrameRange(), help="Frames A to B - 1 of the source.")
@click.option("--crop", type=options.Size(), help="Crop around the centre, before --scale.")
@click.option("--scale", type=options.Size(), help="Scale as ffmpeg's scale=W:H:flags=bicubic does.")
@click.option("--pix-fmt", type=click.Choice(["yuv420p", "rgb24"]), default="yuv420p", show_default=True)
@click.option("--fps", type=options.Rate(), help="Frame rate of a folder of images.")
@click.option(
    "--segment", type=click.IntRange(1, 4096), default=300, show_default=True, help="Most frames a network covers."
)
@click.option(
    "--activation", type=click.Choice(["hswish", "relu", "gelu", "sine"]), default="hswish", show_default=True
)
@click.option("--block", type=click.Choice(BLOCKS), help=f"Of vqnerv: where its tokens go [default: {Tokens.block}].")
@click.option(
    "--codebook", type=options.Codebook(), help=f"Of vqnerv: codes and their size [default: {Tokens.levels}x{Tokens.dimension}]."
)
@click.option(
    "--prune", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Share of the weights to set to zero, e.g. 0.1."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Segments fitted at the same time; the file depends on it. For a GPU.",
)
@click.option(
    "--checkpoint",
    metavar="FOLDER",
    help="Save the fits there every minute; the same command goes on with them, and removes them when the file is complete.",
)
@click.option("--deterministic", is_flag=True, help="On a GPU: the same file every time, more slowly. A CPU needs no telling.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@options.computing
@options.writing
@options.as_json
def encode(source: str, output: str, as_json: bool, **given: Any) -> None:
    """Fit a network to the video IN and write it to OUT.nvc.

    IN is any file that ffmpeg reads, `-` for Y4M on standard input, or a folder of numbered images. Without --bpp, --bitrate,
    --size or --target-psnr the file gets 0.2 bpp, or more for tiny clips.
    """
    from pathlib import Path

    from nvc.bitstream.errors import OutputError, TargetError, UsageError
    from nvc.codec import outputs
    from nvc.codec.checkpoint import Keeper
    from nvc.codec.decode import open_device
    from nvc.codec.encode import EncodeOptions
    from nvc.codec.encode import encode as run
    from nvc.codec.precision import set_deterministic
    from nvc.codec.search import TOLERANCE
    from nvc.codec.target import Target
    from nvc.codec.video import ReadOptions, read_clip

    if output == "-":
        raise UsageError("output", "-: an .nvc file is written to a name, not to standard output")
    if outputs.same_file(source, output):
        raise OutputError("same", f"{output}: is the input; choose another name")
    tokens = _tokens(given["model"], given["block"], given["codebook"])
    target = Target(given["bpp"], given["bitrate"], given["size"], given["target_psnr"])
    outputs.check_file(output, given["overwrite"])
    options.set_threads(given["threads"])
    if given["deterministic"]:
        set_deterministic()
    device = open_device(given["device"])
    wanted = ReadOptions(given["frames"], given["crop"], given["scale"], given["pix_fmt"], given["fps"])
    clip = read_clip(source, wanted)
    progress = ProgressLine(given["quiet"], given["verbose"])
    progress.detail(f"{len(clip.pts)} frames of {clip.header.width}x{clip.header.height}, {options.machine(device)}")
    for note in clip.notes:
        progress.note(note)
    design = Design(activation=given["activation"], tokens=tokens)
    chosen = EncodeOptions(
        given["model"],
        given["preset"],
        target,
        given["segment"],
        given["seed"],
        design,
        given["prune"],
        given["tune"],
        workers=given["workers"],
    )
    keeper = Keeper(Path(given["checkpoint"])) if given["checkpoint"] else None
    with outputs.atomic_file(output, given["overwrite"]) as file:
        result = run(clip, file, chosen, device, lambda state: _show(progress, state), keeper)
    if keeper is not None:
        keeper.clear()
    off = result.bytes / result.target_bytes - 1
    if not -0.05 <= off <= 0.02 and any((target.bpp, target.bitrate, target.size)):
        progress.note(f"the file has {result.bytes} bytes, {off:+.1%} of the target")
    _report(clip, chosen.model, result, as_json, given["quiet"])
    if target.psnr is not None and abs(result.psnr - target.psnr) > TOLERANCE:
        raise TargetError(
            "psnr",
            f"{output}: has {result.psnr:.2f} dB, not {target.psnr:g}; it was written, but a slower --preset may get further",
        )


def _tokens(model: str, block: str | None, codebook: tuple[int, int] | None) -> Tokens:
    """The tokens that were asked for; UsageError where the model has none."""
    from nvc.bitstream.errors import UsageError

    given = {"--block": block, "--codebook": codebook}
    for option, value in given.items():
        if value is not None and model != "vqnerv":
            raise UsageError("model", f"{option}: {model} has no tokens; add --model vqnerv")
    levels, dimension = codebook or (Tokens.levels, Tokens.dimension)
    return Tokens(block or Tokens.block, levels, dimension)


def _show(progress: ProgressLine, state: SegmentProgress) -> None:
    done = (state.number + state.count * state.fit.step / state.fit.steps) / state.segments
    fits = state.attempt * state.segments + state.number
    speed = (fits * state.fit.steps + state.count * state.fit.step) / max(progress.elapsed(), 1e-3)
    segment = ""
    if state.count > 1:
        segment = f"segments {state.number + 1}-{state.number + state.count}/{state.segments}  "
    elif state.segments > 1:
        segment = f"segment {state.number + 1}/{state.segments}  "
    if state.fit.note:
        progress.note(segment + state.fit.note)
    codes = ""
    if state.fit.usage is not None and state.fit.perplexity is not None:
        codes = f"codes used {state.fit.usage:.0%}, perplexity {state.fit.perplexity:.1f}  "
    attempt = f"fit {state.attempt + 1}  " if state.attempt else ""
    progress.show(
        f"encode  {attempt}{segment}step {state.fit.step}/{state.fit.steps}  {state.fit.psnr:.2f} dB  {state.bpp:.3f} bpp  "
        f"{codes}{speed:.1f} steps/s  {progress.left((state.attempt + done) / (state.attempt + 1))} left",
        final=done >= 1,
    )


def _report(clip: Clip, model: str, result: EncodeResult, as_json: bool, quiet: bool) -> None:
    header = clip.header
    frames = len(clip.pts)
    bpp = 8 * result.bytes / (header.width * header.height * frames)
    psnr, similarity = result.quality.as_dict(), result.quality.similarity_as_dict()
    if as_json:
        options.echo_json(
            {
                "bytes": result.bytes,
                "bpp": round(bpp, 6),
                "psnr": psnr,
                **similarity,
                "frames": frames,
                "width": header.width,
                "height": header.height,
                "seconds": round(result.seconds, 2),
                "model": model,
                "parameters": result.parameters,
            }
        )
    elif not quiet:
        rate = float(header.frame_rate or 0)
        speed = f", {8 * result.bytes * rate / frames / 1000:.1f} kb/s" if rate else ""
        names = ", ".join(f"{name} {value:.2f} dB" for name, value in psnr.items())
        names += "".join(f", MS-SSIM {name.removeprefix('ms_ssim_')} {value:.4f}" for name, value in similarity.items())
        click.echo(
            f"{result.bytes} bytes, {bpp:.4f} bpp{speed}, PSNR {names}, {frames} frames in {result.seconds:.1f} s"
        )
