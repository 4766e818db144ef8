"""The Haar transform: analysis turns nothing but the axes, synthesis undoes it in integers and is its program to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import rows_of, values_of

from nvc.bitstream.program import Builder, Op
from nvc.codec import haar


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_sums_of_bands_are_four_times_the_input_exactly(channels: int, rows: int, columns: int, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).integers(-2048, 2048, (2, channels, 2 * rows, 2 * columns))).float()
    bands = 2 * haar.analyse(x)
    assert torch.equal(bands, bands.round())
    assert torch.equal(haar.sums(bands), 4 * x)


def test_analysis_is_orthonormal() -> None:
    size = 2 * 4 * 6
    basis = torch.eye(size, dtype=torch.float64).view(size, 2, 4, 6)
    matrix = haar.analyse(basis).reshape(size, size)
    assert torch.equal(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))


def test_bands_are_means_then_differences_along_rows_along_columns_and_both() -> None:
    """Along a row means from left to right."""
    ramps = {1: [[0.0, 1.0], [0.0, 1.0]], 2: [[0.0, 0.0], [1.0, 1.0]], 3: [[1.0, 0.0], [0.0, 1.0]]}
    for number, picture in ramps.items():
        bands = haar.analyse(torch.tensor(picture)[None, None]).flatten().tolist()
        assert bands[0] == 1 and abs(bands[number]) == 1
        assert [band for i, band in enumerate(bands) if i not in (0, number)] == [0, 0]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_synthesis_inverts_analysis_up_to_the_rounding_of_its_levels(levels: int) -> None:
    size = 3 << levels
    x = torch.from_numpy(np.random.default_rng(levels).integers(-200, 201, (1, 2, size, size))).float()
    bands = x
    for _ in range(levels):
        bands = haar.analyse(bands)
    # half a unit in each of four bands, halved: one unit a level, and half a unit for the rounding of the level itself
    assert (haar.Synthesis(levels)(bands.round()) - x).abs().max() <= 1.5 * (2**levels - 1)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("spread", [300, 2047])
def test_synthesis_is_its_emitted_program_run_by_the_reference(levels: int, spread: int) -> None:
    channels = 2 * 4**levels
    codes = np.random.default_rng(levels).integers(-spread - 1, spread + 1, (2, channels, 3, 2))
    synthesis = haar.Synthesis(levels)
    builder = Builder("haar")
    synthesis.emit(builder, builder.add(Op.EMBEDDING, builder.parameter(codes), channels, 3, 2, 0, 1))
    made = synthesis(torch.from_numpy(codes).float()).numpy()
    assert np.array_equal(np.abs(made) >= 2047, np.abs(made) > 2046) and (spread < 2047 or (np.abs(made) >= 2047).any())
    for t in range(2):
        assert np.array_equal(values_of(rows_of(builder.program()), builder.tensors, t, 2)[-1], made[t])
