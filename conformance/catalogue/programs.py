"""Vectors whose program breaks a rule of SPEC 8: documents, arguments, references, shapes, pictures, costs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nvc.bitstream import canonical
from nvc.bitstream.tensors import Kind

from ..coverage import SPEC
from ..suite import Vector
from .file import File
from .refusals import refusal
from .small import UNIT, Numbers, Row, Small, numbers, these

# One of every operation, in a picture of 4 x 2 samples; row i makes value i.
ROWS: list[Row] = [
    [1, 0, 4, 1, 2, 0, 1],  # embedding
    [2, 1, 2, 1, 2, 3, 4, 0],  # tokens
    [3, 3, 4, 1, 2],  # constant
    [4, 1, 2, 4],  # coordinates
    [5, 4, 5, 4],  # phases
    [10, 0, 6, 7, 4, 1, 1, 1],  # 5: convolution
    [11, 1, 2, 8],  # combine
    [12, 1, 4],  # multiply
    [20, 2, 2, 2],  # shuffle: 1 x 2 x 4
    [21, 3, 1, 1, 1, 1],  # nearest
    [22, 2, 2],  # 10: bilinear: 4 x 2 x 4
    [23, 1],  # haar: 1 x 2 x 4
    [30, 11, 9, 1, 0, 255, 0, 0],  # requantise
    [30, 10, 10, 1, 0, 255, 0, 0],
    [40, 12, 13],  # concatenate: 5 x 2 x 4
    [41, 14, 1, 2],  # 15: slice
    [42, 13, 0, 0, 2, 4],  # crop
    [41, 16, 3, 4],
    [50, 12, 15, 17],  # output
]
NUMBERS: list[Numbers] = [
    numbers(Kind.EMBEDDING, (2, 4, 1, 2), 1, -2048, 2047),
    numbers(Kind.TOKENS, (2, 1, 2), 2, 0, 2, levels=3),
    numbers(Kind.CODEBOOK, (3, 4), 3, -128, 127),
    numbers(Kind.CONSTANT, (4, 1, 2), 4, -2048, 2047),
    these(Kind.PHASE, 0, 1 << 30, 1 << 31, (1 << 32) - 1),
    these(Kind.PHASE, 7, 1 << 31, 5, 1 << 30),
    numbers(Kind.WEIGHT, (4, 4, 1, 1), 5, -127, 127),
    numbers(Kind.BIAS, (4,), 6, -1000, 1000),
    these(Kind.GAIN, 3, -2),
    these(Kind.MULTIPLIER, UNIT),
    these(Kind.MULTIPLIER, UNIT - (5 << 10)),
]
BASE = Small(ROWS, NUMBERS)
LAST = len(ROWS) - 1
# By SPEC 8.7, added up by hand: 244 elements of values and the 32 multiply-adds of the convolution; four bytes for each of the 88
# elements of values 12 to 15, which live at once; the numbers of all parameters without the frames, and for two frames.
WORK, MEMORY, NUMBERS_OF_PROGRAM, NUMBERS_OF_SEGMENT = 276, 352, 62, 72

# A picture of one constant, for rules that need few operations: rows 0 and 1 make it, the last shows it three times.
PLAIN = Small([[3, 0, 1, 2, 4], [30, 0, 1, 1, 0, 255, 0, 0], [50, 1, 1, 1]], [NUMBERS[3], NUMBERS[9]])
PLAIN = replace(PLAIN, numbers=[numbers(Kind.CONSTANT, (1, 2, 4), 7, -300, 600), NUMBERS[9]])


def programs() -> Iterator[Vector]:
    """All of them; most are one change to `BASE`."""
    yield from _documents()
    yield from _arguments()
    yield from _references()
    yield from _shapes()
    yield from _pictures()
    yield from _costs()


def _invalid(slug: str, file: Small, about: str, rules: str, code: str = "invalid.program") -> Vector:
    return refusal(slug, code, file.to_bytes(), about, *rules.split())


def _documents() -> Iterator[Vector]:
    pair: list[Any] = ["p", ROWS]
    documents: dict[str, tuple[Any, str]] = {
        "no-programs": ([], "a list of no programs"),
        "programs-257": ([["p", [[4, 0, 1, 1], [50, 0, 0, 0]]]] * 257, "257 programs"),
        "document-map": ({"p": ROWS}, "a map of programs"),
        "document-integer": (7, "an integer for a document"),
        "program-no-pair": ([pair, ["p"]], "a second program without operations"),
        "program-of-three": ([["p", ROWS, 0]], "a program of three parts"),
        "program-map": ([{"p": ROWS}], "a program that is a map"),
        "name-integer": ([[1, ROWS]], "a name that is no string"),
        "name-empty": ([["", ROWS]], "an empty name"),
        "name-33": ([["p" * 33, ROWS]], "a name of 33 characters"),
        "name-control": ([["p\x1f", ROWS]], "a name with a control character"),
        "name-delete": ([["p\x7f", ROWS]], "a name with U+007F"),
        "name-accent": ([["é", ROWS]], "a name that is not ASCII"),
        "operations-map": ([["p", {"a": ROWS[3]}]], "operations in a map"),
        "operation-integer": ([["p", [*ROWS[:3], 4, *ROWS[3:]]]], "an operation that is no list"),
        "operation-empty": ([["p", [*ROWS[:3], [], *ROWS[3:]]]], "an operation without a code"),
        "operation-string": ([["p", [*ROWS[:3], [4, "1", 2, 4], *ROWS[4:]]]], "an argument that is no integer"),
        "second-program": ([pair, ["q", [*ROWS[:5], [50, 0, 0]]]], "a fault in the second program, which no segment uses"),
    }
    for slug, (document, about) in documents.items():
        yield _invalid(f"program-{slug}", replace(BASE, document=canonical.pack(document)), about, "P1")
    yield _invalid("program-no-operations", replace(BASE, rows=[]), "a program of no operations", "P3")


def _arguments() -> Iterator[Vector]:
    """Every argument with a range, one below and one above it, by the table of SPEC 8.4."""
    table = re.findall(r"^\| (\d+) \| (\w+) \| ([^|]+) \|", SPEC.read_text(encoding="utf-8").split("### 8.4")[1], re.MULTILINE)
    rows = {row[0]: number for number, row in enumerate(ROWS)}
    for code, name, arguments in ((int(code), name, arguments) for code, name, arguments in table if int(code) in rows):
        for place, argument in enumerate(re.split(r", (?![^(]*\))", arguments), 1):
            if ends := re.search(r"\((-?\d+)\.\.(-?\d+)\)", argument):
                word = re.sub(r" \w$", "", argument[: ends.start()].strip()).replace(" ", "-")
                for value in (int(ends[1]) - 1, int(ends[2]) + 1):
                    row = list(ROWS[rows[code]])
                    row[place] = value
                    side = "low" if value < int(ends[1]) else "high"
                    about = f"{name}: {word} {value}, outside {ends[1]}..{ends[2]}"
                    yield _invalid(f"argument-{name}-{word}-{side}", BASE.change(rows[code], *row), about, "P2")
    yield _invalid("arguments-missing", BASE.change(2, *ROWS[2][:-1]), "a constant with one argument too few", "P2")
    yield _invalid("arguments-too-many", BASE.change(2, *ROWS[2], 0), "a constant with one argument too many", "P2")
    for code in (-1, 0, 6, 13, 24, 51, 60, 61, 1 << 63):
        about = f"operation code {code}" + {60: ", reserved for a state", 61: ", reserved for warping"}.get(code, "")
        slug = f"operation-{code}" if code >= 0 else "operation-negative"
        yield _invalid(slug, BASE.change(3, code, *ROWS[3][1:]), about, "P10", "unsupported.operation")


def _references() -> Iterator[Vector]:
    for slug, operand in (("itself", 5), ("later", 6), ("negative", -1), ("last", LAST), ("beyond", 1 << 40)):
        yield _invalid(f"operand-{slug}", BASE.change(5, 10, operand, *ROWS[5][2:]), f"a convolution of value {operand}", "P11")
    yield _invalid("operand-second", BASE.change(6, 11, 1, 6, 8), "a combination with itself as second operand", "P11")
    yield _invalid("operand-third", BASE.change(LAST, 50, 12, 15, LAST), "an output of itself", "P11")
    early = [*ROWS[:4], [50, 3, 3, 3], *ROWS[4:-1]]
    yield _invalid("output-early", replace(BASE, rows=early), "an output that is not the last operation", "P3")
    yield _invalid("output-twice", replace(BASE, rows=[*ROWS, ROWS[-1]]), "two outputs", "P3")
    yield _invalid("output-missing", replace(BASE, rows=ROWS[:-1]), "no output", "P3")
    first = [[3, 1, 4, 1, 2], [3, 0, 4, 1, 2], *PLAIN.rows]
    yield _invalid("parameter-not-in-order", replace(PLAIN, rows=first), "parameter 1 used before parameter 0", "P4")
    yield _invalid("parameter-skipped", PLAIN.change(1, 30, 0, 2, 1, 0, 255, 0, 0), "parameter 2 without a parameter 1", "P4")
    yield _invalid("parameter-negative", PLAIN.change(1, 30, 0, -1, 1, 0, 255, 0, 0), "parameter -1", "P4")
    yield _invalid("parameter-second", BASE.change(4, 5, 4, 6, 4), "a second parameter of an operation out of order", "P4")
    shared = "invalid.shape"
    uses: dict[str, tuple[str, Row, Row]] = {
        "kinds": ("a constant and a frequency", [3, 0, 1, 1, 1], [5, 0, 1, 1]),
        "shapes": ("maps of 1 and of 2 channels", [3, 0, 1, 2, 4], [3, 0, 2, 2, 4]),
        "sides": ("maps of 2 x 4 and of 4 x 2", [3, 0, 1, 2, 4], [3, 0, 1, 4, 2]),
        "levels": ("tokens of 3 and of 4 levels", [2, 0, 1, 2, 4, 3, 1, 0], [2, 0, 2, 2, 4, 4, 1, 0]),
        "strides": ("embeddings of stride 1 and 2", [1, 0, 1, 2, 4, 0, 1], [1, 0, 1, 2, 4, 0, 2]),
    }
    for slug, (about, once, again) in uses.items():
        free = {"kinds": 2, "levels": 3}.get(slug, 1)  # the number of the next parameter
        rows = [once, again, [30, 0, free, 1, 0, 255, 0, 0], [50, 2, 2, 2]]
        yield _invalid(f"parameter-two-{slug}", replace(PLAIN, rows=rows), f"one parameter for {about}", "P5", shared)


def _shapes() -> Iterator[Vector]:
    def wrong(slug: str, about: str, number: int, *row: int, rule: str = "P12") -> Vector:
        return _invalid(slug, BASE.change(number, *row), about, rule, "invalid.shape")

    yield wrong("convolution-groups-of-input", "3 groups of 4 channels into 3", 5, 10, 0, 6, 7, 3, 1, 1, 3)
    yield wrong("convolution-groups-of-output", "4 groups into 3 channels", 5, 10, 0, 6, 7, 3, 1, 1, 4)
    yield wrong("convolution-even-height", "a kernel of 2 x 1", 5, 10, 0, 6, 7, 4, 2, 1, 1)
    yield wrong("convolution-even-width", "a kernel of 1 x 2", 5, 10, 0, 6, 7, 4, 1, 2, 1)
    layers = [[3, 0, 1, 2, 4], [10, 0, 1, 2, 1, 1, 1, 1], [10, 1, 1, 2, 1, 1, 1, 1], [30, 2, 3, 1, 0, 255, 0, 0], [50, 3, 3, 3]]
    about = "a convolution of a convolution"
    yield _invalid("convolution-of-accumulator", replace(PLAIN, rows=layers), about, "P13", "invalid.shape")
    yield wrong("combine-channels", "4 and 1 channels fit, 4 and 5 do not", 15, 11, 13, 14, 8)
    yield wrong("combine-height", "heights of 1 and 2 fit, widths of 2 and 4 do not", 6, 11, 1, 3, 8)
    yield wrong("multiply-channels", "4 and 5 channels", 15, 12, 13, 14)
    yield wrong("multiply-width", "widths of 2 and 4", 7, 12, 1, 3)
    yield wrong("shuffle-channels", "4 channels in blocks of 3 x 1", 8, 20, 2, 3, 1)
    yield wrong("shuffle-blocks", "4 channels in blocks of 2 x 4", 8, 20, 2, 2, 4)
    yield wrong("nearest-height", "two thirds of 2 rows", 9, 21, 3, 2, 3, 1, 1)
    yield wrong("nearest-width", "a third of 4 columns", 9, 21, 3, 1, 1, 1, 3)
    yield wrong("haar-channels", "1 channel for four bands", 11, 23, 3)
    yield wrong("requantise-multipliers", "2 multipliers for 4 channels", 13, 30, 10, 10, 2, 0, 255, 0, 0)
    yield wrong("requantise-multipliers-more", "5 multipliers for 4 channels", 13, 30, 10, 10, 5, 0, 255, 0, 0)
    yield wrong("concatenate-height", "4 x 1 and 4 x 2 by cropping", 17, 40, 13, 2)
    yield wrong("concatenate-kinds", "an accumulator and an activation", 14, 40, 11, 13)
    yield wrong("concatenate-sizes", "2 x 4 and 1 x 1", 14, 40, 12, 4)
    yield wrong("slice-empty", "channels 1 to 0", 15, 41, 14, 1, 1)
    yield wrong("slice-backwards", "channels 2 to 0", 15, 41, 14, 2, 1)
    yield wrong("slice-beyond", "channel 5 of 5", 15, 41, 14, 5, 6)
    yield wrong("crop-below", "rows 1 and 2 of 2", 16, 42, 13, 1, 0, 2, 4)
    yield wrong("crop-beside", "columns 1 to 4 of 4", 16, 42, 13, 0, 1, 2, 4)
    yield wrong("output-accumulator", "a plane that is an accumulator", LAST, 50, 12, 15, 11, rule="P13")
    yield wrong("output-accumulator-first", "a plane that is an accumulator", LAST, 50, 11, 15, 17, rule="P13")

    def function(slug: str, about: str, *row: int) -> Vector:
        return _invalid(f"requantise-{slug}", BASE.change(12, 30, 11, 9, 1, *row), about, "P9")

    yield function("identity-1", "identity with an argument", 0, 255, 0, 1)
    yield function("leaky-0", "leaky with a shift of 0", 0, 255, 1, 0)
    yield function("hard-swish-0", "hard-swish with c = 1", 0, 255, 2, 0)
    yield function("table-4", "a fifth table", 0, 255, 3, 4)
    yield function("sine-1", "sine with an argument", 0, 4095, 4, 1)
    yield function("sine-low", "sine of -1..4095", -1, 4095, 4, 0)
    yield function("sine-high", "sine of 0..4094", 0, 4094, 4, 0)
    yield function("sine-clamped", "sine of 0..2047", 0, 2047, 4, 0)
    yield function("identity-high", "identity up to 2048", 0, 2048, 0, 0)
    yield function("table-high", "a table read beyond its end", 0, 2048, 3, 0)


def _pictures() -> Iterator[Vector]:
    def wrong(slug: str, file: Small, about: str) -> Vector:
        return _invalid(f"picture-{slug}", file, about, "P8", "invalid.picture")

    yield wrong("width", replace(BASE, width=5), "planes of 4 columns for a picture of 5")
    yield wrong("height", replace(BASE, height=3), "planes of 2 rows for a picture of 3")
    yield wrong("channels", BASE.change(LAST, 50, 13, 15, 17), "a first plane of four channels")
    yield wrong("second", BASE.change(LAST, 50, 12, 13, 17), "a second plane of four channels")
    yield wrong("third", BASE.change(LAST, 50, 12, 15, 16), "a third plane of four channels")
    yield wrong("chroma-size", replace(BASE, pixel_format=0), "chroma planes of the size of luma")
    yield wrong("negative", PLAIN.change(1, 30, 0, 1, 1, -1, 255, 0, 0), "samples of -1..255")
    yield wrong("over", PLAIN.change(1, 30, 0, 1, 1, 0, 256, 0, 0), "samples of 0..256")
    yield wrong("table", PLAIN.change(1, 30, 0, 1, 1, -2048, 2047, 3, 2), "samples that are a sigmoid of 0..2047")
    yield wrong("signed", PLAIN.change(2, 50, 0, 1, 1), "a plane of unclamped constants")
    turned = [[3, 0, 1, 2, 4], [30, 0, 1, 1, 0, 255, 0, 0], [42, 1, 0, 0, 2, 1], [42, 1, 0, 0, 1, 2], [50, 1, 2, 3]]
    yield wrong("chroma-turned", replace(PLAIN, rows=turned, pixel_format=0), "a Cb plane of 2 x 1 for 1 x 2")
    unused = canonical.pack([["p", PLAIN.rows], ["q", [*PLAIN.rows[:2], [42, 1, 0, 0, 2, 3], [50, 2, 2, 2]]]])
    yield wrong("second-program", replace(PLAIN, document=unused), "a second program with planes of 3 columns")


def _costs() -> Iterator[Vector]:
    """Over each limit of SPEC 9 on programs: the default one, where that is cheap to state, and one given by the user."""

    def over(slug: str, rows: list[Row], about: str, rule: str, code: str, multiplier: int = 1) -> Vector:
        """A program of these rows, whose next parameter is `multiplier`, and a corner of the last value as the picture."""
        last = len(rows) - 1
        shown = [[41, last, 0, 1], [42, last + 1, 0, 0, 2, 4], [30, last + 2, multiplier, 1, 0, 255, 0, 0], [50, *[last + 3] * 3]]
        return _invalid(slug, replace(PLAIN, rows=[*rows, *shown]), about, rule, code)

    def given(limit: str, value: int, code: str, about: str, file: Small = BASE) -> Vector:
        vector = _invalid(f"{limit.replace('_', '-')}-given", file, about, limit, code)
        return replace(vector, limits={limit: value})

    yield over("map-elements", [[3, 0, 1, 16384, 16384], [40, 0, 0]], "a value of 2^29 elements", "K1", "limit.map")
    wide = [[3, 0, 4096, 1, 1], [40, 0, 0], [40, 1, 1], [40, 2, 0]]
    yield over("map-channels", wide, "a value of 20480 channels", "K1", "limit.map")
    long = [PLAIN.rows[0], *[[20, 0, 1, 1]] * 1020]
    yield over("operations-over", long, "1025 operations", "max_operations", "limit.operations")
    phases = [[5, 2 * number, 2 * number + 1, 1] for number in range(513)]
    yield over("tensors-over", phases, "1027 parameters", "max_tensors", "limit.tensors", 1026)
    yield over("parameters-over", [[3, 0, 2048, 64, 129]], "16.9 million numbers", "max_parameters", "limit.parameters")
    many = _long(17, 64, 128, 128)
    yield _invalid("parameters-of-segment", many, "17 frames of 2^20 numbers", "max_parameters", "limit.parameters")
    yield _invalid("tensor-shape", _long(4096, 1, 128, 129), "4096 frames of 16512 numbers", "T1 R4", "invalid.tensor_shape")
    huge = [[3, 0, 4096, 1, 1], [21, 0, 16, 1, 16, 1], [21, 1, 16, 1, 16, 1], *[[21, 2, 1, 1, 1, 1]] * 4]
    alive = [*huge, *([12, number, number + 1] for number in range(2, 6))]
    yield over("memory-over", alive, "five values of 1 GiB at once", "max_memory_bytes", "limit.memory")
    twice = [PLAIN.rows[0], [4, 0, 2048, 2048], [21, 1, 1, 1, 1, 1], [21, 2, 1, 1, 1, 1]]
    yield over("compute-per-pixel", twice, "12.6 million values for 8 samples", "max_macs_per_pixel", "limit.compute")
    layer = [1, 2, 256, 15, 15, 1]
    convolved = [[3, 0, 256, 1, 1], [21, 0, 16, 1, 16, 1], [21, 1, 4, 1, 4, 1], [10, 2, *layer], [30, 3, 3, 1, 0, 1, 0, 0]]
    again = [*convolved, *([10, 4, *layer] for _ in range(20))]
    yield over("compute-per-frame", again, "21 times 6 10^10 multiply-adds", "max_macs_per_frame", "limit.compute", 3)
    yield given("max_operations", len(ROWS) - 1, "limit.operations", "one operation more than the user allows")
    yield given("max_tensors", len(NUMBERS) - 1, "limit.tensors", "one parameter more than the user allows")
    yield given("max_parameters", NUMBERS_OF_PROGRAM - 1, "limit.parameters", "one number more than the user allows")
    about = "two frames with one number more than the user allows"
    segment = given("max_parameters", NUMBERS_OF_SEGMENT - 1, "limit.parameters", about)
    yield replace(segment, name="limits/max-parameters-given-segment")
    yield given("max_memory_bytes", MEMORY - 1, "limit.memory", "one byte more than the user allows")
    yield given("max_macs_per_frame", WORK - 1, "limit.compute", "one multiply-add a frame more than the user allows")
    yield given("max_macs_per_pixel", WORK // 8, "limit.compute", "over the multiply-adds a sample that the user allows")
    yield given("max_macs_total", 2 * WORK - 1, "limit.compute", "one multiply-add more than the user allows")
    live = _live(BASE.file())
    about = "a live file whose second frame goes over the multiply-adds that the user allows"
    yield refusal("max-macs-total-live", "limit.compute", live, about, "max_macs_total", max_macs_total=2 * WORK - 1)


def _long(frames: int, channels: int, height: int, width: int) -> Small:
    """A segment of that many frames with an embedding that is not really there."""
    rows = [[1, 0, channels, height, width, 0, 1], [41, 0, 0, 1], [42, 1, 0, 0, 2, 4], [30, 2, 1, 1, 0, 255, 0, 0], [50, 3, 3, 3]]
    return Small(rows, [], frames, sections={1: bytes(4), 3: bytes(4)}, hashes=bytes(8 * frames))


def _live(file: File) -> File:
    """The file as it is written live: nobody knows how many frames will come."""
    open_end = file.patched(b"HEAD", 36, b"\xff" * 8)
    return replace(open_end, compatible=0, chunks=tuple(c for c in open_end.chunks if c.type not in (b"INDX", b"FOOT")))
