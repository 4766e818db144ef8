"""What the figures of results.json say, in plain sentences: where nvc loses, where it wins, at what cost, and for how little.

A comparison is one codec of nvc against one anchor on one clip, and PSNR-Y decides it: the sign of BD-rate by PCHIP. Where there
is no BD-rate, files decide. nvc loses where some file of the anchor is no larger than one of nvc's and better, while none of
nvc's is so beside one of the anchor's; it wins in the opposite case; else the comparison is undecided. The sentences quote
measured files and BD-rates, never a quality between two files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any

Document = Mapping[str, Any]
METRIC = "psnr_y"
MULTIPLE = 200.0  # percent; from there on a BD-rate is said as a multiple
FIRM_OVERLAP = 0.75  # below, a figure speaks of a part of the curve only; the package bjontegaard warns at the same share of both
NEAR = 1.25  # sizes up to this ratio apart are about equal
FEW_FRAMES, SMALL = 96, 416 * 240  # common test conditions: 96 frames at least; the smallest class has pictures of 416x240


@dataclass(frozen=True)
class Pair:
    """A codec of nvc against an anchor: the outcome of each clip where both have files, and the rows of BD-rate in PSNR-Y."""

    codec: Document
    anchor: Document
    outcomes: Mapping[str, str]  # by clip: loses, wins, ties or undecided
    rows: Mapping[str | None, Document]
    gaps: Mapping[str, Sequence[tuple[float, float]]]  # by clip: dB of nvc over the anchor and how many times its bytes

    @property
    def mean(self) -> Document | None:
        """The row of the mean over clips, where some clip has a figure."""
        row = self.rows.get(None)
        return row if row is not None and row["pchip"] is not None else None


def verdict(results: Document) -> list[str]:
    """Sentences from clips, codecs, runs, settings and bd of results.json; the first is the headline. Never empty."""
    codecs = {kind: [codec for codec in results["codecs"] if codec["kind"] == kind] for kind in ("nvc", "anchor")}
    if not any(run["codec"] == codec["id"] for run in results["runs"] for codec in codecs["nvc"]):
        return ["No file of nvc was measured, so there is nothing to say about it.", *_time(results), *_limits(results, [])]
    pairs = [pair for codec in codecs["nvc"] for anchor in codecs["anchor"] if (pair := _pair(results, codec, anchor)).outcomes]
    lines = [_headline(pairs, codecs["nvc"]), *(_sentence(pair) for pair in pairs)]
    return [*lines, *_time(results), *_limits(results, pairs)]


# ---- comparisons


def _pair(results: Document, codec: Document, anchor: Document) -> Pair:
    key = codec["id"], anchor["id"], METRIC
    rows = {row["clip"]: row for row in results["bd"] if (row["codec"], row["anchor"], row["metric"]) == key}
    outcomes, gaps = {}, {}
    for clip in (clip["name"] for clip in results["clips"]):
        ours, theirs = (_points(results["runs"], clip, each["id"]) for each in (codec, anchor))
        if ours and theirs:
            figure = rows[clip]["pchip"]
            outcomes[clip] = _outcome(ours, theirs) if figure is None else _signed(figure)
            gaps[clip] = _gaps(ours, theirs)
    return Pair(codec, anchor, outcomes, rows, gaps)


def _points(runs: Iterable[Document], clip: str, codec: str) -> list[tuple[int, float]]:
    """Bytes and PSNR-Y of a codec's files of a clip."""
    own = [run for run in runs if (run["clip"], run["codec"]) == (clip, codec) and METRIC in run["quality"]]
    return [(run["bytes"], run["quality"][METRIC]["mean"]) for run in own]


def _signed(percent: float) -> str:
    rounded = round(percent, 2)
    return "loses" if rounded > 0 else "wins" if rounded < 0 else "ties"


def _outcome(ours: Sequence[tuple[int, float]], theirs: Sequence[tuple[int, float]]) -> str:
    """Who wins by the files alone."""
    beaten, beats = (
        any(better[0] <= worse[0] and better[1] > worse[1] for better in best for worse in others)
        for best, others in ((theirs, ours), (ours, theirs))
    )
    return "undecided" if beaten == beats else "loses" if beaten else "wins"


