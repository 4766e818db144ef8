"""What a file holds, as one JSON-ready object: the answer of `nvc info`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from . import constants
from .analysis import Analysis, analyse, check_picture
from .coefficients import SECTION_OF
from .constants import Limits
from .container import Reader
from .errors import InvalidError, LimitError
from .program import describe, unpack_programs
from .rangecoder import Integers
from .segment import Segment
from .tensors import Kind, TensorSpec, read_tensors

NAMES = {number: name for name, number in constants.PIXEL_FORMATS.items()}


def summarise(file: BinaryIO, limits: Limits | None = None) -> dict[str, Any]:
    """Read a seekable file and decode no numbers but tokens and codebooks; BitstreamError when it is refused.

    `sections` adds up to `bytes`; `parameters` counts weights and biases of all segments, `bits_per_weight` is the weights
    section over that, `bits_per_embedding` the embeddings section over the values in it; `macs_per_pixel` are multiply-adds per
    luma sample of the program of segment 0.

    Of token maps, 0 where there are none: `tokens` is their number, and `bits_per_token` the tokens section over it. A program
    may have several maps and codebooks, and every segment brings its own: `codebook_rows` adds up the rows that are sent,
    `codebook_levels` the codes that each map could use. `codebook_usage` is the part of these that occurs; where all maps have
    the same levels, that is the mean over maps and segments. `perplexity` is 2^entropy of a map's tokens in a segment, the mean
    over maps and segments weighted by their tokens.
    """
    limits = limits or Limits()
    reader = Reader(file, limits)
    header = reader.header
    programs = unpack_programs(reader.model, limits)
    analyses = [analyse(program, limits) for program in programs]
    for analysis in analyses:
        check_picture(analysis, header, limits)
    used: list[tuple[int, int]] = []
    maps: list[_TokenMap] = []
    rows = 0
    for segment in reader.segments():
        if segment.program >= len(programs):
            raise InvalidError("program", f"a segment asks for a program that the file, with {len(programs)}, does not have")
        used.append((segment.program, segment.frames))
        read = list(_read(analyses[segment.program], segment, limits))
        maps += [_measure(spec, values) for spec, values in read if spec.kind is Kind.TOKENS]
        rows += sum(_rows(values) for spec, values in read if spec.kind is Kind.CODEBOOK)
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
        **_figures(maps, rows, sections["tokens"]),
        "macs_per_pixel": round(first.macs / (header.width * header.height), 2),
        "segments": len(used),
        "sections": sections,
        "metadata": reader.metadata,
        "programs": [{"name": program.name, "operations": describe(program)} for program in programs],
    }


@dataclass(frozen=True)
class _TokenMap:
    """The tokens of one parameter in one segment: how many, how many codes there are and occur, 2^entropy."""

    tokens: int
    levels: int
    codes: int
    perplexity: float


def _measure(spec: TensorSpec, tokens: Integers) -> _TokenMap:
    counts = np.unique(tokens, return_counts=True)[1]
    shares = counts / tokens.size
    return _TokenMap(tokens.size, spec.levels, len(counts), float(2 ** -(shares @ np.log2(shares))))


def _figures(maps: Sequence[_TokenMap], rows: int, size: int) -> dict[str, int | float]:
    """What `summarise` says of the token maps of all segments, whose sections have `size` bytes."""
    tokens, levels = sum(each.tokens for each in maps), sum(each.levels for each in maps)
    return {
        "tokens": tokens,
        "bits_per_token": round(8 * size / max(1, tokens), 4),
        "codebook_rows": rows,
        "codebook_levels": levels,
        "codebook_usage": round(sum(each.codes for each in maps) / max(1, levels), 6),
        "perplexity": round(sum(each.perplexity * each.tokens for each in maps) / max(1, tokens), 2),
    }


def _rows(codebook: Integers) -> int:
    """The rows that are sent: up to the last that is not all zeros (SPEC 7.7)."""
    return int(np.flatnonzero(codebook.any(axis=1)).max(initial=-1)) + 1


def _read(analysis: Analysis, segment: Segment, limits: Limits) -> Iterator[tuple[TensorSpec, Integers]]:
    """The tokens and codebooks of a segment. Their digest covers all numbers, so that it is for decoding to check."""
    specs = analysis.specs(segment.frames)
    numbers = sum(spec.count for spec in specs)
    for kind in (Kind.CODEBOOK, Kind.TOKENS):
        members = [spec for spec in specs if spec.kind is kind]
        if not members:
            continue
        if numbers > limits.max_parameters:
            raise LimitError("parameters", f"a segment has {numbers} numbers, over the limit of {limits.max_parameters}")
        payload = segment.sections.get(SECTION_OF[kind])
        if payload is None:
            raise InvalidError("sections", f"a segment lacks the {kind.value} section that its program needs")
        yield from zip(members, read_tensors(members, payload), strict=True)
