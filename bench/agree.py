"""Do the reference and the product agree on files that nobody meant to write?

    python bench/agree.py [--files 100000] [--pixels 2000] [--seed 0]

Each file is a vector of the suite with one or a few changes to its chunks, its program or its numbers; checksums, digests and
the ends of streams are mostly repaired, so that what is behind them is reached. Both sides must answer with the same code, and
give the same numbers for every segment in front of it; the first `--pixels` files that are accepted are decoded too, and every
sample must be the same. A disagreement is written to agree-N.nvc, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import mutators
from invariants import SegmentInput

from nvc.bitstream.analysis import analyse
from nvc.bitstream.coefficients import SECTION_OF, digest
from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import NvcError
from nvc.bitstream.header import SEGMENT_HEADER, Header
from nvc.bitstream.program import unpack_programs
from nvc.bitstream.segment import unpack_segment
from nvc.bitstream.tensors import read_tensors
from nvc.codec.decode import Decoder
from nvc.conformance import manifest, reference
from nvc.conformance.catalogue.file import Chunk, File
from nvc.conformance.ref_errors import Refused
from nvc.conformance.ref_operations import render
from nvc.conformance.suite import OK

Answer = tuple[str, list[list[NDArray[np.int64]]]]

# A few bytes can ask for much work, which both sides are willing to do; these keep a file to some milliseconds.
SMALL = Limits(
    max_side=512, max_pixels=1 << 14, max_frames=64, max_segments=64, max_parameters=1 << 13,
    max_macs_per_pixel=1 << 16, max_macs_per_frame=1 << 22, max_macs_total=1 << 24, max_memory_bytes=1 << 22,
)  # fmt: skip
LIMITS = asdict(SMALL)
LARGEST = 2500  # bytes of a file that is changed: long ones are slow, and mostly numbers


def product(data: bytes) -> Answer:
    """The product's code, and the numbers of each segment before it."""
    found: list[list[NDArray[np.int64]]] = []
    try:
        decoder = Decoder(io.BytesIO(data), limits=SMALL)
        for segment in decoder.reader.segments():
            found.append(decoder.numbers(segment)[1])
    except NvcError as error:
        return error.code, found
    return OK, found


def independent(data: bytes) -> Answer:
    """The same by the reference."""
    found: list[list[NDArray[np.int64]]] = []
    try:
        for _, _, tensors in reference.segments(data, LIMITS):
            found.append(tensors)
    except Refused as error:
        return error.code, found
    return OK, found


def same(one: Answer, other: Answer) -> bool:
    """Whether codes and numbers are equal."""
    if one[0] != other[0] or [len(each) for each in one[1]] != [len(each) for each in other[1]]:
        return False
    pairs = (pair for a, b in zip(one[1], other[1], strict=True) for pair in zip(a, b, strict=True))
    return all(np.array_equal(a, b) for a, b in pairs)


def samples(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """All frames of an accepted file by the product and by the reference, whatever the hashes in the file say."""
    decoder = Decoder(io.BytesIO(data), limits=SMALL)
    made: list[bytes] = []
    for segment in decoder.reader.segments():
        for _, planes, right in decoder.render(segment, decoder.numbers(segment), 0, segment.frames):
            made += [b"".join(plane[i].tobytes() for plane in planes) for i in range(len(right))]
    slow: list[bytes] = []
    for found, program, tensors in reference.segments(data, LIMITS):
        for t in range(found.frames):
            planes_of_one = render(program.rows, tensors, t, found.frames)
            slow.append(b"".join(plane.astype(np.uint8).tobytes() for plane in planes_of_one))
    return made, slow


def changed(data: bytes, random: Random) -> bytes:
    """The file with changes to its chunks, its program or the numbers of a segment."""
    havoc = mutators.havoc(random)
    what = random.random()
    if what < 0.4:
        return mutators.container(data, 1 << 16, random, havoc)
    file = File.parse(data)
    if what < 0.6:
        return file.with_payload(b"MODL", mutators.program(file.payload(b"MODL"), 1 << 16, random, havoc)).to_bytes()
    segments = [number for number, chunk in enumerate(file.chunks) if chunk.type == b"SEGM"]
    place = random.choice(segments)
    given = SegmentInput(file.payload(b"MODL"), file.chunks[place].payload)
    made = SegmentInput.from_bytes(mutators.numbers(given.to_bytes(), 1 << 16, random, havoc))
    payload = with_digest(made, Header.from_bytes(file.payload(b"HEAD"))) if random.random() < 0.8 else made.payload
    file = file.with_payload(b"MODL", made.model).with_chunk(place, Chunk(b"SEGM", payload))
    whole = len(payload) >= SEGMENT_HEADER.size  # the index wants to know its frames
    return (file.indexed() if whole and random.random() < 0.5 else file).to_bytes()


def with_digest(given: SegmentInput, header: Header) -> bytes:
    """The payload of the segment with the right digest, where its numbers can be read."""
    try:
        segment = unpack_segment(given.payload, header, SMALL)
        analysis = analyse(unpack_programs(given.model, SMALL)[segment.program], SMALL)
        specs = analysis.specs(segment.frames)
        if sum(spec.count for spec in specs) > SMALL.max_parameters:
            return given.payload
        tensors: dict[int, NDArray[np.int64]] = {}
        for section in (1, 2, 3, 4):
            members = [number for number, spec in enumerate(specs) if SECTION_OF[spec.kind] == section]
            read = read_tensors([specs[number] for number in members], segment.sections.get(section, b""))
            tensors.update(zip(members, (tensor.astype(np.int64) for tensor in read), strict=True))
    except (NvcError, IndexError):
        return given.payload
    return given.payload[:16] + digest([tensors[number] for number in range(len(specs))]) + given.payload[24:]


def seeds() -> list[bytes]:
    """The files that changes begin with: small vectors that decode within the limits here."""
    files = [vector.data for vector in manifest.load() if vector.expect == OK and len(vector.data) <= LARGEST]
    return [data for data in files if product(data)[0] == OK]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--pixels", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start, random, files = time.monotonic(), Random(given.seed), seeds()
    codes: Counter[str] = Counter()
    numbers = frames = decoded = disagreements = 0
    for number in range(given.files):
        data = changed(random.choice(files), random)
        one, other = product(data), independent(data)
        codes[one[0]] += 1
        numbers += sum(tensor.size for tensors in one[1] for tensor in tensors)
        agreed = same(one, other)
        if agreed and one[0] == OK and decoded < given.pixels:
            made, slow = samples(data)
            agreed, decoded, frames = made == slow, decoded + 1, frames + len(made)
        if not agreed:
            disagreements += 1
            Path(f"agree-{number}.nvc").write_bytes(data)
            print(f"agree-{number}.nvc: the product says {one[0]}, the reference {other[0]}", flush=True)
        if (number + 1) % 10_000 == 0:
            print(f"{number + 1} files, {codes[OK]} accepted, {decoded} decoded, {disagreements} disagreements", flush=True)
    for code, count in codes.most_common():
        print(f"{count:8}  {code}")
    print(
        f"{given.files} files from {len(files)} seeds, {len(codes)} codes; compared: {numbers} numbers, {frames} frames of"
        f" {decoded} files; {disagreements} disagreements, in {time.monotonic() - start:.0f} s"
    )
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
