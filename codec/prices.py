"""What a token would cost at a place: the bits by which one is chosen (SPEC 7.6, 7.7, in terms that need no coder)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ENTRY_BITS = 6.5  # of one number of a codebook, which spans eight bits
SELDOM = 0.5  # uses of a code that does not occur, so that it has a price at all


class TokenPrices(nn.Module):
    """Bits of the flag of a token that is the `same` as at t - 1, of the flag of a `new` one, scalars in float64, and of each
    `literal` (levels,) itself. All are 0 before `measure`, which changes them in place.

    A literal carries its part of the codebook row: a code that is used twice pays half a row each time.
    """

    same: Tensor
    new: Tensor
    literal: Tensor

    def __init__(self, levels: int, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.register_buffer("same", torch.zeros((), dtype=torch.float64))
        self.register_buffer("new", torch.zeros((), dtype=torch.float64))
        self.register_buffer("literal", torch.zeros(levels))

    @torch.no_grad()
    def measure(self, tokens: Tensor) -> None:
        """Take the prices among `tokens` (T, h, w)."""
        fresh = is_new(tokens)
        least = 1 / max(tokens.numel(), 2)
        share = fresh[1:].double().mean() if len(tokens) > 1 else torch.ones_like(self.new)
        share = share.clamp(least, 1 - least)
        uses = count_codes(tokens, len(self.literal), fresh).float()
        rows = ENTRY_BITS * self.dimension / uses.clamp(min=1)
        self.literal.copy_(-(uses.clamp(min=SELDOM) / uses.sum()).log2() + rows)
        self.same.copy_(-torch.log2(1 - share))
        self.new.copy_(-torch.log2(share))

    def bits(self, tokens: Tensor, index: Tensor) -> Tensor:
        """What each code would cost in the place of every token of the frames `index` (N,), those of the frames after included.

        For `tokens` (T, P) of all frames; (N, P, levels). Differences of what the whole segment costs, as if the other frames of
        `index` stayed.
        """
        new = self.new.to(self.literal)
        before, after = tokens[(index - 1).clamp(min=0)], tokens[(index + 1).clamp(max=len(tokens) - 1)]
        first, last = (index == 0)[:, None, None], (index == len(tokens) - 1)[:, None]
        # all tokens of frame 0 are new, and no flag says so
        bits = (self.literal + torch.where(first, 0.0, new)).expand(-1, before.shape[1], -1).clone()
        before = before[..., None]
        bits.scatter_(2, before, torch.where(first, bits.gather(2, before), self.same.to(bits)))
        sent = self.literal[after]
        bits += torch.where(last, 0.0, self.new + sent)[..., None]
        saved = torch.where(last, 0.0, self.same - self.new - sent)
        return bits.scatter_add_(2, after[..., None], saved[..., None])


def is_new(tokens: Tensor) -> Tensor:
    """Which tokens (T, h, w) differ from those at t - 1; all of frame 0."""
    fresh = torch.ones_like(tokens, dtype=torch.bool)
    fresh[1:] = tokens[1:] != tokens[:-1]
    return fresh


def count_codes(tokens: Tensor, levels: int, where: Tensor | None = None) -> Tensor:
    """How many `tokens` are each code, (levels,) int64; only those `where` a mask of their shape is True."""
    ones = torch.ones_like(tokens) if where is None else where.to(tokens.dtype)
    return tokens.new_zeros(levels).scatter_add_(0, tokens.flatten(), ones.flatten())
