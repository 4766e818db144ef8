"""`nvc verify`: is this file whole, and does it decode to the frames it promises?"""

from __future__ import annotations

from typing import Any

import click

from . import options
from .progress import printable


@click.command()
@click.argument("source", metavar="IN.nvc")
@click.option("--batch", type=click.IntRange(1, 4096), help="Frames computed together.")
@options.computing
@options.as_json
def verify(source: str, as_json: bool, **given: Any) -> None:
    """Check every checksum of IN.nvc, decode it, and compare every frame with its hash."""
    from nvc.codec.decode import open_device
    from nvc.codec.decode import verify as run

    options.set_threads(given["threads"])
    with options.open_input(source) as file:
        frames = run(file, open_device(given["device"]), given["batch"])
    if as_json:
        options.echo_json({"frames": frames, "verified": True})
    else:
        click.echo(printable(f"{source}: {frames} frames verified"))
