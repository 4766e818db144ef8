"""Presets and settings of an encode; imports no torch, so that the command line can list them."""

from __future__ import annotations

from dataclasses import dataclass, replace

VERSION = "0.1.0"
MODELS = ("hnerv",)


@dataclass(frozen=True)
class FitConfig:
    """How a network is fitted. Fractions are of the steps."""

    passes: int
    """How often every frame is seen; with `batch` this fixes the number of steps."""
    batch: int = 1
    """Frames a step. At equal passes one beats two: 29.9 against 28.4 dB after 100 passes of 32 frames of 320x180 at 0.25 bpp."""
    lr: float = 5e-3
    """Peak learning rate of Adam, after a linear warm-up over 5 %, then a cosine to 1 %."""
    step_lr: float = 2.0
    """Learning rate of the log-domain steps and gains, relative to `lr`."""
    quantise_at: float = 0.15
    """From here weights and embeddings are rounded in the forward pass and their bits are in the loss."""
    full_rate_at: float = 0.35
    """Here lambda has its full value and starts to be steered to the size that was asked for."""
    free_at: float = 0.5
    """From here the encoder is gone and the embeddings are parameters of their own."""
    min_steps: int = 300
    """Very short clips are fitted for so many steps all the same."""

    def steps(self, frames: int) -> int:
        """Optimiser steps for a segment of `frames` frames."""
        return max(self.min_steps, -(-self.passes * frames // min(self.batch, frames)))


_DRAFT = FitConfig(passes=40)

PRESETS: dict[str, FitConfig] = {
    "draft": _DRAFT,
    "fast": replace(_DRAFT, passes=120),
    "medium": replace(_DRAFT, passes=300),
    "slow": replace(_DRAFT, passes=600),
    "veryslow": replace(_DRAFT, passes=1200),
}
