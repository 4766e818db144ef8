"""The feature pool: seeded from the whole clip, moved by k-means, and asked for nodes that are alive, near and not taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hostless import no_host_reads
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvc.codec.pool import DECAY, ROUNDS, FeaturePool, clusters

Values = NDArray[np.float64]


def batch(seed: int, count: int, dimension: int = 3) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def full_pool(nodes: torch.Tensor, sizes: list[float]) -> FeaturePool:
    """A pool of these nodes with clusters of these sizes."""
    pool = FeaturePool(*nodes.shape)
    pool.begin(nodes, 1.0)
    assert torch.equal(pool.nodes, nodes)
    pool.sizes.copy_(torch.tensor(sizes))
    return pool


@pytest.mark.parametrize(
    ("count", "taken"), [(4, [0, 1, 2, 3]), (7, [0, 2, 4, 6]), (101, [0, 33, 66, 100]), (2, [0, 0, 0, 1]), (1, [0] * 4)]
)
def test_seeds_are_vectors_spread_over_the_clip(count: int, taken: list[int]) -> None:
    pool, vectors = FeaturePool(4, 3), batch(0, count)
    pool.begin(vectors, 0.25)
    assert torch.equal(pool.nodes, vectors[taken])
    assert pool.sizes.tolist() == [0.25] * 4


def twin(nodes: Values, sizes: Values, vectors: Values, batches: float) -> tuple[Values, Values]:
    """A step of k-means, as running means, one vector at a time."""
    owner = [int(((vector - nodes) ** 2).sum(1).argmin()) for vector in vectors]
    moved, counted = nodes.copy(), sizes.copy()
    for k in range(len(nodes)):
        mine = vectors[[i for i, own in enumerate(owner) if own == k]]
        if len(mine):
            moved[k] = DECAY * nodes[k] + (1 - DECAY) * mine.mean(0)
        counted[k] = DECAY * sizes[k] + (1 - DECAY) * len(mine) * batches
    return moved, counted


def test_a_pool_takes_steps_of_k_means() -> None:
    pool = full_pool(batch(0, 8), [1.0] * 8)
    nodes, sizes = pool.nodes.double().numpy(), pool.sizes.double().numpy()
    for seed in range(1, 6):
        vectors = batch(seed, 12)
        with no_host_reads():
            pool.follow(vectors, 2.5)
        nodes, sizes = twin(nodes, sizes, vectors.double().numpy(), 2.5)
        assert pool.nodes.double().numpy() == pytest.approx(nodes, abs=1e-5)
        assert pool.sizes.double().numpy() == pytest.approx(sizes, abs=1e-5)
    assert len(set(sizes.round(6))) > 3  # some have got more vectors than others


def test_sizes_are_those_of_a_pass_whatever_the_batch() -> None:
    """Four places, each with as many vectors in every batch as in any other."""
    clip = torch.eye(4).repeat(30, 1)
    for size in (4, 12, 120):
        pool = full_pool(torch.eye(4), [0.0] * 4)
        for _ in range(1000):
            pool.follow(clip[:size], len(clip) / size)
        assert pool.sizes.tolist() == pytest.approx([30.0] * 4, rel=1e-3)


def test_sums_of_clusters_are_those_of_their_vectors() -> None:
    vectors, owner = batch(5, 40), torch.randint(5, (40,), generator=torch.Generator().manual_seed(1))
    sizes, sums = clusters(owner, vectors, 6)
    assert sizes.tolist() == [int((owner == k).sum()) for k in range(6)] and sizes.dtype == vectors.dtype
    for k in range(6):
        assert torch.allclose(sums[k], vectors[owner == k].sum(0), atol=1e-5)


def points(*values: float) -> torch.Tensor:
    """Vectors on a line."""
    return torch.tensor([[value, 0.0] for value in values])


def revived(pool: FeaturePool, entries: torch.Tensor, sizes: list[float]) -> dict[int, float]:
    """The codes that a call revives, and where on the line."""
    clusters_of = torch.tensor(sizes)
    with no_host_reads():
        mask, nodes = pool.replacements(entries, clusters_of, 1.0)
    assert mask.shape == (len(entries),) and mask.dtype == torch.bool and nodes.shape == entries.shape
    return {code: float(nodes[code, 0]) for code in range(len(entries)) if mask[code]}


def test_each_dead_code_gets_the_nearest_node_that_is_alive() -> None:
    pool = full_pool(points(0.0, 10.0, 11.0, 30.0, 50.0), [5.0, 0.5, 3.0, 4.0, 9.0])
    # code 0: node 1 is nearer but too small, so node 2, though a living code is there; 1 is alive, 2 not under the threshold
    entries = points(8.0, 11.0, 101.0, 25.0, 200.0)
    assert revived(pool, entries, [0.2, 7.0, 1.0, 0.9, 0.0]) == {0: 11.0, 3: 30.0, 4: 50.0}


def test_a_node_serves_the_nearest_code_and_the_others_get_the_next_ones() -> None:
    pool = full_pool(points(0.0, 10.0, 20.0, 40.0), [5.0, 5.0, 5.0, 0.0])
    assert revived(pool, points(9.0, 10.5, 12.0, 12.5), [0.0, 0.0, 0.0, 9.0]) == {0: 0.0, 1: 10.0, 2: 20.0}
    # the dead may outnumber the living
    assert revived(pool, points(40.0, 30.0, 21.0, 22.0), [0.0] * 4) == {1: 0.0, 2: 20.0, 3: 10.0}
    assert revived(pool, points(7.0, 7.0, 7.0, 7.0), [0.0] * 4) == {0: 10.0, 1: 0.0, 2: 20.0}  # a tie is of the first


def test_those_that_are_left_after_some_rounds_wait() -> None:
    """A line of codes, each nearer to the node of the one before it than to its own: one a round."""
    count = ROUNDS + 3
    pool = full_pool(points(*(2.0**k for k in range(1, count + 1))), [5.0] * count)
    entries = points(*(2.0 ** (k + 1) * 0.7 + 0.01 for k in range(count)))
    first = revived(pool, entries, [0.0] * count)
    assert list(first) == list(range(len(first))) and len(first) >= ROUNDS
    everything: dict[int, float] = {}
    for _ in range(count):
        everything |= revived(pool, entries, [0.0] * count)
        entries = points(*(everything.get(k, float(entries[k, 0])) for k in range(count)))
    assert sorted(everything) == list(range(count)) and sorted(everything.values()) == pool.nodes[:, 0].tolist()


def test_a_code_that_has_no_vectors_yet_keeps_its_node_and_moves_with_it() -> None:
    pool = full_pool(points(0.0, 10.0, 20.0), [5.0, 5.0, 5.0])
    entries = points(10.5, 10.0, -900.0)
    assert revived(pool, entries, [0.0, 0.0, 9.0]) == {0: 20.0, 1: 10.0}
    pool.nodes[1, 0] = 10.2
    assert revived(pool, entries, [0.0, 0.0, 9.0])[1] == pytest.approx(10.2)


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 1.0]))
@settings(deadline=None, max_examples=60)
def test_calls_put_dead_codes_on_nodes_of_their_own_while_there_are_some(levels: int, seed: int, alive: float) -> None:
    """Though nodes move a little. In every call no node serves two, none serves that is too small, and no living code moves."""
    random = torch.Generator().manual_seed(seed)
    nodes, entries = (torch.randn(levels, 2, generator=random) for _ in range(2))
    pool = full_pool(nodes, [1.0] * levels)
    pool.sizes.copy_(2 * torch.rand(levels, generator=random).round())
    sizes = 2 * (torch.rand(levels, generator=random) < alive).float()
    for _ in range(levels):
        mask, found = pool.replacements(entries, sizes, 1.0)
        assert not (mask & (sizes >= 1)).any()
        near = torch.cdist(found[mask], pool.nodes, compute_mode="donot_use_mm_for_euclid_dist")
        taken = [int(row.argmin()) for row in near]
        assert all(float(row.min()) == 0 for row in near)
        assert len(set(taken)) == len(taken) and bool((pool.sizes[taken] > 1).all())
        entries = torch.where(mask[:, None], found, entries)
        pool.nodes.add_(1e-6 * torch.randn(levels, 2, generator=random))
    assert int(mask.sum()) == min(int((sizes < 1).sum()), int((pool.sizes > 1).sum()))


def test_no_code_is_revived_where_nothing_lives_or_nothing_is_dead() -> None:
    entries = points(1.0, 2.0, 3.0, 4.0)
    assert revived(full_pool(entries, [1.0] * 4), entries + 0.1, [0.0] * 4) == {}  # a node must exceed the threshold
    assert revived(full_pool(entries, [9.0] * 4), entries + 0.1, [1.0] * 4) == {}
    assert revived(full_pool(entries, [torch.nan] * 4), entries + 0.1, [0.0] * 4) == {}
