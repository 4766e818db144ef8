"""Vectors of the numbers of a segment: every kind of tensor in every way that a writer may choose (SPEC 5 to 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nvc.bitstream.cdf import laplace_limit
from nvc.bitstream.coders import Adaptive, Constant, Histogram, Laplace, Mode, write_sequence
from nvc.bitstream.program import Op
from nvc.bitstream.rangecoder import PythonRangeDecoder, RangeEncoder

from ..suite import Vector
from .codings import EXACT, Coding, Integers
from .sheets import HIGH, LOW, Line, Sheet, Work, numbers, single

FLAT = tuple([1] * 8)  # classes of a histogram of eight values that are all alike


def tensors() -> Iterator[Vector]:
    """The vectors of SPEC 5 to 7."""
    for part in (_sequences, _adaptive, _kinds, _embeddings, _tokens, _streams):
        yield from part()


def _vector(slug: str, about: str, clauses: str, work: Work) -> Vector:
    return Vector(f"valid/{slug}", single(work), about, tuple(clauses.split()))


def laplace(seed: int, count: int, scale: float, bound: int) -> Integers:
    """Numbers that mostly are as a Laplace table expects them, and in the middle the bounds, which escape from it."""
    drawn = np.random.default_rng(seed).laplace(0, scale, count)
    line = np.clip(np.rint(drawn), -bound, min(bound, HIGH)).astype(np.int64)
    line[count // 2 : count // 2 + 2] = (-bound, min(bound, HIGH))
    return line


def _constants(rows: Sequence[tuple[Integers, Mode]], width: int) -> Work:
    """Constants (1, h, width), each in its mode, side by side."""
    sheet = Sheet()
    parts = [sheet.constant(line.reshape(1, -1, width), Coding((mode,))) for line, mode in rows]
    return sheet.show(sheet.concatenate(*parts))


# ---- 7.2, 7.3


def _sequences() -> Iterator[Vector]:
    rows: list[tuple[Integers, Mode]]
    work = _constants([(np.full(6, value), Constant(value)) for value in (LOW, HIGH, 0, -1)], 3)
    yield _vector("mode-constant", "constants of both signs, at both ends and 0", "mode.constant kind.CONSTANT T2", work)

    rows = [(laplace(scale, 30, 2 ** ((scale - 16) / 4), 2048), Laplace(scale, 0)) for scale in range(64)]
    work = _constants(rows, 6)
    yield _vector("mode-laplace", "every table of the bank, with escapes of both signs", "mode.Laplace kind.CONSTANT R3", work)

    rows = []
    for scale in (0, 8, 20, 33):
        limit = laplace_limit(scale, 2048)
        ends = [limit + (1 << size) - below for size in range(12) for below in (0, 1)]
        line = np.array([sign * end for end in ends for sign in (1, -1)])
        rows.append((np.clip(line, LOW, HIGH), Laplace(scale, 0)))
    yield _vector("escapes", "escapes of every size, at both ends of each", "mode.Laplace", _constants(rows, 6))

    line = numbers(60, 16, low=-3, high=4)
    same: tuple[Mode, ...] = (Laplace(17, 0), Adaptive(17, 1), Histogram(-3, FLAT), Histogram(-4, (0, *FLAT, 0)))
    work = _constants([(line, mode) for mode in same], 4)
    yield _vector("modes-alike", "the same numbers in three modes", "mode.Laplace mode.adaptive mode.histogram", work)

    two = numbers(61, 24, low=0, high=1)
    gaps = np.array([-7, 2047, -2048, 2000])[numbers(62, 24, low=0, high=3)]
    classes = np.zeros(4096, dtype=np.int64)
    classes[[0, 2041, 4048, 4095]] = (1, 31, 2, 30)
    rows = [
        (two * 9 - 5, Histogram(-5, (5, *[0] * 8, 31))),
        (two, Histogram(0, (0, 0))),
        (two + HIGH - 1, Histogram(HIGH - 1, (1, 31))),
        (two + LOW, Histogram(LOW, (31, 1))),
        (gaps, Histogram(LOW, tuple(classes.tolist()))),
        (numbers(63, 24, low=-15, high=16), Histogram(-15, tuple(range(32)))),
        (two, Histogram(0, (31, 0))),
        (numbers(66, 24, low=0, high=2), Histogram(0, (7, 7, 7))),
    ]
    about = "two values, all classes, gaps and counts that are all zero"
    yield _vector("mode-histogram", about, "mode.histogram T3", _constants(rows, 6))

    sheet = Sheet(frames=2)
    codes = numbers(64, 2, 1, 4, 5, low=-1024, high=1023)
    codes[:, 0, 0, :2] = ((-1, 0), (HIGH, LOW))
    largest = Histogram(LOW, tuple(int(number) for number in np.arange(4097) % 32))
    work = sheet.show(sheet.embedding(codes, coding=Coding((Laplace(50, 0), largest), temporal=True)))
    yield _vector("histogram-4097", "the largest table", "mode.histogram T3 kind.EMBEDDING", work)


def _adaptive() -> Iterator[Vector]:
    rows: list[tuple[Integers, Mode]] = []
    for mass in range(4):
        for scale in (0, 20, 63):
            rows.append((laplace(mass, 48, 2 ** ((scale - 16) / 4), 2048), Adaptive(scale, mass)))
    yield _vector("mode-adaptive", "every mass, at the ends of the bank, with escapes", "mode.adaptive", _constants(rows, 8))

    sheet, parts = Sheet(), []
    for count in (1, 15, 16, 17, 32, 33, 64, 65, 127):
        whole = sheet.constant(numbers(count, 1, 1, count, low=-2, high=9), Coding((Adaptive(14, 0),)))
        parts.append(sheet.add(Op.CROP, whole, 0, count - 1, 1, 1))
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("adaptive-blocks", "lengths around the ends of blocks, from 1 on", "mode.adaptive", work)

    drift = np.arange(36000) // 6000  # so that what is forgotten matters
    line = np.random.default_rng(65).geometric(0.6, 36000) * (1 - 2 * (drift % 2)) + drift
    sheet = Sheet()
    whole = sheet.constant(line.reshape(1, 180, 200), Coding((Adaptive(12, 3),)))
    work = sheet.show(sheet.add(Op.CROP, whole, 160, 170, 20, 30))
    yield _vector("adaptive-halving", "so many symbols that blocks grow to 2048 and counts are halved", "mode.adaptive", work)


# ---- 7.1, 7.4, 7.7


def _kinds() -> Iterator[Vector]:
    line = laplace(70, 36, 20, 127)
    modes = (Laplace(34, 0), Laplace(63, 0), Laplace(0, 0), Adaptive(34, 2), Histogram(-127, tuple([9] * 255)), Constant(-127))
    sheet = Sheet()
    x, parts = sheet.constant(numbers(71, 3, 2, 2, low=-99, high=99)), []
    for mode in modes:
        weight = (np.full(36, -127) if isinstance(mode, Constant) else line).reshape(4, 3, 3, 1)
        parts.append(sheet.convolution(x, weight, (0, 1, -1, 0), codings=(Coding((mode,)), None)))
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("weights", "weights in each mode", "kind.WEIGHT section.weights R4 P7", work)

    sheet, parts = Sheet(), []
    for shift in range(16):
        bias = np.array([EXACT, -EXACT, 1 << shift, -3 << shift, 5 << shift, 0])
        parts.append(sheet.sums(bias))
    parts += [sheet.sums([number] * 6) for number in (0, EXACT, -EXACT, 6)]
    work = sheet.show_sums(sheet.concatenate(*parts))
    yield _vector("bias-shifts", "every shift, zeros, and both ends", "kind.BIAS T4 T2", work)

    sheet, parts = Sheet(), []
    for low in range(16):
        wide = numbers(low, 3, low=1 - EXACT, high=EXACT - 1)
        parts.append(sheet.sums([*wide.tolist(), 5 << low, 1, -1], Coding((Laplace(24, low),))))
    for shift, mode in ((11, Laplace(30, 5)), (12, Laplace(30, 15)), (13, Laplace(30, 0)), (3, Adaptive(63, 3))):
        bias = numbers(shift, 6, low=-(EXACT >> shift), high=EXACT >> shift) | 1
        parts.append(sheet.sums(np.minimum(bias, (EXACT >> shift) - 1) << shift, Coding((mode,))))
    work = sheet.show_sums(sheet.concatenate(*parts))
    about = "every number of plain low bits, alone and behind a shift"
    yield _vector("bias-low-bits", about, "kind.BIAS mode.Laplace T4", work)

    sheet = Sheet(frames=2)
    drawn = np.array([[[0, 1]], [[1, 0]]])
    books = [np.zeros((3, 2)), np.full((2, 2), -128), numbers(72, 5, 2, low=-128, high=127), np.eye(9, 2)]
    parts = [sheet.tokens(drawn, book.astype(np.int64)) for book in books]
    yield _vector(
        "codebooks", "no rows, all rows, and some", "kind.CODEBOOK section.codebook T7 T8", sheet.show(sheet.concatenate(*parts))
    )


# ---- 7.5, 7.6


def _embeddings() -> Iterator[Vector]:
    sheet, parts = Sheet(frames=5), []
    for seed, (temporal, per_channel) in enumerate(((False, False), (True, False), (False, True), (True, True))):
        codes = numbers(seed, 5, 3, 2, 3)
        codes[:, 1, 0] = np.resize((LOW, HIGH), (5, 3))  # differences of 4095
        codes[:, 2] = 7 * seed
        modes = (Laplace(60, 0), Adaptive(55, 1), Laplace(63, 0), Laplace(0, 0)) if seed % 2 else ()
        parts.append(sheet.embedding(codes, coding=Coding(modes, temporal, per_channel)))
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("embeddings", "with and without differences and groups", "kind.EMBEDDING section.embeddings", work)

    sheet = Sheet(frames=1)
    one = sheet.embedding(numbers(1, 1, 1, 2, 2))
    parts = [sheet.embedding(numbers(c, 1, 2, 2, 2), coding=Coding(per_channel=split)) for c, split in ((2, True), (3, False))]
    work = sheet.show(sheet.concatenate(one, *parts))
    yield _vector("embeddings-one-time", "no bit for differences where there is one time", "kind.EMBEDDING", work)


def _wavering(seed: int, frames: int, height: int, width: int, levels: int) -> Integers:
    """Tokens of which a moving region wavers between two codes, some are new, and most stay; 0 and the last level occur."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, levels, (frames, height, width))
    other = random.integers(0, levels, (height, width))
    y, x = np.mgrid[:height, :width]
    for t in range(1, frames):
        region = (abs(y - height // 2) <= 2) & (abs(x - 2 * t) <= 2)
        back = np.where(tokens[t - 1] == other, tokens[max(t - 2, 0)], other)
        tokens[t] = np.where(region, back, np.where(random.random((height, width)) < 0.04, tokens[t], tokens[t - 1]))
    tokens[0, 0, :2] = (0, levels - 1)
    return tokens


def _tokens() -> Iterator[Vector]:
    book = numbers(80, 40, 1, low=-128, high=127)
    for returns in (False, True):
        sheet, parts = Sheet(frames=12), []
        for density in range(4):
            tokens = _wavering(density, 12, 8, 14, 40)
            parts.append(sheet.tokens(tokens, book, 0, Coding(returns=returns, density=density)))
        work = sheet.show(sheet.concatenate(*parts))
        about = f"regions that change, in every density, {'with' if returns else 'without'} returns"
        yield _vector(f"tokens-{'returns' if returns else 'plain'}", about, "kind.TOKENS section.tokens T6 R4", work)

    sheet = Sheet(frames=4)
    still, flicker = np.zeros((4, 3, 5)), np.arange(4)[:, None, None] % 2 + np.zeros((4, 3, 5))
    late = np.zeros((4, 3, 5))
    late[3, 2, 4] = 1
    maps = [(still, False), (flicker, False), (flicker, True), (late, True), (1 + still, False)]
    ends = np.array([[-128], [127]])
    parts = [sheet.tokens(tokens.astype(np.int64), ends, 0, Coding(returns=returns)) for tokens, returns in maps]
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("tokens-alphabets", "one token, two that always change, and one change at the end", "kind.TOKENS T5", work)

    sheet, parts = Sheet(frames=2), []
    for density in range(4):
        parts.append(sheet.tokens(numbers(82, 2, 1, 6, low=0, high=5), book[:6], 0, Coding(density=density)))
    work = sheet.show(sheet.concatenate(*parts))
    yield _vector("tokens-two-frames", "no returns where there are two frames", "kind.TOKENS T5", work)


# ---- 5


def _plain(frequency: Line, phase: Line, gains: Line, code: int) -> Work:
    """A picture of one sample whose numbers, 3 and 3 phases, 6 gains and a multiplier, are plain: most bytes decode to some.

    They have 286 bits, 2 less than 9 words.
    """
    sheet, parts = Sheet(frames=4), []
    waves = sheet.phases(frequency, phase)
    for plane in range(3):
        wave, pair = sheet.slice(waves, plane, plane + 1), sheet.parameter(gains[2 * plane : 2 * plane + 2])
        parts.append(sheet.add(Op.COMBINE, wave, wave, pair))
    samples = sheet.requantise(sheet.concatenate(*parts), code, 0, 255)
    return sheet.work([sheet.slice(samples, plane, plane + 1) for plane in range(3)])


def _from_words(*words: int) -> Work:
    """What these words, and zeros behind them, decode to."""
    decoder = PythonRangeDecoder(np.array(words, dtype="<u4").tobytes())
    frequency, phase = (decoder.get_raw(3, 32).tolist() for _ in range(2))
    gains = [gain - 4095 for _ in range(3) for gain in decoder.get_raw(2, 13).tolist()]
    return _plain(frequency, phase, gains, decoder.get_bits(16))


def _streams() -> Iterator[Vector]:
    top = (1 << 32) - 1
    yield _vector("stream-zeros", "a stream of the first symbols", "R1 R3 kind.PHASE", _plain([0] * 3, [0] * 3, [-4095] * 6, 0))
    work = _plain([top] * 3, [top] * 3, [4095] * 6, 65535)
    yield _vector("stream-ones", "a stream of the last symbols", "R1 R3 kind.PHASE", work)
    about = "words that are what a carry through nearly all of them left"
    yield _vector("stream-carry", about, "R1 R3 kind.GAIN", _from_words(0x8000_0000))
    about = "words of ones through which no carry ran"
    yield _vector("stream-no-carry", about, "R1 R3 kind.GAIN", _from_words(0x1234_5678, 0x9ABC_DEF0, 0x0FED_CBA9))
    for slug, wanted in (("with-zero", True), ("without-zero", False)):
        sheet = Sheet(frames=1)
        drawn = (numbers(seed, 1, 1, 3, 4, low=-9, high=9) for seed in range(1000))
        codes = next(line for line in drawn if _zero_word(line) == wanted)
        work = sheet.show(sheet.embedding(codes, coding=Coding((Laplace(24, 0),))))
        yield _vector(f"stream-{slug}", f"a stream that ends {slug.replace('-', ' ')} word behind it", "R1 R3", work)


def _zero_word(codes: Integers) -> bool:
    """Whether the stream of these numbers ends with the word 0 of SPEC 5.2, step 3."""
    writer = RangeEncoder()
    write_sequence(writer, codes.ravel(), 2048, Laplace(24, 0))
    return writer.finish().endswith(bytes(4))
