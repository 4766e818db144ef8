"""Vector quantisation of latents: a codebook that follows them, and tokens that are chosen for what they cost.

The codebook is learned by exponential moving averages (van den Oord et al. 2017, appendix A.1), with the shallow codebook
optimisation of VQ-NeRV (pool.py). Gradients pass straight through from an entry e to the latent z.

How far a token may be from its latent depends on what that costs. One that is d away adds about q |d|^2 to the distortion, where
q is measured on the network (curvature.py). With q |z - sg(e)|^2 as the commitment loss, a free z rests where the slope of the
distortion is -2 q (z - e), and that is the minimum of a distortion of curvature q. So the choice of entropy-constrained
vector quantisation (Chou, Lookabaugh and Gray 1989), argmin_k q |z - e_k|^2 + lambda bits(k), minimises the whole loss, and a
token that does not pay for its bits is not chosen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nvc.bitstream.program import Builder, Op
from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits

from .activations import Range
from .latents import Latent, Numbers
from .pool import DECAY, FeaturePool, clusters, nearest
from .prices import ENTRY_BITS, TokenPrices, count_codes
from .quant import round_through
from .rate import token_bits

UNIT = 1 / 32  # of an entry: eight bits span -4 .. 4
LARGEST = 127
DEAD = 1.0  # a code whose cluster has fewer vectors, in a pass over the clip, is dead
CALMER = 0.8  # of the running curvature


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, real: Tensor, codes: Tensor) -> Tensor:
        return codes.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] / UNIT, None


class Codebook(Latent):
    """Tokens (T, h, w) of `levels` entries; `shape` is (dimension, h, w).

    `pooled` switches the shallow codebook optimisation on, `priced` the bits of tokens in their choice. `begin` comes first. One
    of the same shape goes on where another one was, in whatever phase, by `prepare` and `load_state_dict`: all that is learned
    is in parameters and buffers, and what a phase consists of in `tokens`, which has no frames before `settle`, `frozen` and
    `counted`, which change between phases alone.
    """

    source = Range(-LARGEST - 1, LARGEST, UNIT)
    probed = True
    frozen = False
    """Whether tokens stay as they are, and the entries are learned by gradients."""
    counted = False
    """Whether tokens have prices: from the first `count` on, which comes after `settle`."""
    sums: Tensor
    sizes: Tensor
    tokens: Tensor
    curvature: Tensor
    price: Tensor

    def __init__(self, shape: tuple[int, int, int], levels: int, pooled: bool = True, priced: bool = True) -> None:
        super().__init__()
        self.shape, self.levels, self.priced = shape, levels, priced
        dimension = shape[0]
        self.entries = nn.Parameter(torch.randn(levels, dimension), requires_grad=False)
        self.register_buffer("sums", torch.zeros(levels, dimension))
        self.register_buffer("sizes", torch.zeros(levels))  # in vectors of a pass over the clip
        self.register_buffer("tokens", torch.zeros(0, *shape[1:], dtype=torch.int64))  # none until the latents are free
        self.register_buffer("curvature", torch.zeros((), dtype=torch.float64))  # 0 until one is observed
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))
        self.prices = TokenPrices(levels, dimension)
        self.pool = FeaturePool(levels, dimension) if pooled else None
        self.positions = 0

    @torch.no_grad()
    def begin(self, frames: int, real: Tensor) -> None:
        """Spread random entries like the vectors of `real`, each with a cluster that is just alive."""
        self.positions = frames * self.shape[1] * self.shape[2]
        vectors = _rows(real)
        self.entries.mul_(vectors.std(0, unbiased=False)).add_(vectors.mean(0))
        self.sizes.fill_(DEAD)
        self.sums.copy_(self.entries * DEAD)
        if self.pool is not None:
            self.pool.begin(vectors, DEAD)

    def prepare(self, frames: int, free: bool, frozen: bool) -> list[nn.Parameter]:
        self.positions = frames * self.shape[1] * self.shape[2]
        self.tokens = self.tokens.new_zeros(frames if free else 0, *self.shape[1:])
        self.counted, self.frozen = free, frozen
        self.entries.requires_grad_(frozen)
        return [self.entries] if frozen else []

    def forward(self, real: Tensor, index: Tensor) -> Tensor:
        if self.frozen:
            return self._look_up(self.tokens[index].flatten(), len(real))
        vectors = _rows(real.detach())
        tokens = self._choose(vectors, index)
        if self.training:
            self._follow(vectors, tokens)
        out: Tensor = _StraightThrough.apply(real, self._look_up(tokens, len(real)))  # type: ignore[no-untyped-call]
        return out

    def _look_up(self, tokens: Tensor, frames: int) -> Tensor:
        """The codes (frames, D, h, w) of tokens (frames h w,)."""
        return self.codes()[tokens].view(frames, *self.shape[1:], -1).permute(0, 3, 1, 2)

    def commitment(self, real: Tensor, codes: Tensor) -> Tensor | None:
        """q |z - sg(e)|^2, the mean over frames, for real (N, D, h, w) and what `forward` made of them."""
        if self.frozen:
            return None
        away: Tensor = (real - codes.detach() * UNIT).square().sum() / len(real)
        return self.curvature.to(away) * away

    def codes(self) -> Tensor:
        """The entries (levels, dimension) in units of 1/32; integers once `quantise` is on."""
        scaled = (self.entries / UNIT).clamp(-LARGEST, LARGEST)
        return round_through(scaled) if self.quantise else scaled

    def _choose(self, vectors: Tensor, index: Tensor) -> Tensor:
        """Tokens (M,) for vectors (M, D) of frames `index`, kept in `tokens` once there are some."""
        entries = self.codes() * UNIT
        if self.counted and self.priced:
            costs = self.curvature * torch.cdist(vectors, entries).square()
            bits = self.prices.bits(self.tokens.flatten(1), index)
            tokens = costs.add_(self.price * bits.flatten(0, 1)).argmin(1)
        else:
            tokens = nearest(vectors, entries)
        if len(self.tokens):
            self.tokens[index] = tokens.view(-1, *self.shape[1:])
        return tokens

    @torch.no_grad()
    def _follow(self, vectors: Tensor, tokens: Tensor) -> None:
        """One step of the moving averages; then dead codes are revived from the pool."""
        batches = self.positions / len(vectors)
        hits, sums = clusters(tokens, vectors, self.levels)
        self.sizes.lerp_(hits * batches, 1 - DECAY)
        self.sums.lerp_(sums * batches, 1 - DECAY)
        self.entries.copy_(torch.where(hits[:, None] > 0, self.sums / self.sizes[:, None], self.entries))
        if self.pool is not None:
            self.pool.follow(vectors, batches)
            revived, nodes = self.pool.replacements(self.entries, self.sizes, DEAD)
            self.sizes.masked_fill_(revived, DEAD)
            self.entries.copy_(torch.where(revived[:, None], nodes, self.entries))
            self.sums.copy_(torch.where(revived[:, None], nodes * DEAD, self.sums))

    @torch.no_grad()
    def settle(self, table: Tensor) -> None:
        self.tokens = nearest(_rows(table), self.codes() * UNIT).view(len(table), *self.shape[1:])

    @torch.no_grad()
    def freeze(self, table: Tensor) -> list[nn.Parameter]:
        """Choose all tokens once more, by entries that move no longer, and let gradients take the entries over.

        Before, a code may change after a token was chosen: what is sent must be what was fitted.
        """
        for index in torch.split(torch.arange(len(table), device=self.tokens.device), 8):
            self._choose(_rows(table[index]), index)
        self.frozen = True
        self.entries.requires_grad_()
        return [self.entries]

    @torch.no_grad()
    def observe(self, curvature: Tensor) -> None:
        seen = curvature.to(self.curvature).clamp(min=0.0)
        calm = torch.where(self.curvature > 0, CALMER * self.curvature + (1 - CALMER) * seen, seen)
        # what is not finite is of a fit that diverges, and a running mean would keep it
        self.curvature.copy_(torch.where(curvature.isfinite(), calm, self.curvature))

    @torch.no_grad()
    def count(self, price: Tensor) -> None:
        self.counted = True
        self.price.copy_(price)
        self.prices.measure(self.tokens)

    def uses(self) -> Tensor:
        """How many tokens of the segment have each code, (levels,)."""
        return count_codes(self.tokens, self.levels)

    def usage(self) -> tuple[float, float] | None:
        if not len(self.tokens):
            return None
        shares = self.uses().double() / self.tokens.numel()
        entropy = -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum()
        return float((shares > 0).double().mean()), float(entropy.exp())

    def bits(self, table: Tensor) -> Tensor:
        return token_bits(self.tokens, self.levels) + ENTRY_BITS * self.shape[0] * (self.uses() > 0).sum()

    def coded(self, table: Tensor) -> float:
        tokens, book = self.numbers(table)
        specs = TensorSpec(Kind.TOKENS, tokens.shape, self.levels), TensorSpec(Kind.CODEBOOK, book.shape)
        return sum(coded_bits(spec, values) for spec, values in zip(specs, (tokens, book), strict=True))

    @torch.no_grad()
    def numbers(self, table: Tensor) -> list[Numbers]:
        """Tokens (T, h, w) and the codebook (levels, dimension): the most used code first, unused ones last and zero."""
        uses = self.uses()
        order = uses.argsort(descending=True, stable=True)
        book = torch.where(uses[order, None] > 0, self.codes()[order], 0.0).round()
        return [values.cpu().numpy().astype(np.int64) for values in (order.argsort()[self.tokens], book)]

    def emit(self, builder: Builder, numbers: list[Numbers] | None, offsets: tuple[int, ...] = (0,)) -> list[int]:
        tokens, book = (builder.parameter(numbers[i] if numbers else None) for i in range(2))
        dimension, height, width = self.shape
        return [builder.add(Op.TOKENS, tokens, book, height, width, self.levels, dimension, offset) for offset in offsets]


def _rows(maps: Tensor) -> Tensor:
    """(N, C, h, w) to (N h w, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
