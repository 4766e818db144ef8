"""`nvc info`: what is in an .nvc file, without decoding any picture."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .progress import printable


@click.command()
@click.argument("source", metavar="IN.nvc")
@options.as_json
def info(source: str, as_json: bool) -> None:
    """Show what IN.nvc holds: sizes by section, the picture, the network and its program."""
    from nvc.bitstream.summary import summarise

    with options.open_input(source) as file:
        summary = summarise(file)
    if as_json:
        options.echo_json(summary)
    else:
        click.echo("\n".join(map(printable, _lines(summary))))


def _lines(summary: dict[str, Any]) -> list[str]:
    total = summary["bytes"]
    fps = f"{summary['fps']:.3f} fps" if summary["fps"] else "variable frame rate"
    lines = [
        f"{summary['width']}x{summary['height']} {summary['pix_fmt']}, {summary['frames']} frames, {fps}",
        f"{total} bytes, {summary['bpp']:.4f} bpp, {summary['segments']} segments",
        f"{summary['model']}: {summary['parameters']} parameters at {summary['bits_per_weight']:.2f} bits, "
        f"embeddings at {summary['bits_per_embedding']:.2f} bits a value, "
        f"{summary['macs_per_pixel']:.0f} multiply-adds per pixel",
    ]
    if summary["tokens"]:
        levels = summary["codebook_levels"]
        lines.append(
            f"tokens at {summary['bits_per_token']:.2f} bits, {summary['codebook_usage'] * levels:.0f} of {levels} codes used, "
            f"perplexity {summary['perplexity']:.1f}"
        )
    lines += [f"  {name:<11}{size:>10}  {size / total:6.1%}" for name, size in summary["sections"].items()]
    lines += [f"  {key}: {value}" for key, value in summary["metadata"].items()]
    for program in summary["programs"]:
        lines += [f"program {program['name']}", *(f"  {line}" for line in program["operations"])]
    return lines
