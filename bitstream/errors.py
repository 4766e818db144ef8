"""Every error nvc raises on purpose, with its stable code and the exit code of the command line.

NvcError
+-- OutputError             1   cannot write there
+-- UsageError              2   an option or an argument makes no sense
+-- InputError              3   the video cannot be read
+-- BitstreamError          4   the .nvc file is refused
|   +-- NotNvcError             not an .nvc file at all
|   +-- TruncatedError          the bytes stop too early
|   +-- CorruptError            a checksum or a hash differs
|   +-- InvalidError            a rule of SPEC.md is broken
|   +-- UnsupportedError        from a newer version, or an extension that must be understood
|   +-- LimitError              legal, but over a limit of this reader
+-- TargetError             5   the asked size or quality cannot be reached
+-- VerificationError       6   decoded frames differ from the hashes in the file
+-- ComparisonError         6   two videos do not show the same frames
+-- MachineError            7   this machine lacks something (ffmpeg, a device, memory)

Each error carries `code`, a stable dotted name such as `corrupt.payload_crc` that scripts may compare; the message is for
people: what, where, what to do. Exit codes 10 (partial result), 70 (a bug of ours) and 130 (interrupted) are not errors of
this tree.
"""

from __future__ import annotations


class NvcError(Exception):
    """Base of everything nvc raises on purpose.

    `reason` is the part of the code after the dot; `message` one line for people.
    """

    family = "error"
    exit_code = 70

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = f"{self.family}.{reason}"


class OutputError(NvcError):
    """The output cannot be written, or exists and `-y` was not given."""

    family = "output"
    exit_code = 1


class UsageError(NvcError):
    """An option or argument that makes no sense, alone or with the others."""

    family = "usage"
    exit_code = 2


class InputError(NvcError):
    """The source video cannot be read."""

    family = "input"
    exit_code = 3


class BitstreamError(NvcError):
    """The .nvc file is refused; nothing that was decoded from it may be believed."""

    family = "bitstream"
    exit_code = 4


class NotNvcError(BitstreamError):
    """No magic: some other kind of file, or one damaged by a text-mode transfer."""

    family = "not_nvc"


class TruncatedError(BitstreamError):
    """The bytes stop before the structure that they began is complete."""

    family = "truncated"


class CorruptError(BitstreamError):
    """A checksum or a hash differs from the bytes or numbers it covers."""

    family = "corrupt"


class InvalidError(BitstreamError):
    """Intact bytes that break a rule of SPEC.md."""

    family = "invalid"


class UnsupportedError(BitstreamError):
    """Intact bytes that need a newer reader."""

    family = "unsupported"


class LimitError(BitstreamError):
    """Legal, but larger than this reader is willing to take on (SPEC 9)."""

    family = "limit"


class TargetError(NvcError):
    """The asked size, rate or quality cannot be reached."""

    family = "target"
    exit_code = 5


class VerificationError(NvcError):
    """Decoded frames differ from the hashes that the file carries."""

    family = "verify"
    exit_code = 6


class ComparisonError(NvcError):
    """Two videos do not show the same frames in the same way, so a figure of quality would mean nothing."""

    family = "compare"
    exit_code = 6


class MachineError(NvcError):
    """This machine lacks something: ffmpeg, the device, memory."""

    family = "machine"
    exit_code = 7
