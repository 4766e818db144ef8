"""The numbers of a segment: which section each parameter tensor travels in, and the digest over all of them (SPEC 4.2, 7)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import constants
from .analysis import Analysis
from .bounds import prove
from .constants import DEFAULT_LIMITS, Limits
from .errors import CorruptError, InvalidError, LimitError
from .segment import Segment
from .tensors import Kind, read_tensors, write_tensors

Tensors = list[NDArray[np.int64]]

SECTION_OF = {
    Kind.WEIGHT: constants.WEIGHTS,
    Kind.BIAS: constants.WEIGHTS,
    Kind.MULTIPLIER: constants.WEIGHTS,
    Kind.GAIN: constants.WEIGHTS,
    Kind.PHASE: constants.WEIGHTS,
    Kind.CONSTANT: constants.WEIGHTS,
    Kind.CODEBOOK: constants.CODEBOOK,
    Kind.EMBEDDING: constants.EMBEDDINGS,
    Kind.TOKENS: constants.TOKENS,
}


def digest(tensors: Sequence[NDArray[np.int64]]) -> bytes:
    """First 8 bytes of SHA-256 over all integers, in parameter order, as little-endian signed 64-bit numbers."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(np.ascontiguousarray(tensor, dtype="<i8").data)
    return sha.digest()[: constants.DIGEST_BYTES]


def _members(analysis: Analysis, section: int) -> list[int]:
    return [number for number, parameter in enumerate(analysis.parameters) if SECTION_OF[parameter.kind] == section]


def write_sections(analysis: Analysis, tensors: Sequence[NDArray[np.int64]], frames: int) -> dict[int, bytes]:
    """Sections of a segment of `frames` frames; the weights section exists even when it is empty."""
    specs = analysis.specs(frames)
    sections = {constants.WEIGHTS: b""}
    for section in sorted(set(SECTION_OF.values())):
        members = _members(analysis, section)
        if members:
            sections[section] = write_tensors([(specs[n], tensors[n].reshape(specs[n].shape)) for n in members])
    return sections


def read_sections(analysis: Analysis, segment: Segment, limits: Limits = DEFAULT_LIMITS) -> Tensors:
    """The parameter tensors of a segment, in order, int64, checked against its digest and proven to stay within 2^24."""
    specs = analysis.specs(segment.frames)
    numbers = sum(spec.count for spec in specs)
    if numbers > limits.max_parameters:
        raise LimitError("parameters", f"a segment has {numbers} numbers, over the limit of {limits.max_parameters}")
    tensors: dict[int, NDArray[np.int64]] = {}
    for section in sorted(set(SECTION_OF.values())):
        members = _members(analysis, section)
        payload = segment.sections.get(section)
        if (payload is None) != (not members) and section != constants.WEIGHTS:
            word = "lacks" if payload is None else "brings"
            raise InvalidError(
                "sections", f"a segment {word} {constants.SECTIONS[section]}, which its program decides otherwise"
            )
        if members:
            read = read_tensors([specs[n] for n in members], payload or b"")
            tensors.update((n, tensor.astype(np.int64)) for n, tensor in zip(members, read, strict=True))
        elif payload:
            raise InvalidError("sections", "a segment brings weights for a program that has none")
    ordered = [tensors[number] for number in range(len(specs))]
    if digest(ordered) != segment.digest:
        raise CorruptError(
            "digest", f"the numbers of the segment at frame {segment.first_frame} do not have the digest it states"
        )
    prove(analysis, ordered)
    return ordered
