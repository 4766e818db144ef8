"""What a token would cost at a place: the bits by which one is chosen (SPEC 7.6, 7.7, in terms that need no coder)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

ENTRY_BITS = 6.5  # of one number of a codebook, which spans eight bits
SELDOM = 0.5  # uses of a code that does not occur, so that it has a price at all


@dataclass(frozen=True)
class TokenPrices:
    """Bits of the flag of a token that is the `same` as at t - 1, of the flag of a `new` one, and of each `literal` (K,) itself.

    A literal carries its part of the codebook row: a code that is used twice pays half a row each time.
    """

    same: float
    new: float
    literal: Tensor

    @classmethod
    def of(cls, tokens: Tensor, levels: int, dimension: int) -> Self:
        """The prices among `tokens` (T, h, w), of `levels` codes of `dimension` numbers."""
        fresh = is_new(tokens)
        least = 1 / max(tokens.numel(), 2)
        share = float(fresh[1:].double().mean()) if len(tokens) > 1 else 1.0
        share = min(max(share, least), 1 - least)
        uses = torch.bincount(tokens[fresh], minlength=levels).float()
        rows = ENTRY_BITS * dimension / uses.clamp(min=1)
        literal = -(uses.clamp(min=SELDOM) / uses.sum()).log2() + rows
        return cls(-math.log2(1 - share), -math.log2(share), literal)

    def bits(self, before: Tensor | None, after: Tensor | None, count: int) -> Tensor:
        """What each code costs at `count` places of one frame, (count, K), those of the frame after included.

        `before` and `after` (count,) are the tokens there at t - 1 and t + 1; None at the ends of the segment.
        """
        new = 0.0 if before is None else self.new  # all tokens of frame 0 are new, and no flag says so
        bits = (self.literal + new).expand(count, -1).clone()
        places = torch.arange(count, device=bits.device)
        if before is not None:
            bits[places, before] = self.same
        if after is not None:
            bits += self.new + self.literal[after][:, None]
            bits[places, after] += self.same - self.new - self.literal[after]
        return bits


def is_new(tokens: Tensor) -> Tensor:
    """Which tokens (T, h, w) differ from those at t - 1; all of frame 0."""
    fresh = torch.ones_like(tokens, dtype=torch.bool)
    fresh[1:] = tokens[1:] != tokens[:-1]
    return fresh
