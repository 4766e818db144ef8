"""`nvc doctor`: what this machine can do, what it lacks, and what to do about it."""

from __future__ import annotations

import click

from nvc.bitstream.errors import MachineError

from . import options
from .progress import printable

# by (ok, required); words, so that colour and symbols are not needed
_WORDS = {(False, True): "FAILS", (False, False): "lacks", (True, True): "ok", (True, False): "ok"}


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Try everything that nvc needs or can use here: packages, torch and its devices, ffmpeg with its encoders and filters.

    A line that begins with FAILS is something that nvc does not work without, and makes the exit code 7; one that begins with
    lacks says which feature is not to be had, and how to get it.
    """
    from dataclasses import asdict

    from nvc.codec.doctor import examine, lacking

    checks = examine()
    missing = lacking(checks)
    if as_json:
        options.echo_json({"ok": not missing, "checks": [asdict(check) for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            word = "-" if check.ok is None else _WORDS[check.ok, check.required]
            hint = f" -> {check.hint}" if check.hint else ""
            click.echo(printable(f"{word:<5}  {check.name:<{width}}  {check.detail}{hint}"))
    if missing:
        raise MachineError("doctor", f"nvc does not work on this machine: {', '.join(missing)}; the report says what to do")
