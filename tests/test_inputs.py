"""What a report is asked about: videos, the .nvc files that follow them, names, hashes, settings."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvc_files import encoded

from nvc.bitstream.errors import InputError, UsageError
from nvc.codec.report.inputs import inputs, sha256
from nvc.codec.report.settings import CODECS, Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    for name in ("a.mp4", "b.mkv", "other/a.mp4"):
        (tmp_path / name).write_bytes(b"video " + name.encode())
    for name in ("one.nvc", "two.nvc", "other/one.nvc", "misnamed.mp4"):
        (tmp_path / name).write_bytes(encoded())
    return tmp_path


def test_files_belong_to_the_video_before_them(folder: Path) -> None:
    names = ("a.mp4", "one.nvc", "two.nvc", "b.mkv", "misnamed.mp4")
    first, second = inputs([str(folder / name) for name in names])
    assert (first.name, list(first.given.values())) == ("a", [str(folder / "one.nvc"), str(folder / "two.nvc")])
    assert (second.name, list(second.given.values())) == ("b", [str(folder / "misnamed.mp4")])  # what is in it decides


def test_names_are_unique(folder: Path) -> None:
    found = inputs([str(folder / name) for name in ("a.mp4", "one.nvc", "other/one.nvc", "other/a.mp4")])
    assert [each.name for each in found] == ["a", "a-2"]
    assert len(found[0].given) == 2


@pytest.mark.parametrize("names", [["one.nvc"], ["one.nvc", "a.mp4"], ["a.mp4", "-"]])
def test_a_file_without_its_video_is_refused(folder: Path, names: list[str]) -> None:
    with pytest.raises(UsageError):
        inputs([name if name == "-" else str(folder / name) for name in names])


def test_a_missing_video_is_an_input_error(folder: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.mp4"):
        inputs([str(folder / "missing.mp4")])


def test_names_need_no_quotes(folder: Path) -> None:
    path = folder / "what a <clip> & 'more'.mp4"
    path.write_bytes(b"video")
    name = inputs([str(path)])[0].name
    assert set(name) <= set(string.ascii_letters + string.digits + "_-") and "what_a" in name


def test_hash_of_a_file_and_of_a_folder(folder: Path) -> None:
    assert sha256(str(folder / "a.mp4")) == hashlib.sha256(b"video a.mp4").hexdigest()
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in (9, 10):
        (pictures / f"f{number}.png").write_bytes(str(number).encode())
    assert sha256(str(pictures)) == hashlib.sha256(b"910").hexdigest()  # natural order


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"bpp": ()}, "--bpp"),
        ({"bpp": (0.1, 0.0)}, "--bpp"),
        ({"bpp": (float("nan"),)}, "--bpp"),
        ({"codecs": ()}, "--codecs"),
        ({"codecs": ("x264", "x266")}, "x266"),
        ({"anchors": "weak"}, "--anchors"),
        ({"preset": "placebo"}, "--preset"),
    ],
)
def test_settings_that_make_no_sense_are_named(wrong: dict[str, tuple[float, ...]], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Settings(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.floats(0.001, 20), min_size=1), st.lists(st.sampled_from(CODECS), min_size=1))
def test_rates_are_sorted_and_nothing_is_twice(rates: list[float], codecs: list[str]) -> None:
    settings = Settings(bpp=tuple(rates), codecs=tuple(codecs))
    assert settings.bpp == tuple(sorted(set(rates)))
    assert sorted(settings.codecs) == sorted(set(codecs))


def test_the_command_names_no_folder() -> None:
    command = Settings(frames=(0, 64), scale=(160, 90)).command(["/some/where/a clip.mp4"], "/else/where/out")
    assert command.startswith("nvc report 'a clip.mp4' -o out ") and "where" not in command
    assert "--frames 0:64 --scale 160x90" in command
