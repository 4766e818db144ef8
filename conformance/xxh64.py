"""XXH64, the hash whose low four bytes a zstd frame has as its checksum (RFC 8878, 3.1.1)."""

from __future__ import annotations

_P1 = 0x9E3779B185EBCA87
_P2 = 0xC2B2AE3D27D4EB4F
_P3 = 0x165667B19E3779F9
_P4 = 0x85EBCA77C2B2AE63
_P5 = 0x27D4EB2F165667C5
_M = (1 << 64) - 1


def xxh64(data: bytes) -> int:
    """The 64-bit xxHash of `data` with seed 0."""
    whole = len(data) & ~31
    if whole:
        lanes = [_P1 + _P2 & _M, _P2, 0, -_P1 & _M]
        for start in range(0, whole, 8):
            lane = start >> 3 & 3
            lanes[lane] = _round(lanes[lane], int.from_bytes(data[start : start + 8], "little"))
        state = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _M
        for lane in lanes:
            state = (state ^ _round(0, lane)) * _P1 + _P4 & _M
    else:
        state = _P5
    state = state + len(data) & _M
    for start in range(whole, len(data) - 7, 8):
        state = _rotate(state ^ _round(0, int.from_bytes(data[start : start + 8], "little")), 27) * _P1 + _P4 & _M
    start = len(data) & ~7
    if len(data) - start >= 4:
        state = _rotate(state ^ int.from_bytes(data[start : start + 4], "little") * _P1 & _M, 23) * _P2 + _P3 & _M
        start += 4
    for byte in data[start:]:
        state = _rotate(state ^ byte * _P5 & _M, 11) * _P1 & _M
    state = (state ^ state >> 33) * _P2 & _M
    state = (state ^ state >> 29) * _P3 & _M
    return state ^ state >> 32


def _round(lane: int, word: int) -> int:
    return _rotate(lane + word * _P2 & _M, 31) * _P1 & _M


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _M
