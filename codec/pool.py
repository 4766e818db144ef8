"""Shallow codebook optimisation (VQ-NeRV, Xu et al. 2024, section 3.4): a pool of features that revives codes nobody uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DECAY = 0.99  # of the moving averages, as of the codebook's
ROUNDS = 4  # of matching dead codes with nodes in a step; those that are left over have the next step


def nearest(vectors: Tensor, points: Tensor) -> Tensor:
    """For vectors (M, D) the numbers (M,) of the nearest of `points` (K, D)."""
    return torch.cdist(vectors, points).argmin(1)


def clusters(owner: Tensor, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sizes (count,) and sums (count, D) of the vectors (M, D) that each of `count` codes has, by their `owner` (M,).

    By a matrix of ones and zeros: additions to the codes one by one have no fixed order on a GPU. In float64, which no GPU rounds
    to 11 bits on the way.
    """
    owned = (owner == torch.arange(count, device=owner.device)[:, None]).double()
    return owned.sum(1).to(vectors), (owned @ vectors.double()).to(vectors)


class FeaturePool(nn.Module):
    """As many nodes (K, D) as the codebook has entries, seeded with vectors of the clip and moved by k-means.

    The `sizes` (K,) of their clusters are running means over batches, in vectors of a pass over the clip.
    """

    nodes: Tensor
    sizes: Tensor

    def __init__(self, levels: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("nodes", torch.zeros(levels, dimension))
        self.register_buffer("sizes", torch.zeros(levels))

    @torch.no_grad()
    def begin(self, vectors: Tensor, size: float) -> None:
        """Seed the nodes from vectors (M, D), evenly spread and some of them twice if there are few, with clusters of `size`."""
        spread = torch.linspace(0, len(vectors) - 1, len(self.nodes), device=vectors.device, dtype=torch.float64)
        self.nodes.copy_(vectors[spread.long()])
        self.sizes.fill_(size)

    @torch.no_grad()
    def follow(self, vectors: Tensor, batches: float) -> None:
        """Take a step of k-means with vectors (M, D), of which a pass has so many `batches`."""
        hits, sums = clusters(nearest(vectors, self.nodes), vectors, len(self.nodes))
        centres = sums / hits.clamp(min=1)[:, None]
        self.nodes.lerp_(torch.where(hits[:, None] > 0, centres, self.nodes), 1 - DECAY)
        self.sizes.lerp_(hits * batches, 1 - DECAY)

    def replacements(self, entries: Tensor, sizes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """For entries (K, D) with clusters of `sizes` (K,): which are revived, a mask (K,), and the nodes (K, D) to put in the
        place of those.

        A code whose size is under the threshold is dead, a node whose own size exceeds it alive. A dead code and a living node
        that are the nearest to each other belong together, in each of `ROUNDS` among those that are left; the others wait for
        the next call. So a node serves once, or all dead codes of a region would become one; and not only in one call: a code
        that was revived and has no vectors yet is still the nearest to its node, keeps it and moves with it.
        """
        numbers = torch.arange(len(entries), device=entries.device)
        left = torch.cdist(entries, self.nodes)  # [code, node]
        left = left.masked_fill_((sizes >= threshold)[:, None] | ~(self.sizes > threshold), torch.inf)
        revived, place = torch.zeros_like(sizes, dtype=torch.bool), torch.zeros_like(numbers)
        for _ in range(ROUNDS):
            least, wanted = left.min(1)
            found = (left.argmin(0)[wanted] == numbers) & least.isfinite()
            place = torch.where(found, wanted, place)
            revived = revived | found
            taken = (found[:, None] & (wanted[:, None] == numbers)).any(0)
            left = left.masked_fill(found[:, None] | taken, torch.inf)
        return revived, self.nodes[place]
