"""`nvc conformance`: does a decoder, by default this one, do what the conformance vectors ask?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .progress import ProgressLine, printable

if TYPE_CHECKING:
    from nvc.conformance.runner import Decoder


@click.group(no_args_is_help=False)
def conformance() -> None:
    """Test decoders against the vectors of the format."""


@conformance.command()
@click.option("--decoder", metavar="COMMAND", help="Test this command, with {in} and {out}, instead of this nvc.")
@click.option("--vectors", metavar="DIR", type=Path, help="The folder of manifest.json (default: the vectors of this nvc).")
@click.option("--group", "groups", multiple=True, help="Only this group; may be given several times.")
@click.option("--only", "patterns", metavar="GLOB", multiple=True, help="Only vectors called so, such as 'invalid/*'.")
@click.option("--list", "listing", is_flag=True, help="Only say which vectors there are.")
@click.option("--device", "devices", multiple=True, metavar="cpu|cuda", help="Test nvc there (default: on all there are).")
@click.option("--timeout", type=click.IntRange(1, 86400), default=60, show_default=True, help="Seconds a decoding may take.")
@click.option("--jobs", type=click.IntRange(1, 1024), default=1, show_default=True, help="Runs of the --decoder at once.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
@options.as_json
def run(listing: bool, as_json: bool, **given: Any) -> None:
    """Decode every vector in every way, and compare each frame's SHA-256, or the code of the refusal.

    A --decoder "CMD {in} {out}" leaves with 0 and writes all planes of all frames to {out}, as "nvc decode {in} {out}" does; or
    it leaves with another exit code and no output, and the last line of its stderr ends with a code, such as [invalid.range].
    """
    from nvc.bitstream.errors import UsageError, VerificationError
    from nvc.conformance import manifest, runner, suite

    folder = given["vectors"] or suite.FOLDER
    try:
        vectors = runner.select(manifest.load(folder), given["groups"], given["patterns"])
    except (suite.ManifestError, LookupError) as error:
        raise UsageError("vectors", str(error.args[0])) from error
    if listing:
        _list(vectors, as_json)
        return
    progress, done = ProgressLine(given["quiet"], False), 0

    def tell(vector: suite.Vector) -> None:
        nonlocal done
        done += 1
        progress.show(f"conformance  {done}/{len(vectors)}  {vector.name}", final=done == len(vectors))

    report = runner.run(vectors, folder, _decoder(given), given["timeout"], given["jobs"], tell)
    if as_json:
        options.echo_json(report.to_json())
    else:
        click.echo("\n".join(map(printable, report.lines())))
    if not report.passed:
        counts = report.counts()
        raise VerificationError(
            "conformance", f"{counts['passed']} of {counts['vectors']} vectors passed, {counts['failed']} failed"
        )


def _list(vectors: Any, as_json: bool) -> None:
    if as_json:
        options.echo_json({"vectors": [{"name": v.name, "expect": v.expect, "about": v.about} for v in vectors]})
    else:
        click.echo("\n".join(f"{v.name:<48} {v.expect:<26} {v.about}" for v in vectors))


def _decoder(given: dict[str, Any]) -> Decoder:
    """The command, or this nvc."""
    from nvc.bitstream.errors import UsageError

    if given["decoder"] is not None:
        from nvc.conformance.command import Command

        if given["devices"]:
            raise UsageError("device", "--device is for nvc itself; tell a --decoder in its command")
        try:
            return Command(given["decoder"], given["timeout"])
        except ValueError as error:
            raise UsageError("decoder", f"--decoder: {error}") from error
    from nvc.codec.subject import Subject

    if given["jobs"] > 1:
        raise UsageError("jobs", "--jobs is for a --decoder; nvc itself is tested one vector at a time")
    return Subject(given["devices"])
