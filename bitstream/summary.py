"""What a file holds, as one JSON-ready object: the answer of `nvc info`."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from . import constants
from .analysis import analyse, check_picture
from .constants import Limits
from .container import Reader
from .errors import InvalidError
from .program import describe, unpack_programs
from .tensors import Kind

NAMES = {number: name for name, number in constants.PIXEL_FORMATS.items()}


def summarise(file: BinaryIO, limits: Limits | None = None) -> dict[str, Any]:
    """Read a seekable file without decoding any number; BitstreamError when it is refused.

    `sections` adds up to `bytes`; `parameters` counts weights and biases of all segments, `bits_per_weight` is the weights
    section over that, `bits_per_embedding` the embeddings section over the values in it; `macs_per_pixel` are multiply-adds per
    luma sample of the program of segment 0.
    """
    limits = limits or Limits()
    reader = Reader(file, limits)
    header = reader.header
    programs = unpack_programs(reader.model, limits)
    analyses = [analyse(program, limits) for program in programs]
    for analysis in analyses:
        check_picture(analysis, header, limits)
    used = [(segment.program, segment.frames) for segment in reader.segments()]
    if any(program >= len(programs) for program, _ in used):
        raise InvalidError(
            "program", f"a segment asks for a program that the file, with {len(programs)}, does not have"
        )
    sections = reader.accounting()
    total, frames = sum(sections.values()), sum(count for _, count in used)
    weights = [sum(int(np.prod(p.shape)) for p in a.parameters if p.kind in (Kind.WEIGHT, Kind.BIAS)) for a in analyses]
    parameters = sum(weights[program] for program, _ in used)
    specs = [spec for program, count in used for spec in analyses[program].specs(count)]
    values = sum(spec.count for spec in specs if spec.kind is Kind.EMBEDDING)
    first = analyses[used[0][0]]
    return {
        "bytes": total,
        "bpp": round(8 * total / (header.width * header.height * frames), 6),
        "frames": frames,
        "width": header.width,
        "height": header.height,
        "pix_fmt": NAMES[header.pixel_format],
        "fps": float(header.frame_rate) if header.frame_rate else None,
        "model": programs[used[0][0]].name,
        "parameters": parameters,
        "bits_per_weight": round(8 * sections["weights"] / max(1, parameters), 4),
        "bits_per_embedding": round(8 * sections["embeddings"] / max(1, values), 4),
        "macs_per_pixel": round(first.macs / (header.width * header.height), 2),
        "segments": len(used),
        "sections": sections,
        "metadata": reader.metadata,
        "programs": [{"name": program.name, "operations": describe(program)} for program in programs],
    }
