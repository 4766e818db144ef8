"""The magic, version, identifiers and limits of the format; the number of its SPEC section stands behind each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# ---- prologue and versions
MAGIC: Final = bytes.fromhex("894e56430d0a1a0a")  # SPEC 3.1
# SPEC 3.1: what text-mode transfers make of the magic, and how it happened
TEXT_DAMAGE: Final = {
    bytes.fromhex("894e56430a1a0a"): "CR LF became LF",
    bytes.fromhex("894e56430d0d0a"): "LF became CR LF",
    bytes.fromhex("094e5643"): "bit 7 was cleared",
    bytes.fromhex("c2894e5643"): "re-encoded as UTF-8",
    bytes.fromhex("efbfbd4e5643"): "decoded as UTF-8 with replacement",
}
MAJOR: Final = 0  # SPEC 11
MINOR: Final = 1  # SPEC 11
INDEXED: Final = 1  # SPEC 3.1: bit 0 of the compatible features

# ---- chunks
HEAD: Final = b"HEAD"  # SPEC 3.3
MODL: Final = b"MODL"  # SPEC 3.4
META: Final = b"mETa"  # SPEC 3.5
SEGM: Final = b"SEGM"  # SPEC 4.1
INDX: Final = b"INDX"  # SPEC 4.4
FOOT: Final = b"FOOT"  # SPEC 4.5
CHUNK_TYPES: Final = frozenset({HEAD, MODL, META, SEGM, INDX, FOOT})  # SPEC 2
CHUNK_BYTES: Final = (1 << 28) - 1  # SPEC 3.2: the largest payload
STORED: Final = 0  # SPEC 3.6
ZSTD: Final = 1  # SPEC 3.6
ZSTD_WINDOW: Final = 8 << 20  # SPEC 3.6: the window that RFC 8878 asks every decoder to support
DOCUMENT_BYTES: Final = 64 << 10  # SPEC 3.4: the largest canonical document; programs take some hundred bytes
DOCUMENT_ITEMS: Final = 4096  # SPEC 3.4: per list or map; with the depth it bounds what a msgpack parser allocates
DOCUMENT_DEPTH: Final = 8  # SPEC 3.4
STRING_BYTES: Final = 4096  # SPEC 3.4

# ---- HEAD
PIXEL_FORMATS: Final = {"yuv420p": 0, "rgb24": 1}  # SPEC 3.3
UNKNOWN_COUNT: Final = (1 << 64) - 1  # SPEC 3.3: the frame count of a file that is written live
FRAMES: Final = 1 << 30  # SPEC 3.3: 2^30 frames of 2^32 ticks after a first time stamp of 2^62 stay within 63 bits
FIRST_PTS: Final = 1 << 62  # SPEC 3.3

# ---- segments
SEGMENTS: Final = CHUNK_BYTES // 20  # SPEC 4.4: so many index entries fill a chunk
SEGMENT_FRAMES: Final = 65535  # SPEC 4.1
WEIGHTS: Final = 1  # SPEC 4.2
CODEBOOK: Final = 2  # SPEC 4.2
EMBEDDINGS: Final = 3  # SPEC 4.2
TOKENS: Final = 4  # SPEC 4.2
HASHES: Final = 5  # SPEC 4.2
TIMES: Final = 6  # SPEC 4.2
SECTIONS: Final = {  # SPEC 4.2
    WEIGHTS: "weights",
    CODEBOOK: "codebook",
    EMBEDDINGS: "embeddings",
    TOKENS: "tokens",
    HASHES: "hashes",
    TIMES: "times",
}
REQUIRED_SECTIONS: Final = frozenset({WEIGHTS, HASHES})  # SPEC 4.2
HASH_BYTES: Final = 8  # SPEC 4.2: per frame
DIGEST_BYTES: Final = 8  # SPEC 4.1: per segment


@dataclass(frozen=True)
class Limits:
    """What a reader is willing to take on; beyond it a legal file is refused with LimitError. Defaults: SPEC 9."""

    max_side: int = 16384  # SPEC 9: luma samples
    max_pixels: int = 35_651_584  # SPEC 9: per frame; the picture size of AV1 level 6
    max_frames: int = 2_592_000  # SPEC 9: 12 hours at 60 per second
    max_segments: int = 1_000_000  # SPEC 9
    max_segment_frames: int = 4096  # SPEC 9: the granularity of seeking and of loss; over a minute at 60 per second
    max_chunk_bytes: int = 64 << 20  # SPEC 9: the largest single read
    max_parameters: int = 1 << 24  # SPEC 9: per segment; a dozen bytes can stand for so many, which take 0.7 GiB to check
    max_tensors: int = 1024  # SPEC 9: per program
    max_operations: int = 1024  # SPEC 9: per program
    max_macs_per_pixel: int = 1 << 20  # SPEC 9: multiply-adds per luma sample
    max_macs_per_frame: int = 1 << 40  # SPEC 9
    max_macs_total: int = 10**15  # SPEC 9: per file
    max_memory_bytes: int = 4 << 30  # SPEC 9: live tensors of one frame


DEFAULT_LIMITS: Final = Limits()  # SPEC 9
