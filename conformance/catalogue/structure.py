"""Files that break one rule of the container, all other checksums repaired: prologue, chunks, order, ends (SPEC 2, 3.1, 3.2).

Each is a film that decodes but for the rule that is broken, so that a decoder which lets it pass gives frames or another code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..suite import Vector
from .bases import Film, film
from .file import MAGIC, Chunk
from .refusals import refusal
from .structure_documents import documents
from .structure_fields import fields
from .structure_index import index
from .structure_order import limits, order
from .structure_packed import packed

FILM, LIVE = film(), film(Film(live=True, indexed=False))
OPEN = film(Film(indexed=False))
DATA = FILM.to_bytes()
MODL, META, SEGM, INDX, FOOT = 1, 2, 3, 6, 7  # numbers of chunks in FILM; the segments are 3, 4 and 5
NAMES = ("HEAD", "MODL", "mETa", "SEGM", "SEGM", "SEGM", "INDX", "FOOT")


def structure() -> Iterator[Vector]:
    """All vectors of files that the container refuses, and of those over its limits."""
    yield from _magic()
    yield from _prologue()
    yield from _checksums()
    yield from _types()
    yield from _places()
    yield from _cuts()
    yield from fields()
    yield from index()
    yield from packed()
    yield from documents()
    yield from limits()
    yield from order()


def _magic() -> Iterator[Vector]:
    for slug, data, about in (
        ("other-file", b"\x89PNG\r\n\x1a\n" + DATA[8:], "the magic of another format"),
        ("last-byte", DATA[:7] + b"\x0b" + DATA[8:], "the last byte of the magic differs"),
        ("of-two-bytes", b"\x89O", "two bytes that are not the first of the magic"),
        ("text-damage-of-six-bytes", MAGIC[:4] + b"\n\x1a", "the mark of CR LF to LF, one byte short of it"),
    ):
        yield refusal(f"magic-{slug}", "not_nvc.magic", data, about, "prologue.magic")
    for slug, name, data in (
        ("cr-lf-to-lf", "CR LF became LF", DATA.replace(b"\r\n", b"\n")),
        ("lf-to-cr-lf", "LF became CR LF", DATA.replace(b"\n", b"\r\n")),
        ("seven-bits", "bit 7 was cleared", bytes(byte & 127 for byte in DATA)),
        ("utf-8", "re-encoded as UTF-8", DATA.decode("latin-1").encode()),
        ("utf-8-replaced", "decoded as UTF-8 with replacement", DATA.decode(errors="replace").encode()),
    ):
        rule = f"damage.{name}"
        yield refusal(f"text-{slug}", "not_nvc.text_damage", data, f"transferred as text: {name}", "M4", "prologue.magic", rule)


def _prologue() -> Iterator[Vector]:
    for size in (0, 1, 8, 31):
        yield refusal(f"prologue-of-{size}-bytes", "truncated.prologue", DATA[:size], f"only {size} bytes of the prologue", "M1")
    for slug, offset in (("version", 8), ("features", 16), ("stream-id", 27), ("checksum", 31)):
        damaged = DATA[:offset] + bytes([DATA[offset] ^ 64]) + DATA[offset + 1 :]
        yield refusal(f"prologue-crc-{slug}", "corrupt.prologue_crc", damaged, f"byte {offset} is damaged", "prologue.crc")
    for slug, code, about, changed in (
        ("major-1", "version", "major is 1", replace(FILM, major=1)),
        ("major-255", "version", "major is 255", replace(FILM, major=255)),
        ("minor-0", "version", "minor is 0", replace(FILM, minor=0)),
        ("minor-2", "version", "minor is 2", replace(FILM, minor=2)),
        ("reserved-1", "reserved", "the reserved field is 1", replace(FILM, reserved=1)),
        ("reserved-high", "reserved", "the upper byte of the reserved field is 1", replace(FILM, reserved=256)),
        ("incompatible-feature-0", "feature", "incompatible feature 0", replace(FILM, incompatible=1)),
        ("incompatible-feature-31", "feature", "incompatible feature 31", replace(FILM, incompatible=1 << 31)),
    ):
        field = slug.rpartition("-")[0]
        rule = "prologue." + ("incompatible_features" if code == "feature" else field)
        yield refusal(slug, f"unsupported.{code}", changed, about, rule)
    others = replace(FILM, compatible=0xFFFFFFFE)
    yield refusal("compatible-bits", "invalid.order", others, "INDX, with all compatible features set but INDEXED", "M2", "F2")


def _checksums() -> Iterator[Vector]:
    with_note = FILM.inserted(SEGM + 1, Chunk(b"noTE", b"note")).indexed()
    places = [("head", 0), ("modl", 1), ("meta", 2), ("segm", 3), ("note", 4), ("last-segm", 6), ("indx", 7), ("foot", 8)]
    for slug, number in places:
        chunk = with_note.chunks[number]
        damaged = with_note.with_chunk(number, replace(chunk, payload_crc=1))
        about = f"another checksum of the payload of chunk {number}, a {chunk.type.decode()}"
        yield refusal(f"payload-crc-{slug}", "corrupt.payload_crc", damaged, about, "C1", "chunk.payload_crc", "F1", "N4")
        damaged = with_note.with_chunk(number, replace(chunk, header_crc=1))
        about = f"another checksum of the header of chunk {number}, a {chunk.type.decode()}"
        yield refusal(f"header-crc-{slug}", "corrupt.header_crc", damaged, about, "C1", "chunk.header_crc", "N4")
    start, end, index = FILM.offset(SEGM), FILM.offset(SEGM + 1), FILM.offset(INDX)
    other = replace(FILM, stream_id=b"another ").to_bytes()
    mixed = DATA[:start] + other[start:end] + DATA[end:]
    about = "a segment whose checksum is that of the same chunk in another file"
    yield refusal("chunk-of-another-file", "corrupt.header_crc", mixed, about, "C1", "chunk.header_crc")
    mixed = DATA[:index] + other[index:]
    yield refusal("end-of-another-file", "corrupt.header_crc", mixed, "index and footer of another file", "C1")


def _types() -> Iterator[Vector]:
    for slug, kind in (
        ("digit", b"n0TE"),
        ("below-upper-case", b"@OTE"),
        ("above-upper-case", b"no[E"),
        ("below-lower-case", b"`oTE"),
        ("above-lower-case", b"{oTE"),
        ("high-bit", b"n\xefTE"),
        ("latin-letter", b"noT\xe9"),
        ("nul", b"noT\0"),
    ):
        broken = FILM.inserted(SEGM, Chunk(kind, b"")).indexed()
        yield refusal(f"chunk-type-{slug}", "invalid.chunk_type", broken, f"a chunk of type {kind!r}", "chunk.type")
    for slug, number, kind in (
        ("first", 0, b"WARP"),
        ("before-segments", SEGM, b"AAAA"),
        ("between-segments", SEGM + 1, b"ZOTe"),
        ("like-a-known-one", SEGM + 1, b"SEgM"),
        ("before-footer", FOOT, b"FOOt"),
    ):
        broken = FILM.inserted(number, Chunk(kind, b""))
        broken = broken if number == FOOT else broken.indexed()
        rules = ("C2", "C3")
        yield refusal(f"unknown-critical-{slug}", "unsupported.chunk", broken, f"a critical chunk of type {kind!r}", *rules)
    broken = OPEN.inserted(len(OPEN.chunks), Chunk(b"WARP", b"x"))
    yield refusal("unknown-critical-last", "unsupported.chunk", broken, "a critical chunk behind the last segment", "C2", "N4")


def _places() -> Iterator[Vector]:
    note = Chunk(b"noTE", b"note")
    chunks = {name: FILM.chunks[number] for number, name in reversed([*enumerate(NAMES)])}
    for slug, wrong, about in (
        ("no-head", FILM.without(0), "no HEAD: MODL comes first"),
        ("no-modl", FILM.without(MODL), "no MODL: mETa comes second"),
        ("head-twice", FILM.inserted(1, chunks["HEAD"]), "a second HEAD behind the first"),
        ("head-behind-modl", FILM.inserted(2, chunks["HEAD"]).indexed(), "a second HEAD behind MODL"),
        ("head-last", OPEN.inserted(6, chunks["HEAD"]), "a second HEAD behind the last segment"),
        ("modl-first", FILM.with_chunks([FILM.chunks[1], FILM.chunks[0], *FILM.chunks[2:]]), "MODL in front of HEAD"),
        ("modl-twice", FILM.inserted(2, chunks["MODL"]).indexed(), "a second MODL behind the first"),
        ("modl-between-segments", FILM.inserted(4, chunks["MODL"]).indexed(), "a second MODL between segments"),
        ("meta-first", FILM.inserted(0, chunks["mETa"]), "mETa in front of HEAD"),
        ("meta-before-modl", FILM.without(META).inserted(MODL, chunks["mETa"]), "mETa in front of MODL"),
        ("meta-twice", FILM.inserted(SEGM, chunks["mETa"]).indexed(), "two mETa"),
        ("meta-behind-ancillary", FILM.inserted(META, note).indexed(), "an ancillary chunk between MODL and mETa"),
        ("meta-between-segments", FILM.without(META).inserted(SEGM, chunks["mETa"]).indexed(), "mETa behind the first segment"),
        ("meta-behind-segments", FILM.without(META).inserted(SEGM + 2, chunks["mETa"]).indexed(), "mETa behind the last segment"),
        ("meta-before-footer", FILM.inserted(FOOT, chunks["mETa"]), "mETa between INDX and FOOT"),
        ("segm-first", FILM.inserted(0, chunks["SEGM"]), "SEGM in front of HEAD"),
        ("segm-before-modl", FILM.inserted(1, chunks["SEGM"]), "SEGM in front of MODL"),
        ("segm-before-footer", FILM.inserted(FOOT, chunks["SEGM"]), "SEGM between INDX and FOOT"),
        ("indx-before-modl", FILM.inserted(MODL, chunks["INDX"]), "INDX in front of MODL"),
        ("indx-twice", FILM.inserted(FOOT, chunks["INDX"]), "a second INDX in front of FOOT"),
        ("foot-first", FILM.inserted(0, chunks["FOOT"]), "FOOT in front of HEAD"),
        ("foot-before-indx", FILM.inserted(INDX, chunks["FOOT"]), "FOOT in front of INDX"),
        ("foot-between-segments", FILM.inserted(SEGM + 1, chunks["FOOT"]), "FOOT between segments"),
        ("foot-without-indx", FILM.without(INDX), "FOOT, but no INDX"),
        ("indx-without-feature", replace(FILM, compatible=0), "INDX and FOOT, but INDEXED is not set"),
        ("foot-without-feature", replace(FILM.without(INDX), compatible=0), "FOOT, but INDEXED is not set"),
        ("ancillary-first", FILM.inserted(0, note), "an unknown ancillary chunk in front of HEAD"),
        ("ancillary-before-modl", FILM.inserted(MODL, note), "an unknown ancillary chunk between HEAD and MODL"),
        ("ancillary-before-footer", FILM.inserted(FOOT, note), "an unknown ancillary chunk between INDX and FOOT"),
        ("meta-in-small-letters", FILM.inserted(MODL, Chunk(b"meta", b"")), "a type that is mETa but for the second letter"),
    ):
        yield refusal(f"order-{slug}", "invalid.order", wrong, about, "F2", "F1")
    live = film(Film(live=True))
    early = live.without(4, 5).indexed().inserted(5, live.chunks[4])
    yield refusal("order-segm-behind-indx", "invalid.order", early, "a live film that goes on behind its index", "F2")
    behind = [("byte", b"\0"), ("line", b"\r\n"), ("file", DATA), ("chunk", note.to_bytes(FILM.stream_id))]
    behind += [("footer", FILM.chunks[FOOT].to_bytes(FILM.stream_id)), ("critical", Chunk(b"WARP", b"").to_bytes(FILM.stream_id))]
    for slug, tail in behind:
        about = f"{len(tail)} bytes behind FOOT: another {slug}"
        yield refusal(f"trailing-{slug}", "invalid.trailing_data", DATA + tail, about, "F3")
    data = OPEN.to_bytes() + b"\0"
    yield refusal("trailing-byte-unindexed", "truncated.chunk", data, "a byte behind the last chunk", "F3", "C4")


def _cuts() -> Iterator[Vector]:
    for number, name in enumerate(["the prologue", *NAMES[:-1]]):
        data = DATA[: FILM.offset(number)]
        yield refusal(f"end-before-chunk-{number}", "truncated.end", data, f"the file ends behind {name}", "F4")
    for slug, end in (
        ("head-header", FILM.offset(0) + 1),
        ("head-payload", FILM.offset(1) - 1),
        ("modl-header", FILM.offset(1) + 15),
        ("modl-payload", FILM.offset(1) + 16),
        ("meta-header", FILM.offset(META) + 15),
        ("meta-payload", FILM.offset(META) + 17),
        ("segm-header", FILM.offset(SEGM + 1) + 4),
        ("segm-payload", FILM.offset(SEGM + 1) + 16),
        ("indx-payload", FILM.offset(FOOT) - 20),
        ("foot-header", FILM.offset(FOOT) + 15),
        ("foot-payload", len(DATA) - 1),
    ):
        yield refusal(f"cut-{slug}", "truncated.chunk", DATA[:end], f"the file ends at byte {end}, within a chunk", "C4")
    live = LIVE.to_bytes()
    about = "a live film, cut within its last segment"
    yield refusal("cut-live", "truncated.chunk", live[:-1], about, "C4", "N4")
    about = "a live film with an ancillary chunk at the end, cut within it"
    note = Chunk(b"noTE", b"note").to_bytes(LIVE.stream_id)
    yield refusal("cut-ancillary", "truncated.chunk", live + note[:-1], about, "C4", "F1")
    for slug, file in (("behind-modl", LIVE.with_chunks(LIVE.chunks[:2])), ("behind-meta", LIVE.with_chunks(LIVE.chunks[:3]))):
        yield refusal(f"live-end-{slug}", "truncated.frames", file, "a live film without any segment", "N3")
    empty = film(Film(live=True)).without(3, 4, 5).indexed()
    yield refusal("no-segment-indexed", "truncated.frames", empty, "an index of no segment", "N3")
    for end in (4, 5):
        about = f"only {end - 3} of the three segments, no index"
        yield refusal(f"open-end-{end - 3}", "truncated.frames", OPEN.with_chunks(OPEN.chunks[:end]), about, "N2")
    fewer = FILM.without(5).indexed()
    yield refusal("segment-missing", "truncated.frames", fewer, "the last segment and its entry are missing", "N2")
    long = Chunk(b"noTE", b"", length=1 << 20).to_bytes(FILM.stream_id)
    about = "a chunk that says it has a MiB, in a file of one KiB"
    yield refusal("longer-than-the-file", "truncated.chunk", DATA[: FILM.offset(SEGM)] + long, about, "C4")
