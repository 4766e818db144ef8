"""How the catalogues of refused files write down one of them."""

from __future__ import annotations

from ..suite import Vector
from .file import File


def refusal(slug: str, code: str, file: File | bytes, about: str, *clauses: str, **limits: int) -> Vector:
    """The vector of a file that is refused with `code`; its group follows from that."""
    group = {"unsupported": "unsupported", "limit": "limits"}.get(code.partition(".")[0], "invalid")
    data = file if isinstance(file, bytes) else file.to_bytes()
    return Vector(f"{group}/{slug}", data, about, clauses, code, limits=limits)
