"""What follows from the times that speed.py takes: seconds of a fit, the best launch of a preset, its tables.

Every figure that was not measured but reckoned from a speed says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ceilings import FLOAT32, KINDS, TF32, least_seconds
from fit_speed import PHASES
from jobs import Result, table
from speed_runs import EPOCHS, PLAIN, SIDES, WHOLE

from nvc.codec.config import PRESETS

GOAL_RATIO, GOAL_SECONDS = 5, 240  # of a fit of 1.5 M parameters and 300 epochs on an H200, beside the plain loop
GOAL_FPS = 500  # of a decode of 1280x640 to memory there
NAMES = {PLAIN: "plain loop", "float": "nvc, float", "whole": "nvc, whole fit"}

Phases = Mapping[str, Result]


@dataclass
class Found:
    """The results there are: `products` by type in operations a second, `copy` in bytes a second; `work` by phase, `steps` by
    launch and phase, `races` by side, `output` what sinks.py says. The clip has `frames`, of which a step has `batch`.
    """

    frames: int
    batch: int
    products: dict[str, float] = field(default_factory=dict)
    copy: float | None = None
    work: dict[str, Result] = field(default_factory=dict)
    steps: dict[str, dict[str, Result]] = field(default_factory=dict)
    races: dict[str, Result] = field(default_factory=dict)
    decode: Result | None = None
    output: str | None = None


# ---- arithmetic


def seconds_of(steps: int, phases: Phases) -> float:
    """What a fit of so many steps takes: every phase has its start and its speed."""
    return sum(phases[phase]["warm"] + share * steps / phases[phase]["rate"] for phase, share in PHASES.items())


def complete(launches: Mapping[str, Phases]) -> dict[str, Phases]:
    """Those launches that were measured in all phases, and did what they are called."""
    return {
        launch: phases
        for launch, phases in launches.items()
        if phases.keys() >= PHASES.keys() and not any(phase["note"] for phase in phases.values())
    }


def best(steps: int, launches: Mapping[str, Phases]) -> str | None:
    """The launch with which a fit of so many steps ends first; None where none is complete."""
    known = complete(launches)
    return min(known, key=lambda launch: seconds_of(steps, known[launch])) if known else None


def reached(curve: Sequence[Sequence[float]], value: float) -> float | None:
    """Seconds of the first look, of (seconds, step, PSNR), at which the PSNR was `value` or more."""
    return next((seconds for seconds, _, psnr in curve if psnr >= value), None)


def ended(race: Result) -> bool:
    """Whether the time was enough for all steps."""
    return bool(race["curve"][-1][1] == race["steps"])


def pace(curve: Sequence[Sequence[float]]) -> float:
    """Steps a second in the second half of the looks, where whatever the start took is over."""
    (first, done, _), (last, step, _) = curve[(len(curve) - 1) // 2], curve[-1]
    return step / last if step == done else (step - done) / (last - first)


def whole(race: Result, phases: Phases | None = None) -> tuple[float, str]:
    """Seconds of all steps, and how that is known: measured, or from speeds, those of `phases` where they are given."""
    seconds, step, _ = race["curve"][-1]
    if ended(race):
        return seconds, "measured"
    if phases is not None:
        rates = ", ".join(f"{phases[phase]['rate']:.1f}" for phase in PHASES)
        return seconds_of(race["steps"], phases), f"from {rates} steps/s"
    rate = pace(race["curve"])
    return seconds + (race["steps"] - step) / rate, f"from {rate:.1f} steps/s"


# ---- tables


def ceilings(found: Found) -> str:
    """What was measured of the device."""
    rows = [[f"matrix product, {kind}", f"{rate / 1e12:.2f} TFLOP/s"] for kind, rate in found.products.items()]
    if found.copy is not None:
        rows.append(["copy, read and written", f"{found.copy / 1e9:.0f} GB/s"])
    return table(("ceiling", "measured"), rows)


def work(found: Found) -> str:
    """What a step asks for, and how long that takes at the ceilings."""
    rows: list[list[object]] = []
    for phase, result in found.work.items():
        flops = result["flops"]
        times = (least_seconds(flops, found.products), found.copy and result["bytes"] / found.copy)
        limits = [f"{1e3 * seconds:.2f}" if seconds else "" for seconds in times]
        rows.append([phase, *(f"{flops.get(kind, 0) / 1e9:.3g}" for kind in KINDS), f"{result['bytes'] / 1e6:.3g}", *limits])
    columns = [f"GFLOP {kind}" for kind in KINDS]
    return table(("a step", *columns, "MB, at least", "ms of products", "ms of bytes"), rows)


def steps(found: Found) -> str:
    """Speeds, their shares of the ceilings, and what did not go as it was asked."""
    rows: list[list[object]] = []
    notes: list[str] = []
    for launch, phases in found.steps.items():
        for phase, result in phases.items():
            rate, asked = result["rate"], found.work.get(phase)
            shares = ["", ""]
            if asked:
                products = least_seconds(asked["flops"], found.products)
                shares[0] = _share(products and rate * products)
                shares[1] = _share(found.copy and rate * asked["bytes"] / found.copy)
            speeds = [f"{rate:.2f}", f"{rate * found.batch:.1f}", f"{1e3 / rate:.2f}"]
            rows.append([f"{launch}, {phase}", *speeds, *shares, f"{result['warm']:.1f}"])
            notes += [f"{launch}, {phase}: {result['note']}"] if result["note"] else []
    columns = ("launch, phase", "steps/s", "frames/s", "ms a step", "of products", "of copying", "start, s")
    return "\n".join([table(columns, rows), *notes])


def _share(share: float | None) -> str:
    return f"{100 * share:.0f} %" if share else ""


def presets(found: Found) -> str:
    """Seconds of a fit with every preset and launch, reckoned from the speeds of its phases, and the launch to choose."""
    known = complete(found.steps)
    rows: list[list[object]] = []
    for name, config in PRESETS.items():
        count = config.steps(found.frames)
        seconds = [f"{seconds_of(count, phases):.0f}" for phases in known.values()]
        rows.append([name, count, *seconds, best(count, known)])
    return table(("preset", "steps", *(f"{launch}, s" for launch in known), "best"), rows)


def races(found: Found, values: Sequence[float], launch: str) -> str:
    """When each side was where, and what a whole fit takes."""
    rows: list[list[object]] = []
    took: dict[str, tuple[float, str]] = {}
    for side in SIDES:
        race = found.races.get(side)
        if race is None:
            continue
        took[side] = whole(race, complete(found.steps).get(launch) if side == "whole" else None)
        times = [reached(race["curve"], value) for value in values]
        seconds, step, psnr = race["curve"][-1]
        when = ["" if time is None else f"{time:.1f}" for time in times]
        rows.append([NAMES[side], *when, f"{psnr:.2f} dB at {seconds:.1f} s, step {step}", f"{took[side][0]:.0f}", took[side][1]])
    columns = ("seconds to", *(f"{value:g} dB" for value in values), "last look", f"{EPOCHS} epochs, s", "which is")
    notes = [f"{NAMES[side]}: {race['note']}" for side, race in found.races.items() if race["note"]]
    return "\n".join([table(columns, rows), *notes, *verdict(took)])


def verdict(took: Mapping[str, tuple[float, str]]) -> list[str]:
    """The ratios, beside what the project wants them to be on an H200."""
    lines = []
    for side in SIDES[1:]:
        if side in took and PLAIN in took:
            seconds, how = took[side]
            ratio = f"{took[PLAIN][0] / seconds:.2f} times as fast as the {NAMES[PLAIN]} ({took[PLAIN][1]})"
            lines.append(f"{NAMES[side]}: {seconds:.0f} s ({how}), {ratio}")
    goal = f"goal on an H200, 1.5 M parameters and {EPOCHS} epochs: {GOAL_RATIO} times, {GOAL_SECONDS} s"
    return [*lines, goal] if lines else []


def decode(found: Found) -> str:
    """Decode speeds beside plain float32, and what the decoder reaches of the ceiling of its convolutions."""
    result = found.decode
    assert result is not None
    ceiling = found.products.get(TF32) or found.products.get(FLOAT32)
    rows: list[list[object]] = []
    for side, name in (("nvc", "decoder, every hash checked"), ("bare", "interpreter, no hashes"), (PLAIN, "plain float32")):
        rate = result[side]
        share = _share(ceiling and 2 * result["macs"] * rate / ceiling)
        rows.append([name, f"{rate:.1f}", f"{result['nvc'] / rate:.2f}", share])
    about = f"{result['frames']} frames, batches of {result['batch']}, {result['macs'] / 1e9:.3g} G multiply-adds a frame"
    columns = ("decode to memory", "frames/s", "decoder beside it", f"of {TF32 if TF32 in found.products else FLOAT32} products")
    start = f"{about}; {result['start']:.2f} s from a file of {result['bytes'] / 1e6:.2f} MB to the first frame"
    return f"{table(columns, rows)}\n{start}; goal on an H200 at 1280x640: {GOAL_FPS} frames/s\n"


def launch_of_races(found: Found) -> str:
    """The best launch for EPOCHS epochs, or the default where speeds are not known."""
    return best(WHOLE.steps(found.frames), found.steps) or WHOLE.launch


def document(found: Found, values: Sequence[float], launch: str) -> str:
    """All tables of which there are figures."""
    parts: list[tuple[object, str, str]] = [
        (found.products or found.copy, "Ceilings", ceilings(found)),
        (found.work, "Work of a step", work(found)),
        (found.steps, "Steps", steps(found)),
        (complete(found.steps), "Presets, reckoned from these speeds", presets(found)),
        (found.races, f"Seconds to a PSNR, nvc with launch {launch}", races(found, values, launch)),
        (found.decode, "Decode", decode(found) if found.decode else ""),
        (found.output, "Output", found.output or ""),
    ]
    return "\n\n".join(f"## {title}\n\n{text.strip()}" for there, title, text in parts if there)
