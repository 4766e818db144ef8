"""Files whose segments do not follow each other or are not as many as stated, wrong indices and footers (SPEC 4.4 to 4.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from ..suite import Vector
from .bases import Film, film
from .file import File
from .refusals import refusal
from .structure_fields import with_head, with_segment

FILM, OPEN = film(), film(Film(indexed=False))
INDEX = {"offset": (0, "<Q"), "first_frame": (8, "<Q"), "frames": (16, "<I")}
FOOTER = {"index_offset": (0, "<Q"), "frames": (8, "<Q"), "segments": (16, "<I")}


def index() -> Iterator[Vector]:
    """The vectors of this file."""
    yield from _frames()
    yield from _index()


def _frames() -> Iterator[Vector]:
    for slug, wrong, about in (
        ("first", with_segment(FILM, first_frame=1), "the first segment begins with frame 1"),
        ("gap", with_segment(FILM, 1, first_frame=3), "the second segment leaves a frame out"),
        ("overlap", with_segment(FILM, 2, first_frame=4), "the last segment begins with a frame that was there"),
        ("again", with_segment(FILM, 1, first_frame=0), "the second segment begins with frame 0, too"),
        ("jump", with_segment(FILM, 2, first_frame=(1 << 30) - 1), "the last segment begins with frame 2^30 - 1"),
        ("swapped", _ordered(FILM, (0, 2, 1)), "the last two segments are swapped"),
        ("twice", _ordered(FILM, (0, 0, 1, 2)), "the first segment stands there twice"),
        ("left-out", _ordered(FILM, (0, 2)), "the second segment is not there"),
    ):
        yield refusal(f"frames-{slug}", "invalid.first_frame", wrong, about, "N1")
    about = "HEAD states 5 of the 6 frames"
    for slug, base in (("", FILM), ("-open", OPEN)):
        yield refusal(f"frame-count-less{slug}", "invalid.frame_count", with_head(base, frame_count=5), about, "N2")
        about = "HEAD states 7 frames, there are 6"
        yield refusal(f"frame-count-more{slug}", "truncated.frames", with_head(base, frame_count=7), about, "N2")
        about = "HEAD states 5 frames, the first two segments have them"
    yield refusal("frame-count-1", "invalid.frame_count", with_head(FILM, frame_count=1), "HEAD states 1 of the 6 frames", "N2")


def _ordered(file: File, numbers: Sequence[int]) -> File:
    """The file with these of its segments."""
    segments = [chunk for chunk in file.chunks if chunk.type == b"SEGM"]
    first = file.number(b"SEGM")
    chunks = [*file.chunks[:first], *(segments[number] for number in numbers), *file.chunks[first + len(segments) :]]
    return file.with_chunks(chunks).indexed()


def _index() -> Iterator[Vector]:
    index, footer = FILM.payload(b"INDX"), FILM.payload(b"FOOT")
    entries = [index[at : at + 20] for at in range(0, len(index), 20)]

    def entry(number: int, name: str, difference: int) -> bytes:
        """The index with another number in one entry."""
        offset, form = INDEX[name]
        return _added(index, 20 * number + offset, form, difference)

    for slug, payload, about in (
        ("offset-first", entry(0, "offset", 1), "the offset of the first segment is 1 more"),
        ("offset-last", entry(2, "offset", 16), "the offset of the last segment is that of its payload"),
        ("offset-high", entry(1, "offset", 1 << 32), "an offset is 2^32 more"),
        ("first-frame", entry(0, "first_frame", 1), "the first segment begins with frame 1"),
        ("first-frame-last", entry(2, "first_frame", -1), "the last segment begins one frame before it does"),
        ("first-frame-high", entry(1, "first_frame", 1 << 32), "a first frame is 2^32 more"),
        ("frames", entry(0, "frames", 1), "the first segment has a frame more"),
        ("frames-last", entry(2, "frames", -1), "the last segment has no frame"),
        ("swapped", b"".join([entries[0], entries[2], entries[1]]), "two entries are swapped"),
        ("entry-missing", index[:-20], "the last entry is not there"),
        ("entry-more", index + entries[2], "the last entry stands there twice"),
        ("byte-less", index[:-1], "the last byte is not there"),
        ("byte-more", index + b"\0", "a byte stands behind the entries"),
        ("empty", b"", "no entries"),
    ):
        wrong = FILM.with_payload(b"INDX", payload)
        yield refusal(f"index-{slug}", "invalid.index", wrong, f"INDX: {about}", "X1", "N4")

    def field(name: str, difference: int) -> bytes:
        """The footer with another number."""
        return _added(footer, *FOOTER[name], difference)

    for slug, payload, about in (
        ("index-offset", field("index_offset", -1), "the offset of INDX is 1 less"),
        ("index-offset-payload", field("index_offset", 16), "the offset of INDX is that of its payload"),
        ("index-offset-high", field("index_offset", 1 << 32), "the offset of INDX is 2^32 more"),
        ("frames-less", field("frames", -1), "a frame less"),
        ("frames-more", field("frames", 1), "a frame more"),
        ("frames-high", field("frames", 1 << 32), "2^32 frames more"),
        ("segments-less", field("segments", -1), "a segment less"),
        ("segments-more", field("segments", 1), "a segment more"),
        ("short", footer[:-1], "a byte is missing"),
        ("long", footer + b"\0", "a byte more"),
        ("empty", b"", "nothing"),
    ):
        wrong = FILM.with_payload(b"FOOT", payload)
        yield refusal(f"footer-{slug}", "invalid.footer", wrong, f"FOOT: {about}", "X2", "N4")
    live = film(Film(live=True))
    wrong = live.with_payload(b"FOOT", _added(live.payload(b"FOOT"), *FOOTER["frames"], 1))
    yield refusal("footer-frames-live", "invalid.footer", wrong, "FOOT of a live film: a frame more", "X2")


def _added(data: bytes, offset: int, form: str, difference: int) -> bytes:
    """The data with a difference added to a number in it."""
    (value,) = struct.unpack_from(form, data, offset)
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, value + difference)
    return bytes(changed)
