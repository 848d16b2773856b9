"""The statistics of attention maps against direct computation, exact distributions and planted symmetry."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from hpc.errors import InputError
from udipdist.interpret.circuits import alignment, circuits
from udipdist.interpret.spotlight import Rule, agreement, cluster, consistency, mean_correlation, standardised
from udipdist.interpret.symmetry import Pairs, at_least, mirrored, partners, symmetry
from udipdist.models.layers.attention import Attention
from udipdist.models.layers.tokens import Patcher


def box(size: tuple[int, int, int]) -> Pairs:
    """The left half of a box of `size` tokens, paired with a right half: tokens 0 .. P - 1 with P .. 2 P - 1."""
    places = np.array(list(np.ndindex(*size)))
    return Pairs(np.arange(len(places)), len(places) + np.arange(len(places)), places, 0.0)


def test_mean_correlation_is_numpys():
    x = np.random.default_rng(0).standard_normal((30, 12)) + np.linspace(0, 2, 30)[:, None] * np.arange(12)
    r = np.corrcoef(x)
    np.testing.assert_allclose(mean_correlation(standardised(x)), (r.sum(axis=1) - 1) / 29, rtol=1e-12)


def test_the_rule_asks_for_both():
    correlation = np.array([0.8, 0.8, 0.7, 0.1, 0.1, np.nan])
    received = np.array([[0.5, 9.0, 0.5, 9.0, 0.5, np.nan]])
    np.testing.assert_array_equal(Rule().spotlights(correlation, received), [[0, 0, 0, 1, 0, 0]])
    assert not Rule().spotlights(-correlation, received).any()  # no shared direction, no audience
    assert not Rule().spotlights(np.full(6, np.nan), received).any()


def test_average_linkage_finds_planted_clusters():
    rng = np.random.default_rng(1)
    base = np.linalg.qr(rng.standard_normal((40, 3)))[0].T
    kind = rng.permutation(np.repeat([0, 1, 2], (20, 7, 3)))
    found = cluster(np.corrcoef(base[kind] + 0.03 * rng.standard_normal((30, 40))))
    np.testing.assert_array_equal(found.cluster, kind + 1)  # 1 is the largest
    assert (np.diff(kind[found.order]) != 0).sum() == 2  # the leaves' order keeps clusters together
    with pytest.raises(InputError, match="one token alone"):
        cluster(np.ones((1, 1)))


def test_consistency_is_that_of_all_pairs():
    sets = np.random.default_rng(2).random((7, 20)) < np.linspace(0, 1, 20)
    overlap = np.mean([(a & b).sum() for a, b in combinations(sets, 2)])
    assert consistency(sets.sum(axis=0), 7) == pytest.approx(overlap / sets.sum(axis=1).mean(), rel=1e-12)
    assert consistency(np.full(20, 7), 7) == 1 and np.isnan(consistency(np.zeros(20), 7))


def test_agreement_of_sets():
    one, other = np.zeros((2, 12), bool)
    one[:4], other[2:6] = True, True
    found = agreement(one, other)
    assert found.jaccard == pytest.approx(2 / 6) and found.expected == pytest.approx((16 / 12) / (8 - 16 / 12))
    exact = sum(comb(4, k) * comb(8, 4 - k) for k in (2, 3, 4)) / comb(12, 4)
    assert found.p == pytest.approx(exact, rel=1e-12)
    assert np.isnan(agreement(one & ~one, one & ~one).jaccard)


def test_mirrored_pairs_of_the_papers_grid():
    patcher = Patcher(np.ones((182, 218, 182), bool), (14, 16, 14))
    affine = np.array([[1.0, 0, 0, -91], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
    present = np.ones(patcher.tokens, bool)
    present[0] = False
    pairs = mirrored(patcher, affine, present)
    place = patcher.coordinates.numpy()
    # 13 patches along x: 6 on either side of those on the midline; the image of token 0 has lost its partner.
    assert len(pairs) == 6 * 14 * 13 - 1 and pairs.offset_mm == pytest.approx(1)
    np.testing.assert_array_equal(place[pairs.left] * [-1, 1, 1] + [12, 0, 0], place[pairs.right])
    assert not len(mirrored(patcher, np.eye(4) + np.eye(4, k=3) * 500, present))  # x = 0 is outside


def test_partners_are_of_the_other_hemisphere():
    pairs = box((2, 3, 2))
    table = partners(pairs, 30, 5, np.random.default_rng(0))
    np.testing.assert_array_equal(table[:12, 0], np.arange(12, 24))
    assert (table[24:] == -1).all() and (table[:12] >= 12).all() and (table[12:24] < 12).all()
    for column in table.T:
        np.testing.assert_array_equal(column[column[:24]], np.arange(24))


def test_what_symmetry_says_of_sets_and_of_constant_sides():
    pairs, value = box((3, 3, 2)), np.zeros(36)
    value[[0, 1, 2, 3, 4]] = 1
    value[[18, 19, 20, 30, 31]] = 1  # three of five mirror each other
    found = symmetry(value, pairs, 99, np.random.default_rng(3))
    assert found.r == pytest.approx(np.corrcoef(value[:18], value[18:])[0, 1], rel=1e-12)
    assert 0 < found.p <= 1
    assert np.isnan(symmetry(np.zeros(36), pairs, 9, np.random.default_rng(0)).p)
    assert at_least(1.0, np.zeros(99)) == 0.01


def ellipsoid(shape: tuple[int, int, int]) -> Pairs:
    """The left half of a brain's tokens and their mirror images."""
    places = np.indices(shape).reshape(3, -1).T
    middle = np.array([shape[0] - 0.5, (shape[1] - 1) / 2, (shape[2] - 1) / 2])
    places = places[(((places - middle) / (np.array([2, 1, 1]) * shape / 2)) ** 2).sum(axis=1) <= 1]
    return Pairs(np.arange(len(places)), len(places) + np.arange(len(places)), places, 0.0)


