"""The schema of results.json is itself sound, takes the sample, and refuses what breaks its promises."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from report_files import results

import nvc.codec.report

SCHEMA = json.loads((Path(str(nvc.codec.report.__file__)).parent / "results.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
# What readers of version 1 count on, by where it stands in the sample. Keys may be added to a version, none may go.
PROMISED = {
    "": "format version created command environment settings clips codecs runs bd verdict",
    "environment": "nvc python torch ffmpeg os cpu cores",
    "settings": "bpp codecs anchors preset frames scale",
    "clips.0": "name source sha256 command width height frames fps pix_fmt source_pix_fmt notes shown",
    "codecs.0": "id label kind command",
    "runs.0": "id clip codec label file sha256 bytes file_bytes bpp file_bpp kbps encode decode measure quality frames nvc",
    "runs.0.encode": "command seconds peak_bytes",
    "runs.0.decode.0": "device command seconds fps peak_bytes",
    "runs.0.quality.psnr_y": "mean min p5 pooled",
    "runs.0.nvc": "model parameters macs_per_pixel sections segments",
    "bd.0": "clip codec anchor metric pchip akima overlap clips reason",
}
PATHS = [tuple(f"{place}.{key}".lstrip(".").split(".")) for place, keys in PROMISED.items() for key in keys.split()]
SAMPLE = results()
TWO = [next(run for run in SAMPLE["runs"] if (run["nvc"] is None) == anchor) for anchor in (False, True)]


def small() -> Any:
    """The sample with one file of nvc and one of an anchor."""
    return copy.deepcopy({**SAMPLE, "runs": TWO})


def parent(document: Any, path: tuple[str, ...]) -> Any:
    """What holds the last key of the path."""
    for key in path[:-1]:
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_sample_is_valid_also_after_a_journey_through_json() -> None:
    VALIDATOR.validate(SAMPLE)
    VALIDATOR.validate(json.loads(json.dumps(SAMPLE, allow_nan=False)))


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_no_required_key_may_be_missing(path: tuple[str, ...]) -> None:
    broken = small()
    del parent(broken, path)[path[-1]]
    assert not VALIDATOR.is_valid(broken)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "other"), ("version", 2), ("version", "1"), ("created", 5), ("verdict", []),
        ("environment.cores", 0), ("environment.gpu", []), ("settings.anchors", "weak"), ("settings.bpp.0", 0),
        ("clips.0.sha256", "0" * 63), ("clips.0.width", 0), ("clips.0.frames", 1.5), ("clips.0.shown.0", -1),
        ("codecs.0.kind", "mine"), ("runs.0.bytes", 0), ("runs.0.bpp", 0), ("runs.0.sha256", "g" * 64), ("runs.0.decode", []),
        ("runs.0.encode.seconds", -1), ("runs.0.quality.psnr_y.mean", None), ("runs.0.frames.psnr_y.0", "30"),
        ("runs.0.nvc.sections.weights", -1),
        ("runs.0.nvc", "hnerv"), ("bd.0.overlap", 1.1), ("bd.0.pchip", "n/a"), ("bd.0.clips", -1), ("bd.0.clip", 1),
    ],
)  # fmt: skip
def test_no_value_may_be_out_of_its_range(path: str, value: Any) -> None:
    broken = small()
    *_, last = steps = tuple(path.split("."))
    holder = parent(broken, steps)
    holder[int(last) if isinstance(holder, list) else last] = value
    assert not VALIDATOR.is_valid(broken)


def test_what_may_be_absent_or_new_is_taken() -> None:
    loose = small()
    loose["runs"][0] |= {"encode": None, "kbps": None, "nvc": None, "colour": "blue"}
    loose["clips"][0] |= {"fps": None}
    loose["bd"] = []
    loose["extra"] = {"of": "a later writer"}
    VALIDATOR.validate(loose)
