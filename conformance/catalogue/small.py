"""Small files of one program and its numbers, written without a check, so that each rule of SPEC 5 to 9 can be broken alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nvc.bitstream import canonical
from nvc.bitstream.header import Header
from nvc.bitstream.tensors import Kind, TensorSpec, write_tensors

from ..ref_operations import render
from .file import Chunk, File, SegmentParts

Integers = NDArray[np.int64]
Row = list[int]

SECTION = {Kind.CODEBOOK: 2, Kind.EMBEDDING: 3, Kind.TOKENS: 4}  # SPEC 8.3; all others travel in 1
UNIT = 30 << 10  # the multiplier code of 1


@dataclass(frozen=True)
class Numbers:
    """A parameter of the segment: its kind, values in their shape, and for tokens the levels."""

    kind: Kind
    values: Integers
    levels: int = 0


@dataclass(frozen=True)
class Small:
    """A file of one segment. `sections` stand in place of those that the numbers give; `document` for the one of `rows`."""

    rows: Sequence[Row]
    numbers: Sequence[Numbers]
    frames: int = 2
    width: int = 4
    height: int = 2
    pixel_format: int = 1
    sections: Mapping[int, bytes] = field(default_factory=dict)
    without: tuple[int, ...] = ()
    document: bytes | None = None
    program: int = 0
    digest: bytes | None = None
    hashes: bytes | None = None

    def file(self) -> File:
        """The parts of the file, with index and footer; frames that the rows do not make have hashes of zeros."""
        header = Header(self.width, self.height, self.pixel_format, frame_rate=Fraction(25), frame_count=self.frames).to_bytes()
        model = canonical.pack([["p", list(self.rows)]]) if self.document is None else self.document
        sections = {1: b""}
        for number in (1, 2, 3, 4):
            members = [each for each in self.numbers if SECTION.get(each.kind, 1) == number]
            if number in self.sections:
                sections[number] = self.sections[number]
            elif members:
                specs = [(TensorSpec(each.kind, each.values.shape, each.levels), each.values) for each in members]
                sections[number] = write_tensors(specs)
        sections[5] = self._hashes() if self.hashes is None else self.hashes
        listed = tuple((kind, data) for kind, data in sorted(sections.items()) if kind not in self.without)
        all_numbers = b"".join(each.values.astype("<i8").tobytes() for each in self.numbers)
        digest = hashlib.sha256(all_numbers).digest()[:8] if self.digest is None else self.digest
        segment = SegmentParts(0, self.frames, listed, self.program, digest=digest)
        stream_id = hashlib.sha256(header + model).digest()[:8]
        chunks = (Chunk(b"HEAD", header), Chunk(b"MODL", model), Chunk(b"SEGM", segment.to_bytes()))
        return File(stream_id, chunks).indexed()

    def to_bytes(self) -> bytes:
        return self.file().to_bytes()

    def change(self, number: int, *row: int) -> Small:
        """With another operation in that place."""
        return replace(self, rows=[*self.rows[:number], list(row), *self.rows[number + 1 :]])

    def _hashes(self) -> bytes:
        try:
            tensors = [each.values for each in self.numbers]
            frames = [render(self.rows, tensors, t, self.frames) for t in range(self.frames)]
            samples = [b"".join(plane.astype(np.uint8).tobytes() for plane in planes) for planes in frames]
        except Exception:  # what the reference cannot compute, no decoder can be expected to
            return bytes(8 * self.frames)
        return b"".join(hashlib.sha256(each).digest()[:8] for each in samples)


def numbers(kind: Kind, shape: tuple[int, ...], seed: int, low: int, high: int, levels: int = 0) -> Numbers:
    """Random values low..high of that shape."""
    generator = np.random.default_rng(seed)
    return Numbers(kind, generator.integers(low, high + 1, size=shape, dtype=np.int64), levels)


def these(kind: Kind, *values: int) -> Numbers:
    """A tensor (n,) of these values."""
    return Numbers(kind, np.array(values, np.int64))
