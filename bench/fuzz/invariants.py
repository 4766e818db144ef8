"""The targets: what must hold of any bytes at all, for the container, for programs and for the numbers of a segment.

Each target is a pure function of its input; it returns the code of the refusal, a `BitstreamError`, or "ok". All else
that escapes is a bug: other exceptions, and `AssertionError` where an accepted input breaks one of the properties below.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import BinaryIO, NamedTuple, cast
from zlib import crc32

import numpy as np

from nvc.bitstream.analysis import Analysis, analyse, check_picture
from nvc.bitstream.coefficients import Tensors, digest, read_sections, write_sections
from nvc.bitstream.constants import FRAMES, PIXEL_FORMATS, Limits
from nvc.bitstream.container import ACCOUNTS, Reader
from nvc.bitstream.errors import BitstreamError, CorruptError, InvalidError
from nvc.bitstream.header import Header
from nvc.bitstream.program import describe, pack_programs, unpack_programs
from nvc.bitstream.rangecoder import PythonRangeDecoder, RangeDecoder, SymbolReader
from nvc.bitstream.salvage import Gap, Good
from nvc.bitstream.segment import Segment, unpack_segment
from nvc.bitstream.tensors import Kind, TensorSpec, read_tensors, write_tensors

OK = "ok"

# Decoding takes as long as there are numbers, and a few bytes can stand for millions: limits keep an execution short. The
# definition of the range coder is slower by far, so that it is compared on fewer numbers and every fourth input.
MOST_NUMBERS = 1 << 9
TWIN_NUMBERS = 1 << 6
NUMBER_LIMITS = Limits(max_parameters=MOST_NUMBERS, max_segment_frames=64, max_memory_bytes=1 << 28)

RANKS = {
    Kind.WEIGHT: 4,
    Kind.BIAS: 1,
    Kind.MULTIPLIER: 1,
    Kind.GAIN: 1,
    Kind.PHASE: 1,
    Kind.CONSTANT: 3,
    Kind.EMBEDDING: 4,
    Kind.CODEBOOK: 2,
    Kind.TOKENS: 3,
}
KINDS = tuple(RANKS)


class Pipe:
    """A stream that cannot seek and gives at most `most` bytes a call."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def seekable(self) -> bool:
        return False

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._most))


def pipe(data: bytes, most: int) -> BinaryIO:
    """`data` as a pipe."""
    return cast(BinaryIO, Pipe(data, most))


def verdict(run: Callable[[], object]) -> str:
    """The code of the refusal that `run` meets, or "ok"."""
    try:
        run()
    except BitstreamError as error:
        return error.code
    return OK


# ---- the container


def container(data: bytes) -> str:
    """A file, as a whole and in one other way that depends on its bytes: its accounts, a range of frames, what can be salvaged.

    Most files that are refused are read once only, which is half the time.
    """
    found: list[Segment] = []
    code = verdict(lambda: found.extend(Reader(io.BytesIO(data)).segments()))
    pick = crc32(data)
    if code == OK:
        _contiguous(Reader(io.BytesIO(data)).header, found)
    elif pick >> 20 & 3:
        return code
    file = pipe(data, 1 + (pick >> 2 & 63)) if pick & 1 else io.BytesIO(data)
    way = (pick >> 8) % 3
    if way == 0:
        other = verdict(lambda: _accounts(Reader(file), data))
        assert other == code, f"segments are {code}, accounts {other}"
    elif way == 1:
        first = pick >> 10 & 15
        last = first + (pick >> 14 & 7) if pick >> 17 & 7 else None
        _range(file, code, found, first, last)
    else:
        _salvage(file, data, code, found)
    return code


def _accounts(reader: Reader, data: bytes) -> None:
    accounts = reader.accounting()
    assert tuple(accounts) == ACCOUNTS and min(accounts.values()) >= 0
    assert sum(accounts.values()) == len(data), f"{accounts} do not add up to {len(data)} bytes"


def _range(file: BinaryIO, code: str, whole: Sequence[Segment], first: int, last: int | None) -> None:
    """A range is what the whole file has of it; a file that is refused as a whole may still hold an intact range."""
    found: list[Segment] = []
    part = verdict(lambda: found.extend(Reader(file).segments(first, last)))
    assert code != OK or part == OK, f"{part} in frames {first}..{last} of a file that is accepted"
    end = FRAMES if last is None else last
    assert all(each.first_frame < end and each.first_frame + each.frames > first for each in found), "a segment out of range"
    if code == OK:
        wanted = [each for each in whole if each.first_frame < end and each.first_frame + each.frames > first]
        assert found == wanted, f"frames {first}..{last} are not those of the whole file"


