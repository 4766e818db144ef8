"""nvc.codec.report.alignment: right pairs pass however poor they are, wrong ones are refused by the name of what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.bitstream.errors import ComparisonError
from nvc.codec.report.alignment import SIDE, Alignment, Names, thumbnail

Clip = NDArray[np.float64]
FRAMES = 40
UNKNOWN = 2


def texture(height: int, width: int, seed: int = 0) -> Clip:
    """Waves of several lengths, so that frames differ by motion at every scale."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b + c) / (abs(a) + abs(b)) for a, b, c in random.uniform(-0.6, 0.6, (12, 3))]
    total = np.sum(waves, axis=0)
    return np.asarray(126 + 40 * (total - total.mean()) / total.std())


def moving(frames: int = FRAMES, height: int = 48, width: int = 64, speed: float = 3) -> Clip:
    """A camera on an uneven path over a still picture; no place is passed twice."""
    picture = texture(height + 40, width + int(speed * frames) + 20)
    path = [(round(6 + 5 * np.sin(t / 3)), round(speed * t + 3 * np.sin(t))) for t in range(frames)]
    return np.stack([picture[y : y + height, max(0, x) : max(0, x) + width] for y, x in path])


def verdict(reference: Clip, distorted: Clip, depth: int = 8, ranges: tuple[int, int] = (UNKNOWN, UNKNOWN)) -> str:
    """The code of the refusal, or nothing."""
    peak = (1 << depth) - 1
    dtype = np.uint8 if depth == 8 else np.uint16
    sides = [(clip * (1 << (depth - 8))).round().clip(0, peak).astype(dtype) for clip in (reference, distorted)]
    alignment = Alignment(Names("REF", "DIST"), depth)
    for r, d in zip(*sides, strict=True):
        alignment.add(r, d)
    try:
        alignment.check(ranges)
    except ComparisonError as error:
        assert "DIST" in str(error) and "\n" not in str(error)
        return error.code
    return ""


def at(clip: Clip, place: Callable[[int], int]) -> Clip:
    return np.stack([clip[min(max(0, place(t)), len(clip) - 1)] for t in range(len(clip))])


def noisy(clip: Clip, strength: float, seed: int = 5) -> Clip:
    return clip + np.random.default_rng(seed).normal(0, strength, clip.shape)


