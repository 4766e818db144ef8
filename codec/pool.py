"""Shallow codebook optimisation (VQ-NeRV, Xu et al. 2024, section 3.4): a pool of features that revives codes nobody uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DECAY = 0.99  # of the moving averages, as of the codebook's


def nearest(vectors: Tensor, points: Tensor) -> Tensor:
    """For vectors (M, D) the numbers (M,) of the nearest of `points` (K, D)."""
    return torch.cdist(vectors, points).argmin(1)


class FeaturePool(nn.Module):
    """As many nodes (K, D) as the codebook has entries, seeded from the first vectors and moved by k-means; `sizes` (K,) of their
    clusters are running means over batches.
    """

    nodes: Tensor
    sizes: Tensor
    filled: Tensor

    def __init__(self, levels: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("nodes", torch.zeros(levels, dimension))
        self.register_buffer("sizes", torch.zeros(levels))
        self.register_buffer("filled", torch.tensor(0))

    @torch.no_grad()
    def follow(self, vectors: Tensor, size: float) -> None:
        """Take a batch (M, D): first to fill the pool, with clusters of `size`; then for a step of k-means from the nodes."""
        levels, filled = len(self.nodes), int(self.filled)
        if filled < levels:
            count = min(levels - filled, len(vectors))
            spread = torch.linspace(0, len(vectors) - 1, count).long()  # over the frames of the batch
            self.nodes[filled : filled + count] = vectors[spread]
            self.sizes[filled : filled + count] = size
            self.filled += count
            return
        owner = nearest(vectors, self.nodes)
        hits = torch.bincount(owner, minlength=levels).to(vectors)
        centres = torch.zeros_like(self.nodes).index_add_(0, owner, vectors) / hits.clamp(min=1)[:, None]
        self.nodes.lerp_(torch.where(hits[:, None] > 0, centres, self.nodes), 1 - DECAY)
        self.sizes.lerp_(hits, 1 - DECAY)

    def replacements(self, entries: Tensor, sizes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """For entries (K, D) with clusters of `sizes` (K,): the numbers (R,) of dead codes, whose size is under the threshold,
        and the nodes (R, D) to put in their place.

        Each gets the nearest node whose own size exceeds the threshold, and a node serves once, or all dead codes of a region
        would become one. Nothing while the pool is not full.
        """
        dead = (sizes < threshold).nonzero()[:, 0] if int(self.filled) == len(self.nodes) else sizes[:0].long()
        distances = torch.cdist(entries[dead], self.nodes).masked_fill(self.sizes <= threshold, torch.inf)
        chosen, taken = [], []
        for row, code in enumerate(dead.tolist()):
            least, node = distances[row].min(0)
            if not bool(least.isfinite()):
                break
            chosen.append(code)
            taken.append(int(node))
            distances[:, node] = torch.inf
        return torch.tensor(chosen, dtype=torch.int64), self.nodes[taken]
