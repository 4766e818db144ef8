"""Differentiable bit counts: what the entropy coder spends on integers that are still being learned.

The twin of bitstream/coders.py. A sequence of codes is priced as by an adaptive table that starts as a Laplace
distribution worth some symbols (SPEC 6.4); its length has a closed form, that of Polya's urn, so nothing is coded to know it. The
value is that of the rounded codes. The gradient is the slope of the final table between the two nearest integers: what
moving a code by one would save (straight-through, as the rounding itself).

Nothing here is read on the host, but for the sparse count on a CPU. Atomic additions are of integers, so that a GPU's sums do
not depend on their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nvc.bitstream.tokens import DENSITY_BITS

from .prices import count_codes, is_new

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
    bits: Tensor = _SequenceBits.apply(values, sizes, _count_of(values.device))  # type: ignore[no-untyped-call]
    return bits


@lru_cache(maxsize=64)  # more than fits that run at once have: a recorded step reads these tensors and does not keep them
def _owners(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The sequence that each value belongs to, and the lengths as float32.

    Made on the host, as all that is shared between fits: each has a stream of its own, and what one of them computes another one
    might read too early.
    """
    lengths = torch.tensor(sizes)
    return torch.repeat_interleave(lengths).to(device), lengths.float().to(device)


@lru_cache(maxsize=64)
def _masses(device: torch.device) -> Tensor:
    return torch.tensor(MASSES, dtype=torch.float64).to(device)


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


@dataclass(frozen=True)
class _Codes:
    """The codes of S sequences: magnitudes `rounded` to integers and those that are `inside` the tables, the `cell` of each in
    tables (S, 2 L + 1) that lie one after the other, the sequence that is its `owner`, and how many codes each has.
    """

    rounded: Tensor
    inside: Tensor
    cell: Tensor
    owner: Tensor
    sizes: tuple[int, ...]


Urn = Callable[[Tensor, Tensor], Tensor]
"""Counts (S, 2 L + 1) and priors of that shape to what drawing them takes with each of the masses, (M, S), times ln 2."""
Count = Callable[[_Codes], tuple[Tensor, Tensor, Tensor]]
"""Codes to their counts (S, 2 L + 1), sums of magnitudes (S,), and what of these lies beyond the tables (S,), all float32."""


def _count_of(device: torch.device) -> tuple[Count, Urn]:
    """How codes are counted on a device: most cells of a table are empty, which a CPU is quick to leave out; but to learn how
    many are not, a GPU would have to stop.
    """
    return (_sparse_count, _sparse_urn) if device.type == "cpu" else (_dense_count, _dense_urn)


def _sparse_count(codes: _Codes) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = len(codes.sizes), 2 * LARGEST + 1
    counts = torch.bincount(codes.cell, minlength=rows * columns).view(rows, columns).float()
    magnitude = torch.bincount(codes.owner, codes.rounded.abs(), minlength=rows).float()
    return counts, magnitude, magnitude - counts @ _magnitudes(counts)


def _dense_count(codes: _Codes) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = len(codes.sizes), 2 * LARGEST + 1
    ones = torch.ones((), device=codes.cell.device, dtype=torch.int32).expand_as(codes.cell)
    whole = torch.zeros(rows * columns, device=codes.cell.device, dtype=torch.int32).scatter_add_(0, codes.cell, ones)
    counts = whole.view(rows, columns).double()
    # few codes lie beyond; sums in a fixed order, as those of magnitudes are beyond what float32 adds exactly
    away = (codes.rounded - codes.inside).abs().double()
    beyond = torch.stack([part.sum() for part in torch.split(away, list(codes.sizes))])
    return counts.float(), (counts @ _magnitudes(counts) + beyond).float(), beyond.float()


def _magnitudes(like: Tensor) -> Tensor:
    """Those of the columns of a table, (2 L + 1,)."""
    return torch.arange(-LARGEST, LARGEST + 1, device=like.device, dtype=like.dtype).abs()


