"""The feature pool: filled in order, moved by k-means, and asked for nodes that are alive, near and not yet taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nvc.codec.pool import DECAY, FeaturePool

Values = NDArray[np.float64]


def batch(seed: int, count: int, dimension: int = 3) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def full_pool(nodes: torch.Tensor, sizes: list[float]) -> FeaturePool:
    """A pool of these nodes with clusters of these sizes."""
    pool = FeaturePool(*nodes.shape)
    pool.follow(nodes, 1.0)
    assert torch.equal(pool.nodes, nodes)
    pool.sizes.copy_(torch.tensor(sizes))
    return pool


def test_seeds_are_vectors_spread_over_the_batches_in_their_order_until_the_pool_is_full() -> None:
    pool = FeaturePool(10, 3)
    first, second, third = batch(0, 4), batch(1, 4), batch(2, 101)
    pool.follow(first, 0.25)
    assert torch.equal(pool.nodes, torch.cat([first, torch.zeros(6, 3)]))
    assert pool.sizes.tolist() == [0.25] * 4 + [0.0] * 6
    pool.follow(second, 0.5)
    pool.follow(third, 1.0)
    assert int(pool.filled) == 10
    assert torch.equal(pool.nodes, torch.cat([first, second, third[[0, 100]]]))  # from one end of the batch to the other
    assert pool.sizes.tolist() == [0.25] * 4 + [0.5] * 4 + [1.0] * 2
    seeded = pool.nodes.clone()
    pool.follow(batch(3, 50), 1.0)
    assert int(pool.filled) == 10
    assert (pool.nodes - seeded).abs().max() < 0.05  # it moves a little from here, but takes no seeds


def twin(nodes: Values, sizes: Values, vectors: Values) -> tuple[Values, Values]:
    """A step of k-means, as running means, one vector at a time."""
    owner = [int(((vector - nodes) ** 2).sum(1).argmin()) for vector in vectors]
    moved, counted = nodes.copy(), sizes.copy()
    for k in range(len(nodes)):
        mine = vectors[[i for i, own in enumerate(owner) if own == k]]
        if len(mine):
            moved[k] = DECAY * nodes[k] + (1 - DECAY) * mine.mean(0)
        counted[k] = DECAY * sizes[k] + (1 - DECAY) * len(mine)
    return moved, counted


def test_a_full_pool_takes_steps_of_k_means() -> None:
    pool = full_pool(batch(0, 8), [1.0] * 8)
    nodes, sizes = pool.nodes.double().numpy(), pool.sizes.double().numpy()
    for seed in range(1, 6):
        vectors = batch(seed, 12)
        pool.follow(vectors, 1.0)
        nodes, sizes = twin(nodes, sizes, vectors.double().numpy())
        assert pool.nodes.double().numpy() == pytest.approx(nodes, abs=1e-5)
        assert pool.sizes.double().numpy() == pytest.approx(sizes, abs=1e-5)
    assert len(set(sizes.round(6))) > 3  # some have got more vectors than others


def points(*values: float) -> torch.Tensor:
    """Vectors on a line."""
    return torch.tensor([[value, 0.0] for value in values])


def test_each_dead_code_gets_the_nearest_node_that_is_alive_and_not_taken() -> None:
    pool = full_pool(points(0.0, 10.0, 11.0, 30.0, 50.0), [5.0, 0.5, 3.0, 4.0, 9.0])
    entries, sizes = points(9.0, 100.0, 10.5, 29.0, -1.0), torch.tensor([0.2, 7.0, 0.3, 0.9, 1.0])
    dead, nodes = pool.replacements(entries, sizes, 1.0)
    # code 0: node 1 is nearer but too small, so node 2; code 2: node 2 is taken, so node 0; code 4 is not under the threshold
    assert dead.tolist() == [0, 2, 3]
    assert torch.equal(nodes, points(11.0, 0.0, 30.0))


def test_a_node_must_exceed_the_threshold_and_the_dead_may_outnumber_the_living() -> None:
    pool = full_pool(points(0.0, 1.0, 2.0), [1.0, 1.01, 0.99])
    dead, nodes = pool.replacements(points(5.0, 6.0, 7.0), torch.zeros(3), 1.0)
    assert dead.tolist() == [0] and torch.equal(nodes, points(1.0))


def test_a_pool_that_is_not_full_or_has_nothing_to_do_replaces_nothing() -> None:
    half = FeaturePool(4, 2)
    half.follow(points(1.0, 2.0), 9.0)
    for pool, sizes in ((half, torch.zeros(4)), (full_pool(points(1.0, 2.0, 3.0, 4.0), [9.0] * 4), torch.ones(4))):
        dead, nodes = pool.replacements(points(1.0, 2.0, 3.0, 4.0), sizes, 1.0)
        assert dead.shape == (0,) and dead.dtype == torch.int64 and nodes.shape == (0, 2)
