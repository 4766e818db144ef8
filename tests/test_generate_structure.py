"""conformance/generate_structure*.py, generate_salvage.py: files are refused as they say, and what is left of damaged ones."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from nvc.bitstream.constants import Limits
from nvc.bitstream.errors import NvcError
from nvc.codec.decode import Decoder
from nvc.codec.salvage import Salvager
from nvc.conformance import coverage, reference
from nvc.conformance.catalogue.bases import TICKS, Film, film
from nvc.conformance.catalogue.file import File
from nvc.conformance.catalogue.salvage import COUNTS, salvage
from nvc.conformance.catalogue.structure import structure
from nvc.conformance.ref_errors import Refused
from nvc.conformance.suite import OK, Vector

REFUSED, DAMAGED = list(structure()), list(salvage())
LARGE = {"invalid/model-one-over", "invalid/document-map-of-4097"}  # no smaller file breaks the rule
FILMS = [Film(), Film((1,)), Film(COUNTS), Film(variable=True), Film(live=True), Film(indexed=False)]
FILMS.append(Film(live=True, indexed=False))
# Rules that no refused file shows: files that must be accepted do, or what a reader leaves undone.
SHOWN_BY_OTHERS = {"W1", "M3", "H3", "D7", "section.weights"}


def decoded(data: bytes, limits: Mapping[str, int]) -> str:
    """What the product says of a file when all of it is decoded."""
    try:
        for _ in Decoder(io.BytesIO(data), limits=Limits(**limits)).frames():
            pass
    except NvcError as error:
        return error.code
    return OK


def referred(data: bytes, limits: Mapping[str, int]) -> str:
    """What the reference says of it."""
    try:
        for _ in reference.decode(data, limits):
            pass
    except Refused as refused:
        return refused.code
    return OK


@pytest.mark.parametrize("wanted", FILMS, ids=str)
def test_a_film_that_nothing_is_broken_in_is_decoded(wanted: Film) -> None:
    data = film(wanted).to_bytes()
    batches = list(Decoder(io.BytesIO(data)).frames())
    assert sum(len(batch.pts) for batch in batches) == len(reference.read(data).frames) == sum(wanted.counts)
    if wanted.variable:
        stamps = [stamp for batch in batches for stamp in batch.pts]
        assert stamps == [sum(TICKS[: n + 1]) - 40 for n in range(sum(wanted.counts))]
    assert len({plane.tobytes() for batch in batches for plane in batch.planes[0]}) >= len(wanted.counts)


@pytest.mark.parametrize("wanted", FILMS, ids=str)
def test_parts_of_a_file_make_the_same_file_again(wanted: Film) -> None:
    data = film(wanted).to_bytes()
    file = File.parse(data)
    assert file.to_bytes() == data
    assert file.offset(len(file.chunks)) == len(data)
    if wanted.indexed:
        assert file.indexed() == file
    assert file.inserted(2, file.chunks[1]).without(2) == file


@pytest.mark.parametrize("decode", [decoded, referred])
def test_both_decoders_answer_with_the_codes_of_the_catalogues(decode: Callable[[bytes, Mapping[str, int]], str]) -> None:
    vectors = [*REFUSED, *DAMAGED]
    answers = {vector.name: decode(vector.data, vector.limits) for vector in vectors}
    assert answers == {vector.name: vector.expect for vector in vectors}


def test_names_are_unique_and_say_the_group() -> None:
    names = [vector.name for vector in [*REFUSED, *DAMAGED]]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert all(re.fullmatch(r"(invalid|unsupported|limits|salvage)/[a-z0-9-]+", name) for name in names)
    for vector in REFUSED:
        assert vector.expect != OK
        assert vector.group == {"limit": "limits", "unsupported": "unsupported"}.get(vector.expect.split(".")[0], "invalid")
        assert vector.about and vector.about.splitlines() == [vector.about]
    assert all(vector.group == "salvage" and vector.salvage is None for vector in DAMAGED)


def test_the_files_differ_from_each_other_and_are_small() -> None:
    vectors = [*REFUSED, *DAMAGED]
    assert len({(vector.data, tuple(vector.limits.items())) for vector in vectors}) == len(vectors)
    assert {vector.name for vector in vectors if len(vector.data) > 5000} == LARGE
    assert sum(len(vector.data) for vector in vectors) < 600_000


def test_the_same_files_come_out_again() -> None:
    assert list(structure()) == REFUSED
    assert list(salvage()) == DAMAGED
    film.cache_clear()
    assert film() == File.parse(film().to_bytes())
    assert list(salvage()) == DAMAGED


def test_every_rule_of_the_container_has_a_file() -> None:
    spec = coverage.SPEC.read_text(encoding="utf-8")
    rules = coverage.rules(spec)
    container = {rule.name for rule in rules if rule.section[0] in "234" or rule.name.startswith("max_")}
    of_programs = ("parameters", "tensors", "operations", "macs_per_pixel", "macs_per_frame", "macs_total", "memory_bytes")
    container -= {f"max_{what}" for what in of_programs}
    tested = coverage.tested([*REFUSED, *DAMAGED])
    assert container - set(tested) == SHOWN_BY_OTHERS
    assert set(tested) <= {rule.name for rule in rules}


def test_every_code_that_the_container_raises_is_expected() -> None:
    folder = coverage.SPEC.parent
    raised = set()
    for name in ("chunks", "container", "header", "segment", "index", "packing", "canonical"):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        raised |= {f"{family.lower()}.{reason}" for family, reason in re.findall(r'(\w+)Error[(,] ?"(\w+)"', text)}
    raised = {code.replace("notnvc", "not_nvc") for code in raised} - {"usage.pipe"}
    assert len(raised) > 30
    assert raised <= {vector.expect for vector in REFUSED}


# ---- salvage: by hand, from SPEC 4.7. The segments of the film have the frames 0 1, 2, 3 4 5 and 6 7.

Left = tuple[tuple[int, ...], list[tuple[int, int, str]]] | str  # frames that are left, and (first, frames, code); or a refusal
ALL = (0, 1, 2, 3, 4, 5, 6, 7)
LEFT: dict[str, Left] = {
    "cut-in-last-segment": ((0, 1, 2, 3, 4, 5), [(6, 2, "truncated.chunk")]),
    "cut-behind-segment": ((0, 1, 2), [(3, 5, "truncated.end")]),
    "cut-in-footer": (ALL, []),
    "payload-first": ((2, 3, 4, 5, 6, 7), [(0, 2, "corrupt.payload_crc")]),
    "payload-second": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "corrupt.payload_crc")]),
    "header-second": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "corrupt.header_crc")]),
    "header-last": ((0, 1, 2, 3, 4, 5), [(6, 2, "corrupt.header_crc")]),
    "payload-then-header": ((0, 1, 6, 7), [(2, 4, "corrupt.payload_crc")]),
    "every-other": ((2, 6, 7), [(0, 2, "corrupt.payload_crc"), (3, 3, "corrupt.payload_crc")]),
    "index-header": (ALL, []),
    "metadata-header": (ALL, []),
    "inserted-between": (ALL, []),
    "inserted-within": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "corrupt.payload_crc")]),
    "deleted-within": ((0, 1, 6, 7), [(2, 4, "corrupt.payload_crc")]),
    "stale-tail": ((0, 1, 2), [(3, 5, "corrupt.header_crc")]),
    "trailing": (ALL, []),
    "critical-then-gap": ((0, 1, 2, 6, 7), [(3, 3, "unsupported.chunk")]),
    "critical-then-good": ((0, 1, 2, 6, 7), [(3, 3, "invalid.first_frame")]),
    "second-head": (ALL, []),
    "early-footer": ((0, 1, 2, 3, 4, 5), [(6, 2, "truncated.frames")]),
    "early-index": (ALL, []),
    "hidden-found": (ALL, []),
    "hidden-lost": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "invalid.first_frame")]),
    "hidden-on-limit": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "invalid.first_frame")]),
    "duplicated": (ALL, []),
    "swapped": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "invalid.first_frame")]),
    "reversed": ((6, 7), [(0, 6, "invalid.first_frame")]),
    "missing-last": ((0, 1, 2, 3, 4, 5), [(6, 2, "truncated.frames")]),
    "missing-and-index": ((0, 1, 2, 3, 4, 5), [(6, 2, "truncated.frames")]),
    "missing-and-footer": ((0, 1, 2, 3, 4, 5), [(6, 2, "corrupt.payload_crc")]),
    "missing-and-short-footer": ((0, 1, 2, 3, 4, 5), [(6, 2, "invalid.footer")]),
    "missing-and-cut-footer": ((0, 1, 2, 3, 4, 5), [(6, 2, "truncated.chunk")]),
    "missing-and-cut-index": ((0, 1, 2, 3, 4, 5), [(6, 2, "truncated.chunk")]),
    "missing-and-cut-note": ((0, 1, 2, 3, 4, 5), [(6, 2, "truncated.chunk")]),
    "on-limit": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "corrupt.header_crc")]),
    "on-limit-of-frames": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "corrupt.payload_crc")]),
    "live-footer-on-limit": ((0, 1, 2, 3, 4, 5), [(6, 2, "corrupt.payload_crc")]),
    "frame-count-9": (ALL, [(8, 1, "truncated.frames")]),
    "frame-count-7": ((0, 1, 2, 3, 4, 5), [(6, 1, "invalid.frame_count")]),
    "frame-count-6": ((0, 1, 2, 3, 4, 5), []),
    "segments-over-limit": ((0, 1, 2), [(3, 5, "limit.segments")]),
    "digest": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "corrupt.digest")]),
    "frames": ((0, 1, 2, 4, 7), [(3, 1, "verify.frame"), (5, 2, "verify.frame")]),
    "frame-beside-gap": ((0, 1, 4, 5, 6, 7), [(2, 1, "corrupt.payload_crc"), (3, 1, "verify.frame")]),
    "length-over-limit": ((0, 1, 3, 4, 5, 6, 7), [(2, 1, "limit.chunk_bytes")]),
    "length-over-the-end": ((0, 1), [(2, 6, "truncated.chunk")]),
    "length-over-the-next": ((0, 1, 6, 7), [(2, 4, "corrupt.payload_crc")]),
    "live-footer": ((0, 1, 2, 3, 4, 5), [(6, 2, "corrupt.payload_crc")]),
    "live-footer-over-limit": ((0, 1, 2, 3, 4, 5), []),
    "live-no-footer": ((0, 1, 2, 3, 4, 5), []),
    "live-jump": ((0, 1, 2, 3, 4, 5, 1024, 1025), [(6, 1018, "invalid.first_frame")]),
    "live-jump-over-limit": ((0, 1, 2, 3, 4, 5), [(6, 2, "limit.frames")]),
    "refused-head": "corrupt.payload_crc",
    "refused-nothing": "corrupt.payload_crc",
    "refused-live": "corrupt.header_crc",
    "refused-live-empty": "truncated.frames",
    "refused-end": "truncated.end",
}


def by_the_product(vector: Vector) -> Left:
    """The numbers of the frames that the product salvages, and what is lost; or why nothing is left."""
    try:
        salvager = Salvager(Decoder(io.BytesIO(vector.data), limits=Limits(**vector.limits)), hold=False)
        numbers = tuple(batch.first + i for batch in salvager.frames() for i in range(len(batch.pts)))
    except NvcError as error:
        return error.code
    return numbers, [(gap.first, gap.frames, gap.error.code) for gap in salvager.lost]


def by_the_reference(vector: Vector) -> Left:
    """The same by the reference."""
    try:
        found = list(reference.salvage(vector.data, vector.limits))
    except Refused as refused:
        return refused.code
    numbers = tuple(item.number for item in found if isinstance(item, reference.Frame))
    return numbers, [(item.first, item.frames, item.code) for item in found if not isinstance(item, reference.Frame)]


def test_both_readers_salvage_the_same() -> None:
    by_reference = {vector.name: by_the_reference(vector) for vector in DAMAGED}
    assert {vector.name: by_the_product(vector) for vector in DAMAGED} == by_reference


@pytest.mark.parametrize("salvaged", [by_the_product, by_the_reference])
def test_what_is_salvaged_is_what_the_specification_says(salvaged: Callable[[Vector], Left]) -> None:
    damaged = {vector.name.partition("/")[2]: vector for vector in DAMAGED}
    assert {slug: salvaged(damaged[slug]) for slug in LEFT} == LEFT
