"""What an ffmpeg lists: names, nothing of the legend, and an error where it does not list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from nvc.bitstream.errors import MachineError
from nvc.codec import abilities

KINDS: tuple[Literal["encoders", "filters"], ...] = ("encoders", "filters")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_listed_is_what_ffmpeg_has_help_for(kind: Literal["encoders", "filters"], ffmpeg: Callable[..., bytes]) -> None:
    names = abilities.names(kind)
    assert len(names) > 50 and "=" not in names
    for name in (*sorted(names)[:: len(names) // 10], "libx264ish", "scaled"):
        help_text = ffmpeg("-h", f"{kind.removesuffix('s')}={name}").decode()
        assert (f"{name} [" in help_text or f"Filter {name}\n" in help_text) == (name in names)


@pytest.mark.parametrize("script", ["echo ' V....D ffv1   FFmpeg video codec #1'; exit 3", "echo nothing of the kind", "exit 1"])
def test_an_ffmpeg_that_does_not_list_is_an_error(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with pytest.raises(MachineError, match="does not list its encoders") as caught:
        abilities.names("encoders")
    assert caught.value.code == "machine.ffmpeg"
