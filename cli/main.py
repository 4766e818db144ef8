"""The `nvc` command: its sub-commands, and the one place where errors become a line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

from nvc.bitstream.errors import NvcError
from nvc.codec.config import VERSION

from .compare import compare
from .conformance import conformance
from .decode import decode
from .doctor import doctor
from .encode import encode
from .info import info
from .progress import printable
from .report import report
from .verify import verify

# As torch says it: of a device, of the processor, and of the libraries of CUDA (CUBLAS_STATUS_ALLOC_FAILED).
OUT_OF_MEMORY = ("out of memory", "can't allocate", "_alloc_failed")
EXIT_IO, EXIT_USAGE, EXIT_MACHINE, EXIT_BUG, EXIT_INTERRUPTED = 1, 2, 7, 70, 130


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="nvc")
def nvc() -> None:
    """Neural video codec: fits a network to one video and writes it as a file that decodes to the same bits everywhere.

    Exit codes: 0 ok, 1 input or output failed, 2 usage, 3 video unreadable, 4 bitstream refused, 5 target missed,
    6 verification failed, 7 this machine lacks something, 10 a part was lost, 70 a bug of nvc, 130 interrupted.
    """


for command in (encode, decode, info, verify, compare, report, conformance, doctor):
    nvc.add_command(command)


def main() -> None:
    """Run the command line; never a traceback unless NVC_DEBUG is set."""
    sys.exit(_run())


def _run() -> int:
    try:
        exit_code = int(nvc.main(standalone_mode=False) or 0)
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        hint = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        return _fail("usage", error.format_message().replace("\n", " ") + hint, EXIT_USAGE)
    except NvcError as error:
        return _fail(error.code, str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", "stopped; nothing half-written was left", EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit has nowhere to fail
        return _fail("output.broken_pipe", "the reader of the output has gone away", EXIT_IO)
    except OSError as error:
        return _fail("io", f"{error.filename or 'input or output'}: {error.strerror or error}", EXIT_IO)
    except Exception as error:
        if os.environ.get("NVC_DEBUG"):
            traceback.print_exc()
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OUT_OF_MEMORY):
            return _fail("machine.memory", "out of memory; use a smaller --batch, --segment or picture", EXIT_MACHINE)
        text = str(error).splitlines()[0] if str(error) else ""
        return _fail("bug", f"{type(error).__name__}: {text}; this is a bug of nvc, NVC_DEBUG=1 shows where", EXIT_BUG)
    return exit_code


def _fail(code: str, message: str, exit_code: int) -> int:
    """One line, whatever names and numbers the message quotes."""
    click.echo(f"nvc: error: {printable(message)} [{code}]", err=True)
    return exit_code
