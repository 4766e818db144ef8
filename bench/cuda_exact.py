"""Random networks over every operation, run on a device and compared, sample for sample, with the NumPy reference.

    python bench/cuda_exact.py [--device cuda] [--networks 200]
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from nvc.bitstream.analysis import analyse
from nvc.bitstream.constants import Limits
from nvc.codec.decode import open_device
from nvc.codec.interpreter import Interpreter
from nvc.conformance import ref_operations
from nvc.conformance.catalogue import networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", type=int, default=200)
    options = parser.parse_args()
    device = open_device(options.device)
    frames = different = 0
    for seed in range(options.networks):
        network = networks.random_network(seed)
        rows = [[int(op.code), *op.arguments] for op in network.program.operations]
        run = Interpreter(analyse(network.program, Limits()), network.tensors, network.frames, 4, device)
        for t in range(network.frames):
            expected = ref_operations.render(rows, network.tensors, t, network.frames)
            same = all(np.array_equal(a, b[0]) for a, b in zip(expected, run.render(t, 1), strict=True))
            frames, different = frames + 1, different + (not same)
    print(f"{options.networks} networks, {frames} frames on {device}: {different} differ")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
