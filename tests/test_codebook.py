"""The codebook: gradients go straight through, entries follow their vectors, and tokens are worth their bits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hostless import Tape, no_host_reads
from numpy.typing import NDArray
from nvc_files import Integers
from small_programs import rows_of, values_of

from nvc.bitstream.program import Builder
from nvc.bitstream.tensors import Kind, TensorSpec, coded_bits
from nvc.codec.codebook import CALMER, DEAD, LARGEST, UNIT, Codebook
from nvc.codec.pool import DECAY
from nvc.codec.prices import TokenPrices

Values = NDArray[np.float64]
LEVELS, SHAPE, FRAMES = 6, (3, 2, 4), 5  # 8 places


def codebook(levels: int = LEVELS, frames: int = FRAMES, seed: int = 0, pooled: bool = False, priced: bool = True) -> Codebook:
    """One that has seen nothing but the latents that it begins with."""
    torch.manual_seed(seed)
    made = Codebook(SHAPE, levels, pooled, priced)
    made.begin(frames, reals(1, frames))
    return made


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value)


def reals(seed: int, frames: int = FRAMES) -> torch.Tensor:
    """Latents (T, 3, 2, 4)."""
    return torch.randn(frames, *SHAPE, generator=torch.Generator().manual_seed(seed))


def rows(maps: torch.Tensor) -> Values:
    """Vectors, place by place and frame by frame."""
    return np.array([frame[:, y, x] for frame in maps.detach().double().numpy() for y in range(2) for x in range(4)])


def maps_of(vectors: Values) -> Values:
    """The inverse of `rows`."""
    return vectors.reshape(-1, 2, 4, 3).transpose(0, 3, 1, 2)


def nearest(vectors: Values, entries: Values) -> Integers:
    return np.array([int(((vector - entries) ** 2).sum(1).argmin()) for vector in vectors])


def settled(table: torch.Tensor, priced: bool = True, seed: int = 0, levels: int = LEVELS) -> Codebook:
    """One that has followed all of the free latents `table` a few times, quantised, in the state in which it is sent."""
    torch.manual_seed(seed)
    made = Codebook(SHAPE, levels, False, priced)
    made.begin(len(table), table)
    for _ in range(30):
        made(table, torch.arange(len(table)))
    made.quantise = True
    made.settle(table)
    return made


# ---- gradients


@pytest.mark.parametrize("quantise", [False, True])
def test_gradients_pass_straight_through_and_the_commitment_pulls(quantise: bool) -> None:
    """Downstream sum of g c^3, c in units of 1/32: by z it has the slope it has by c, 32 times; q |z - e|^2 is added to it."""
    made, index = codebook(), torch.arange(FRAMES)
    made.quantise = quantise
    made.observe(scalar(0.7))
    real = reals(1).requires_grad_()
    g = torch.randn(FRAMES, *SHAPE, generator=torch.Generator().manual_seed(2))
    codes = made(real, index)
    assert codes.shape == real.shape
    below = codes.detach().requires_grad_()
    (g * below**3).sum().backward()
    commitment = made.commitment(real, codes)
    ((g * codes**3).sum() + commitment).backward()
    z, c = real.detach().double().numpy(), codes.detach().double().numpy()
    away = z - c / 32
    assert float(commitment.detach()) == pytest.approx(0.7 * (away**2).sum() / FRAMES, rel=1e-5)
    by_codes = 3 * g.double().numpy() * c**2
    assert below.grad is not None and real.grad is not None
    assert below.grad.numpy() == pytest.approx(by_codes, rel=1e-4, abs=1e-3)
    expected = 32 * by_codes + 2 * 0.7 * away / FRAMES
    assert real.grad.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-3)
    real.grad = None
    made.commitment(real, codes).backward()  # alone, or it would be lost in the sum
    assert real.grad is not None
    assert real.grad.numpy() == pytest.approx(2 * 0.7 * away / FRAMES, rel=1e-4, abs=1e-6)
    assert not any(parameter.requires_grad for parameter in made.parameters())  # entries follow; no gradient moves them


def test_the_curvature_is_a_calm_mean_that_is_never_negative_and_outlives_a_fit_that_fell() -> None:
    made = codebook()
    made.observe(scalar(2.0))
    made.observe(scalar(4.0))
    calm = CALMER * 2 + (1 - CALMER) * 4
    assert float(made.curvature) == pytest.approx(calm)
    for broken in (math.nan, math.inf, -math.inf):
        made.observe(scalar(broken))
        assert float(made.curvature) == pytest.approx(calm)
    made.observe(scalar(-1e9))
    assert float(made.curvature) == pytest.approx(CALMER * calm)


# ---- entries


def test_entries_and_sizes_are_running_means_of_their_vectors() -> None:
    torch.manual_seed(0)
    made = Codebook(SHAPE, LEVELS, pooled=False)
    entries = made.entries.double().numpy().copy()
    made.begin(FRAMES, reals(9, 4))
    # random entries like the vectors it begins with, each of a cluster of one vector in a pass
    entries = entries * rows(reals(9, 4)).std(0) + rows(reals(9, 4)).mean(0)
    sizes = np.full(LEVELS, DEAD)
    sums = entries * sizes[:, None]
    share = FRAMES / 2  # batches of a pass
    batches = [(reals(seed, 2), torch.tensor(index)) for seed, index in ((1, [0, 3]), (2, [1, 4]), (3, [2, 0]), (4, [4, 3]))]
    for real, index in batches:
        vectors = rows(real)
        tokens = nearest(vectors, entries)
        for k in range(LEVELS):
            mine = vectors[tokens == k]
            sizes[k] = DECAY * sizes[k] + (1 - DECAY) * len(mine) * share
            sums[k] = DECAY * sums[k] + (1 - DECAY) * mine.sum(0) * share
            if len(mine):
                entries[k] = sums[k] / sizes[k]
        with no_host_reads():
            codes = made(real, index)
        assert made.entries.double().numpy() == pytest.approx(entries, abs=1e-5)
        assert made.sizes.double().numpy() == pytest.approx(sizes, abs=1e-6)
        assert codes.numpy() == pytest.approx(maps_of(entries[tokens] * 32), abs=1e-3)
    assert len(set(tokens.tolist())) > 2


def test_nothing_follows_where_nothing_is_trained() -> None:
    made = codebook(pooled=True)
    made(reals(1), torch.arange(FRAMES))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.eval()
    made(reals(2), torch.arange(FRAMES))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e6])
def test_codes_are_integers_of_eight_bits_once_quantised(scale: float) -> None:
    torch.manual_seed(0)
    made = Codebook(SHAPE, LEVELS)
    made.begin(FRAMES, scale * reals(1))
    real = made.codes()
    made.quantise = True
    codes = made.codes()
    assert codes.abs().max() <= LARGEST == 127
    assert torch.equal(codes, codes.round())
    assert scale > 1e5 or not torch.equal(real, codes)
    assert (codes - real).abs().max() <= 0.5
    assert (scale > 1e5) == bool((codes.abs() == 127).any())


def clustered(seed: int) -> torch.Tensor:
    """Vectors around four points, far from each other."""
    random = torch.Generator().manual_seed(seed)
    centres = 6 * torch.randn(4, 3, generator=torch.Generator().manual_seed(99))
    owner = torch.randint(4, (8,), generator=random)
    return (centres[owner] + torch.randn(8, 3, generator=random)).T.reshape(1, *SHAPE)


def test_the_pool_revives_codes_that_nobody_uses() -> None:
    """With it, one code in nine at most lies where its neighbours leave nothing to it; without it, half of them."""
    frames, used = 40, {False: 0, True: 0}
    clip = torch.cat([clustered(seed) for seed in range(frames)])
    for pooled, seed in itertools.product(used, range(3)):
        torch.manual_seed(seed)
        made = Codebook(SHAPE, 24, pooled)
        made.begin(frames, clip)
        for step in range(300):
            made(clip[step % frames][None], torch.tensor([step % frames]))
        made.settle(clip)
        used[pooled] += int((made.uses() > 0).sum())
    assert used[True] >= 3 * 24 * 8 / 9 and used[False] < 3 * 24 * 0.6


# ---- the choice of tokens


def chain_bits(prices: TokenPrices, chain: Integers) -> float:
    """What the tokens of one place cost."""
    total = float(prices.literal[chain[0]])
    for before, now in itertools.pairwise(chain.tolist()):
        total += float(prices.same) if now == before else float(prices.new) + float(prices.literal[now])
    return total


@pytest.mark.parametrize("frame", [0, 2, FRAMES - 1])
@pytest.mark.parametrize("price", [0.0, 0.02, 0.3])
def test_a_token_is_the_one_of_the_least_distortion_and_bits(frame: int, price: float) -> None:
    table = reals(3)
    made = settled(table)
    made.train(False)
    made.observe(scalar(0.9))
    made.count(scalar(price))
    prices = TokenPrices(LEVELS, SHAPE[0])
    prices.measure(made.tokens)
    before = made.tokens.clone().numpy()
    entries = made.codes().double().numpy() / 32
    made(table[frame][None], torch.tensor([frame]))
    for y, x in itertools.product(range(2), range(4)):
        costs = []
        for code in range(LEVELS):
            chain = before[:, y, x].copy()
            chain[frame] = code
            away = table[frame, :, y, x].double().numpy() - entries[code]
            costs.append(0.9 * (away**2).sum() + price * chain_bits(prices, chain))
        assert costs[int(made.tokens[frame, y, x])] == pytest.approx(min(costs), rel=1e-6)
    others = [t for t in range(FRAMES) if t != frame]
    assert np.array_equal(made.tokens[others].numpy(), before[others])


def still() -> torch.Tensor:
    """Latents that differ in space, and in time in every other frame: a token is chosen beside those of its neighbours."""
    noise = 0.5 * reals(6, 9)
    noise[0::2] = 0
    return reals(5, 1) + noise


@pytest.mark.parametrize("priced", [False, True])
def test_at_a_huge_price_a_still_map_stays_and_at_none_tokens_are_the_nearest(priced: bool) -> None:
    table = still()
    made = settled(table, priced)
    made.train(False)
    made.observe(scalar(1.0))
    entries = made.codes().double().numpy() / 32
    closest = nearest(rows(table), entries).reshape(9, 2, 4)
    assert (closest != closest[0]).any()
    made.count(scalar(0.0))
    made(table, torch.arange(9))
    assert np.array_equal(made.tokens.numpy(), closest)
    made.count(scalar(1e6))
    for t in (*range(1, 9, 2), *range(9)):
        made(table[t][None], torch.tensor([t]))
    assert bool((made.tokens == made.tokens[0]).all()) is priced
    assert np.array_equal(made.tokens.numpy(), closest) is not priced
    table[4] += 100.0  # what cannot be left out is sent at any usual price
    made.count(scalar(0.1))
    made(table[4][None], torch.tensor([4]))
    assert np.array_equal(made.tokens[4].flatten().numpy(), nearest(rows(table[4][None]), entries))


def test_a_frozen_codebook_has_the_tokens_of_its_last_entries_and_learns_those_by_gradients() -> None:
    table = reals(9, 12)
    made = settled(table)
    for _ in range(40):  # entries move on, and the tokens of frame 11 are left behind
        made(table[:11] + 1.0, torch.arange(11))
    assert made.freeze(table) == [made.entries]
    scaled = made.codes().detach().double().numpy()
    assert np.array_equal(made.tokens.flatten().numpy(), nearest(rows(table), scaled / 32))
    tokens = made.tokens.clone()
    index, g = torch.tensor([5, 2, 7]), torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    real = (table[index] + 100).requires_grad_()
    codes = made(real, index)
    assert torch.equal(made.tokens, tokens) and made.commitment(real, codes) is None
    assert np.array_equal(rows(codes), scaled[tokens[index].flatten().numpy()])
    (g * codes).sum().backward()
    expected = np.zeros((LEVELS, 3))
    np.add.at(expected, tokens[index].flatten().numpy(), 32 * rows(g))
    assert real.grad is None and made.entries.grad is not None
    assert made.entries.grad.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_frames_of_a_batch_are_chosen_beside_the_tokens_that_their_neighbours_had() -> None:
    """One call for several frames, next to each other or not, does what one for each does of the same tokens."""
    table = reals(3, 7)
    for index in ([0], [6], [1, 2], [3, 0, 6, 5]):
        together, apart = settled(table), settled(table)
        for made in (together, apart):
            made.train(False)
            made.observe(scalar(0.9))
            made.count(scalar(0.3))
        old = apart.tokens.clone()
        together(table[index], torch.tensor(index))
        for t in index:
            apart.tokens.copy_(old)
            apart(table[t][None], torch.tensor([t]))
            assert torch.equal(together.tokens[t], apart.tokens[t])


# ---- as a step that is recorded, and as a fit that goes on


def step(made: Codebook, table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """All that a fit asks of a codebook; its loss."""
    real = table[index].requires_grad_()
    codes = made(real, index)
    loss = codes.square().mean()
    if (commitment := made.commitment(real, codes)) is not None:
        loss = loss + commitment
    loss.backward()
    made.observe(loss.detach() * 1e-3)
    if len(made.tokens):
        made.count(made.bits(table) * 1e-4)
    assert made.frozen or real.grad is not None
    return loss.detach()


def in_phase(phase: str, table: torch.Tensor) -> Codebook:
    """A codebook that a fit has brought into a phase."""
    torch.manual_seed(3)
    made = Codebook(SHAPE, 12)
    made.begin(len(table), table)
    for _ in range(5):
        made(table, torch.arange(len(table)))
    if phase != "encoded":
        made.quantise = True
        made.settle(table)
        made.observe(scalar(1.0))
        made.count(scalar(0.01))
    if phase == "frozen":
        made.freeze(table)
    return made


PHASES = ("encoded", "free", "frozen")


@pytest.mark.parametrize("phase", PHASES)
def test_a_replayed_step_is_a_step(phase: str) -> None:
    """Everything that a step changes keeps its place in memory, and nothing is read on the host."""
    table, batches = reals(4, 9), [[0, 1], [5, 8], [3, 2], [7, 0], [4, 6], [1, 8]]
    eager, recorded = (in_phase(phase, table) for _ in range(2))
    index = torch.tensor(batches[0])

    tape, found = Tape(), []
    result = tape.record(lambda: step(recorded, table, index))
    found.append(float(result))
    for batch in batches[1:]:
        index.copy_(torch.tensor(batch))
        tape.replay()
        found.append(float(result))
    assert found == [float(step(eager, table, torch.tensor(batch))) for batch in batches] and len(set(found)) == len(batches)
    assert all(torch.equal(a, b) for a, b in zip(eager.state_dict().values(), recorded.state_dict().values(), strict=True))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("begun", [False, True])
def test_a_fresh_codebook_goes_on_from_a_state(phase: str, begun: bool) -> None:
    table = reals(4, 9)
    old, new = in_phase(phase, table), Codebook(SHAPE, 12)
    new.quantise = old.quantise
    if begun:
        new.begin(9, reals(5, 9))
    learned = new.prepare(9, free=phase != "encoded", frozen=phase == "frozen")
    assert [parameter is new.entries for parameter in learned] == [True] * (phase == "frozen")
    assert new.entries.requires_grad is (phase == "frozen")
    places = [value.data_ptr() for value in new.state_dict().values()]
    new.load_state_dict(old.state_dict())
    assert [value.data_ptr() for value in new.state_dict().values()] == places
    index = torch.tensor([4, 2])
    for made in (old, new):
        if phase == "encoded":
            made(table[index], index)
            made.settle(table)
            made.observe(scalar(0.5))
            made.count(scalar(0.02))
        for _ in range(3):
            step(made, table, index)
    assert all(torch.equal(a, b) for a, b in zip(old.state_dict().values(), new.state_dict().values(), strict=True))
    assert old.usage() == new.usage() and old.coded(table) == new.coded(table)


def test_everything_is_on_the_device_of_the_latents() -> None:
    """The device that knows shapes alone mixes with no other."""
    made, table = Codebook(SHAPE, 12).to("meta"), reals(4, 9).to("meta")
    made.begin(9, table)
    index = torch.zeros(2, dtype=torch.int64, device="meta")
    made(table[index], index)
    made.settle(table)
    made.count(torch.zeros((), device="meta"))
    step(made, table, index)
    assert made.freeze(table) == [made.entries]
    step(made, table, index)
    assert {value.device.type for value in made.state_dict().values()} == {"meta"}


# ---- what is sent


def test_the_sent_book_gives_back_what_the_decoder_was_fitted_with_and_the_most_used_code_is_first() -> None:
    table = reals(7, 12)
    made = settled(table, levels=40)
    made.train(False)
    made.observe(scalar(1.0))
    made.count(scalar(0.05))
    fitted = made(table, torch.arange(12))
    tokens, book = made.numbers(table)
    assert (tokens.shape, book.shape) == ((12, 2, 4), (40, 3))
    assert np.array_equal(book[tokens].transpose(0, 3, 1, 2), fitted.numpy())
    uses = np.bincount(tokens.ravel(), minlength=40)
    assert uses.tolist() == sorted(uses.tolist(), reverse=True)
    used = int((uses > 0).sum())
    assert 1 < used < 40 and not book[used:].any() and book[:used].any(axis=1).all()
    specs = TensorSpec(Kind.TOKENS, tokens.shape, 40), TensorSpec(Kind.CODEBOOK, book.shape)
    assert made.coded(table) == sum(coded_bits(spec, values) for spec, values in zip(specs, (tokens, book), strict=True))
    assert float(made.bits(table)) == pytest.approx(made.coded(table), rel=0.15)


def test_the_emitted_operation_reads_the_codes_that_forward_made() -> None:
    table = reals(8, 3)
    made = settled(table)
    made.train(False)
    fitted = made(table, torch.arange(3)).numpy()
    builder = Builder("tokens")
    made.emit(builder, made.numbers(table), (0, -1))
    for t in range(3):
        now, before = values_of(rows_of(builder.program()), builder.tensors, t, 3)
        assert np.array_equal(now, fitted[t]) and np.array_equal(before, fitted[max(t - 1, 0)])
    shape_alone = Builder("tokens")
    made.emit(shape_alone, None, (0, -1))
    assert shape_alone.program() == builder.program()


def test_usage_and_perplexity_are_those_of_the_tokens() -> None:
    made = codebook(8)
    assert made.usage() is None  # no tokens yet
    generator = np.random.default_rng(1)
    for drawn in (generator.integers(0, 5, (4, 2, 4)), generator.choice(8, (4, 2, 4), p=[0.6, 0.2, 0.1, 0.05, 0.05, 0, 0, 0])):
        made.tokens = torch.from_numpy(drawn)
        shares = [float((drawn == k).mean()) for k in range(8) if (drawn == k).any()]
        usage, perplexity = made.usage() or (0.0, 0.0)
        assert usage == pytest.approx(len(shares) / 8)
        assert perplexity == pytest.approx(2 ** -sum(share * math.log2(share) for share in shares))
    made.tokens = torch.full((4, 2, 4), 3)
    assert made.usage() == pytest.approx((1 / 8, 1.0))


def test_constants_are_those_of_the_format() -> None:
    assert TensorSpec(Kind.CODEBOOK, (2, 3)).range == (-LARGEST - 1, LARGEST)
    assert UNIT == 1 / 32


def test_the_pool_begins_with_vectors_of_the_clip_as_the_entries_do() -> None:
    made = Codebook(SHAPE, LEVELS, pooled=True)
    real = reals(3)
    made.begin(FRAMES, real)
    assert made.pool is not None
    vectors = {tuple(vector) for vector in rows(real)}
    assert all(tuple(node) in vectors for node in made.pool.nodes.double().numpy())
    assert len(made.pool.nodes.unique(dim=0)) == LEVELS
    assert made.pool.sizes.tolist() == made.sizes.tolist() == [DEAD] * LEVELS


def test_a_revived_code_is_its_node_with_a_cluster_that_is_just_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    made = codebook(pooled=True)
    assert made.pool is not None
    nodes = 10 + torch.arange(LEVELS * 3.0).view(LEVELS, 3)
    revived = torch.tensor([False, True, False, False, True, False])
    monkeypatch.setattr(made.pool, "replacements", lambda entries, sizes, threshold: (revived, nodes))
    made.sizes.fill_(0.01)
    made(reals(0)[:2], torch.arange(2))
    assert torch.equal(made.entries[revived], nodes[revived])
    assert torch.equal(made.sizes[revived], torch.full((2,), DEAD))
    assert torch.equal(made.sums[revived], nodes[revived] * DEAD)
    assert not (made.sizes[~revived] == DEAD).any()
