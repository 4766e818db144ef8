"""Mutations that take an input apart, change a part of it, and often put right what a checksum would otherwise catch first.

A mutator takes a valid or broken input and gives another. Half of the time it repairs checksums, references or the end of a
range-coded stream, so that the checks behind them are reached; the other half tests these themselves. All chance comes
from `random` and from `mutate`, which changes plain bytes: by libFuzzer's ways, or by `havoc`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import msgpack
from invariants import MOST_NUMBERS, NUMBER_LIMITS, SEGMENT_FORM, SHAPES_FORM, SegmentInput, ShapesInput

from nvc.bitstream.analysis import analyse
from nvc.bitstream.coefficients import SECTION_OF
from nvc.bitstream.errors import NvcError
from nvc.bitstream.program import SYNTAX, Field, Op, unpack_programs
from nvc.bitstream.rangecoder import Integers, RangeDecoder, RangeEncoder, SymbolReader, Symbols
from nvc.bitstream.tensors import TensorSpec, read_tensors

Mutate = Callable[[bytes, int], bytes]
"""Bytes and the most that may come out -> changed bytes."""
Mutator = Callable[[bytes, int, Random, Mutate], bytes]

# where counts and lengths wrap around or pass a limit
NUMBERS = (0, 1, 2, 3, 7, 8, 20, 63, 64, 127, 128, 255, 256, 4095, 4096, 4097, 65535, 65536, (1 << 24) - 1, 1 << 24, 1 << 26)
WIDE = (
    *((1 << 28) - 1, 1 << 28, 1 << 30, (1 << 30) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32),
    *((1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
)
TYPES = (b"HEAD", b"MODL", b"mETa", b"SEGM", b"INDX", b"FOOT", b"abcd", b"XXXX", b"SEG\0")
PROLOGUE_SIZE, CHUNK_SIZE, SEGMENT_SIZE, ENTRY_SIZE, INDEX_SIZE = 32, 16, 24, 5, 20


def dictionary() -> list[bytes]:
    """The words of dictionary.txt."""
    lines = (Path(__file__).parent / "dictionary.txt").read_text().splitlines()
    quoted = [line[line.index('"') + 1 : -1] for line in lines if line and not line.startswith("#")]
    return [re.sub(r"\\x(..)", lambda found: chr(int(found[1], 16)), word).encode("latin-1") for word in quoted]


WORDS = dictionary()


def havoc(random: Random) -> Mutate:
    """Plain changes of bytes: bits, interesting numbers, words of the dictionary, insertions, deletions and repetitions."""

    def mutate(data: bytes, most: int) -> bytes:
        changed = bytearray(data)
        place = random.randrange(len(changed) + 1)
        match random.randrange(8):
            case 0 if changed:
                changed[place % len(changed)] ^= 1 << random.randrange(8)
            case 1 if changed:
                changed[place % len(changed)] = random.choice((0, 1, 127, 128, 255))
            case 2:
                number = random.choice(NUMBERS + WIDE)
                width = random.choice((2, 4, 8))
                changed[place : place + width] = (number & (1 << 8 * width) - 1).to_bytes(width, "little")
            case 3:
                del changed[place : place + random.randrange(1, 9)]
            case 4:
                changed[place:place] = random.randbytes(random.randrange(1, 9))
            case 5 | 6:
                word = random.choice(WORDS)
                place = random.choice((0, 1, place))
                changed[place : place + random.choice((0, len(word), len(changed)))] = word
            case _:
                changed[place:place] = changed[place : place + random.randrange(1, 33)]
        return bytes(changed[:most])

    return mutate


def _number(random: Random, value: int, bits: int) -> int:
    """A number near `value`, at an edge, or any, of `bits` bits."""
    match random.randrange(4):
        case 0:
            made = value + random.choice((-1, 1))
        case 1:
            made = random.choice(NUMBERS)
        case 2:
            made = random.choice(WIDE)
        case _:
            made = random.getrandbits(random.randrange(1, bits + 1))
    return made & (1 << bits) - 1


def _set_field(payload: bytes, fields: tuple[tuple[int, int], ...], random: Random) -> bytes:
    """`payload` with one of its (offset, size) fields changed."""
    offset, size = random.choice(fields)
    changed = bytearray(payload)
    if offset + size <= len(changed):
        value = int.from_bytes(changed[offset : offset + size], "little")
        changed[offset : offset + size] = _number(random, value, 8 * size).to_bytes(size, "little")
    return bytes(changed)


# ---- the container

PROLOGUE_FIELDS = ((8, 1), (9, 1), (10, 2), (12, 4), (16, 4), (20, 8))
FIELDS = {
    b"HEAD": (
        *((0, 2), (2, 2), (4, 1), (5, 1), (6, 1), (9, 1), (10, 1), (11, 1)),
        *((12, 4), (16, 4), (20, 4), (24, 4), (28, 4), (32, 4), (36, 8), (44, 8)),
    ),
    b"SEGM": ((0, 8), (8, 4), (12, 1), (13, 1), (14, 1), (15, 1), (24, 1), (25, 4), (29, 1), (30, 4), (34, 1), (35, 4)),
    b"INDX": ((0, 8), (8, 8), (16, 4), (20, 8), (28, 8)),
    b"FOOT": ((0, 8), (8, 8), (16, 4)),
}


def container(data: bytes, most: int, random: Random, mutate: Mutate) -> bytes:
    """A file with one or a few changes to its chunks."""
    if random.random() < 0.05 or len(data) < PROLOGUE_SIZE + CHUNK_SIZE:
        return mutate(data, most)
    prologue, chunks, rest = _take_apart(data)
    if not chunks:
        return mutate(data, most)
    for _ in range(1 if random.random() < 0.7 else 1 + random.randrange(4)):
        prologue = _change_chunks(prologue, chunks, random, mutate)
    if not chunks:
        return prologue
    how = random.random()
    if how < 0.5:
        if how < 0.3:
            _agree(chunks)
        made = b"".join(_seal(prologue, chunks)) + rest
    else:
        made = prologue + b"".join(header + payload for header, payload in chunks) + rest
    if random.random() < 0.03:
        made = made[: random.randrange(len(made) + 1)]
    return made[:most]


Chunk = tuple[bytes, bytes]
"""Header (16 bytes) and payload."""


def _take_apart(data: bytes) -> tuple[bytes, list[Chunk], bytes]:
    """Prologue, whole chunks, and what is left behind them."""
    chunks, position = [], PROLOGUE_SIZE
    while len(data) - position >= CHUNK_SIZE and len(chunks) < 32:
        end = position + CHUNK_SIZE + int.from_bytes(data[position + 4 : position + 8], "little")
        if end > len(data):
            break
        chunks.append((data[position : position + CHUNK_SIZE], data[position + CHUNK_SIZE : end]))
        position = end
    return data[:PROLOGUE_SIZE], chunks, data[position:]


def _change_chunks(prologue: bytes, chunks: list[Chunk], random: Random, mutate: Mutate) -> bytes:
    """Changes a chunk, their order or the prologue, which is returned; checksums are left as they are."""
    if not chunks:
        return prologue
    place = random.randrange(len(chunks))
    header, payload = chunks[place]
    match random.randrange(24):
        case 0 if random.random() < 0.5:
            return _set_field(prologue, PROLOGUE_FIELDS, random)
        case 1:
            chunks[place] = (random.choice(TYPES) + header[4:], payload)
        case 2:
            del chunks[place]
        case 3:
            chunks.insert(random.randrange(len(chunks) + 1), chunks[place])
        case 4:
            other = random.randrange(len(chunks))
            chunks[place], chunks[other] = chunks[other], chunks[place]
        case 5:
            new = mutate(b"", 32)
            chunks.insert(place, (random.choice(TYPES) + bytes(12), new))
        case 6:
            length = _number(random, len(payload), 32)
            chunks[place] = (header[:4] + length.to_bytes(4, "little") + header[8:], payload)
        case 7 | 8 | 9 | 10 | 11:
            fields = FIELDS.get(header[:4])
            changed = _set_field(payload, fields, random) if fields else mutate(payload, len(payload) + 16)
            chunks[place] = (header, changed)
        case 12 if header[:4] == b"SEGM":
            chunks[place] = (header, _resize_section(payload, random))
        case 13 if header[:4] == b"mETa":
            chunks[place] = (header, b"\0" + random.choice(WORDS))
        case _:
            chunks[place] = (header, mutate(payload, len(payload) + 16))
    return prologue


def _resize_section(payload: bytes, random: Random) -> bytes:
    """A segment with one section longer, shorter, gone or new, and a table that says so."""
    sections = _sections(payload)
    if not sections:
        return payload
    place = random.randrange(len(sections))
    kind, body = sections[place]
    match random.randrange(4):
        case 0:
            del sections[place]
        case 1:
            sections.insert(place, (random.randrange(8), random.randbytes(random.randrange(5))))
            if random.random() < 0.5:
                sections.sort()
        case _:
            sections[place] = (kind, (body + bytes(8))[: random.randrange(len(body) + 9)])
    return _with_sections(payload, sections)


def _sections(payload: bytes) -> list[tuple[int, bytes]]:
    """Kind and bytes of the sections of a segment; as many as are there."""
    if len(payload) < SEGMENT_SIZE:
        return []
    table_end = SEGMENT_SIZE + ENTRY_SIZE * payload[14]
    sections, position = [], table_end
    for kind, length in struct.iter_unpack("<BI", payload[SEGMENT_SIZE:table_end]) if table_end <= len(payload) else ():
        sections.append((kind, payload[position : position + length]))
        position += length
    return sections


def _with_sections(payload: bytes, sections: list[tuple[int, bytes]]) -> bytes:
    """The segment with these sections instead of its own."""
    table = b"".join(struct.pack("<BI", kind & 255, len(body)) for kind, body in sections)
    start = payload[:14] + bytes([len(sections) & 255]) + payload[15:SEGMENT_SIZE]
    return start + table + b"".join(body for _, body in sections)


def _agree(chunks: list[Chunk]) -> None:
    """Makes segments contiguous, and index and footer agree with them."""
    entries, frames, index_offset, position = [], 0, 0, PROLOGUE_SIZE
    for place, (header, payload) in enumerate(chunks):
        if header[:4] == b"SEGM" and len(payload) >= SEGMENT_SIZE:
            payload = frames.to_bytes(8, "little") + payload[8:]
            count = int.from_bytes(payload[8:12], "little")
            entries.append(struct.pack("<QQI", position, frames, count))
            frames += count
        elif header[:4] == b"INDX":
            payload, index_offset = b"".join(entries), position
        elif header[:4] == b"FOOT":
            payload = struct.pack("<QQI", index_offset, frames, len(entries))
        chunks[place] = (header, payload)
        position += CHUNK_SIZE + len(payload)


def _seal(prologue: bytes, chunks: list[Chunk]) -> list[bytes]:
    """Prologue and chunks with right lengths and checksums."""
    salt = prologue[20:28]
    parts = [prologue[:28], crc32(prologue[:28]).to_bytes(4, "little")]
    for header, payload in chunks:
        front = header[:4] + struct.pack("<II", len(payload), crc32(payload))
        parts += [front, crc32(salt + front).to_bytes(4, "little"), payload]
    return parts


# ---- programs


def program(data: bytes, most: int, random: Random, mutate: Mutate) -> bytes:
    """A MODL payload with one or a few changes to its rows; half of the time references and parameters are put in order."""
    if random.random() < 0.15:
        return mutate(data, most)
    document = _parse(data)
    if document is None:
        return mutate(data, most)
    for _ in range(1 + random.randrange(3)):
        _change_rows(document, random)
    if random.random() < 0.5:
        _renumber(document)
    try:
        made: bytes = msgpack.packb(document)
    except (ValueError, OverflowError):  # nested too deep, or an integer that does not fit
        return mutate(data, most)
    if random.random() < 0.05:
        made = _widen(made, random)
    return made if len(made) <= most else mutate(data, most)


def _widen(data: bytes, random: Random) -> bytes:
    """A document with one byte that is a small integer, or looks like one, in a longer encoding, which is not canonical."""
    places = [place for place, byte in enumerate(data) if byte < 128]
    if not places:
        return data
    place = random.choice(places)
    return data[:place] + random.choice((b"\xcc", b"\xd0", b"\xcd\0", b"\xd2\0\0\0")) + data[place:]


def _parse(data: bytes) -> list[Any] | None:
    """The document, where it is a list of programs as far as that is needed to change it."""
    try:
        document = msgpack.unpackb(data, raw=False)
    except (ValueError, msgpack.UnpackException):
        return None
    if not (isinstance(document, list) and document and all(isinstance(each, list) and len(each) == 2 for each in document)):
        return None
    if not all(isinstance(rows, list) and rows and all(isinstance(row, list) and row for row in rows) for _, rows in document):
        return None
    return document


def _change_rows(document: list[Any], random: Random) -> None:
    """One integer, one row or one program changed."""
    each = random.choice(document)
    rows = each[1]
    place = random.randrange(len(rows))
    row = rows[place]
    match random.randrange(12):
        case 0:
            row.insert(random.randrange(len(row) + 1), _integer(random, 0))
        case 1 if len(row) > 1:
            del row[random.randrange(len(row))]
        case 2 if len(rows) > 1:
            del rows[place]
        case 3:
            rows.insert(place, list(random.choice(rows)))
        case 4 | 5:
            rows.insert(place, _row(random, place))
        case 6:
            other = random.randrange(len(rows))
            rows[place], rows[other] = rows[other], rows[place]
        case 7 if random.random() < 0.1:
            document.append(["again", [list(row) for row in rows]])
        case 8 if random.random() < 0.1:
            each[0] = "x" * random.choice((0, 1, 32, 33))
        case _:
            column = random.randrange(len(row))
            fields = SYNTAX.get(row[0], ()) if type(row[0]) is int else ()
            if column and column <= len(fields) and random.random() < 0.7:
                row[column] = _argument(random, fields[column - 1], place)
            else:
                row[column] = _integer(random, row[column])


def _integer(random: Random, value: object) -> int:
    made = _number(random, value if type(value) is int else 0, 64)
    return -made if made < 1 << 63 and random.random() < 0.15 else made


def _argument(random: Random, field: Field, place: int) -> int:
    """A value for the field of operation number `place`: just outside of what is legal, at its ends, or low within."""
    if field.kind != "number":
        return max(0, random.choice((place - 1, place, random.randrange(place + 1), 0)))
    number: int = random.choice((field.low, field.high, field.low - 1, field.high + 1))
    return number if random.random() < 0.4 else random.randint(field.low, min(field.high, field.low + 16))


def _row(random: Random, place: int) -> list[int]:
    code = random.choice((*Op,))
    return [int(code), *(_argument(random, field, place) for field in SYNTAX[code])]


def _renumber(document: list[Any]) -> None:
    """Makes values that are read earlier ones, parameters numbered in the order of first use, and the output the last row."""
    for _, rows in document:
        seen: dict[object, int] = {}
        for place, row in enumerate(rows):
            fields = SYNTAX.get(row[0]) if type(row[0]) is int else None
            for column, field in enumerate(fields or (), 1):
                if column >= len(row) or type(row[column]) is not int:
                    continue
                if field.kind == "parameter":
                    row[column] = seen.setdefault(row[column], len(seen))
                elif field.kind == "value" and place:
                    row[column] %= place


# ---- numbers


class Listener(SymbolReader):
    """Decodes on, whatever the end of the stream is, and knows the stream that an encoder writes for the symbols it saw."""

    def __init__(self, payload: bytes) -> None:
        self._decoder, self._encoder = RangeDecoder(payload), RangeEncoder()

    def get(self, count: int, freqs: Integers) -> Symbols:
        symbols = self._decoder.get(count, freqs)
        self._encoder.put(symbols, freqs)
        return symbols

    def finish(self) -> None:
        """Accepts any end."""

    def stream(self) -> bytes:
        """The stream of what was decoded."""
        return self._encoder.finish()


def numbers(data: bytes, most: int, random: Random, mutate: Mutate) -> bytes:
    """A segment or a section with changed shapes or words; half of the time the streams end as they must."""
    form = data[:1]
    if form == SHAPES_FORM and random.random() < 0.97:
        made = _change_shapes(ShapesInput.from_bytes(data), random, mutate).to_bytes()
    elif form == SEGMENT_FORM and random.random() < 0.97:
        made = _change_segment(SegmentInput.from_bytes(data), random, mutate).to_bytes()
    else:
        made = mutate(data, most)
    return made[:most]


def _change_shapes(given: ShapesInput, random: Random, mutate: Mutate) -> ShapesInput:
    rows, payload = list(given.rows), given.payload
    match random.randrange(8):
        case 0 if rows:
            place = random.randrange(len(rows))
            row = list(rows[place])
            column = random.randrange(len(row))
            row[column] = _number(random, row[column], 8 if column == 0 or random.random() < 0.9 else 16)
            rows[place] = tuple(row)
        case 1 if rows:
            del rows[random.randrange(len(rows))]
        case 2 if len(rows) < 8:
            row = (random.randrange(9), random.randrange(64), *(random.randrange(5) for _ in range(4)))
            rows.insert(random.randrange(len(rows) + 1), row)
        case _:
            payload = _change_words(payload, random, mutate)
    changed = ShapesInput(rows, payload)
    if random.random() < 0.5:
        try:
            return ShapesInput(rows, _ended(changed.specs(), payload))
        except NvcError:
            return changed
    return changed


def _ended(specs: Sequence[TensorSpec], stream: bytes) -> bytes:
    """The stream that ends where its last symbol does; as it is where it cannot be decoded."""
    if sum(spec.count for spec in specs) > MOST_NUMBERS:
        return stream
    try:
        listener = Listener(stream)
        read_tensors(specs, stream, lambda _: listener)
    except NvcError:
        return stream
    return listener.stream()


def _change_words(payload: bytes, random: Random, mutate: Mutate) -> bytes:
    """A range-coded stream with one word changed, gone or new; now and then any change."""
    if not payload or random.random() < 0.2:
        return mutate(payload, len(payload) + 16)
    place = 4 * random.randrange(-(-len(payload) // 4))
    word = payload[place : place + 4]
    match random.randrange(6):
        case 0:
            word = b""
        case 1:
            word += random.randbytes(4)
        case 2:
            word = random.choice((bytes(4), b"\xff" * 4, b"\0\0\0\x80"))
        case 3:
            word = random.randbytes(4)
        case 4:
            return payload[:place]
        case _:
            word = (int.from_bytes(word, "little") ^ 1 << random.randrange(32)).to_bytes(4, "little")
    return payload[:place] + word + payload[place + 4 :]


def _change_segment(given: SegmentInput, random: Random, mutate: Mutate) -> SegmentInput:
    model, payload = given
    sections = _sections(payload)
    match random.randrange(10):
        case 0 | 1:
            return SegmentInput(program(model, 1 << 16, random, mutate)[: (1 << 16) - 1], payload)
        case 2:
            return SegmentInput(model, mutate(payload, len(payload) + 16))
        case 3:
            return SegmentInput(model, _resize_section(payload, random))
        case 4:
            frames = 1 + random.randrange(9)
            sections = [(kind, bytes(8 * frames) if kind == 5 else body) for kind, body in sections]
            payload = payload[:8] + frames.to_bytes(4, "little") + payload[12:]
        case _ if sections:
            place = random.randrange(len(sections))
            kind, body = sections[place]
            sections[place] = (kind, _change_words(body, random, mutate))
            if random.random() < 0.5:
                sections[place] = (kind, _ended_section(model, payload, kind, sections[place][1]))
    return SegmentInput(model, _with_sections(payload, sections))


def _ended_section(model: bytes, segment: bytes, kind: int, stream: bytes) -> bytes:
    """The same for a section of a segment, whose shapes its program knows."""
    try:
        analysis = analyse(unpack_programs(model, NUMBER_LIMITS)[0], NUMBER_LIMITS)
        members = [each for each in analysis.parameters if SECTION_OF[each.kind] == kind]
        frames = int.from_bytes(segment[8:12], "little")
        return _ended([each.spec(frames) for each in members] if 1 <= frames <= NUMBER_LIMITS.max_segment_frames else [], stream)
    except NvcError:
        return stream


MUTATORS: dict[str, Mutator] = {"container": container, "program": program, "numbers": numbers}
