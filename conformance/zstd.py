"""One zstd frame, decoded by RFC 8878 alone and slowly; the section numbers here are those of the RFC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .xxh64 import xxh64
from .zstd_entropy import Bits, Cell, Huffman, ZstdError, field, fse_table, huffman_code, huffman_symbols, require, spread

MAGIC = b"\x28\xb5\x2f\xfd"  # 3.1.1
MAX_WINDOW = 8 << 20  # 3.1.1.1.2: what every decoder should support
MAX_BLOCK = 128 << 10  # 3.1.1.2.4

RAW, RLE, COMPRESSED, TREELESS = range(4)  # types of literals (3.1.1.3.1.1) and, but for the last, of blocks (3.1.1.2.2)
PREDEFINED, SINGLE, DESCRIBED, REPEAT = range(4)  # modes of sequence tables (3.1.1.3.2.1)


@dataclass(frozen=True)
class Header:
    """A frame header (3.1.1.1): sizes in bytes, `content_size` None if not stated, `dictionary` 0 if none is asked for."""

    content_size: int | None
    window_size: int
    dictionary: int
    checksum: bool
    size: int  # of the magic number and the header together


def frame_header(data: bytes) -> Header:
    """The header that `data` begins with; ZstdError if there is none, or not all of it."""
    require(data[:4] == MAGIC, "not a zstd frame")
    require(len(data) > 4, "the frame header ends early")
    descriptor = data[4]  # 3.1.1.1.1
    require(not descriptor & 8, "a reserved bit of the frame header is set")
    single_segment = bool(descriptor & 32)
    window_bytes = 0 if single_segment else 1
    dictionary_bytes = (0, 1, 2, 4)[descriptor & 3]
    content_bytes = (int(single_segment), 2, 4, 8)[descriptor >> 6]
    size = 5 + window_bytes + dictionary_bytes + content_bytes
    require(len(data) >= size, "the frame header ends early")
    content_size = None
    if content_bytes:  # 3.1.1.1.4
        content_size = int.from_bytes(data[size - content_bytes : size], "little") + (256 if content_bytes == 2 else 0)
    if single_segment:
        window_size = content_size or 0
    else:  # 3.1.1.1.2
        base = 1 << 10 + (data[5] >> 3)
        window_size = base + base // 8 * (data[5] & 7)
    dictionary = int.from_bytes(data[5 + window_bytes :][:dictionary_bytes], "little")  # 3.1.1.1.3
    return Header(content_size, window_size, dictionary, bool(descriptor & 4), size)


def decompress(data: bytes, highest: int) -> bytes:
    """The content of `data`, which must be exactly one frame with 0..`highest` bytes of content; else ZstdError.

    The frame must state the size of its content and use no dictionary and a window of at most MAX_WINDOW bytes. That is
    checked first, and at no time are there more bytes than the frame stated.
    """
    header = frame_header(data)
    content_size = header.content_size
    if content_size is None:
        raise ZstdError("the frame does not state its content size")
    require(header.dictionary == 0, "the frame needs a dictionary")
    require(header.window_size <= MAX_WINDOW, "the window is over 8 MiB")
    require(content_size <= highest, f"the content has {content_size} bytes, over {highest}")
    frame = _Frame(content_size, header.window_size)
    position = header.size
    last = False
    while not last:  # 3.1.1.2: each turn uses up at least the three bytes of a block header
        require(len(data) >= position + 3, "a block header is cut")
        block = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        position += 3
        stored = 1 if kind == RLE else size
        require(len(data) >= position + stored, "a block is cut")
        frame.block(kind, size, data[position : position + stored])
        position += stored
    require(len(frame.content) == content_size, "the content is shorter than stated")
    content = bytes(frame.content)
    if header.checksum:  # 3.1.1
        checksum = data[position : position + 4]
        position += 4
        require(checksum == (xxh64(content) & 0xFFFFFFFF).to_bytes(4, "little"), "the content has another checksum")
    require(len(data) == position, "there are bytes behind the frame")
    return content


class _Frame:
    """What blocks hand on to the blocks behind them (3.1.1.3), and the content so far."""

    def __init__(self, content_size: int, window_size: int) -> None:
        self.content = bytearray()
        self.content_size = content_size
        self.window_size = window_size
        self.max_block = min(window_size, MAX_BLOCK)
        self.huffman: Huffman | None = None
        self.tables: list[list[Cell]] | None = None  # of literals lengths, offsets, match lengths
        self.repeats = [1, 4, 8]  # 3.1.1.5

    def block(self, kind: int, size: int, data: bytes) -> None:
        """Append the content of one block of the type `kind` (3.1.1.2.2)."""
        require(kind <= COMPRESSED, "a block has the reserved type")
        if kind == COMPRESSED:
            require(len(data) <= self.max_block, "a block is over the maximum size")
            literals, used = self.literals(data)
            self.sequences(data[used:], literals)
        else:
            self.check_room(size, len(self.content))
            self.content += data * size if kind == RLE else data

    def check_room(self, size: int, start: int) -> None:
        """Refuse `size` more bytes of the block that began at `start` of the content, if they are too many."""
        require(len(self.content) + size <= self.content_size, "the content is longer than stated")
        require(len(self.content) + size - start <= self.max_block, "a block is over the maximum size")

    # ---- literals (3.1.1.3.1)

    def literals(self, data: bytes) -> tuple[bytes, int]:
        """The literals of a block, and how many of its bytes they took."""
        require(len(data) > 0, "a block without literals")
        kind, size_format = data[0] & 3, data[0] >> 2 & 3
        if kind in (RAW, RLE):
            header_bytes, shift = ((1, 3), (2, 4), (1, 3), (3, 4))[size_format]
            size = int.from_bytes(data[:header_bytes], "little") >> shift
            used = header_bytes + (size if kind == RAW else 1)
            require(len(data) >= used, "the literals are cut")
            self.check_room(size, len(self.content))
            stored = data[header_bytes:used]
            return (stored if kind == RAW else stored * size), used
        header_bytes, field_bits = ((3, 10), (3, 10), (4, 14), (5, 18))[size_format]
        size, stored_size = field(data, 4, field_bits), field(data, 4 + field_bits, field_bits)
        used = header_bytes + stored_size
        require(len(data) >= used, "the literals are cut")
        self.check_room(size, len(self.content))
        stored = data[header_bytes:used]
        if kind == COMPRESSED:
            self.huffman, tree_bytes = huffman_code(stored)
            stored = stored[tree_bytes:]
        if self.huffman is None:
            raise ZstdError("literals of an earlier code, where there was none")
        if size_format == 0:
            return huffman_symbols(self.huffman, stored, size), used
        require(size >= 6, "too few literals for four streams")
        return self.four_streams(self.huffman, stored, size), used

    @staticmethod
    def four_streams(huffman: Huffman, data: bytes, size: int) -> bytes:
        """The literals of the four streams that a jump table divides (3.1.1.3.1.6)."""
        require(len(data) >= 6, "the jump table is cut")
        literals, start = b"", 6
        for stream in range(4):
            end = start + field(data, 16 * stream, 16) if stream < 3 else len(data)
            require(end <= len(data), "a stream of literals is cut")
            count = min((size + 3) // 4, size - len(literals))
            literals += huffman_symbols(huffman, data[start:end], count)
            start = end
        return literals

    # ---- sequences (3.1.1.3.2)

    def sequences(self, data: bytes, literals: bytes) -> None:
        """Append the content of a compressed block, whose section of sequences is `data`."""
        require(len(data) > 0, "a block without a section of sequences")
        header_bytes = 1 if data[0] < 128 else 2 if data[0] < 255 else 3
        require(len(data) >= header_bytes, "the number of sequences is cut")
        if header_bytes == 1:
            count = data[0]
        elif header_bytes == 2:
            count = (data[0] - 128 << 8) + data[1]
        else:
            count = field(data, 8, 16) + 0x7F00
        start, taken = len(self.content), 0
        if count == 0:
            require(len(data) == header_bytes, "there are bytes behind no sequences")
        else:
            self.tables, used = self.read_tables(data[header_bytes:])
            bits = Bits(data[header_bytes + used :])
            for sequence in _decode(self.tables, bits, count):
                taken = self.execute(*sequence, literals, taken, start)
            require(bits.left == 0, "the sequences do not use up their bits")
        self.check_room(len(literals) - taken, start)
        self.content += literals[taken:]

    def read_tables(self, data: bytes) -> tuple[list[list[Cell]], int]:
        """The three tables that a section of sequences begins with, and how many bytes they took (3.1.1.3.2.1)."""
        require(len(data) > 0, "the modes of the sequences are cut")
        require(not data[0] & 3, "a reserved bit of the sequences is set")
        tables, used = [], 1
        for kind, (alphabet, accuracy) in enumerate(((36, 9), (32, 8), (53, 9))):
            mode = data[0] >> 6 - 2 * kind & 3
            if mode == PREDEFINED:
                tables.append(DEFAULT_TABLES[kind])
            elif mode == SINGLE:
                require(len(data) > used and data[used] < alphabet, "the code of all sequences is cut or unknown")
                tables.append([Cell(data[used], 0, 0)])
                used += 1
            elif mode == DESCRIBED:
                table, table_bytes = fse_table(data[used:], alphabet, accuracy)
                tables.append(table)
                used += table_bytes
            else:
                if self.tables is None:
                    raise ZstdError("sequences of an earlier table, where there was none")
                tables.append(self.tables[kind])
        return tables, used

    def execute(self, value: int, match: int, length: int, literals: bytes, taken: int, start: int) -> int:
        """Append `length` literals behind the `taken` ones, then `match` bytes from before; how many literals are taken then.

        `value` is the Offset_Value (3.1.1.4, 3.1.1.5); the block began at `start` of the content.
        """
        if value > 3:
            offset = value - 3
            self.repeats = [offset, *self.repeats[:2]]
        else:
            index = value - (length > 0)
            offset = self.repeats[index] if index < 3 else self.repeats[0] - 1
            require(offset > 0, "an offset of 0")
            del self.repeats[min(index, 2)]
            self.repeats.insert(0, offset)
        require(taken + length <= len(literals), "more literals are used than there are")
        self.check_room(length + match, start)
        self.content += literals[taken : taken + length]
        require(offset <= len(self.content), "an offset is before the content")
        require(offset <= self.window_size, "an offset is beyond the window")
        begin = len(self.content) - offset
        source = self.content[begin : begin + match]
        self.content += (source * -(-match // len(source)))[:match]  # a match longer than its offset repeats itself
        return taken + length


def _baselines(first: int, bits: list[int]) -> list[tuple[int, int]]:
    """(Baseline, Number_of_Bits) of codes that follow each other without a gap, the first from the value `first` on."""
    codes = []
    for count in bits:
        codes.append((first, count))
        first += 1 << count
    return codes


# 3.1.1.3.2.1.1
LITERALS_LENGTHS = _baselines(0, [0] * 16 + [1] * 4 + [2] * 2 + [3] * 2 + [4, *range(6, 17)])
MATCH_LENGTHS = _baselines(3, [0] * 32 + [1] * 4 + [2] * 2 + [3] * 2 + [4] * 2 + [5, *range(7, 17)])


def _decode(tables: list[list[Cell]], bits: Bits, count: int) -> Iterator[tuple[int, int, int]]:
    """(Offset_Value, match length, literals length) of each of `count` sequences (3.1.1.3.2.1.2)."""
    states = [bits.read(len(table).bit_length() - 1) for table in tables]
    for left in range(count, 0, -1):
        cells = [table[state] for table, state in zip(tables, states, strict=True)]
        value = (1 << cells[1].symbol) + bits.read(cells[1].symbol)
        baseline, extra = MATCH_LENGTHS[cells[2].symbol]
        match = baseline + bits.read(extra)
        baseline, extra = LITERALS_LENGTHS[cells[0].symbol]
        yield value, match, baseline + bits.read(extra)
        if left > 1:
            for kind in (0, 2, 1):
                states[kind] = cells[kind].baseline + bits.read(cells[kind].bits)


# 3.1.1.3.2.2: of literals lengths, offsets, match lengths
DEFAULT_TABLES = [
    spread([4, 3, *[2] * 11, *[1] * 3, *[2] * 9, 3, 2, *[1] * 5, *[-1] * 4], 6),
    spread([*[1] * 6, *[2] * 3, *[1] * 15, *[-1] * 5], 5),
    spread([1, 4, 3, *[2] * 6, *[1] * 37, *[-1] * 7], 6),
]
