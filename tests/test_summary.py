"""The summary of a file: its sections add up to its bytes, and its figures are those counted by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from nvc_files import frame_hash, network_file, program_file, reference_frames, segment_of
from small_programs import ONE, Integers, parse

from nvc.bitstream.analysis import analyse
from nvc.bitstream.coefficients import digest, write_sections
from nvc.bitstream.constants import CODEBOOK, EMBEDDINGS, HASHES, TOKENS, WEIGHTS, Limits
from nvc.bitstream.container import ACCOUNTS, Reader
from nvc.bitstream.errors import BitstreamError
from nvc.bitstream.header import Header
from nvc.bitstream.program import Op, Program, describe
from nvc.bitstream.segment import Segment
from nvc.bitstream.summary import summarise
from nvc.bitstream.tensors import Kind
from nvc.cli.info import info
from nvc.conformance.catalogue.networks import random_network


def summary(data: bytes, limits: Limits | None = None) -> dict[str, Any]:
    return summarise(io.BytesIO(data), limits)


def refused(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(BitstreamError) as caught:
        summary(data, limits)
    return caught.value.code


@pytest.mark.parametrize("seed", range(6))
def test_the_sections_add_up_to_the_file(seed: int) -> None:
    data, _ = network_file(seed)
    found = summary(data)
    assert set(found["sections"]) == set(ACCOUNTS)
    assert sum(found["sections"].values()) == found["bytes"] == len(data)
    assert all(size >= 0 for size in found["sections"].values())


@pytest.mark.parametrize("seed", range(6))
def test_the_figures_are_those_of_the_network(seed: int) -> None:
    network = random_network(seed)
    data, _ = network_file(seed)
    found = summary(data)
    header, frames = network.header, 2 * network.frames
    analysis = analyse(network.program, Limits())
    segment = segment_of(network, 0, bytes(8 * network.frames))
    assert (found["frames"], found["width"], found["height"]) == (frames, header.width, header.height)
    assert (found["segments"], found["model"], found["pix_fmt"], found["fps"]) == (2, network.program.name, "rgb24", 25.0)
    assert found["bpp"] == pytest.approx(8 * len(data) / (header.width * header.height * frames), abs=1e-6)
    kinds = zip(analysis.parameters, network.tensors, strict=True)
    weights = 2 * sum(tensor.size for parameter, tensor in kinds if parameter.kind in (Kind.WEIGHT, Kind.BIAS))
    assert found["parameters"] == weights
    assert found["sections"]["weights"] == 2 * len(segment.sections[1])
    assert found["sections"]["hashes"] == 8 * frames
    assert found["bits_per_weight"] == pytest.approx(8 * 2 * len(segment.sections[1]) / max(weights, 1), abs=1e-4)
    assert found["macs_per_pixel"] == pytest.approx(analysis.macs / (header.width * header.height), abs=0.01)
    assert found["programs"] == [{"name": network.program.name, "operations": describe(network.program)}]


def test_a_summary_is_ready_for_json() -> None:
    found = summary(network_file(1)[0])
    assert json.loads(json.dumps(found)) == found


def test_programs_are_counted_where_they_are_used() -> None:
    """Two programs of the same picture; the segment names the second."""
    network = random_network(2)
    other = replace(network.program, name="other")
    hashes = b"".join(map(frame_hash, reference_frames(network)))
    header = replace(network.header, frame_count=network.frames)
    data = program_file(header, [other, network.program], [segment_of(network, 0, hashes, program=1)])
    found = summary(data)
    assert found["model"] == network.program.name
    assert [program["name"] for program in found["programs"]] == ["other", network.program.name]


def test_a_segment_of_a_program_that_is_not_there_is_refused() -> None:
    network = random_network(2)
    header = replace(network.header, frame_count=network.frames)
    data = program_file(header, [network.program], [segment_of(network, 0, bytes(8 * network.frames), program=1)])
    assert refused(data) == "invalid.program"


def test_a_live_file_is_counted_and_one_without_frames_refused() -> None:
    network = random_network(3)
    header = replace(network.header, frame_count=None, frame_rate=None)
    timed = replace(segment_of(network, 0, bytes(8 * network.frames)), times=(0, *[1] * (network.frames - 1)))
    data = program_file(header, [network.program], [timed], indexed=False)
    found = summary(data)
    assert (found["bytes"], found["frames"], found["fps"]) == (len(data), network.frames, None)
    start = data.index(b"SEGM")
    assert refused(data[:start]) == "truncated.frames"


def test_the_picture_of_the_program_is_that_of_the_header() -> None:
    network = random_network(4)
    header = replace(network.header, frame_count=network.frames, width=network.header.width + 1)
    segment = segment_of(network, 0, bytes(8 * network.frames))
    assert refused(program_file(header, [network.program], [segment])) == "invalid.picture"


def test_limits_hold() -> None:
    data, _ = network_file(0)
    assert refused(data, Limits(max_macs_per_frame=1)) == "limit.compute"
    assert refused(data, Limits(max_operations=1)) == "limit.operations"


def test_hashes_weights_and_embeddings_are_not_looked_at() -> None:
    """A summary is of the shape of a file and of its tokens; whether the other numbers are right is for decoding to say."""
    network = random_network(5)
    segment = segment_of(network, 0, bytes(8 * network.frames))
    header = replace(network.header, frame_count=network.frames)
    broken = replace(segment, sections=segment.sections | {WEIGHTS: b"\xff" * 9, EMBEDDINGS: b"\xff" * 7})
    assert HASHES in broken.sections
    sections = summary(program_file(header, [network.program], [broken]))["sections"]
    assert (sections["weights"], sections["embeddings"]) == (9, 7)


# ---- tokens


def vector_quantised(*tables: tuple[int, int, int, int]) -> Program:
    """A picture of 8x6 that is the last of several token maps; each of `tables` is (tokens, codebook, levels, dimensions)."""
    rows = [[int(Op.TOKENS), tokens, book, 6, 8, levels, width, 0] for tokens, book, levels, width in tables]
    last = len(rows) - 1
    multiplier = 1 + max(max(tokens, book) for tokens, book, _, _ in tables)
    rows += [[int(Op.SLICE), last, 0, 1], [int(Op.REQUANTISE), last + 1, multiplier, 1, 0, 255, 0, 0], [50, *[last + 2] * 3]]
    return parse(*rows)


def token_file(program: Program, segments: list[list[Integers]], frames: int) -> bytes:
    """Frames of 8x6 whose segments have these tensors, one multiplier added to each."""
    analysis, made = analyse(program, Limits()), []
    for number, tensors in enumerate(segments):
        numbers = [*tensors, np.array([ONE])]
        sections = write_sections(analysis, numbers, frames) | {HASHES: bytes(8 * frames)}
        made.append(Segment(number * frames, frames, 0, digest(numbers), sections))
    return program_file(Header(8, 6, 1, frame_count=frames * len(made)), [program], made)


def book(rows: int, levels: int, dimensions: int = 2) -> Integers:
    """A codebook whose first rows alone are not zeros."""
    values = np.zeros((levels, dimensions), dtype=np.int64)
    values[:rows] = np.arange(1, rows * dimensions + 1).reshape(rows, dimensions) % 100 + 1
    return values


def test_tokens_and_codebooks_are_counted() -> None:
    """Segment 0 uses 4 codes evenly, segment 1 two: one for 3/4 of the tokens. Their rows may be more than what occurs."""
    frames = 4
    even = np.arange(frames * 48).reshape(frames, 6, 8) % 4
    skew = np.where(np.arange(frames * 48).reshape(frames, 6, 8) % 4 == 0, 7, 2)
    data = token_file(vector_quantised((0, 1, 32, 2)), [[even, book(4, 32)], [skew, book(9, 32)]], frames)
    found = summary(data)
    assert found["tokens"] == 2 * frames * 48
    assert found["bits_per_token"] == pytest.approx(8 * found["sections"]["tokens"] / (2 * frames * 48), abs=1e-4)
    assert (found["codebook_rows"], found["codebook_levels"]) == (4 + 9, 64)
    assert found["codebook_usage"] == pytest.approx((4 / 32 + 2 / 32) / 2)
    assert found["perplexity"] == pytest.approx((4 + 4 / 3**0.75) / 2, abs=0.01)
    assert json.loads(json.dumps(found)) == found


def test_several_maps_and_codebooks_add_up() -> None:
    """Two maps of 16 and 4 codes, and one more codebook for the first of them."""
    frames = 2
    one, other = np.arange(96).reshape(frames, 6, 8) % 8, np.arange(96).reshape(frames, 6, 8) % 2
    program = vector_quantised((0, 1, 16, 2), (0, 2, 16, 3), (3, 4, 4, 1))
    found = summary(token_file(program, [[one, book(8, 16), book(5, 16, 3), other, book(2, 4, 1)]], frames))
    assert (found["tokens"], found["codebook_rows"], found["codebook_levels"]) == (2 * 96, 8 + 5 + 2, 16 + 4)
    assert (found["codebook_usage"], found["perplexity"]) == ((8 + 2) / 20, (8 + 2) / 2)


def info_of(data: bytes, folder: Path) -> list[str]:
    """The lines that `nvc info` prints."""
    (folder / "a.nvc").write_bytes(data)
    result = CliRunner().invoke(info, [str(folder / "a.nvc")], catch_exceptions=False)
    return result.output.splitlines()


def test_files_without_tokens_count_none(tmp_path: Path) -> None:
    seed = next(n for n in range(99) if all(op.code is not Op.TOKENS for op in random_network(n).program.operations))
    data, _ = network_file(seed)
    found = summary(data)
    names = ("tokens", "bits_per_token", "codebook_rows", "codebook_levels", "codebook_usage", "perplexity")
    assert [found[name] for name in names] == [0] * 6
    assert not any("codes used" in line for line in info_of(data, tmp_path))


def test_info_has_one_line_on_tokens(tmp_path: Path) -> None:
    frames = 4
    even = np.arange(frames * 48).reshape(frames, 6, 8) % 4
    data = token_file(vector_quantised((0, 1, 32, 2)), [[even, book(4, 32)]] * 2, frames)
    bits = summary(data)["bits_per_token"]
    assert f"tokens at {bits:.2f} bits, 8 of 64 codes used, perplexity 4.0" in info_of(data, tmp_path)


@pytest.mark.parametrize("section", [CODEBOOK, TOKENS])
def test_tokens_and_codebooks_that_cannot_be_read_are_refused(section: int) -> None:
    frames = 4
    program = vector_quantised((0, 1, 32, 2))
    even = np.arange(frames * 48).reshape(frames, 6, 8) % 4
    data = token_file(program, [[even, book(4, 32)]], frames)
    header = Header(8, 6, 1, frame_count=frames)
    (segment,) = Reader(io.BytesIO(data)).segments()
    rest = {kind: payload for kind, payload in segment.sections.items() if kind != section}
    assert refused(program_file(header, [program], [replace(segment, sections=rest)])) == "invalid.sections"
    cut = replace(segment, sections=rest | {section: segment.sections[section][:-4] or bytes(4)})
    assert refused(program_file(header, [program], [cut])).startswith("invalid.")
    assert refused(data, Limits(max_parameters=4 * 48 + 64)) == "limit.parameters"
    assert summary(data, Limits(max_parameters=4 * 48 + 64 + 1))["tokens"] == 4 * 48
