"""Differentiable bit counts: what the entropy coder spends on integers that are still being learned.

The twin of bitstream/coders.py. A sequence of codes is priced as by an adaptive table that starts as a Laplace
distribution worth some symbols (SPEC 6.4); its length has a closed form, that of Polya's urn, so nothing is coded to know it. The
value is that of the rounded codes. The gradient is the slope of the final table between the two nearest integers: what
moving a code by one would save (straight-through, as the rounding itself).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nvc.bitstream.tokens import DENSITY_BITS

from .prices import is_new

LARGEST = 255  # of the tables; rarer and larger codes are priced by the Laplace distribution's tail
MASSES = (8.0, 64.0, 512.0, 4096.0, 2.0**20)  # symbols that a prior is worth; the last is as good as never adapting
LEAST = 2.0**-24  # the smallest probability of a table
SMALLEST_MEAN = 1e-4  # magnitude of a tensor of zeros: about what the last table of the bank can express
HEADER_BITS = 10.0  # of a sequence: mode, scale and mass (SPEC 7.1)
POOLED_BELOW = 1024  # values of a channel: its header is under 1 % of its bits then
FLAG_MASS = 2.0  # of the flags of tokens
LN2 = math.log(2.0)


def sequence_bits(sequences: Sequence[Tensor]) -> Tensor:
    """Bits of each sequence of codes (real numbers in units of their steps, any shape), headers included; shape (S,)."""
    values = torch.cat([sequence.reshape(-1) for sequence in sequences])
    sizes = tuple(sequence.numel() for sequence in sequences)
    bits: Tensor = _SequenceBits.apply(values, *_owners(sizes, values.device))  # type: ignore[no-untyped-call]
    return bits


@lru_cache(maxsize=8)
def _owners(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The sequence that each value belongs to, and the lengths as float32."""
    lengths = torch.tensor(sizes, device=device)
    return torch.repeat_interleave(lengths, output_size=sum(sizes)), lengths.float()


def tensors_bits(tensors: Sequence[Tensor]) -> Tensor:
    """Bits of tensors of codes, each coded as one sequence; a scalar."""
    return sequence_bits(tensors).sum()


def embedding_bits(codes: Tensor) -> Tensor:
    """Bits of embeddings (T, C, h, w): as they are or as differences in time, in one sequence or a channel at a time; a scalar.

    The cheapest of the four, as `tensors.write_tensors` chooses; long channels always have tables of their own.
    """
    frames, channels = codes.shape[:2]
    forms = [[codes]] if frames == 1 else [[codes], [codes[:1], codes[1:] - codes[:-1]]]
    if channels > 1:
        apart = [[part for whole in form for part in whole.unbind(1)] for form in forms]
        forms = apart if codes[:, 0].numel() > POOLED_BELOW else forms + apart
    bits = sequence_bits([part for form in forms for part in form])
    return torch.stack([part.sum() for part in torch.split(bits, [len(form) for form in forms])]).amin()


def _laplace(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Laplace variables rounded to integers, by their mean magnitudes (S,): the probabilities (S, 2 L + 1) of -L..L, and the bits
    (S,) of one unit more.
    """
    half = torch.asinh(0.5 / mean.clamp(min=SMALLEST_MEAN))[:, None]  # 1 / 2b: E|v| = 1 / (2 sinh(1 / 2b)), solved for b
    magnitude = torch.arange(1, LARGEST + 1, device=mean.device)
    side = torch.exp((1 - 2 * magnitude) * half) * (-0.5 * torch.expm1(-2 * half))  # exp(-|v| / b) sinh(1 / 2b)
    table = torch.cat([side.flip(1), -torch.expm1(-half), side], dim=1)
    return table, 2 / LN2 * half[:, 0]


class _SequenceBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, owner: Tensor, lengths: Tensor) -> Tensor:
        rows, columns = lengths.numel(), 2 * LARGEST + 1
        rounded = values.round().nan_to_num(0.0)  # a fit that diverged is to be told by its distortion
        inside = rounded.clamp(-LARGEST, LARGEST)
        cell = inside.to(torch.int64).add_(LARGEST).addcmul_(owner, torch.tensor(columns, device=owner.device))
        counts = torch.bincount(cell, minlength=rows * columns).view(rows, columns).float()
        magnitude = torch.bincount(owner, rounded.abs(), minlength=rows).float()
        prior, unit = _laplace(magnitude / lengths)
        row, column = counts.nonzero(as_tuple=True)
        masses = torch.tensor(MASSES, device=values.device, dtype=torch.float64)
        drawn = masses[:, None] * prior[row, column].clamp(min=LEAST)  # (M, cells that are not empty)
        urn = torch.lgamma(drawn) - torch.lgamma(drawn + counts[row, column])
        urn = torch.zeros(len(MASSES), rows, device=values.device, dtype=torch.float64).index_add_(1, row, urn)
        urn = (urn + torch.lgamma(masses[:, None] + lengths) - torch.lgamma(masses)[:, None]) / LN2
        bits, best = urn.float().min(0)
        table = torch.addcmul(counts, masses[best].float()[:, None], prior.clamp(min=LEAST)).log2_()
        rise = table[:, :-1] - table[:, 1:]  # bits of one code more than those of the one below
        ctx.save_for_backward(rise.reshape(-1), cell - owner - (rounded > values).long(), owner, rounded - inside, unit)
        beyond = magnitude - counts @ torch.arange(-LARGEST, LARGEST + 1.0, device=values.device).abs()
        return bits + beyond * unit + HEADER_BITS

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rise, below, owner, beyond, unit = ctx.saved_tensors
        first = owner * (2 * LARGEST)
        slope = rise[below.clamp(first, first + 2 * LARGEST - 1)]
        slope = torch.where(beyond == 0, slope, beyond.sign() * unit[owner])
        return slope.mul_(gradients[0][owner]), None, None


def token_bits(tokens: Tensor) -> Tensor:
    """Bits of tokens (T, h, w): flags 'same as at t - 1', then the new ones; a scalar, without a gradient.

    One table for all flags and no returns: SPEC 7.6 takes less, and size.py corrects it.
    """
    fresh = is_new(tokens)
    flags = torch.bincount(fresh[1:].flatten().long(), minlength=2)
    uses = torch.bincount(tokens[fresh])
    masses = [max(len(uses) / 4**density, 1.0) for density in range(1 << DENSITY_BITS)]
    return _flat_urn(flags, FLAG_MASS) + torch.stack([_flat_urn(uses, mass) for mass in masses]).amin()


def _flat_urn(counts: Tensor, mass: float) -> Tensor:
    """Bits of symbols with these counts, by an adaptive table that starts flat and is worth `mass` symbols."""
    prior = torch.full(counts.shape, mass / len(counts), device=counts.device, dtype=torch.float64)
    drawn = torch.lgamma(prior) - torch.lgamma(prior + counts)
    whole = torch.lgamma(counts.sum() + mass) - math.lgamma(mass)
    return ((drawn.sum() + whole) / LN2).float()
