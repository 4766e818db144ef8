"""The natural vectors: a few small encodes, kept as files, since a fit is not the same on every machine; decoding one is.

Clips: bunny.mp4 is Big Buck Bunny, (c) Blender Foundation, CC BY 3.0; coffee.mp4 a sample clip of facebookresearch/sam2,
Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..suite import FOLDER, Vector

# name, the arguments that made it (`nvc encode $NVC_CLIPS/... OUT --preset draft` before them), rules
ENCODES = (
    (
        "hnerv-two-segments",
        "bunny.mp4 --frames 0:12 --segment 6 --scale 96x54 --bpp 0.6",
        ("A1", "operation.embedding", "operation.convolution", "operation.shuffle", "function.hard_swish"),
    ),
    (
        "vqnerv-added",
        "coffee.mp4 --frames 0:12 --scale 96x54 --bpp 0.6 --model vqnerv --block added",
        ("A1", "operation.tokens", "section.codebook", "section.tokens"),
    ),
    (
        "vqnerv-paper-gelu",
        "coffee.mp4 --frames 40:46 --scale 64x36 --bpp 1.5 --model vqnerv --block paper --activation gelu",
        ("A1", "operation.tokens", "operation.haar", "table.gelu"),
    ),
    (
        "hnerv-rgb-sine",
        "bunny.mp4 --frames 30:36 --crop 1280x640 --scale 64x32 --pix-fmt rgb24 --bpp 1.5 --activation sine",
        ("A1", "HEAD.pixel_format", "function.sine"),
    ),
    (
        "hnerv-odd-size-pruned",
        "bunny.mp4 --frames 20:28 --scale 85x37 --bpp 0.9 --prune 0.2",
        ("A1", "operation.crop"),
    ),
)


def natural() -> Iterator[Vector]:
    """The recorded encodes, as they lie in the folder of vectors."""
    for name, arguments, clauses in ENCODES:
        data = (FOLDER / "natural" / f"{name}.nvc").read_bytes()
        yield Vector(f"natural/{name}", data, f"nvc encode --preset draft $NVC_CLIPS/{arguments}", clauses)
