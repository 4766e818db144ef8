"""Writes the conformance vectors: `python -m nvc.conformance.generate` makes the same files, manifest and COVERAGE.md each time.

Every vector but the natural ones is made from seeds by the catalogues, `catalogue/`. What it must decode to is what the
reference decoder says, which shares no code with the writer; a vector that the reference answers otherwise than its catalogue
says is an error here. The natural ones are recorded encodes, kept as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from . import coverage, reference
from .catalogue.natural import natural
from .catalogue.numbers import numbers_of_segments
from .catalogue.programs import programs
from .catalogue.salvage import salvage
from .catalogue.structure import structure
from .catalogue.valid import valid
from .ref_errors import Refused
from .suite import OK, Salvage, Vector, save

FRAME_COUNT = 32 + 16 + 36  # where HEAD states it (SPEC 3)
CATALOGUES: tuple[Callable[[], Iterator[Vector]], ...] = (valid, natural, structure, programs, numbers_of_segments, salvage)


def vectors() -> Iterator[Vector]:
    """All vectors with their answers, in the order of the catalogues; ValueError where two have one name."""
    names: set[str] = set()
    for catalogue in CATALOGUES:
        for vector in catalogue():
            if vector.name in names:
                raise ValueError(f"{vector.name}: there are two vectors of this name")
            names.add(vector.name)
            yield answered(vector)


def answered(vector: Vector) -> Vector:
    """The vector with the frames that the reference decodes; ValueError where it answers with another code."""
    answer, frames = OK, []
    try:
        for frame in reference.decode(vector.data, vector.limits):
            frames.append(reference.frame_digest(frame.planes).hex())
    except Refused as refused:
        answer = refused.code
    if answer != vector.expect:
        raise ValueError(f"{vector.name}: the reference answers {answer}, its catalogue says {vector.expect}")
    if vector.group == "salvage":
        return replace(vector, salvage=_salvaged(vector))
    return replace(vector, frames=tuple(frames)) if answer == OK else vector


def _salvaged(vector: Vector) -> Salvage | None:
    """What is left of a damaged file; None where it is refused as a plain reader refuses it."""
    frames: list[tuple[int, str]] = []
    lost: list[tuple[int, int, str]] = []
    try:
        for found in reference.salvage(vector.data, vector.limits):
            if isinstance(found, reference.Frame):
                frames.append((found.number, reference.frame_digest(found.planes).hex()))
            else:
                lost.append((found.first, found.frames, found.code))
    except Refused as refused:
        if refused.code == vector.expect:
            return None
        total = int.from_bytes(vector.data[FRAME_COUNT : FRAME_COUNT + 8], "little")
        lost = [(0, total, refused.code)]
    return Salvage(tuple(frames), tuple(lost))


def main() -> int:
    """Write everything; 1 where a rule of SPEC.md has no vector."""
    made = list(vectors())
    save(made)
    spec = coverage.SPEC.read_text(encoding="utf-8")
    coverage.COVERAGE.write_text(coverage.text(spec, made), encoding="utf-8")
    gaps = coverage.gaps(spec, made)
    size = sum(len(vector.data) for vector in made)
    print(f"{len(made)} vectors, {size} bytes", *(f"no vector, or no rule: {gap}" for gap in gaps), sep="\n")
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())