def _salvage(file: BinaryIO, data: bytes, code: str, whole: Sequence[Segment]) -> None:
    """Good segments and gaps fill each other's places, and are those of the plain file whatever `file` is."""
    items: list[Good[Segment] | Gap] = []
    start = verdict(lambda: items.extend(Reader(file).salvage(_first_program)))
    assert start in (OK, code), f"a file that is {code} is {start} when it is salvaged"
    again: list[Good[Segment] | Gap] = []
    assert verdict(lambda: again.extend(Reader(io.BytesIO(data)).salvage(_first_program))) == start
    assert list(map(_account, again)) == list(map(_account, items)), "a pipe and a file are salvaged differently"
    end = 0
    for item in items:
        first, frames = (item.segment.first_frame, item.segment.frames) if isinstance(item, Good) else (item.first, item.frames)
        assert first == end and frames >= 0, f"{frames} frames at {first}, behind frame {end}"
        end += frames
    if start == OK:
        count = Reader(io.BytesIO(data)).header.frame_count
        assert count in (None, end), f"{end} of {count} frames are accounted for"
    if code == OK and not any(each.program for each in whole):
        assert [_account(item) for item in items] == [each.first_frame for each in whole], "a whole file has gaps"


def _first_program(segment: Segment) -> Segment:
    """Stands for the decoder, which refuses a segment for a rule of its own."""
    if segment.program:
        raise InvalidError("program", "there is one program")
    return segment


def _account(item: Good[Segment] | Gap) -> int | tuple[int, int, str]:
    return item.segment.first_frame if isinstance(item, Good) else (item.first, item.frames, item.error.code)


def _contiguous(header: Header, segments: Sequence[Segment]) -> None:
    frames = 0
    for segment in segments:
        assert segment.first_frame == frames, "segments overlap or leave a gap"
        assert (segment.times is None) == (header.frame_rate is not None)
        assert segment.times is None or len(segment.times) == segment.frames
        frames += segment.frames
    assert frames > 0 and header.frame_count in (None, frames), f"{frames} frames of {header.frame_count}"


# ---- programs


def program(data: bytes) -> str:
    """A MODL payload, and the picture that its first program makes, or nearly makes."""
    return verdict(lambda: _program(data))


def _program(data: bytes) -> None:
    limits = Limits()
    programs = unpack_programs(data, limits)
    assert pack_programs(programs) == data, "an accepted document is not what is written for its programs"
    pick = crc32(data)
    for each in programs:
        assert len(describe(each)) == len(each.operations)
        analysis = analyse(each, limits)
        assert len(analysis.maps) == len(each.operations) and len(analysis.parameters) == each.parameters
        assert analysis.peak_memory <= limits.max_memory_bytes and analysis.work >= analysis.macs >= 0
        frames = (1, 2, 3, 65535)[pick & 3]
        verdict(lambda analysis=analysis, frames=frames: analysis.specs(frames))
        check_picture(analysis, _header(analysis, pick >> 2), limits)


def _header(analysis: Analysis, pick: int) -> Header:
    """A header whose size is that of the first plane, and whose other fields depend on `pick`."""
    plane = analysis.outputs[0]
    pixel_format = (*PIXEL_FORMATS.values(),)[pick & 1]
    frame_count = (None, 1, 1 << 20, FRAMES)[pick >> 1 & 3]
    return Header(min(max(plane.width, 1), 65535), min(max(plane.height, 1), 65535), pixel_format, frame_count=frame_count)


# ---- numbers: of a segment and its program, or of shapes alone

SEGMENT_FORM, SHAPES_FORM = b"S", b"T"
SHAPE = struct.Struct("<BHHHHH")  # kind, levels - 2, then four dimensions - 1, of which a kind takes as many as its rank


class SegmentInput(NamedTuple):
    """A program and a segment of it."""

    model: bytes
    payload: bytes  # of a SEGM chunk

    def to_bytes(self) -> bytes:
        return SEGMENT_FORM + struct.pack("<H", len(self.model)) + self.model + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> SegmentInput:
        """Any bytes behind SEGMENT_FORM are some input."""
        size = int.from_bytes(data[1:3], "little")
        return cls(data[3 : 3 + size], data[3 + size :])