def blurred(clip: Clip) -> Clip:
    """What is left of every 8 x 8 block is its mean."""
    count, height, width = clip.shape
    return clip.reshape(count, height // 8, 8, width // 8, 8).mean((2, 4)).repeat(8, 1).repeat(8, 2)


def skipping(clip: Clip) -> Clip:
    """Every frame renews three in ten of the blocks of the one before."""
    renewed = np.random.default_rng(4).random((len(clip), clip.shape[1] // 8, clip.shape[2] // 8)) < 0.3
    out = clip.copy()
    for t in range(1, len(clip)):
        out[t] = np.where(renewed[t].repeat(8, 0).repeat(8, 1), clip[t], out[t - 1])
    return out


RIGHT: dict[str, Callable[[Clip], Clip]] = {
    "identical": lambda clip: clip,
    "noise": lambda clip: noisy(clip, 30),
    "blocks of one value": blurred,
    "frozen at the first frame": lambda clip: at(clip, lambda t: 0),
    "every second frame": lambda clip: at(clip, lambda t: t // 2 * 2),
    "every third frame": lambda clip: at(clip, lambda t: t // 3 * 3),
    "every fifth frame": lambda clip: at(clip, lambda t: t // 5 * 5),
    "every seventh frame": lambda clip: at(clip, lambda t: t // 7 * 7),
    "every tenth frame": lambda clip: at(clip, lambda t: t // 10 * 10),
    "frozen for ten frames": lambda clip: at(clip, lambda t: 12 if 12 < t < 22 else t),
    "one frame repeats its neighbour": lambda clip: at(clip, lambda t: t - (t == 20)),
    "gray": lambda clip: np.full_like(clip, 128),
    "the mean of all frames": lambda clip: np.repeat(clip.mean(0, keepdims=True), len(clip), 0),
    "the mean of three frames": lambda clip: (at(clip, lambda t: t - 1) + clip + at(clip, lambda t: t + 1)) / 3,
    "darker": lambda clip: np.maximum(clip - 12, 0),
    "half the contrast": lambda clip: noisy((clip + 126) / 2, 3),
    "the middle one of three frames": lambda clip: at(clip, lambda t: t // 3 * 3 + 1),
    "most blocks skipped": skipping,
    "lagging a little": lambda clip: 0.7 * clip + 0.3 * at(clip, lambda t: t - 1),
}


def shuffled(clip: Clip) -> Clip:
    return clip[np.random.default_rng(3).permutation(len(clip))]


def exchanged(clip: Clip, a: int, b: int) -> Clip:
    return at(clip, lambda t: {a: b, b: a}.get(t, t))


WRONG: dict[str, tuple[str, Callable[[Clip], Clip]]] = {
    "neighbours exchanged": ("order", lambda clip: exchanged(clip, 20, 21)),
    "frames three apart exchanged": ("order", lambda clip: exchanged(clip, 20, 23)),
    "frames far apart exchanged": ("order", lambda clip: exchanged(clip, 6, 33)),
    "reversed": ("order", lambda clip: clip[::-1]),
    "shuffled": ("order", shuffled),
    "one late": ("shift", lambda clip: at(clip, lambda t: t - 1)),
    "one early": ("shift", lambda clip: at(clip, lambda t: t + 1)),
    "five late": ("shift", lambda clip: at(clip, lambda t: t - 5)),
    "twelve early": ("shift", lambda clip: np.roll(clip, -12, 0)),
    "dropped and later doubled": ("shift", lambda clip: at(clip, lambda t: t + (10 <= t < 25))),
    "doubled and later dropped": ("shift", lambda clip: at(clip, lambda t: t - (10 <= t < 14))),
    "full taken for limited": ("range", lambda clip: clip * 219 / 255 + 16),
    "limited taken for full": ("range", lambda clip: (clip - 16) * 255 / 219),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("frames", [1, 2, 5, FRAMES])
def test_a_poor_encode_is_not_refused(name: str, frames: int) -> None:
    clip = moving(frames)
    assert verdict(clip, RIGHT[name](clip)) == ""


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("depth", [8, 10, 16])
def test_what_is_wrong_is_refused_by_its_name_at_every_depth(name: str, depth: int) -> None:
    code, change = WRONG[name]
    clip = moving()
    assert verdict(clip, noisy(change(clip), 3), depth) == f"compare.{code}"


@pytest.mark.parametrize(
    ("name", "error"),
    [("neighbours exchanged", 1.1), ("dropped and later doubled", 3), ("one late", 5), ("one early", 5)],
)
def test_what_is_wrong_is_seen_through_a_coding_error_as_large_as_the_motion(name: str, error: float) -> None:
    clip = moving(speed=2)
    code, change = WRONG[name]
    motion = ((clip[21] - clip[20]) ** 2).mean()
    assert verdict(clip, noisy(change(clip), (error * motion) ** 0.5)) == f"compare.{code}"


@pytest.mark.parametrize("name", WRONG)
def test_a_still_clip_has_no_order_to_get_wrong(name: str) -> None:
    code, change = WRONG[name]
    clip = np.repeat(texture(48, 64)[None], FRAMES, 0)
    assert verdict(clip, noisy(change(clip), 3)) == ("compare.range" if code == "range" else "")


STILL = texture(48, 64)
HARD: dict[str, Clip] = {
    "black": np.full((FRAMES, 48, 64), 16.0),
    "one level of gray": np.full((FRAMES, 3, 5), 100.0),
    "still": np.repeat(STILL[None], FRAMES, 0),
    "noise": np.random.default_rng(2).uniform(0, 255, (FRAMES, 48, 64)),
    "grain on a still picture": noisy(np.repeat(STILL[None], FRAMES, 0), 8),
    "fade from black": 16 + (STILL - 16) * np.linspace(0, 1, FRAMES)[:, None, None],
    "fade to black": 16 + (STILL - 16) * np.linspace(1, 0, FRAMES)[:, None, None],
    "flicker": STILL * (0.7 + 0.3 * (np.arange(FRAMES) % 2))[:, None, None],
    "motion that repeats": np.tile(moving(5), (8, 1, 1)),
    "motion that repeats after long": np.tile(moving(11), (4, 1, 1)),
    "a steady pan": np.stack([texture(48, 128)[:, t : t + 64] for t in range(FRAMES)]),
    "one sample": np.arange(FRAMES, dtype=float).reshape(-1, 1, 1) * 3,
}


@pytest.mark.parametrize("content", HARD)
@pytest.mark.parametrize(
    "name",
    [
        "identical",
        "noise",
        "frozen at the first frame",
        "every second frame",
        "every third frame",
        "every seventh frame",
        "gray",
        "darker",
    ],
)
def test_content_that_tells_little_of_its_place_is_not_refused(content: str, name: str) -> None:
    clip = HARD[content].round()
    assert verdict(clip, RIGHT[name](clip)) == ""


def test_of_frames_that_are_equally_near_the_nearest_in_time_is_meant() -> None:
    clip = HARD["motion that repeats after long"]
    assert verdict(clip, RIGHT["the middle one of three frames"](clip)) == ""


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.integers(1, 40), st.integers(1, 40), st.floats(0, 80), st.integers(0, 99))
def test_no_noise_makes_a_right_pair_wrong(frames: int, height: int, width: int, strength: float, seed: int) -> None:
    clip = moving(frames, height, width)
    assert verdict(clip, noisy(clip, strength, seed)) == ""


@pytest.mark.parametrize("ranges", [(0, 1), (1, 0)])
def test_tags_that_contradict_each_other_are_refused_though_the_samples_agree(ranges: tuple[int, int]) -> None:
    assert verdict(moving(3), moving(3), ranges=ranges) == "compare.range"


@pytest.mark.parametrize("ranges", [(0, 0), (1, 1), (0, UNKNOWN), (UNKNOWN, 1), (UNKNOWN, UNKNOWN)])
def test_tags_that_agree_or_say_nothing_pass(ranges: tuple[int, int]) -> None:
    assert verdict(moving(3), moving(3), ranges=ranges) == ""


@pytest.mark.parametrize(("error", "expected"), [(0.5, "compare.range"), (0.87, "")])
def test_a_range_is_told_only_where_it_outweighs_the_error_of_the_encode(error: float, expected: str) -> None:
    """An encode that failed may lie as near to the other range as to its own."""
    clip = moving(8) * 0.5 + 110
    narrow = clip * 219 / 255 + 16
    blocks = (clip - narrow).reshape(8, 8, 6, 8, 8).mean((2, 4))  # the means that ranges are told by
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (8, 8))
    wrong = np.sqrt(error * (blocks**2).mean()) * np.kron(signs - signs.mean(), np.ones((6, 8)))
    assert verdict(clip, narrow + wrong) == expected


@pytest.mark.parametrize(("height", "width"), [(1, 1), (128, 128), (129, 400), (300, 31)])
def test_a_thumbnail_holds_the_means_of_equal_blocks(height: int, width: int) -> None:
    plane = np.random.default_rng(0).integers(0, 65536, (height, width)).astype(np.uint16)
    thumb = thumbnail(plane)
    rows, columns = -(-height // SIDE), -(-width // SIDE)
    assert thumb.shape == (height // rows, width // columns)
    for y, x in ((0, 0), (thumb.shape[0] - 1, thumb.shape[1] - 1)):
        block = plane[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns]
        assert thumb[y, x] == pytest.approx(block.mean(), rel=1e-6)
