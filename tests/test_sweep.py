"""A small report, made for real: it says what its files are, its commands make them again, and it goes on when killed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import jsonschema
import pytest
from nvc_files import encoded

from nvc.bitstream.errors import ComparisonError, InputError, MachineError, OutputError, UsageError
from nvc.codec.report import anchors, environment, runs, sweep, views
from nvc.codec.report.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "codec/report/results.schema.json").read_text(encoding="utf-8"))
FRAMES, WIDTH, HEIGHT = 6, 96, 64
SETTINGS = Settings(bpp=(0.6, 1.2), frames=(1, 1 + FRAMES), scale=(WIDTH, HEIGHT), preset="draft", device="cpu", threads=1)
NVC = [sys.executable, "-m", "nvc.cli"]
Json = dict[str, Any]


def silent(_: str) -> None:
    pass


def make(paths: list[Path], folder: Path, settings: Settings = SETTINGS, resume: bool = False, overwrite: bool = False) -> Json:
    notes: list[str] = []
    given = [str(path) for path in paths]
    results = sweep.sweep(given, str(folder), settings, resume=resume, overwrite=overwrite, tell=silent, note=notes.append)
    return results | {"told": notes}


@pytest.fixture(scope="module")
def short_ladders() -> Iterator[None]:
    """Three CRFs of each anchor: enough for curves."""
    with pytest.MonkeyPatch.context() as patch:
        for name, crfs in {"x264": (45, 33, 21), "x265": (45, 33, 21), "svtav1": (61, 47, 30)}.items():
            patch.setitem(anchors.ANCHORS, name, dataclasses.replace(anchors.ANCHORS[name], ladder=crfs))
        yield


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "a moving clip.mkv"
    source = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=25,noise=alls=4:all_seed=1", "-frames:v", "9", "-pix_fmt", "yuv420p"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-c:v", "ffv1", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def folder(short_ladders: None, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reports") / "report"
    make([video], out)
    return out


@pytest.fixture(scope="module")
def results(folder: Path) -> Json:
    return dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def run_of(results: Json, codec: str) -> Json:
    return next(run for run in results["runs"] if run["codec"] == codec)


def test_results_keep_to_their_schema(results: Json) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(results)


def test_every_codec_has_its_runs(results: Json) -> None:
    assert {run["codec"] for run in results["runs"]} == {"nvc:hnerv", "x264", "x265", "svtav1"}
    assert [run["label"] for run in results["runs"] if run["codec"] == "nvc:hnerv"] == ["0.6 bpp", "1.2 bpp"]


def test_sizes_and_hashes_are_those_of_the_files(folder: Path, results: Json) -> None:
    for run in results["runs"]:
        data = (folder / run["file"]).read_bytes()
        assert run["sha256"] == hashlib.sha256(data).hexdigest()
        assert run["file_bytes"] == len(data)
        assert run["file_bpp"] == pytest.approx(8 * len(data) / (WIDTH * HEIGHT * FRAMES), abs=1e-6)
        assert run["bpp"] == pytest.approx(8 * run["bytes"] / (WIDTH * HEIGHT * FRAMES), abs=1e-6)
        assert run["kbps"] == pytest.approx(8 * run["bytes"] * 25 / FRAMES / 1000, abs=1e-3)
        if run["nvc"]:
            assert run["bytes"] == len(data) == sum(run["nvc"]["sections"].values())
        else:
            assert 0 < run["bytes"] < len(data)


@pytest.mark.parametrize(("most", "last"), [(0.1, 51), (5.0, 45), (5.9, 45), (99.0, 15)])
def test_anchors_stop_at_the_first_file_beyond_the_largest_rate(
    most: float, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladder = tuple(range(51, 14, -3))
    monkeypatch.setitem(anchors.ANCHORS, "x264", dataclasses.replace(anchors.ANCHORS["x264"], ladder=ladder))

    class Sizes:
        """A file of crf 51 has 0.2 bpp, of 48 3.2, of 45 6.2, and so on."""

        def anchor(self, reference: object, anchor: anchors.Anchor, crf: int) -> Json:
            return {"crf": crf, "bpp": 51.2 - crf}

    made = [entry["crf"] for entry in sweep._ladder(Sizes(), None, "x264", most)]  # type: ignore[arg-type]
    assert made == [crf for crf in ladder if crf >= last]


@pytest.mark.parametrize("codec", ["nvc:hnerv", "x264", "x265", "svtav1"])
def test_the_commands_make_the_same_files_again(folder: Path, results: Json, codec: str, tmp_path: Path) -> None:
    run = run_of(results, codec)
    again = tmp_path / Path(run["file"]).name
    words = [str(again) if word == run["file"] else word for word in shlex.split(run["encode"]["command"])]
    program = NVC if words[0] == "nvc" else [imageio_ffmpeg.get_ffmpeg_exe()]
    subprocess.run([*program, *words[1:]], cwd=folder, check=True, capture_output=True)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == run["sha256"]


@pytest.mark.parametrize("codec", ["nvc:hnerv", "x264"])
def test_the_commands_that_are_shown_decode_and_measure(folder: Path, results: Json, codec: str) -> None:
    run = run_of(results, codec)
    for command in (run["decode"][0]["command"], run["measure"]):
        words = shlex.split(command)
        program = NVC if words[0] == "nvc" else [imageio_ffmpeg.get_ffmpeg_exe()]
        done = subprocess.run([*program, *words[1:]], cwd=folder, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout)["results"][0]
    assert measured["quality"] == {name: run["quality"][name] for name in measured["quality"]} and "psnr_y" in measured["quality"]
    assert measured["per_frame"]["psnr_y"] == run["frames"]["psnr_y"]
    for made in (folder / "files").rglob(".*.y4m"):
        made.unlink()


def test_the_clip_is_made_by_the_command_that_is_shown(
    folder: Path, results: Json, video: Path, tmp_path: Path, raw: Callable[..., Any]
) -> None:
    clip = results["clips"][0]
    words = [str(video) if word == clip["source"] else word for word in shlex.split(clip["command"])]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *words[1:-1], str(tmp_path / "again.mkv")], check=True)
    assert clip["source"] == video.name and clip["sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
    made = raw(folder / "files" / clip["name"] / "source.mkv")
    assert made.size == FRAMES * WIDTH * HEIGHT * 3 // 2
    assert (made == raw(tmp_path / "again.mkv")).all()


@pytest.mark.parametrize("codec", ["nvc:hnerv", "svtav1"])
def test_psnr_is_that_of_ffmpegs_filter(
    folder: Path, results: Json, codec: str, tmp_path: Path, ffmpeg: Callable[..., bytes]
) -> None:
    run = run_of(results, codec)
    decoded = folder / run["file"]
    if run["nvc"]:
        decoded = tmp_path / "decoded.y4m"
        subprocess.run([*NVC, "decode", "-q", str(folder / run["file"]), str(decoded)], check=True)
    stats = tmp_path / "psnr.log"
    source = folder / "files" / run["clip"] / "source.mkv"
    graph = f"[0:v]settb=AVTB,setpts=N[a];[1:v]settb=AVTB,setpts=N[b];[a][b]psnr=stats_file={stats}"
    ffmpeg("-i", decoded, "-i", source, "-lavfi", graph, "-f", "null", "-")
    values = [float(line.split("psnr_y:")[1].split()[0]) for line in stats.read_text().splitlines()]
    assert len(values) == FRAMES
    assert run["quality"]["psnr_y"]["mean"] == pytest.approx(sum(values) / FRAMES, abs=0.01)
    assert run["quality"]["psnr_y"]["min"] == pytest.approx(min(values), abs=0.01)
    assert run["frames"]["psnr_y"] == pytest.approx(values, abs=0.01)


def test_the_page_holds_the_results(folder: Path, results: Json) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    for run in results["runs"]:
        assert run["id"] in html
    assert html.count("data:image/png;base64,") >= 3 * 3


def test_pictures_are_of_the_frames_that_they_are_named_after(folder: Path, results: Json, tmp_path: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    clip, run = results["clips"][0], run_of(results, "nvc:hnerv")
    decoded = tmp_path / "decoded.y4m"
    subprocess.run([*NVC, "decode", "-q", str(folder / run["file"]), str(decoded)], check=True)
    shots = views.pictures(str(decoded), clip["shown"], views.Colour.of(clip["matrix"], clip["full_range"], clip["height"]))
    assert len(set(shots.values())) == len(clip["shown"]) >= 2
    shown = json.loads(re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    for frame, png in shots.items():
        assert shown["pictures"][f"{run['id']}/{frame}"] == "data:image/png;base64," + base64.b64encode(png).decode()


def test_nothing_lies_about(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["files", "plan.json", "report.html", "results.json"]
    endings = {path.suffix for path in (folder / "files").rglob("*") if path.is_file()}
    assert endings == {".mkv", ".json", ".nvc", ".mp4"}


def test_a_finished_report_is_not_made_again_unless_asked(folder: Path, results: Json, video: Path, short_ladders: None) -> None:
    with pytest.raises(OutputError, match="--resume"):
        make([video], folder)
    again = make([video], folder, resume=True)
    assert again["runs"] == results["runs"]  # seconds and all: nothing was done twice


def test_rates_and_codecs_may_be_added(folder: Path, results: Json, video: Path, short_ladders: None) -> None:
    more = make([video], folder, dataclasses.replace(SETTINGS, bpp=(0.6, 0.9, 1.2)), resume=True)
    assert [run["id"] for run in more["runs"] if run["nvc"]] == [f"a_moving_clip/nvc-hnerv-{rate}bpp" for rate in (0.6, 0.9, 1.2)]
    kept = {run["id"]: run for run in results["runs"]}
    assert all(run == kept[run["id"]] for run in more["runs"] if run["id"] in kept)
    make([video], folder, resume=True)  # as it was, for other tests


CHANGES: list[Json] = [{"preset": "fast"}, {"anchors": "user"}, {"frames": None}, {"scale": (64, 64)}, {"threads": 2}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_report_goes_on_only_as_it_was_begun(folder: Path, video: Path, change: Json) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        make([video], folder, dataclasses.replace(SETTINGS, **change), resume=True)


def test_a_video_that_changed_is_noticed(folder: Path, video: Path, tmp_path: Path, ffmpeg: Callable[..., bytes]) -> None:
    other = tmp_path / video.name
    ffmpeg("-i", video, "-vf", "hflip", "-c:v", "ffv1", other)
    with pytest.raises(UsageError, match="SHA-256"):
        make([other], folder, resume=True)


def test_a_file_that_changed_is_made_again(folder: Path, results: Json, video: Path, short_ladders: None) -> None:
    run = run_of(results, "x265")
    (folder / run["file"]).write_bytes(b"damaged")
    again = run_of(make([video], folder, resume=True), "x265")
    assert hashlib.sha256((folder / run["file"]).read_bytes()).hexdigest() == again["sha256"] == run["sha256"]


def test_other_files_are_left_alone(tmp_path: Path, video: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="no report"):
            make([video], tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_given_files_are_measured_instead_of_encoded(folder: Path, results: Json, video: Path, tmp_path: Path) -> None:
    made = run_of(results, "nvc:hnerv")
    given = tmp_path / "mine.nvc"
    given.write_bytes((folder / made["file"]).read_bytes())
    only = dataclasses.replace(SETTINGS, codecs=("nvc:hnerv", "nvc:vqnerv"))
    found = make([video, given], tmp_path / "out", only)
    assert [run["codec"] for run in found["runs"]] == ["nvc:hnerv"]
    run = found["runs"][0]
    assert run["encode"] is None and run["file"] == "mine.nvc" and run["sha256"] == made["sha256"]
    assert run["quality"] == made["quality"] and run["bpp"] == made["bpp"]
    jsonschema.Draft202012Validator(SCHEMA).validate({key: value for key, value in found.items() if key != "told"})
    assert str(tmp_path) not in (tmp_path / "out" / "results.json").read_text()


def test_a_given_file_of_other_frames_is_refused(folder: Path, results: Json, video: Path, tmp_path: Path) -> None:
    given = folder / run_of(results, "nvc:hnerv")["file"]
    only = dataclasses.replace(SETTINGS, codecs=("nvc:hnerv",))
    others: list[Json] = [{"frames": (1, FRAMES)}, {"scale": (98, 64)}]  # a shift of so few poor frames is not to be seen
    for change, code in zip(others, ("frames", "size"), strict=True):
        with pytest.raises(ComparisonError) as refused:
            make([video, given], tmp_path / code, dataclasses.replace(only, **change))
        assert refused.value.code == f"compare.{code}"


@pytest.mark.parametrize("mode", [{"resume": True}, {"overwrite": True}], ids=str)
def test_a_reports_own_files_are_no_input(folder: Path, results: Json, video: Path, mode: Json) -> None:
    own = folder / run_of(results, "nvc:hnerv")["file"]
    with pytest.raises(UsageError, match="own files"):
        make([video, own], folder, **mode)
    assert own.exists()


def test_a_given_file_in_rgb_is_refused(video: Path, tmp_path: Path) -> None:
    given = tmp_path / "rgb.nvc"
    given.write_bytes(encoded(pixel_format=1))
    with pytest.raises(ComparisonError, match="rgb24") as refused:
        make([video, given], tmp_path / "out", dataclasses.replace(SETTINGS, codecs=("nvc:hnerv",)))
    assert refused.value.code == "compare.format"


def test_a_rate_that_cannot_be_met_and_an_encoder_that_does_not_fit_are_told(video: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, bpp=(0.0001, 0.6), codecs=("nvc:hnerv", "x265"), scale=(95, 63))
    found = make([video], tmp_path / "out", settings)
    assert [run["label"] for run in found["runs"]] == ["0.6 bpp"]
    notes = found["clips"][0]["notes"]
    assert any("0.0001 bpp" in note for note in notes) and any("x265" in note and "even" in note for note in notes)
    assert all(any(note in told for told in found["told"]) for note in notes)


def test_a_report_without_any_run_is_an_error(video: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, bpp=(0.0001,), codecs=("nvc:hnerv",))
    with pytest.raises(InputError, match="no codec"):
        make([video], tmp_path / "out", settings)
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")])
def test_where_there_is_a_gpu_files_are_decoded_on_both(
    device: str, expected: str, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def bench(folder: str, settings: Settings, devices: list[str], tell: object) -> None:
        assert devices == ["cpu", expected]
        raise Stop

    monkeypatch.setattr(sweep, "cuda_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(sweep, "Bench", bench)
    with pytest.raises(Stop):
        make([video], tmp_path / "out", dataclasses.replace(SETTINGS, device=device))


def test_without_the_extra_nothing_begins(monkeypatch: pytest.MonkeyPatch, video: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "REPORT_PACKAGES", ("bjontegaard", "no_such_package"))
    with pytest.raises(MachineError, match=r"no_such_package: pip install 'nvc-codec\[report\]'"):
        make([video], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_encode_is_kept_though_its_measurement_was_cut_off(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    settings = dataclasses.replace(SETTINGS, bpp=(0.6,), codecs=("nvc:hnerv",))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "measure", cut_off)
        make([video], tmp_path / "out", settings)
    file = tmp_path / "out" / "files" / "a_moving_clip" / "nvc-hnerv-0.6bpp.nvc"
    encoded_at = file.stat().st_mtime_ns
    found = make([video], tmp_path / "out", settings, resume=True)
    assert file.stat().st_mtime_ns == encoded_at and found["runs"][0]["encode"]["seconds"] > 0


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_a_killed_report_goes_on_and_encodes_nothing_twice(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--bpp", "0.6", "--codecs", "nvc:hnerv,x264", "--frames", "1:7", "--scale", "96x64", "--preset", "draft"]
    command = [*NVC, "report", str(video), "-o", str(out), *options, "--device", "cpu", "--resume", "-q"]
    begun = subprocess.Popen(command, start_new_session=True)
    records = out / "files" / "a_moving_clip"
    deadline = time.monotonic() + 120
    while len(list(records.glob("x264-*.json"))) < 2 and time.monotonic() < deadline:
        assert begun.poll() is None, "the report ended before it could be killed"
        time.sleep(0.02)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert not (out / "report.html").exists()
    before = {path.name: path.stat().st_mtime_ns for path in records.iterdir() if path.suffix in (".nvc", ".mp4")}
    done = {path.stem: json.loads(path.read_text()).get("encode") for path in records.glob("*-*.json")}
    subprocess.run(command, check=True)
    after = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
    found = json.loads((out / "results.json").read_text())
    encoded = {run["id"].split("/")[1]: run["encode"] for run in found["runs"]}
    assert len(done) >= 3 and all(encoded[name] == encode for name, encode in done.items() if encode)
    files = [f"{name}.{'nvc' if name.startswith('nvc') else 'mp4'}" for name in done]
    assert all(after[file] == before[file] for file in files)
    assert len(encoded) > len(done)