class ShapesInput(NamedTuple):
    """Tensors, each a row of SHAPE, and the section that holds them."""

    rows: list[tuple[int, ...]]
    payload: bytes

    def to_bytes(self) -> bytes:
        return SHAPES_FORM + bytes([len(self.rows)]) + b"".join(SHAPE.pack(*row) for row in self.rows) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> ShapesInput:
        """Any bytes behind SHAPES_FORM are some input."""
        count = min(int.from_bytes(data[1:2], "little"), (len(data) - 2) // SHAPE.size) if len(data) > 2 else 0
        end = 2 + count * SHAPE.size
        return cls(list(SHAPE.iter_unpack(data[2:end])), data[end:])

    def specs(self) -> list[TensorSpec]:
        """InvalidError for a shape that has too many values."""
        return [self._spec(*row) for row in self.rows]

    @staticmethod
    def _spec(number: int, levels: int, *dimensions: int) -> TensorSpec:
        kind = KINDS[number % len(KINDS)]
        shape = tuple(1 + dimension for dimension in dimensions[: RANKS[kind]])
        return TensorSpec(kind, shape, 2 + levels % 4095 if kind is Kind.TOKENS else 0)


class AnyDigest(bytes):
    """Equals every digest, so that the proof behind the check of the digest is reached with any numbers."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def numbers(data: bytes) -> str:
    """A segment and its program, or shapes and a section."""
    if data[:1] == SEGMENT_FORM:
        return verdict(lambda: _segment_numbers(data))
    if data[:1] == SHAPES_FORM:
        return verdict(lambda: _shapes(data))
    return "neither form"


def _segment_numbers(data: bytes) -> None:
    model, payload = SegmentInput.from_bytes(data)
    analysis = analyse(unpack_programs(model, NUMBER_LIMITS)[0], NUMBER_LIMITS)
    segment = unpack_segment(payload, HEADER, NUMBER_LIMITS)
    tensors = read_sections(analysis, replace(segment, digest=AnyDigest()), NUMBER_LIMITS)
    specs = analysis.specs(segment.frames)
    _check_tensors(specs, tensors)
    if crc32(data) & 31 == 0:
        _check_digest(analysis, segment, tensors)


HEADER = Header(16, 16, 0)


def _check_digest(analysis: Analysis, segment: Segment, tensors: Tensors) -> None:
    """What was read is written, read back and told from other numbers by its digest."""
    right = digest(tensors)
    sections = {**segment.sections, **write_sections(analysis, tensors, segment.frames)}
    again = read_sections(analysis, replace(segment, sections=sections, digest=right), NUMBER_LIMITS)
    assert all(map(np.array_equal, again, tensors)), "numbers change when they are written and read"
    wrong = bytes([right[0] ^ 1]) + right[1:]
    try:
        read_sections(analysis, replace(segment, digest=wrong), NUMBER_LIMITS)
    except CorruptError:
        return
    raise AssertionError("numbers with another digest are accepted")


def _shapes(data: bytes) -> None:
    given = ShapesInput.from_bytes(data)
    specs = given.specs()
    count = sum(spec.count for spec in specs)
    if count > MOST_NUMBERS:
        return
    tensors = _read(specs, given.payload, RangeDecoder)
    pick = crc32(data)
    if count <= TWIN_NUMBERS and pick & 3 == 0:
        twins = _read(specs, given.payload, PythonRangeDecoder)
        refused = isinstance(tensors, str) or isinstance(twins, str)
        same = tensors == twins if refused else all(map(np.array_equal, tensors, twins))
        assert same, f"the fast decoder gives {tensors}, its definition {twins}"
    if isinstance(tensors, str):
        return
    _check_tensors(specs, tensors)
    if pick & 7 == 1:
        again = read_tensors(specs, write_tensors(list(zip(specs, tensors, strict=True))))
        assert all(map(np.array_equal, again, tensors)), "tensors change when they are written and read"


def _read(specs: Sequence[TensorSpec], payload: bytes, decoder: Callable[[bytes], SymbolReader]) -> list[np.ndarray] | str:
    """The tensors, or the code of the refusal."""
    try:
        return read_tensors(specs, payload, decoder)
    except BitstreamError as error:
        return error.code


def _check_tensors(specs: Sequence[TensorSpec], tensors: Sequence[np.ndarray]) -> None:
    for spec, tensor in zip(specs, tensors, strict=True):
        least, most = spec.range
        assert tensor.shape == spec.shape and least <= int(tensor.min()) and int(tensor.max()) <= most, f"{spec}: {tensor}"


TARGETS: dict[str, Callable[[bytes], str]] = {"container": container, "program": program, "numbers": numbers}
