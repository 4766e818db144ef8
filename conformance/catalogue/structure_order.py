"""Files over a limit of the container, and files that break two rules, of which the first in the order of SPEC 10 counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..suite import Vector
from .bases import Film, film
from .file import Chunk, File
from .refusals import refusal
from .structure_fields import EMBEDDINGS, HASHES, TIMES, parts_of, ticks, with_head, with_parts, with_segment, with_times

FILM, LIVE, OPEN = film(), film(Film(live=True, indexed=False)), film(Film(indexed=False))
VARIABLE = film(Film(variable=True))
MODL, META, SEGM, INDX, FOOT = 1, 2, 3, 6, 7  # numbers of chunks in FILM
LONGEST = max(len(chunk.payload) for chunk in FILM.chunks)
OVER = 67108865  # one over the limit of a chunk


def limits() -> Iterator[Vector]:
    """One over each limit of SPEC 9 that the container keeps."""
    for slug, code, wrong, about, rule in (
        ("width", "side", with_head(FILM, width=16385), "16385 samples wide", "max_side"),
        ("height", "side", with_head(FILM, height=16385), "16385 samples high", "max_side"),
        ("side-largest", "side", with_head(FILM, width=65535, height=65535), "65535 samples wide and high", "max_side"),
        ("pixels", "pixels", with_head(FILM, width=3463, height=10295), "35651585 samples", "max_pixels"),
        ("pixels-of-32-bits", "pixels", with_head(FILM, width=16384, height=16384), "2^28 samples", "max_pixels"),
        ("frame-count", "frames", with_head(FILM, frame_count=2592001), "HEAD states 2592001 frames", "max_frames"),
        ("frame-count-largest", "frames", with_head(FILM, frame_count=1 << 30), "HEAD states 2^30 frames", "max_frames"),
        ("segment-frames-over", "segment_frames", with_segment(FILM, frames=4097), "a segment of 4097", "max_segment_frames"),
        ("segment-largest", "segment_frames", with_segment(FILM, frames=65535), "a segment of 65535", "max_segment_frames"),
    ):
        yield refusal(slug, f"limit.{code}", wrong, about, rule, "L1", "L2")
    for kind, number in ((b"HEAD", 0), (b"SEGM", SEGM), (b"noTE", SEGM), (b"FOOT", FOOT)):
        slug = kind.decode().lower()
        wrong = FILM.inserted(number, Chunk(kind, b"", length=OVER))
        about = f"a {kind.decode()} chunk that says it has 64 MiB and a byte"
        yield refusal(f"chunk-bytes-{slug}", "limit.chunk_bytes", wrong, about, "max_chunk_bytes", "chunk.length", "L1", "L2")
    most = (1 << 28) - 1
    wrong = FILM.inserted(SEGM, Chunk(b"noTE", b"", length=1 << 28))
    about = "a chunk that says it has 2^28 bytes, where the limit is the largest"
    yield refusal("chunk-bytes-of-the-format", "limit.chunk_bytes", wrong, about, "chunk.length", "L1", max_chunk_bytes=most)
    wrong = FILM.inserted(SEGM, Chunk(b"noTE", b"", length=(1 << 32) - 1))
    about = "a chunk that says it has 2^32 - 1 bytes"
    yield refusal("chunk-bytes-largest", "limit.chunk_bytes", wrong, about, "chunk.length", "L1")
    about = "one over a limit of this reader:"
    for slug, code, file, limit, value in (
        ("given-width", "side", FILM, "max_side", 5),
        ("given-height", "side", with_head(FILM, width=4, height=6), "max_side", 5),
        ("given-pixels", "pixels", FILM, "max_pixels", 23),
        ("given-frame-count", "frames", FILM, "max_frames", 5),
        ("given-frames-live", "frames", LIVE, "max_frames", 5),
        ("given-frames-live-indexed", "frames", film(Film(live=True)), "max_frames", 2),
        ("given-segments", "segments", FILM, "max_segments", 2),
        ("given-segments-live", "segments", LIVE, "max_segments", 1),
        ("given-segment-frames", "segment_frames", FILM, "max_segment_frames", 2),
        ("given-chunk-bytes", "chunk_bytes", FILM, "max_chunk_bytes", LONGEST - 1),
    ):
        yield refusal(slug, f"limit.{code}", file, f"{about} {limit} is {value}", limit, "L1", **{limit: value})


def order() -> Iterator[Vector]:
    """Two broken rules in one file; `about` names both."""
    yield from _fronts()
    yield from _chunks()
    yield from _heads()
    yield from _models()
    yield from _segments()
    yield from _ends()


def _both(slug: str, code: str, file: File | bytes, about: str, **limits: int) -> Vector:
    """A file in which two rules are broken; the slug names first the one that counts."""
    return refusal(f"both-{slug}", code, file, about, "E1", **limits)


def _shown(place: str, values: Mapping[str, int]) -> str:
    """What these values break."""
    return f"{place}: " + ", ".join(f"{name} is {value}" for name, value in values.items())


def _fronts() -> Iterator[Vector]:
    data = FILM.to_bytes()
    text = bytes.fromhex("894e56430a1a0a")
    yield _both("text-and-cut", "not_nvc.text_damage", text, "CR LF became LF, and 7 bytes are all there is")
    yield _both("seven-bits-and-cut", "not_nvc.text_damage", b"\x09NVC", "bit 7 was cleared, and 4 bytes are all there is")
    yield _both("magic-and-cut", "not_nvc.magic", b"PK\3\4", "another magic, and 4 bytes are all there is")
    wrong: File | bytes = replace(FILM, major=9, crc=1)
    yield _both("crc-and-version", "corrupt.prologue_crc", wrong, "the checksum of the prologue, and the version")
    wrong = replace(FILM, minor=2, reserved=1, incompatible=1)
    yield _both("version-and-reserved", "unsupported.version", wrong, "the version, and the two fields behind it")
    wrong = replace(FILM, reserved=1, incompatible=1)
    yield _both("reserved-and-feature", "unsupported.reserved", wrong, "the reserved field, and an incompatible feature")
    wrong = replace(FILM, incompatible=2).to_bytes()[:32]
    yield _both("feature-and-end", "unsupported.feature", wrong, "an incompatible feature, and nothing behind the prologue")
    wrong = replace(FILM, minor=2).to_bytes()[:40] + data[41:]
    yield _both("version-and-header", "unsupported.version", wrong, "the version, and the header of the first chunk")


def _chunks() -> Iterator[Vector]:
    for slug, code, about, chunk in (
        ("header-crc-and-type", "corrupt.header_crc", "its header, and its type, WARP", Chunk(b"WARP", b"", header_crc=1)),
        ("header-crc-and-letters", "corrupt.header_crc", "its header, and its type, 4 NUL", Chunk(bytes(4), b"", header_crc=1)),
        ("header-crc-and-limit", "corrupt.header_crc", "its header, and its length", Chunk(b"noTE", b"", OVER, header_crc=1)),
        ("letters-and-limit", "invalid.chunk_type", "its type, 'noT1', and its length", Chunk(b"noT1", b"", length=OVER)),
        ("critical-and-limit", "unsupported.chunk", "its type, WARP, and its length", Chunk(b"WARP", b"", length=OVER)),
        ("critical-and-payload", "unsupported.chunk", "its type, WARP, and its payload", Chunk(b"WARP", b"x", payload_crc=1)),
        ("place-and-limit", "invalid.order", "it is a second HEAD, and its length", Chunk(b"HEAD", b"", length=OVER)),
        ("place-and-payload", "invalid.order", "it is a second MODL, and its payload", Chunk(b"MODL", b"x", payload_crc=1)),
        ("letters-and-place", "invalid.chunk_type", "its type, '2EAD', which may not stand here", Chunk(b"2EAD", b"")),
    ):
        yield _both(slug, code, FILM.inserted(SEGM, chunk).indexed(), f"a chunk in front of the first segment: {about}")
    front = FILM.with_chunks(FILM.chunks[:SEGM]).to_bytes()
    cut = Chunk(b"noTE", b"", length=OVER).to_bytes(FILM.stream_id)
    yield _both("limit-and-cut", "limit.chunk_bytes", front + cut, "a chunk over the limit, and the file ends behind its header")
    cut = Chunk(b"noTE", b"note", payload_crc=1).to_bytes(FILM.stream_id)[:-1]
    yield _both("cut-and-payload", "truncated.chunk", front + cut, "the file ends within a payload, and its checksum is wrong")
    cut = Chunk(b"WARP", b"", header_crc=1).to_bytes(FILM.stream_id)[:-1]
    yield _both("cut-and-header", "truncated.chunk", front + cut, "the file ends within a chunk header, which is damaged, too")
    wrong = FILM.with_chunk(0, replace(FILM.chunks[0], payload=b"", payload_crc=1))
    yield _both("payload-and-length", "corrupt.payload_crc", wrong, "the payload of HEAD is damaged, and too short")
    wrong = FILM.inserted(SEGM, FILM.chunks[META], Chunk(b"WARP", b"")).indexed()
    yield _both("place-and-critical", "invalid.order", wrong, "a second mETa, and an unknown critical chunk behind it")


def _heads() -> Iterator[Vector]:
    for slug, code, values in (
        ("pixel-format-and-orientation", "unsupported.pixel_format", {"pixel_format": 2, "orientation": 0}),
        ("height-and-pixel-format", "invalid.range", {"height": 0, "pixel_format": 2}),
        ("bit-depth-and-range", "unsupported.bit_depth", {"bit_depth": 10, "full_range": 3}),
        ("range-and-ratio", "invalid.range", {"par_num": 2, "par_den": 4, "first_pts": -(1 << 63)}),
        ("par-0-0", "invalid.range", {"par_num": 0, "par_den": 0}),
        ("ratio-and-side", "invalid.ratio", {"par_num": 2, "par_den": 4, "width": 16385}),
        ("range-and-side", "invalid.range", {"width": 65535, "frame_count": 0}),
        ("side-and-pixels", "limit.side", {"width": 16385, "height": 16385}),
        ("pixels-and-frames", "limit.pixels", {"width": 16384, "height": 16384, "frame_count": 1 << 30}),
    ):
        yield _both(slug, code, with_head(FILM, **values), _shown("HEAD", values))
    longer = with_head(FILM, width=0)
    longer = longer.with_payload(b"HEAD", longer.payload(b"HEAD") + b"\0")
    yield _both("length-and-range", "invalid.length", longer, "HEAD is a byte too long, and width is 0")
    broken = with_head(FILM, width=16385).with_chunk(MODL, replace(FILM.chunks[MODL], header_crc=1))
    yield _both("side-and-header", "limit.side", broken, "a side over the limit, and the chunk header of MODL is damaged")
    broken = with_head(FILM, orientation=0).with_payload(b"MODL", b"")
    yield _both("range-and-model", "invalid.range", broken, "orientation is 0, and MODL is empty")


def _models() -> Iterator[Vector]:
    late_nil = b"\0\x82\xa1a\xcc\1\xa1b\xc0"
    for slug, code, payload, about in (
        ("document-and-encoding", "invalid.document", late_nil, "nil, behind a number in too many bytes"),
        ("document-and-order", "invalid.document", b"\0\x83\xa1b\1\xa1a\1\xa1a\1", "a key twice, and keys out of order"),
        ("document-and-rest", "invalid.document", b"\0\x81\xa1a\xcc\1\0", "a byte too many, and a number in too many bytes"),
        ("encoding-and-metadata", "invalid.not_canonical", b"\0\xcc\1", "a number in too many bytes, and no map"),
        ("document-and-metadata", "invalid.document", b"\0\x92\1\xc0", "nil, and no map"),
        ("packing-and-document", "unsupported.packing", b"\2", "an unknown method, and no document"),
    ):
        yield _both(slug, code, FILM.with_payload(b"mETa", payload).indexed(), f"metadata: {about}")
    for slug, code, payload, about in (
        ("encoding-and-program", "invalid.not_canonical", b"\x91\xcc\1", "a number in too many bytes, and no program"),
        ("model-document-and-encoding", "invalid.document", b"\x92\xcc\1\xc0", "nil, behind a number in too many bytes"),
    ):
        yield _both(slug, code, FILM.with_payload(b"MODL", payload), f"MODL: {about}")
    method = FILM.with_payload(b"mETa", b"\2").indexed()
    broken = method.with_payload(b"MODL", b"\x90")
    yield _both("program-and-metadata", "invalid.program", broken, "MODL has no program, and metadata")
    broken = method.with_chunk(META, replace(FILM.chunks[META], header_crc=1)).with_payload(b"MODL", b"\xc0")
    yield _both("document-and-header", "invalid.document", broken, "MODL is nil, and the chunk header of mETa is damaged")
    broken = with_head(method, width=8)
    yield _both("picture-and-metadata", "invalid.picture", broken, "HEAD and the programs differ in width, and metadata")
    broken = with_segment(method, first_frame=1)
    yield _both("metadata-and-segment", "unsupported.packing", broken, "metadata, and the number of the first segment")
    broken = FILM.with_payload(b"MODL", b"\x90").inserted(META, Chunk(b"WARP", b""))
    yield _both("program-and-critical", "invalid.program", broken, "MODL has no program, and an unknown critical chunk behind it")


def _segments() -> Iterator[Vector]:
    for slug, code, values in (
        ("first-frame-and-frames", "invalid.range", {"first_frame": 1 << 30, "frames": 4097}),
        ("range-and-flags", "invalid.range", {"frames": 0, "flags": 1}),
        ("flags-and-reserved", "unsupported.segment_flags", {"flags": 1, "reserved": 1}),
        ("reserved-and-frames", "unsupported.reserved", {"reserved": 1, "frames": 4097}),
        ("frames-and-table", "limit.segment_frames", {"frames": 4097, "sections": 255}),
        ("hashes-and-first-frame", "invalid.hashes", {"frames": 3, "first_frame": 1}),
        ("first-frame-and-program", "invalid.first_frame", {"first_frame": 1, "program": 9}),
    ):
        yield _both(slug, code, with_segment(FILM, **values), _shown("a segment", values))
    parts = parts_of(FILM)
    sections = dict(parts.sections)
    put = parts.with_section
    for slug, code, changed, about in (
        ("kind-and-missing", "unsupported.section", put(HASHES, None).with_section(9, b"x"), "an unknown section, no hashes"),
        ("kind-and-length", "unsupported.section", replace(put(0, b"x"), extra=b"\0"), "an unknown section, a byte too many"),
        ("missing-and-length", "invalid.sections", replace(put(1, None), extra=b"\0"), "no weights, a byte too many"),
        ("length-and-hashes", "invalid.length", replace(put(HASHES, b"x"), extra=b"\0"), "a byte too many, one byte of hashes"),
        ("hashes-and-times", "invalid.hashes", put(HASHES, b"").with_section(TIMES, ticks(0, 1)), "no hashes, time stamps"),
        ("times-and-packing", "invalid.times", put(TIMES, b"\2"), "time stamps at a constant rate, how they are packed"),
        ("times-and-first-frame", "invalid.times", replace(put(TIMES, ticks(0, 1)), first_frame=1), "time stamps, a gap"),
        ("program-and-sections", "invalid.program", replace(put(EMBEDDINGS, None), program=2), "its program, no embeddings"),
    ):
        yield _both(slug, code, with_parts(FILM, changed), f"a segment: {about}")
    broken = with_parts(with_times(ticks(0, 0)), replace(parts_of(with_times(ticks(0, 0)), 1), first_frame=7), 1)
    yield _both("stand-still-and-gap", "invalid.times", broken, "time stamps of the first segment, and a gap behind it")
    late = replace(parts_of(VARIABLE, 1).with_section(TIMES, ticks(1, 0, 1)), first_frame=3)
    broken = with_parts(VARIABLE, late, 1)
    yield _both("ticks-and-first-frame", "invalid.times", broken, "time stamps of a segment, and a gap in front")
    late = replace(parts_of(VARIABLE, 1).with_section(TIMES, b"\7"), first_frame=3)
    broken = with_parts(VARIABLE, late, 1)
    yield _both("packing-and-first-frame", "unsupported.packing", broken, "packing of time stamps, and a gap in front")
    gap = with_segment(LIVE, 1, first_frame=3)
    yield _both("segments-and-frames", "limit.segments", LIVE, "segments, and frames, over limits", max_segments=1, max_frames=4)
    yield _both("segments-and-gap", "limit.segments", gap, "segments over the limit, and a gap", max_segments=1)
    yield _both("frames-and-gap", "limit.frames", gap, "frames over the limit, and a gap", max_frames=4)
    gap = with_head(with_segment(FILM, 2, first_frame=6), frame_count=5)
    yield _both("gap-and-count", "invalid.first_frame", gap, "a gap in front of the last segment, and it exceeds frame_count")
    wrong = with_head(with_segment(FILM, 2, program=2), frame_count=5)
    yield _both("count-and-program", "invalid.frame_count", wrong, "the last segment exceeds frame_count, and its program")
    digest = with_parts(FILM, replace(parts, digest=bytes(8)))
    broken = digest.with_chunk(SEGM + 1, replace(FILM.chunks[SEGM + 1], header_crc=1))
    yield _both("digest-and-header", "corrupt.digest", broken, "the numbers of the first segment, and the next chunk header")
    hashes = bytearray(sections[HASHES])
    hashes[8] ^= 1
    broken = with_parts(FILM, parts.with_section(HASHES, bytes(hashes)))
    about = "the hash of frame 1, and the header of the next chunk"
    yield _both("frame-and-header", "verify.frame", broken.with_chunk(4, replace(FILM.chunks[4], header_crc=1)), about)
    broken = with_segment(FILM, 1, program=2).with_payload(b"INDX", b"")
    yield _both("program-and-index", "invalid.program", broken, "the program of the second segment, and the index")


def _ends() -> Iterator[Vector]:
    byte = replace(with_head(FILM, frame_count=5), tail=b"\0")
    yield _both("count-and-trailing", "invalid.frame_count", byte, "frame_count is too small, and a byte behind FOOT")
    few = with_head(FILM, frame_count=7)
    yield _both("frames-and-index", "truncated.frames", few.with_payload(b"INDX", b""), "a frame is missing, and INDX is empty")
    yield _both("frames-and-footer", "truncated.frames", few.with_payload(b"FOOT", b""), "a frame is missing, and FOOT is empty")
    yield _both("frames-and-end", "truncated.frames", few.without(FOOT), "a frame is missing, and there is no FOOT")
    yield _both("end-and-frames", "truncated.end", few.with_chunks(few.chunks[:INDX]), "there is no INDX, and a frame is missing")
    damaged = few.with_chunk(INDX, replace(few.chunks[INDX], payload_crc=1))
    yield _both("payload-and-frames", "corrupt.payload_crc", damaged, "the payload of INDX is damaged, and a frame is missing")
    index = FILM.with_payload(b"INDX", FILM.payload(b"INDX")[:-1])
    broken = index.with_chunk(FOOT, replace(FILM.chunks[FOOT], header_crc=1))
    yield _both("index-and-header", "invalid.index", broken, "INDX, and the chunk header of FOOT is damaged")
    yield _both("index-and-end", "invalid.index", index.without(FOOT), "INDX, and there is no FOOT")
    yield _both("index-and-footer", "invalid.index", index.with_payload(b"FOOT", b""), "INDX, and FOOT is empty")
    footer = replace(FILM.with_payload(b"FOOT", bytes(20)), tail=b"\0")
    yield _both("footer-and-trailing", "invalid.footer", footer, "FOOT, and a byte behind it")
    footer = replace(FILM.with_chunk(FOOT, replace(FILM.chunks[FOOT], payload_crc=1)), tail=b"\0")
    yield _both("payload-and-trailing", "corrupt.payload_crc", footer, "the payload of FOOT, and a byte behind it")
    note = Chunk(b"noTE", b"note", payload_crc=1)
    broken = with_head(OPEN, frame_count=7).inserted(6, note)
    yield _both("payload-and-count", "corrupt.payload_crc", broken, "the payload of the last chunk, and a frame is missing")
    broken = with_head(OPEN, frame_count=7).inserted(6, Chunk(b"INDX", b""))
    yield _both("place-and-count", "invalid.order", broken, "INDX without INDEXED, and a frame is missing")