def _sparse_urn(counts: Tensor, prior: Tensor) -> Tensor:
    row, column = counts.nonzero(as_tuple=True)
    drawn = _masses(counts.device)[:, None] * prior[row, column]  # (M, cells that are not empty)
    urn = torch.lgamma(drawn) - torch.lgamma(drawn + counts[row, column])
    return torch.zeros(len(urn), len(counts), device=urn.device, dtype=urn.dtype).index_add_(1, row, urn)


def _dense_urn(counts: Tensor, prior: Tensor) -> Tensor:
    drawn = _masses(counts.device)[:, None, None] * prior  # (M, S, 2 L + 1); an empty cell adds 0
    return (torch.lgamma(drawn) - torch.lgamma(drawn + counts)).sum(2)


class _SequenceBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, sizes: tuple[int, ...], ways: tuple[Count, Urn]) -> Tensor:
        count, urn_of = ways
        owner, lengths = _owners(sizes, values.device)
        masses = _masses(values.device)[:, None]
        rounded = values.round().nan_to_num(0.0)  # a fit that diverged is to be told by its distortion
        inside = rounded.clamp(-LARGEST, LARGEST)
        cell = inside.to(torch.int64).add_(owner, alpha=2 * LARGEST + 1).add_(LARGEST)
        counts, magnitude, beyond = count(_Codes(rounded, inside, cell, owner, sizes))
        prior, unit = _laplace(magnitude / lengths)
        prior = prior.clamp_(min=LEAST)
        urn = (urn_of(counts, prior) + torch.lgamma(masses + lengths) - torch.lgamma(masses)) / LN2
        bits, best = urn.float().min(0)
        table = torch.addcmul(counts, masses[best].float(), prior).log2_()
        rise = table[:, :-1] - table[:, 1:]  # bits of one code more than those of the one below
        ctx.save_for_backward(rise.reshape(-1), cell - owner - (rounded > values).long(), owner, rounded - inside, unit)
        return bits + beyond * unit + HEADER_BITS

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rise, below, owner, beyond, unit = ctx.saved_tensors
        first = owner * (2 * LARGEST)
        slope = rise[below.clamp(first, first + 2 * LARGEST - 1)]
        slope = torch.where(beyond == 0, slope, beyond.sign() * unit[owner])
        return slope.mul_(gradients[0][owner]), None, None


def token_bits(tokens: Tensor, levels: int) -> Tensor:
    """Bits of tokens (T, h, w), 0 to `levels` - 1: flags 'same as at t - 1', then the new ones; a scalar, without a gradient.

    One table for all flags and no returns: SPEC 7.6 takes less, and size.py corrects it.
    """
    fresh = is_new(tokens)
    changed = fresh[1:].sum()
    flags = torch.stack([fresh[1:].numel() - changed, changed])
    uses = count_codes(tokens, levels, fresh)
    numbers = torch.arange(1, levels + 1, device=tokens.device)
    alphabet = torch.where(uses > 0, numbers, 0).amax().double()  # the coder has no table for codes above the largest one
    least = torch.stack([(alphabet / 4**density).clamp(min=1.0) for density in range(1 << DENSITY_BITS)])
    mass = torch.full_like(alphabet, FLAG_MASS)
    return _flat_urn(flags, mass, mass / 2) + _flat_urn(uses, least, least / alphabet).amin()


def _flat_urn(counts: Tensor, mass: Tensor, prior: Tensor) -> Tensor:
    """Bits of symbols with these `counts` (K,), by an adaptive table that starts flat and is worth `mass` symbols, `prior` each.

    Several tables at once: `mass` and `prior` of a shape S, float64, for bits of that shape. Symbols that are not in a table must
    have counts of 0.
    """
    drawn = torch.lgamma(prior[..., None]) - torch.lgamma(prior[..., None] + counts)
    whole = torch.lgamma(counts.sum() + mass) - torch.lgamma(mass)
    return ((drawn.sum(-1) + whole) / LN2).float()
