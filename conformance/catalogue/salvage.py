"""Damaged files of which something is left: what must be kept and what is lost is fixed by SPEC 4.7.

The answer that a vector expects here is that of a reader who refuses; the entry point adds what the reference salvages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from ..suite import Vector
from .bases import Film, film
from .file import Chunk, File
from .structure_fields import HASHES, SEGMENT, parts_of, with_head

COUNTS = (2, 1, 3, 2)  # frames of the segments, which begin with frames 0, 2, 3 and 6
FILM, VARIABLE, LIVE = film(Film(COUNTS)), film(Film(COUNTS, variable=True)), film(Film(COUNTS, live=True))
OPEN = film(Film(COUNTS, live=True, indexed=False))
HEAD, MODL, META, SEGM, INDX, FOOT = 0, 1, 2, 3, 7, 8  # numbers of chunks; the segments are 3, 4, 5 and 6
FIRST, SECOND, THIRD, LAST = range(SEGM, SEGM + 4)
OVER = 67108865  # one over the limit of a chunk


def salvage() -> Iterator[Vector]:
    """All vectors of damaged files."""
    yield from _cuts()
    yield from _damage()
    yield from _bytes()
    yield from _chunks()
    yield from _segments()
    yield from _numbers()
    yield from _lengths()
    yield from _live()
    yield from _refused()


def _damaged(slug: str, code: str, file: File | bytes, about: str, *clauses: str, **limits: int) -> Vector:
    data = file if isinstance(file, bytes) else file.to_bytes()
    return Vector(f"salvage/{slug}", data, about, clauses, code, limits=limits)


def _payload(file: File, number: int) -> File:
    """The file with a damaged payload."""
    return file.with_chunk(number, replace(file.chunks[number], payload_crc=1))


def _header(file: File, number: int) -> File:
    """The file with a damaged chunk header."""
    return file.with_chunk(number, replace(file.chunks[number], header_crc=1))


def _fields(file: File, number: int, **values: int) -> File:
    """The file with these fields in the header of the segment `number`, and everything else as it was."""
    for name, value in values.items():
        offset, form = SEGMENT[name]
        file = file.patched(b"SEGM", offset, struct.pack(form, value), number)
    return file


def _cuts() -> Iterator[Vector]:
    data = FILM.to_bytes()
    for slug, code, end, about in (
        ("cut-in-last-segment", "truncated.chunk", FILM.offset(INDX) - 1, "cut one byte before the end of the last segment"),
        ("cut-behind-header", "truncated.chunk", FILM.offset(LAST) + 16, "cut behind the chunk header of the last segment"),
        ("cut-in-header", "truncated.chunk", FILM.offset(THIRD) + 5, "cut within the chunk header of the third segment"),
        ("cut-behind-segment", "truncated.end", FILM.offset(THIRD), "cut behind the second segment"),
        ("cut-before-index", "truncated.end", FILM.offset(INDX), "cut behind the last segment"),
        ("cut-in-footer", "truncated.chunk", len(data) - 1, "cut one byte before the end"),
    ):
        yield _damaged(slug, code, data[:end], about, "V2", "V4", "V5")


def _damage() -> Iterator[Vector]:
    for name, number in (("first", FIRST), ("second", SECOND), ("last", LAST)):
        about = f"the payload of the {name} segment is damaged"
        yield _damaged(f"payload-{name}", "corrupt.payload_crc", _payload(FILM, number), about, "V3", "V4", "V5")
        about = f"the chunk header of the {name} segment is damaged"
        yield _damaged(f"header-{name}", "corrupt.header_crc", _header(FILM, number), about, "V2", "V4", "V5")
    both = _header(_payload(FILM, THIRD), SECOND)
    yield _damaged("header-then-payload", "corrupt.header_crc", both, "header of the second segment, payload of the third", "V5")
    both = _header(_payload(FILM, SECOND), THIRD)
    yield _damaged("payload-then-header", "corrupt.payload_crc", both, "payload of the second segment, header of the third", "V5")
    both = _payload(_payload(FILM, FIRST), THIRD)
    yield _damaged("every-other", "corrupt.payload_crc", both, "the payloads of the first and the third segment", "V3", "V4")
    for slug, code, wrong, about in (
        ("index-payload", "corrupt.payload_crc", _payload(FILM, INDX), "the payload of INDX is damaged"),
        ("index-header", "corrupt.header_crc", _header(FILM, INDX), "the chunk header of INDX is damaged"),
        ("footer-header", "corrupt.header_crc", _header(FILM, FOOT), "the chunk header of FOOT is damaged"),
        ("footer-wrong", "invalid.footer", FILM.with_payload(b"FOOT", bytes(20)), "FOOT states no frames; HEAD counts"),
        ("index-empty", "invalid.index", FILM.with_payload(b"INDX", b""), "INDX is empty"),
        ("metadata-header", "corrupt.header_crc", _header(FILM, META), "the chunk header of mETa is damaged"),
        ("metadata-wrong", "invalid.packed", FILM.with_payload(b"mETa", b"").indexed(), "mETa is empty"),
    ):
        yield _damaged(slug, code, wrong, about + "; no frame is lost", "V1" if "metadata" in slug else "V3", "V5")
    wrong = _payload(_payload(FILM, FOOT), LAST)
    yield _damaged("footer-and-last", "corrupt.payload_crc", wrong, "the payloads of the last segment and of FOOT", "V4", "V5")


def _bytes() -> Iterator[Vector]:
    data = FILM.to_bytes()
    second, third = FILM.offset(SECOND), FILM.offset(THIRD)
    noise = b"SEGM" * 5 + b"FOOTINDXSEG"
    inserted = data[:third] + noise + data[third:]
    about = f"{len(noise)} bytes inserted between segments, with the letters of chunk types"
    yield _damaged("inserted-between", "corrupt.header_crc", inserted, about, "V2")
    about = "3 bytes inserted into the payload of the second segment"
    inserted = data[: third - 5] + b"new" + data[third - 5 :]
    yield _damaged("inserted-within", "corrupt.payload_crc", inserted, about, "V2", "V3")
    deleted = data[: third - 8] + data[third - 5 :]
    about = "3 bytes deleted from the payload of the second segment, which takes those of the next header"
    yield _damaged("deleted-within", "corrupt.payload_crc", deleted, about, "V2", "V3")
    deleted = data[:third] + data[third + 16 :]
    yield _damaged("deleted-header", "corrupt.header_crc", deleted, "the chunk header of the third segment is deleted", "V2")
    deleted = data[: second + 9] + data[third + 3 :]
    yield _damaged("deleted-across", "corrupt.header_crc", deleted, "the file lacks the bytes from one header to the next", "V2")
    stale = data[:third] + VARIABLE.to_bytes()[third:]
    yield _damaged("stale-tail", "corrupt.header_crc", stale, "from the third segment on the bytes of another film", "V2")
    zeros = data[:third] + bytes(len(data) - third)
    yield _damaged("zeros", "corrupt.header_crc", zeros, "from the third segment on nothing but zeros", "V2")
    yield _damaged("trailing", "invalid.trailing_data", data + data, "the film stands there twice; no frame is lost", "V4")


def _chunks() -> Iterator[Vector]:
    warp = Chunk(b"WARP", b"")
    inserted, early = FILM.inserted(THIRD, warp), FILM.without(THIRD).inserted(SECOND, warp)
    for slug, code, wrong, about, rule in (
        ("critical", "unsupported.chunk", inserted, "an unknown critical chunk in front of the third segment", "V3"),
        ("critical-then-gap", "unsupported.chunk", _payload(inserted, THIRD + 1), "the same, and that segment is damaged", "V5"),
        ("critical-then-good", "unsupported.chunk", early, "such a chunk in front of the second, the third is missing", "V5"),
        ("critical-for-segment", "unsupported.chunk", FILM.with_chunk(THIRD, warp), "one in place of the third segment", "V5"),
        ("chunk-type", "invalid.chunk_type", FILM.inserted(THIRD, Chunk(bytes(4), b"zero")), "a chunk type of no letters", "V2"),
        ("second-head", "invalid.order", FILM.inserted(THIRD, FILM.chunks[HEAD]), "a second HEAD between segments", "V3"),
        ("early-footer", "invalid.order", FILM.inserted(LAST, FILM.chunks[FOOT]), "FOOT, the end, before the last", "V4"),
        ("early-index", "truncated.frames", FILM.inserted(LAST, FILM.chunks[INDX]), "INDX, no end, before the last", "V3"),
    ):
        yield _damaged(slug, code, wrong, about, rule)
    hidden = FILM.chunks[SECOND].to_bytes(FILM.stream_id)
    wrong = FILM.with_chunk(SECOND, Chunk(b"noTE", b"in front" + hidden, header_crc=1)).indexed()
    about = "the second segment lies in an ancillary chunk, whose header is damaged: it is found"
    yield _damaged("hidden-found", "corrupt.header_crc", wrong, about, "V2")
    wrong = FILM.with_chunk(SECOND, Chunk(b"noTE", b"in front" + hidden)).indexed()
    about = "the second segment lies in an ancillary chunk, whose header is believed: it is lost"
    yield _damaged("hidden-lost", "invalid.first_frame", wrong, about, "V2")
    wrong = FILM.with_chunk(SECOND, Chunk(b"noTE", hidden + bytes(100))).indexed()
    most = len(hidden) + 100
    about = "the same, and the length of that chunk is the limit"
    yield _damaged("hidden-on-limit", "invalid.first_frame", wrong, about, "V2", "max_chunk_bytes", max_chunk_bytes=most)


def _segments() -> Iterator[Vector]:
    def ordered(*numbers: int) -> File:
        chunks = FILM.chunks
        return FILM.with_chunks([*chunks[:SEGM], *(chunks[SEGM + number] for number in numbers), *chunks[INDX:]])

    for slug, wrong, about in (
        ("duplicated", ordered(0, 1, 1, 2, 3), "the second segment stands there twice; no frame is lost"),
        ("swapped", ordered(0, 2, 1, 3), "the second and third segment are swapped"),
        ("missing", ordered(0, 1, 3), "the third segment is missing"),
        ("missing-first", ordered(1, 2, 3), "the first segment is missing"),
        ("reversed", ordered(3, 2, 1, 0), "the segments stand there from last to first"),
    ):
        yield _damaged(slug, "invalid.first_frame", wrong, about, "V3", "V4", "V5")
    fewer = ordered(0, 1, 2)
    index, footer = fewer.number(b"INDX"), fewer.number(b"FOOT")
    note = film(Film(COUNTS, indexed=False)).with_chunk(LAST, Chunk(b"noTE", b"note"))
    for slug, code, cut, about in (
        ("missing-last", "truncated.frames", fewer, "alone"),
        ("missing-and-index", "corrupt.payload_crc", _payload(fewer, index), "and the payload of INDX, which is not looked at"),
        ("missing-and-cut-index", "truncated.chunk", fewer.to_bytes()[:-37], "and INDX is cut"),
        ("missing-and-footer", "truncated.frames", _payload(fewer, footer), "and the payload of FOOT, which is looked at"),
        ("missing-and-short-footer", "truncated.frames", fewer.with_payload(b"FOOT", bytes(19)), "and FOOT is too short"),
        ("missing-and-long-footer", "truncated.frames", fewer.with_payload(b"FOOT", bytes(21)), "and FOOT is too long"),
        ("missing-and-cut-footer", "truncated.frames", fewer.to_bytes()[:-1], "and FOOT is cut"),
        ("missing-and-cut-note", "truncated.chunk", note.to_bytes()[:-1], "and an ancillary chunk in its place is cut, no INDX"),
    ):
        yield _damaged(slug, code, cut, f"the last segment is missing, {about}", "V3", "V4", "V5")
    for count, code, about in (
        (9, "truncated.frames", "HEAD states a frame more than there are"),
        (7, "invalid.frame_count", "HEAD states 7 frames, so the last segment is not good"),
        (6, "invalid.frame_count", "HEAD states 6 frames, the first three segments have them"),
    ):
        yield _damaged(f"frame-count-{count}", code, with_head(FILM, frame_count=count), about, "V3", "V4", "V5")
    wrong = _fields(FILM, 3, first_frame=1 << 10)
    about = "the last segment begins with frame 2^10, HEAD states 8 frames"
    yield _damaged("jump", "invalid.first_frame", wrong, about, "V3", "V5")
    longest = max(len(chunk.payload) for chunk in FILM.chunks)
    about = "the header of the second segment is damaged; the length of the third, which is found, is the limit"
    damaged = _header(FILM, SECOND)
    yield _damaged("on-limit", "corrupt.header_crc", damaged, about, "V2", "max_chunk_bytes", max_chunk_bytes=longest)
    about = "the payload of the second segment is damaged, and the last one ends on the limit of frames"
    damaged = _payload(LIVE, SECOND)
    yield _damaged("on-limit-of-frames", "corrupt.payload_crc", damaged, about, "V3", "max_frames", max_frames=8)
    about = "there may be two segments"
    yield _damaged("segments-over-limit", "limit.segments", FILM, about, "V3", "max_segments", max_segments=2)


def _numbers() -> Iterator[Vector]:
    for slug, code, wrong, about in (
        ("digest", "corrupt.digest", FILM.patched(b"SEGM", 16, bytes(8), 1), "the digest of the second segment"),
        ("program", "invalid.program", _fields(FILM, 2, program=2), "the program of the third segment"),
        ("flags", "unsupported.segment_flags", _fields(FILM, 2, flags=1), "a flag of the third segment"),
    ):
        yield _damaged(slug, code, wrong, f"{about} is wrong, with checksums that are right", "V3", "V5")

    def wrong_hashes(file: File, number: int, *frames: int) -> File:
        """The file with other hashes of some frames of a segment."""
        parts = parts_of(file, number)
        hashes = bytearray(dict(parts.sections)[HASHES])
        for frame in frames:
            hashes[8 * frame] ^= 1
        return file.with_payload(b"SEGM", parts.with_section(HASHES, bytes(hashes)).to_bytes(), number)

    yield _damaged("frame", "verify.frame", wrong_hashes(FILM, 2, 1), "frame 4 differs from its hash", "V6")
    several = wrong_hashes(wrong_hashes(FILM, 2, 0, 2), 3, 0)
    yield _damaged("frames", "verify.frame", several, "frames 3, 5 and 6, of two segments, differ from their hashes", "V6")
    beside = wrong_hashes(_payload(FILM, SECOND), 2, 0)
    yield _damaged("frame-beside-gap", "corrupt.payload_crc", beside, "the second segment, and the hash of frame 3", "V6")
    wrong = wrong_hashes(_payload(VARIABLE, SECOND), 3, 0)
    about = "variable frame rate: the payload of the second segment, and the hash of frame 6"
    yield _damaged("variable", "corrupt.payload_crc", wrong, about, "V3", "V4", "V6")
    wrong = _header(VARIABLE, FIRST)
    yield _damaged("variable-first", "corrupt.header_crc", wrong, "variable frame rate: the first segment", "V2", "V4")
    wrong = VARIABLE.without(SECOND)
    about = "variable frame rate: the second segment is missing"
    yield _damaged("variable-missing", "invalid.first_frame", wrong, about, "V4", "V5")


def _lengths() -> Iterator[Vector]:
    second, third = FILM.chunks[SECOND], FILM.chunks[THIRD]
    both = len(second.payload) + 16 + len(third.payload)
    for slug, code, wrong, about in (
        ("length-over-limit", "limit.chunk_bytes", replace(second, length=OVER), "over the limit, and not believed"),
        ("length-over-the-end", "truncated.chunk", replace(second, length=1 << 16), "over the end of the file, and is believed"),
        ("length-over-the-next", "corrupt.payload_crc", replace(second, length=both), "over the next segment, and is believed"),
        ("length-too-short", "corrupt.payload_crc", replace(second, length=24), "too short, and is believed"),
    ):
        about = f"the length of the second segment, with a right checksum, is {about}"
        yield _damaged(slug, code, FILM.with_chunk(SECOND, wrong), about, "V2", "V3", "V5")


def _live() -> Iterator[Vector]:
    wrong = _payload(LIVE, LAST)
    yield _damaged("live-footer", "corrupt.payload_crc", wrong, "HEAD states no number of frames: it is that in FOOT", "V4")
    about = "HEAD states no number of frames, that in FOOT is on the limit"
    yield _damaged("live-footer-on-limit", "corrupt.payload_crc", wrong, about, "V4", "max_frames", max_frames=8)
    footer = bytearray(LIVE.payload(b"FOOT"))
    struct.pack_into("<Q", footer, 8, 1 << 40)
    about = "HEAD states no number of frames, that in FOOT is over the limit: the end is not known"
    yield _damaged("live-footer-over-limit", "corrupt.payload_crc", wrong.with_payload(b"FOOT", bytes(footer)), about, "V4")
    about = "HEAD states no number of frames, FOOT is damaged: the end is not known"
    yield _damaged("live-footer-damaged", "corrupt.payload_crc", _payload(wrong, FOOT), about, "V4")
    about = "HEAD states no number of frames, and there is no FOOT: the end is not known"
    yield _damaged("live-no-footer", "corrupt.payload_crc", _payload(OPEN, LAST), about, "V4")
    yield _damaged("live-cut", "truncated.chunk", OPEN.to_bytes()[:-9], "a live film, cut within its last segment", "V2", "V4")
    wrong = _fields(OPEN, 3, first_frame=1 << 10)
    yield _damaged("live-jump", "invalid.first_frame", wrong, "the last segment begins with frame 2^10, and is kept", "V3", "V4")
    wrong = _fields(LIVE, 3, first_frame=2592000 - 1)
    about = "the last segment ends behind the limit of frames: FOOT counts"
    yield _damaged("live-jump-over-limit", "invalid.first_frame", wrong, about, "V3", "max_frames")


def _refused() -> Iterator[Vector]:
    nothing = FILM
    for number in (FIRST, SECOND, THIRD, LAST):
        nothing = _payload(nothing, number)
    empty = film(Film(variable=True, live=True, indexed=False)).without(3, 4, 5)
    nothing, live = _header(nothing, SECOND), OPEN
    for number in (FIRST, SECOND, THIRD, LAST):
        live = _payload(_header(live, number) if number == FIRST else live, number)
    data = FILM.to_bytes()
    for slug, code, wrong, about, rule in (
        ("refused-prologue", "corrupt.prologue_crc", replace(FILM, crc=1), "the prologue is damaged", "V1"),
        ("refused-head", "corrupt.payload_crc", _payload(FILM, HEAD), "HEAD is damaged", "V1"),
        ("refused-model", "corrupt.header_crc", _header(FILM, MODL), "the chunk header of MODL is damaged", "V1"),
        ("refused-program", "invalid.program", FILM.with_payload(b"MODL", b"\x90"), "MODL has no program", "V1"),
        ("refused-nothing", "corrupt.payload_crc", nothing, "all segments are damaged, which is met in the first", "V6"),
        ("refused-live", "corrupt.header_crc", live, "a live film whose segments are damaged, the first in its header", "V6"),
        ("refused-live-empty", "truncated.frames", empty, "a live film of no segment", "V6"),
        ("refused-end", "truncated.end", data[: FILM.offset(META)], "the file ends behind MODL", "V6"),
    ):
        yield _damaged(slug, code, wrong, about, rule)
