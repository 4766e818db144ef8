"""The reference interpreter of programs: SPEC section 8 in NumPy and 64-bit integers, written to be read beside it.

It shares no code with the product and knows nothing of speed: `render` runs one program for one frame and returns the planes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

EXACT = 1 << 24


class BoundError(Exception):
    """A sum left the exact range: the stream is invalid (SPEC 8.1), since its proof cannot hold."""


@dataclass(frozen=True)
class Frame:
    """What operations see besides their operands: the tensors of the segment, frame number t in it, and its frame count."""

    tensors: Sequence[Integers]
    t: int
    frames: int


def render(operations: Sequence[Sequence[int]], tensors: Sequence[Integers], t: int, frames: int) -> list[Integers]:
    """The three planes, each (H, W) int64, of frame `t` of a segment of `frames` frames.

    `operations` are rows [code, arguments...] as in MODL; `tensors` the parameters in order.
    """
    frame = Frame(tensors, t, frames)
    values: list[Integers] = []
    for code, *arguments in operations:
        if code == 50:
            return [values[v][0] for v in arguments]
        made = OPERATIONS[code](frame, values, *arguments)
        if np.abs(made).max() > EXACT:
            raise BoundError(f"value {len(values)} passes 2^24")
        values.append(made)
    raise ValueError("the program has no output operation")


# ---- 8.4 inputs


def embedding(frame: Frame, _: list[Integers], p: int, c: int, h: int, w: int, offset: int, stride: int) -> Integers:
    t = min(max(frame.t + offset, 0), frame.frames - 1)
    codes = frame.tensors[p].reshape(-1, c, h, w)
    if stride == 1:
        return np.asarray(codes[t])
    i, r = divmod(t, stride)
    after = codes[min(i + 1, len(codes) - 1)]
    return np.asarray((stride - r) * codes[i] + r * after)


def tokens(frame: Frame, _: list[Integers], p: int, book: int, h: int, w: int, k: int, d: int, offset: int) -> Integers:
    t = min(max(frame.t + offset, 0), frame.frames - 1)
    entries = np.take(frame.tensors[book].reshape(k, d), frame.tensors[p].reshape(-1, h, w)[t], axis=0)
    return np.asarray(entries.transpose(2, 0, 1))


def constant(frame: Frame, _: list[Integers], p: int, c: int, h: int, w: int) -> Integers:
    return frame.tensors[p].reshape(c, h, w)


def coordinates(_: Frame, __: list[Integers], axis: int, h: int, w: int) -> Integers:
    y, x = np.meshgrid(2 * np.arange(h) + 1 - h, 2 * np.arange(w) + 1 - w, indexing="ij")
    return (x if axis else y)[None].astype(np.int64)


def phases(frame: Frame, _: list[Integers], f: int, p: int, c: int) -> Integers:
    angle = (frame.t * frame.tensors[f] + frame.tensors[p]) % (1 << 32) >> 20
    return np.take(sine_table(), angle).reshape(c, 1, 1)


# ---- 8.4 linear


def convolution(
    frame: Frame, values: list[Integers], x: int, w: int, b: int, out: int, kh: int, kw: int, groups: int
) -> Integers:
    source, weight, bias = values[x], frame.tensors[w], frame.tensors[b]
    channels, height, width = source.shape
    per_group = channels // groups
    weight = weight.reshape(out, per_group, kh, kw)
    padded = np.pad(source, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2)))
    result = np.zeros((out, height, width), dtype=np.int64) + bias.reshape(out, 1, 1)
    for o in range(out):
        first = (o // (out // groups)) * per_group
        for i in range(per_group):
            for dy in range(kh):
                for dx in range(kw):
                    result[o] += weight[o, i, dy, dx] * padded[first + i, dy : dy + height, dx : dx + width]
    return result


def combine(frame: Frame, values: list[Integers], a: int, b: int, gains: int) -> Integers:
    ka, kb = (int(gain) for gain in frame.tensors[gains])
    return ka * values[a] + kb * values[b]


def multiply(_: Frame, values: list[Integers], a: int, b: int) -> Integers:
    return values[a] * values[b]


# ---- 8.4 resampling


def shuffle(_: Frame, values: list[Integers], x: int, sh: int, sw: int) -> Integers:
    channels, height, width = values[x].shape
    blocks = values[x].reshape(sh, sw, channels // (sh * sw), height, width)
    return blocks.transpose(2, 3, 0, 4, 1).reshape(channels // (sh * sw), height * sh, width * sw)


def nearest(_: Frame, values: list[Integers], x: int, nh: int, dh: int, nw: int, dw: int) -> Integers:
    _c, height, width = values[x].shape
    rows = np.arange(height * nh // dh) * dh // nh
    columns = np.arange(width * nw // dw) * dw // nw
    return values[x][:, rows][:, :, columns]


def _line(source: Integers, s: int, axis: int) -> Integers:
    size = source.shape[axis]
    position = 2 * np.arange(size * s) + 1 - s  # in units of 1 / (2 s)
    index, part = position // (2 * s), position % (2 * s)
    before = np.take(source, np.clip(index, 0, size - 1), axis=axis)
    after = np.take(source, np.clip(index + 1, 0, size - 1), axis=axis)
    shape = [1, 1, 1]
    shape[axis] = -1
    return np.asarray((2 * s - part).reshape(shape) * before + part.reshape(shape) * after)


def bilinear(_: Frame, values: list[Integers], x: int, s: int) -> Integers:
    return _line(_line(values[x], s, 1), s, 2)


def haar(_: Frame, values: list[Integers], x: int) -> Integers:
    channels, height, width = values[x].shape
    a, b, c, d = values[x].reshape(4, channels // 4, height, width)
    result = np.empty((channels // 4, 2 * height, 2 * width), dtype=np.int64)
    result[:, 0::2, 0::2] = a + b + c + d
    result[:, 0::2, 1::2] = a - b + c - d
    result[:, 1::2, 0::2] = a + b - c - d
    result[:, 1::2, 1::2] = a - b - c + d
    return result


# ---- 8.5 to activation


def half_even(value: Integers, shift: Integers) -> Integers:
    """RNE(value / 2^shift), element by element, shift >= 0."""
    floor = value >> shift
    rest = value - (floor << shift)
    half = (1 << shift) >> 1
    up = (rest > half) | ((rest == half) & (shift > 0) & ((floor & 1) == 1))
    return np.asarray(floor + up)


def scale(acc: Integers, code: Integers) -> Integers:
    """RNE(RN32(acc * m)) in integers: the product exactly, then to 24 significant bits, then to an integer."""
    product = acc * (1024 + (code & 1023))
    exponent = (code >> 10) - 40
    bits = np.zeros_like(product)
    for bit in range(40):
        bits += (np.abs(product) >> bit) > 0
    drop = np.maximum(bits - 24, 0)
    significand = half_even(product, drop)
    exponent = exponent + drop
    left = np.clip(exponent, 0, 30)  # beyond 2^30 everything is far outside any clamp
    right = np.clip(-exponent, 0, 62)
    return half_even(significand << left, right)


def requantise(
    frame: Frame, values: list[Integers], x: int, p: int, n: int, low: int, high: int, fn: int, arg: int
) -> Integers:
    y = scale(values[x], np.broadcast_to(frame.tensors[p].reshape(n, 1, 1), values[x].shape))
    if fn == 4:
        return np.take(sine_table(), y % 4096)
    y = np.clip(y, low, high)
    if fn == 1:
        return np.where(y < 0, half_even(y, np.full_like(y, arg)), y)
    if fn == 2:
        c = 1 << arg
        return half_even(y * np.clip(y + c, 0, 2 * c), np.full_like(y, arg + 1))
    if fn == 3:
        return np.take(function_table(arg), y + 2048)
    return y


# ---- 8.4 moves


def concatenate(_: Frame, values: list[Integers], a: int, b: int) -> Integers:
    return np.concatenate([values[a], values[b]])


def channels(_: Frame, values: list[Integers], x: int, first: int, last: int) -> Integers:
    return values[x][first:last]


def crop(_: Frame, values: list[Integers], x: int, top: int, left: int, height: int, width: int) -> Integers:
    return values[x][:, top : top + height, left : left + width]


# ---- 8.6 tables

F = 96
ONE = 1 << F
PI = 0x3243F6A8885A308D313198A2E
INVERSE_SQRT_2PI = 0x662114CF50D942343F2CF140


def _exp(x: int) -> int:
    if x < 0:
        return (ONE << F) // _exp(-x)
    total, term, n = 0, ONE, 0
    while term > 0:
        total, n = total + term, n + 1
        term = ((term * x) >> F) // n
    return total


def _gelu(x: int) -> int:
    square, total, term, n = (x * x) >> F, 0, ONE, 0
    while term not in (0, -1):
        total, n = total + term, n + 1
        term = ((term * square) >> F) * -(2 * n - 1) // (2 * n * (2 * n + 1))
    scaled = (((x * INVERSE_SQRT_2PI) >> F) * total) >> F
    return (x * ((ONE >> 1) + scaled)) >> F


def _sine(x: int) -> int:
    square, total, term, n = (x * x) >> F, 0, x, 0
    while term not in (0, -1):
        total, n = total + term, n + 1
        term = -((term * square) >> F) // (2 * n * (2 * n + 1))
    return total


def _nearest(value: int, amplitude: int) -> int:
    return (2 * value * amplitude + ONE) >> (F + 1)


@cache
def function_table(number: int) -> Integers:
    entries = []
    for i in range(-2048, 2048):
        if number == 0:
            entries.append(_nearest(_gelu(i << (F - 9)), 512))
        elif number == 1:
            e = _exp(i << (F - 8))
            entries.append(_nearest(((e - ONE) << F) // (e + ONE), 2047))
        elif number == 2:
            e = _exp(i << (F - 8))
            entries.append(_nearest((e << F) // (ONE + e), 2047))
        else:
            entries.append(_nearest(_exp(i << (F - 10)), 256))
    return np.array(entries, dtype=np.int64)


@cache
def sine_table() -> Integers:
    return np.array([_nearest(_sine(2 * PI * i // 4096), 2047) for i in range(4096)], dtype=np.int64)


OPERATIONS: dict[int, Callable[..., Integers]] = {
    1: embedding,
    2: tokens,
    3: constant,
    4: coordinates,
    5: phases,
    10: convolution,
    11: combine,
    12: multiply,
    20: shuffle,
    21: nearest,
    22: bilinear,
    23: haar,
    30: requantise,
    40: concatenate,
    41: channels,
    42: crop,
}
