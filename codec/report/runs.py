"""One run: a file is made by nvc or an anchor, decoded in a fresh process, measured, and becomes an entry of results.json.

All commands run in the report's folder, so that they read as they are shown. What took long is recorded at once: a run that was
cut off after its encode is not encoded again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nvc.bitstream.container import Reader
from nvc.bitstream.errors import ComparisonError, InputError
from nvc.bitstream.summary import summarise

from ..ffmpeg import ffmpeg_exe
from ..outputs import discard
from . import anchors, process, stopwatch
from .anchors import Anchor
from .clips import SOURCE, Reference
from .inputs import sha256
from .measure import measure
from .record import Record
from .settings import Settings

Entry = dict[str, Any]
_FFMPEG_SECONDS = re.compile(r"^bench: utime=\S+ stime=\S+ rtime=([\d.]+)s", re.MULTILINE)
KEPT = ("psnr_y", "psnr_611", "ms_ssim", "vmaf")  # metrics whose scores of every frame results.json keeps


@dataclass(frozen=True)
class File:
    """A file to measure: of which run and codec, what varies, where it is and how it is shown, and the command that makes it."""

    run: str
    codec: str
    label: str
    path: str
    shown: str
    make: list[str] | None  # None: it was given
    anchor: Anchor | None = None


class Bench:
    """Makes and measures files in `folder`, a report's; decodes on `devices`; tells `tell` what it is at.

    `paths` has the file of every run by the run's id.
    """

    def __init__(self, folder: str, settings: Settings, devices: Sequence[str], tell: Callable[[str], None]) -> None:
        self.folder = os.path.abspath(folder)  # commands run in it
        self.settings, self.devices, self.tell = settings, devices, tell
        self.paths: dict[str, str] = {}

    def nvc(self, reference: Reference, codec: str, rate: float) -> Entry:
        """An encode with nvc at `rate` bits per pixel; TargetError where it cannot be that small."""
        model, name = codec.removeprefix("nvc:"), reference.entry["name"]
        output = f"files/{name}/nvc-{model}-{rate:g}bpp.nvc"
        make = process.nvc(*encode_words(self.settings, model, f"files/{name}/{SOURCE}", output, f"{rate:g}"))
        return self._run(reference, File(f"nvc-{model}-{rate:g}bpp", codec, f"{rate:g} bpp", self._at(output), output, make))

    def given(self, reference: Reference, run: str, path: str) -> Entry:
        """An .nvc file that exists; ComparisonError `format` where it is not in the pixel format of the clip."""
        with open(path, "rb") as file:
            summary = summarise(file)
        if summary["pix_fmt"] != reference.entry["pix_fmt"]:
            formats = f"{summary['pix_fmt']}, but a report measures in {reference.entry['pix_fmt']}"
            raise ComparisonError("format", f"{path}: is {formats}; see nvc compare")
        name = os.path.basename(path)
        return self._run(reference, File(run, f"nvc:{summary['model']}", name, os.path.abspath(path), name, None))

    def anchor(self, reference: Reference, anchor: Anchor, crf: int) -> Entry:
        """An encode with an anchor; InputError where the encoder does not take the pictures."""
        run, name = f"{anchor.id}-crf{crf}", reference.entry["name"]
        source, output = f"files/{name}/{SOURCE}", f"files/{name}/{run}{anchor.ending}"
        variable = reference.entry["fps"] is None
        make = anchors.encode_args(anchor, self.settings.anchors, crf, source, output, variable_rate=variable)
        return self._run(reference, File(run, anchor.id, f"crf {crf}", self._at(output), output, make, anchor))

    def _run(self, reference: Reference, file: File) -> Entry:
        name = reference.entry["name"]
        self.paths[f"{name}/{file.run}"] = file.path
        record = Record(self._at(f"files/{name}/{file.run}.json"))
        made = os.path.exists(file.path) and record.get("sha256") == sha256(file.path)
        if made and (entry := record.get("entry")):
            return dict(entry)
        self.tell(f"{name} {file.codec} {file.label}")
        if not made:
            record.clear()
            encode = self._encode(file.make) if file.make else None
            record.put(encode=encode, sha256=sha256(file.path))
        entry = self._entry(reference, file, record.get("encode"), record.get("sha256"))
        record.put(entry=entry)
        return entry

    def _encode(self, make: list[str]) -> Entry:
        timed = self._command(make)
        return {"command": shown(make), "seconds": round(timed.seconds, 3), "peak_bytes": timed.peak_bytes}

    def _entry(self, reference: Reference, file: File, encode: Entry | None, sha: str) -> Entry:
        pixels, fps = reference.pixels, reference.entry["fps"]
        file_bytes = os.path.getsize(file.path)
        size = self._stream_bytes(file.shown, file.anchor) if file.anchor else file_bytes
        decoded = f"files/{reference.entry['name']}/.{file.run}.y4m"
        try:
            decode = self._decode(file, decoded, reference.entry["frames"])
            measured = measure(reference.path, file.path if file.anchor else self._at(decoded))
        finally:
            discard(self._at(decoded))
        source = f"files/{reference.entry['name']}/{SOURCE}"
        return {
            "id": f"{reference.entry['name']}/{file.run}",
            "clip": reference.entry["name"],
            "codec": file.codec,
            "label": file.label,
            "file": file.shown,
            "sha256": sha,
            "bytes": size,
            "file_bytes": file_bytes,
            "bpp": round(8 * size / pixels, 6),
            "file_bpp": round(8 * file_bytes / pixels, 6),
            "kbps": round(8 * size * fps / reference.entry["frames"] / 1000, 3) if fps else None,
            "encode": encode,
            "decode": decode,
            "measure": shlex.join(["nvc", "compare", source, file.shown, "--per-frame", "--json"]),
            "quality": measured.quality(),
            "frames": {name: values for name, values in measured.per_frame().items() if name in KEPT},
            "notes": list(measured.notes),
            "nvc": None if file.anchor else _network(file.path),
        }

    def _stream_bytes(self, file: str, anchor: Anchor) -> int:
        stream = f"{file}.stream"
        try:
            self._command(anchors.elementary_args(anchor, file, stream))
            return os.path.getsize(self._at(stream))
        finally:
            discard(self._at(stream))

    def _decode(self, file: File, decoded: str, frames: int) -> list[Entry]:
        """A decode on every device; what nvc decoded is left in `decoded`."""
        if file.anchor:
            words = [ffmpeg_exe(), "-benchmark", "-i", file.shown, "-f", "null", "-"]
            timed = self._command(words)
            own = _FFMPEG_SECONDS.search(timed.stderr)
            return [_decode_entry("cpu", words, float(own[1]) if own else timed.seconds, frames, timed.peak_bytes)]
        out = []
        for device in self.devices:
            words = ["decode", file.shown, decoded, "--device", device, *self._threads()]
            real = [file.path if word == file.shown else word for word in words]
            timed = self._command(process.nvc(*real, "--json", "-q", "-y"))
            seconds = float(json.loads(timed.stdout)["seconds"])
            out.append(_decode_entry(device, ["nvc", *words], seconds, frames, timed.peak_bytes))
        return out

    def _threads(self) -> list[str]:
        return ["--threads", str(self.settings.threads)] if self.settings.threads else []

    def _command(self, words: list[str]) -> stopwatch.Timed:
        timed = stopwatch.run(words, cwd=self.folder, env=process.environment())
        if timed.status and words[0] == ffmpeg_exe() and (reason := anchors.complaint(timed.stderr)):
            raise InputError("encoder", reason)
        if timed.status:
            raise process.failure(shown(words), timed.status, timed.stderr)
        return timed

    def _at(self, path: str) -> str:
        return os.path.join(self.folder, path)


def encode_words(settings: Settings, model: str, source: str, output: str, rate: str) -> list[str]:
    """The arguments of nvc that make a file."""
    words = ["encode", source, output, "--model", model, "--bpp", rate, "--preset", settings.preset, "--device", settings.device]
    return [*words, *(["--threads", str(settings.threads)] if settings.threads else []), "-q", "-y"]


def shown(words: Sequence[str]) -> str:
    """A command as a reader would type it."""
    own = process.nvc()
    if list(words[: len(own)]) == own:
        words = ["nvc", *(word for word in words[len(own) :] if word not in ("-q", "-y"))]
    return shlex.join(words) if words[0] == "nvc" else anchors.text(list(words))


def _decode_entry(device: str, words: Sequence[str], seconds: float, frames: int, peak: int | None) -> Entry:
    speed = round(frames / max(seconds, 1e-3), 2)
    return {"device": device, "command": shown(words), "seconds": round(seconds, 3), "fps": speed, "peak_bytes": peak}


def _network(path: str) -> Entry:
    with open(path, "rb") as file:
        summary = summarise(file)
        file.seek(0)
        first = [segment.first_frame for segment in Reader(file).segments()]
    names = ("model", "parameters", "macs_per_pixel", "sections")
    return {name: summary[name] for name in names} | {"segments": first}
