"""Presets and settings of an encode; imports no torch, so that the command line can list them."""

from __future__ import annotations

from dataclasses import dataclass, replace

VERSION = "0.1.0"
REPORT_PACKAGES = ("bjontegaard", "jinja2", "matplotlib")  # the extra `report`
MODELS = ("hnerv", "vqnerv")
BLOCKS = ("added", "pooled", "paper")
TUNES = ("psnr", "ssim")  # what a fit minimises (distortion.py)
LAUNCHES = ("eager", "graph", "compile")


@dataclass(frozen=True)
class Tokens:
    """What vqnerv adds to a decoder."""

    block: str = "added"
    """One of BLOCKS (models/vqnerv.py)."""
    levels: int = 128
    """Entries of a codebook."""
    dimension: int = 8
    """Numbers of an entry."""
    maps: tuple[tuple[int, int], ...] = ()
    """(b, n): about n tokens a frame, added after b blocks of the decoder; n = 0 for one token per 80 x 80 pixels. Empty for
    the block's own place."""
    pool: bool = True
    """Shallow codebook optimisation (pool.py)."""
    priced: bool = True
    """Tokens are chosen for their bits, too."""
    scalar: bool = False
    """Scalars, as in embeddings, in the place of tokens: what tokens have to beat."""


@dataclass(frozen=True)
class Design:
    """What a network is made of, apart from its size. The defaults follow from bench/results."""

    activation: str = "hswish"
    """hswish, relu, gelu or sine: what follows a requantisation (SPEC 8.5)."""
    skip: bool = False
    """Every block adds its input, enlarged bilinearly, before its activation (NeRV++, Ghorbel et al. 2024)."""
    channel_steps: bool = False
    """A learned step for every output channel instead of one for a weight tensor."""
    tokens: Tokens = Tokens()


@dataclass(frozen=True)
class FitConfig:
    """How a network is fitted. Fractions are of the steps. Where a value comes from an ablation, it is in bench/results."""

    passes: int
    """How often every frame is seen; with `batch` and `band` this fixes the number of steps."""
    batch: int = 2
    """Frames a step."""
    band: float = 1.0
    """Share of a frame's height that a step computes in the last block and the head."""
    optimiser: str = "muon"
    """For convolutions: muon, or adam with `lr`."""
    lr: float = 2e-3
    """Peak learning rate of Adam, after a linear warm-up over 5 %, then a cosine to 1 %."""
    matrix_lr: float = 3e-2
    """Peak learning rate of Muon, in its RMS-matched form: an element moves by about 0.2 of it in a step."""
    momentum: float = 0.85
    """Of Muon; 0.95 is as good, 0.7 is 0.5 dB worse."""
    weight_decay: float = 0.05
    """Of Muon, whose steps have one length and would let weights grow in directions that do not matter."""
    step_lr: float = 4.0
    """Learning rate of the log-domain steps and gains, relative to `lr`."""
    token_lr: float = 0.02
    """Learning rate of the encoders of tokens, relative to `lr`. A codebook follows its latents a hundred steps behind, and with
    latents that move as fast as the rest fits were 0.3 dB worse than without tokens."""
    latent_lr: float = 3.0
    """Learning rate of free latents and codebook entries, relative to `lr`."""
    quantise_at: float = 0.15
    """From here weights and latents are rounded in the forward pass, their bits are in the loss, and the encoder is gone: latents
    are parameters of their own."""
    full_rate_at: float = 0.35
    """Here lambda has its full value, after a ramp from `quantise_at`."""
    prune_at: float = 0.5
    """Here `prune` takes effect."""
    prune: float = 0.0
    """Share of the weights, the smallest by magnitude over all layers, that is set to zero for good."""
    hard_at: float = 0.75
    """Until here convolutions may compute in bfloat16 where that is faster; from here on they are the decoder's, and tokens stay
    what they are."""
    min_steps: int = 300
    """Very short clips are fitted for so many steps all the same."""
    launch: str = "graph"
    """One of LAUNCHES: how a GPU is told what to do in a step (launch.py)."""

    def steps(self, frames: int) -> int:
        """Optimiser steps for a segment of `frames` frames."""
        return max(self.min_steps, round(self.passes * frames / (min(self.batch, frames) * self.band)))


_DRAFT = FitConfig(passes=40)

PRESETS: dict[str, FitConfig] = {
    "draft": _DRAFT,
    "fast": replace(_DRAFT, passes=120),
    "medium": replace(_DRAFT, passes=300),
    "slow": replace(_DRAFT, passes=600),
    "veryslow": replace(_DRAFT, passes=1200),
}
