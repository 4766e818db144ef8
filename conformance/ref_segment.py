"""The reference decoder's reading of one segment by itself: header, section table and time stamps (SPEC 4.1 to 4.3)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .ref_documents import unpack_packed
from .ref_fields import SEGMENT_FIELDS, read_fields, require

WEIGHTS, CODEBOOK, EMBEDDINGS, TOKENS, HASHES, TIMES = KINDS = range(1, 7)


@dataclass(frozen=True)
class Segment:
    """One SEGM chunk: frames `first_frame` to `end` - 1 and the sections 1 to 4 with the numbers that decode them.

    `hashes` are 8 bytes a frame; `times` are the ticks from frame to frame (4.3), None at a constant frame rate.
    """

    first_frame: int
    frames: int
    program: int
    digest: bytes
    sections: Mapping[int, bytes]
    hashes: Sequence[bytes]
    times: Sequence[int] | None

    @property
    def end(self) -> int:
        """The number of the frame behind the last one."""
        return self.first_frame + self.frames


def read_segment(payload: bytes, variable: bool, most_frames: int) -> Segment:
    """The segment of this payload, of at most `most_frames` frames; `variable` is whether the frame rate is. Raises Refused."""
    require(len(payload) >= 24, "invalid.length", "the segment is shorter than its header")
    fields = read_fields("SEGM", SEGMENT_FIELDS, payload)
    frames, table_end = fields["frames"], 24 + 5 * fields["sections"]
    require(frames <= most_frames, "limit.segment_frames", f"a segment of {frames} frames")
    require(len(payload) >= table_end, "invalid.length", "the segment is shorter than its section table")
    table = list(struct.iter_unpack("<BI", payload[24:table_end]))
    kinds, lengths = [kind for kind, _ in table], [length for _, length in table]
    require(set(kinds) <= set(KINDS), "unsupported.section", f"an unknown section among {kinds}")
    ascending = all(a < b for a, b in itertools.pairwise(kinds))
    complete = {WEIGHTS, HASHES} <= set(kinds)
    filled = all(length for kind, length in table if kind not in (WEIGHTS, HASHES))
    require(ascending and complete and filled, "invalid.sections", f"the sections {kinds}, lengths {lengths}")
    require(sum(lengths) == len(payload) - table_end, "invalid.length", "the sections do not fill the segment")
    sections, position = {}, table_end
    for kind, length in table:
        sections[kind] = payload[position : position + length]
        position += length
    require(len(sections[HASHES]) == 8 * frames, "invalid.hashes", f"no 8 bytes of hash for each of {frames} frames")
    require((TIMES in sections) == variable, "invalid.times", "time stamps go with a variable frame rate only")
    times = None
    if variable:
        times = struct.unpack(f"<{frames}I", unpack_packed(sections[TIMES], 4 * frames, 4 * frames))
        right = all((time == 0) == (frame == 0) for frame, time in enumerate(times, fields["first_frame"]))
        require(right, "invalid.times", "a time stamp that does not grow")
    return Segment(
        fields["first_frame"],
        frames,
        fields["program"],
        payload[16:24],
        {kind: sections[kind] for kind in (WEIGHTS, CODEBOOK, EMBEDDINGS, TOKENS) if kind in sections},
        [sections[HASHES][i : i + 8] for i in range(0, 8 * frames, 8)],
        times,
    )
