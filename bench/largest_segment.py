"""What a dozen bytes can cost: a segment with as many numbers as the limit allows, all of one value, read, hashed and proven.

    python bench/largest_segment.py [--numbers 16777216]

Says CPU seconds and the peak of memory. SPEC 9's default for max_parameters rests on it.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import time

import numpy as np

from nvc.bitstream.analysis import analyse
from nvc.bitstream.coders import put_signed
from nvc.bitstream.coefficients import read_sections
from nvc.bitstream.constants import HASHES, WEIGHTS, Limits
from nvc.bitstream.program import Op, Operation, Program
from nvc.bitstream.rangecoder import RangeEncoder
from nvc.bitstream.segment import Segment

OUTPUTS, KERNEL = 4096, 3
SHIFT_BITS, UNIT = 4, 30 << 10


def constant(writer: RangeEncoder, value: int) -> None:
    """A sequence of any length, all of one value (SPEC 7.2)."""
    writer.put_bits(0, 2)
    put_signed(writer, value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--numbers", type=int, default=Limits().max_parameters)
    given = parser.parse_args()
    inputs = (given.numbers - OUTPUTS - 1) // (OUTPUTS * KERNEL**2 + 1)
    rows = (
        (Op.CONSTANT, 0, inputs, 1, 1),
        (Op.CONVOLUTION, 0, 1, 2, OUTPUTS, KERNEL, KERNEL, 1),
        (Op.REQUANTISE, 1, 3, 1, 0, 255, 0, 0),
        (Op.OUTPUT, 2, 2, 2),
    )
    program = Program("largest", tuple(Operation(code, tuple(arguments)) for code, *arguments in rows))
    analysis = analyse(program, Limits(max_parameters=given.numbers))
    writer = RangeEncoder()
    for value in (5, 0):  # the map, then the weights
        constant(writer, value)
    writer.put_bits(0, SHIFT_BITS)
    constant(writer, 1)
    writer.put_raw(np.array([UNIT]), 16)
    section = writer.finish()
    sha = hashlib.sha256()
    for count, value in ((inputs, 5), (OUTPUTS * inputs * KERNEL**2, 0), (OUTPUTS, 1), (1, UNIT)):
        sha.update(value.to_bytes(8, "little") * count)
    segment = Segment(0, 1, 0, sha.digest()[:8], {WEIGHTS: section, HASHES: bytes(8)})
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    tensors = read_sections(analysis, segment, Limits(max_parameters=given.numbers))
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(tensor.size for tensor in tensors)
    print(f"{count} numbers from {len(section)} bytes: {seconds:.2f} CPU s, peak {peak >> 10} MiB ({before >> 10} before)")


if __name__ == "__main__":
    main()