def _gaps(ours: Sequence[tuple[int, float]], theirs: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Of each file beside the anchor's nearest in bytes: dB over it, and how many times its bytes."""
    found = []
    for size, quality in ours:
        near_size, near_quality = min(theirs, key=lambda point: (abs(log(point[0] / size)), point))
        found.append((quality - near_quality, size / near_size))
    return found


# ---- sentences


def _headline(pairs: Sequence[Pair], codecs: Sequence[Document]) -> str:
    subject = codecs[0]["label"] if len(codecs) == 1 else "nvc"
    tally = Counter(outcome for pair in pairs for outcome in pair.outcomes.values())
    total = tally.total()
    if not total:
        return f"{subject} was measured beside no other codec, so nothing is won or lost here."
    anchors = list(dict.fromkeys(pair.anchor["label"] for pair in pairs))
    clips = list(dict.fromkeys(clip for pair in pairs for clip in pair.outcomes))
    models = len({pair.codec["id"] for pair in pairs})
    where = [*([f"{models} models"] if models > 1 else []), f"{len(clips)} clips" if len(clips) > 1 else f"clip {clips[0]}"]
    of = f"{_listed(anchors)} ({', '.join(where)}), by PSNR-Y"
    if tally["undecided"] == total:
        return f"{_all(total).capitalize()} of {subject} with {of}, {'is' if total == 1 else 'are'} undecided."
    said = [f"{word} {_all(total) if tally[word] == total else tally[word]}" for word in ("loses", "wins", "ties") if tally[word]]
    rest = f"; {tally['undecided']} {'is' if tally['undecided'] == 1 else 'are'} undecided" if tally["undecided"] else ""
    count = "" if len(tally) == 1 else f" of {total} comparisons"
    return f"{subject} {_listed(said)}{count} with {of}{rest}.{_how_far(pairs)}"


def _how_far(pairs: Sequence[Pair]) -> str:
    """The least and most of the mean BD-rates, as a sentence behind the headline."""
    means = [pair.mean["pchip"] for pair in pairs if pair.mean is not None]
    if not means:
        return ""
    if min(means) >= MULTIPLE:
        times = _range([1 + mean / 100 for mean in means], ".1f")
        return f" At equal PSNR-Y it needs {times} times the bits."
    ends = list(dict.fromkeys(_percent(mean) for mean in (min(means), max(means))))
    return f" BD-rate: {' to '.join(ends)}."


def _sentence(pair: Pair) -> str:
    """What one codec of nvc does against one anchor: who wins where, BD-rate, and dB at equal bytes where that says little."""
    clips = list(pair.outcomes)
    without = [clip for clip in clips if pair.rows[clip]["pchip"] is None]
    said = [f"{pair.codec['label']} {_tally(pair)}"]
    mean = pair.mean
    if mean is not None:
        few = mean["overlap"] < FIRM_OVERLAP
        overlap = f"{'least overlap' if mean['clips'] > 1 else 'overlap'} {'only ' if few else ''}{100 * mean['overlap']:.0f} %"
        basis = f"PCHIP; Akima {_percent(mean['akima'])}; {overlap}"
        said.append(f"It needs {_bits(mean['pchip'])} at equal PSNR-Y, {_basis(pair, without)} ({basis})")
        if few and not without:
            said.append(f"A{_gap(pair, clips)[1:]}")
    if without:
        start = f"On {_named(without)} there" if len(clips) > 1 else "There"
        said.append(f"{start} is no BD-rate ({_why(pair, without)}); {_gap(pair, without)}")
    return f"{'. '.join(said)}."


def _tally(pair: Pair) -> str:
    """On which clips nvc loses, wins, ties; which are undecided."""
    verbs = {"loses": "loses to", "wins": "wins against", "ties": "ties with", "undecided": "is undecided against"}
    said: list[str] = []
    for outcome, verb in verbs.items():
        clips = [clip for clip, each in pair.outcomes.items() if each == outcome]
        if clips:
            every = len(clips) == len(pair.outcomes) > 1
            on = ("on both clips" if len(clips) == 2 else f"on all {len(clips)} clips") if every else f"on {_named(clips)}"
            said.append(f"{verb.rsplit(' ', 1)[0]} {on}" if said else f"{verb} {pair.anchor['label']} {on}")
    return _listed(said)


def _basis(pair: Pair, without: Sequence[str]) -> str:
    """The clips that the mean is over."""
    have = [clip for clip in pair.outcomes if clip not in without]
    if len(have) == 1:
        return f"on {have[0]}"
    return f"mean of {len(have)} {'of ' + str(len(pair.outcomes)) + ' ' if without else ''}clips"


def _bits(percent: float) -> str:
    """The bits needed beside those of the anchor, from a BD-rate in percent."""
    if percent >= MULTIPLE:
        return f"{1 + percent / 100:.1f} times the bits ({_percent(percent)})"
    if round(percent, 2):
        return f"{_percent(abs(percent)).lstrip('+')} {'more' if percent > 0 else 'fewer'} bits"
    return "as many bits"


def _why(pair: Pair, clips: Sequence[str]) -> str:
    """Why clips have no BD-rate: the reason of one in full, of several without its figures."""
    reasons = [pair.rows[clip]["reason"] for clip in clips]
    return reasons[0] if len(reasons) == 1 else "; ".join(dict.fromkeys(reason.split(":")[0] for reason in reasons))


def _gap(pair: Pair, clips: Sequence[str]) -> str:
    """How far nvc is over or below the anchor: "at about equal bytes ...", or at the nearest sizes where none are about equal."""
    gaps = [gap for clip in clips for gap in pair.gaps[clip]]
    near = [gap for gap in gaps if 1 / NEAR <= gap[1] <= NEAR]
    at = "at about equal bytes"
    if not near:
        near = [min(gaps, key=lambda gap: abs(log(gap[1])))]
        at = f"at the nearest sizes, nvc's {near[0][1]:.2f} times the anchor's,"
    found = [round(decibels, 1) for decibels, _ in near]
    if min(found) < 0 < max(found):
        return f"{at} it is between {-min(found):.1f} dB below and {max(found):.1f} dB above"
    if not any(found):
        return f"{at} it is level"
    return f"{at} it is {_range([abs(each) for each in found], '.1f')} dB {'below' if min(found) < 0 else 'above'}"


def _time(results: Document) -> list[str]:
    """Encoding and decoding, nvc first: medians over files."""
    frames = {clip["name"]: clip["frames"] for clip in results["clips"]}
    encode: list[str] = []
    decode: dict[str, list[str]] = {}
    for codec in sorted(results["codecs"], key=lambda codec: codec["kind"] != "nvc"):
        runs = [run for run in results["runs"] if run["codec"] == codec["id"]]
        seconds = [run["encode"]["seconds"] / frames[run["clip"]] for run in runs if run["encode"]]
        if seconds:
            encode.append(f"{codec['label']} {_figure(median(seconds))}")
        speeds: dict[str, list[float]] = {}
        for entry in (entry for run in runs for entry in run["decode"]):
            speeds.setdefault(entry["device"], []).append(entry["fps"])
        for device, fps in speeds.items():
            decode.setdefault(device, []).append(f"{codec['label']} {_figure(median(fps))}")
    lines = [f"Seconds to encode a frame, median over files: {', '.join(encode)}."] if encode else []
    each = [f"{', '.join(said)} ({device})" for device, said in decode.items()]
    what = "Frames decoded a second, without the start of the program, median over files"
    return [*lines, f"{what}: {'; '.join(each)}."] if each else lines


def _limits(results: Document, pairs: Sequence[Pair]) -> list[str]:
    """How little all this rests on."""
    clips = results["clips"]
    if not clips:
        return ["No clip was tested."]
    shapes = {(clip["frames"], clip["width"], clip["height"]) for clip in clips}
    sizes = [f"{_counted(frames, 'frame')} of {width}x{height}" for frames, width, height in sorted(shapes)]
    what = f"{_counted(len(clips), 'clip')}, {_listed(sizes)}{' each' if len(clips) > 1 and len(sizes) == 1 else ''}"
    small = [
        *(["shorter"] if any(frames < FEW_FRAMES for frames, _, _ in shapes) else []),
        *(["smaller"] if any(width * height < SMALL for _, width, height in shapes) else []),
    ]
    than = f" It is {' and '.join(small)} than common tests are ({FEW_FRAMES} frames, 416x240 at least)." if small else ""
    lines = [f"The test has {what}; the figures hold for {'these' if len(clips) > 1 else 'this clip'} alone.{than}"]
    if any(pair.mean is not None and pair.mean["overlap"] < FIRM_OVERLAP for pair in pairs):
        lines.append("A BD-rate whose overlap is below 75 % rests on a part of the curves only and is rough.")
    if pairs and results["settings"]["anchors"] == "user":
        lines.append("The anchors run as users run them, not tuned for PSNR, which is to nvc's advantage here.")
    return lines


# ---- words and numbers


def _all(total: int) -> str:
    return {1: "the only comparison", 2: "both comparisons"}.get(total, f"all {total} comparisons")


def _named(clips: Sequence[str]) -> str:
    return _listed(clips) if len(clips) <= 3 else f"{len(clips)} clips"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _percent(percent: float) -> str:
    """A signed percentage with as many digits as mean something."""
    digits = 2 if abs(percent) < 1 else 1 if abs(percent) < 100 else 0
    return f"{percent:+.{digits}f} %"


def _range(numbers: Sequence[float], form: str) -> str:
    ends = f"{min(numbers):{form}}", f"{max(numbers):{form}}"
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _figure(number: float) -> str:
    """Three significant digits, all digits before the point, no exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}" if number >= 0.001 else f"{number:.5f}"