@pytest.mark.parametrize("smooth", [0.0, 1.5])
def test_unrelated_hemispheres_have_a_small_p_as_rarely_as_it_says(smooth):
    """Maps of any smoothness, on a grid as at 1 mm: at most what chance makes of 5 % in 100 of them."""
    rng, pairs, p = np.random.default_rng(4), ellipsoid((5, 11, 10)), []
    for _ in range(100):
        field = [rng.standard_normal((13, 19, 18)) for _ in range(2)]
        field = [gaussian_filter(one, smooth)[4:-4, 4:-4, 4:-4] if smooth else one for one in field]
        sides = [one[tuple(pairs.places_P3.T)] for one in field]
        p.append(symmetry(np.concatenate(sides), pairs, 99, rng).p)
    assert 0.005 <= np.mean(np.array(p) <= 0.05) <= 0.12, smooth


def test_a_symmetric_map_is_found():
    rng, pairs = np.random.default_rng(6), box((5, 8, 8))
    twin, noise = (gaussian_filter(rng.standard_normal((5, 8, 8)), 1.5).ravel() for _ in range(2))
    found = symmetry(np.concatenate([twin, twin]), pairs, 999, rng)
    assert found.r == pytest.approx(1) and found.p == 0.001
    assert symmetry(np.concatenate([twin, twin + 0.5 * noise]), pairs, 999, rng).p < 0.02


def test_independent_maps_have_uniform_p():
    rng, pairs = np.random.default_rng(5), box((3, 4, 4))
    p = [symmetry(rng.standard_normal(96), pairs, 99, rng).p for _ in range(150)]
    assert 0.01 < np.mean(np.array(p) <= 0.05) < 0.11 and 0.4 < np.mean(p) < 0.6


def test_circuits_are_the_product_of_the_weights():
    torch.manual_seed(0)
    attention = Attention(24, 3, 0.0)
    x = torch.randn(7, 24, dtype=torch.float64)
    weight, bias = attention.qkv.weight.detach().double(), attention.qkv.bias.detach().double()
    q, k, _ = (x @ weight.T + bias).view(7, 3, 3, 8).unbind(1)
    for head, circuit in enumerate(circuits(attention)):
        w_q, w_k = weight[head * 8 : head * 8 + 8].numpy(), weight[24 + head * 8 : 32 + head * 8].numpy()
        product = circuit.u_Dd * circuit.s_d @ circuit.v_Dd.T
        np.testing.assert_allclose(product, w_k.T @ w_q, atol=1e-14)
        np.testing.assert_allclose(circuit.s_d, np.linalg.svd(product, compute_uv=False)[:8], rtol=1e-10)
        score_KQ = circuit.keys(x.numpy()) @ circuit.queries(x.numpy()).T + (x.numpy() @ circuit.bias_D)[:, None]
        exact = torch.einsum("kd,qd->kq", k[:, head], q[:, head]).numpy()
        # What the key's bias adds depends on the query alone, so it drops out of the softmax.
        np.testing.assert_allclose(score_KQ - score_KQ[0], exact - exact[0], atol=1e-12)
        assert 1 < circuit.effective_rank <= 8 and 1 / 8 <= circuit.first_share < 1 and abs(circuit.rotation) < 1
    alike = replace(circuit, v_Dd=circuit.u_Dd, s_d=np.full(8, 2.0))
    assert (alike.rotation, alike.effective_rank, alike.first_share) == pytest.approx((1, 8, 1 / 8))
    assert np.isnan(replace(circuit, s_d=np.zeros(8)).effective_rank)


def test_alignment_is_that_of_all_pairs():
    torch.manual_seed(1)
    rng, circuit = np.random.default_rng(6), circuits(Attention(24, 3, 0.0))[1]
    x, received = rng.standard_normal((12, 24)), rng.random(12)
    spotlight, audience = np.arange(12) < 3, np.arange(12) >= 5
    found = alignment(circuit, x, spotlight, audience, received)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    keys, queries = circuit.keys(x), circuit.queries(x)
    seven, three = range(5, 12), range(3)
    assert found.plain_spotlight == pytest.approx(np.mean([cosine(x[i], x[j]) for i in seven for j in three]))
    assert found.plain_audience == pytest.approx(np.mean([cosine(x[i], x[j]) for i in seven for j in seven if i != j]))
    rotated = np.array([[cosine(queries[i], keys[j]) for j in range(12)] for i in seven])
    assert found.rotated_spotlight == pytest.approx(rotated[:, :3].mean())
    own = np.array([rotated[i, 5 + i] for i in range(7)])
    assert found.rotated_audience == pytest.approx((rotated[:, 5:].sum() - own.sum()) / 42)
    assert found.cosine_received == pytest.approx(spearmanr(rotated.mean(axis=0), received).statistic)
    score = (queries[5:] @ keys.T).mean(axis=0)
    assert found.score_received == pytest.approx(spearmanr(score, received).statistic)
    assert found.bias_received == pytest.approx(spearmanr(x @ circuit.bias_D, received).statistic)
    assert np.isnan(alignment(circuit, x, spotlight & False, audience, received).rotated_spotlight)
