"""Directions, trees and their comparison: right answers by hand, by simulation, and by other programs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, fowlkes_mallows_score

from tests.analysis.planted import directions as planted_directions
from udipdist.analysis.clusters import agreement, figures, tree
from udipdist.analysis.clusters.directions import Directions, Whitening, chance_cosine, cosines, main_direction


def of_errors(w_Lq: np.ndarray) -> Directions:
    """Directions with these w."""
    unit = np.eye(w_Lq.shape[1])
    return Directions(w_Lq, Whitening(unit, unit), np.ones_like(w_Lq))


def correlated(q: int, seed: int = 0) -> np.ndarray:
    mix = np.random.default_rng(seed).standard_normal((q, q)) * np.geomspace(1, 0.1, q)
    return mix @ mix.T


# ------------------------------------------------------------------------------------------------------- directions


def test_whitened_errors_are_independent_and_only_correlations_count():
    covariance = correlated(6)
    whitening = Whitening.of(covariance)
    size = np.sqrt(np.diag(covariance))
    r = covariance / np.outer(size, size)
    np.testing.assert_allclose(whitening.whiten_Pq.T @ r @ whitening.whiten_Pq, np.eye(6), atol=1e-10)
    np.testing.assert_allclose(np.abs(Whitening.of(r).whiten_Pq), np.abs(whitening.whiten_Pq), atol=1e-9)
    z = np.random.default_rng(1).standard_normal((4, 6))
    np.testing.assert_allclose(z @ whitening.whiten_Pq @ whitening.colour_qP, z, atol=1e-10)
    chi2 = np.einsum("lp,pq,lq->l", z, np.linalg.inv(r), z)
    np.testing.assert_allclose(Directions.of(z, np.ones_like(z), whitening).chi2_L, chi2, rtol=1e-9)


def test_a_trait_that_is_another_twice_adds_no_dimension():
    covariance = np.pad(correlated(4), (0, 1))
    covariance[4, :4], covariance[:4, 4], covariance[4, 4] = covariance[0, :4], covariance[:4, 0], covariance[0, 0]
    assert Whitening.of(covariance).rank == 4


def test_similarity_ignores_the_counted_allele_and_published_does_not():
    z = np.random.default_rng(2).standard_normal((5, 6))
    turned, whitening = z * np.array([1, -1, 1, -1, 1])[:, None], Whitening.of(correlated(6))
    se = np.random.default_rng(3).uniform(0.5, 2, z.shape)
    plain = [Directions.of(one, se, whitening).similarity() for one in (z, turned)]
    np.testing.assert_allclose(plain[0], plain[1])
    published = [Directions.of(one, se, whitening, published=True).similarity() for one in (z, turned)]
    np.testing.assert_allclose(published[0], cosines(z * se), atol=1e-9)
    assert published[1][0, 1] == pytest.approx(-published[0][0, 1])


def test_corrected_similarity_is_the_true_one_on_average():
    rng, q = np.random.default_rng(4), 60
    one, other = np.zeros(q), np.zeros(q)
    one[0], other[:2] = 1.0, (0.8, 0.6)
    means = 9.0 * np.array([one, other])
    draws = [of_errors(means + rng.standard_normal(means.shape)) for _ in range(400)]
    assert np.mean([draw.similarity()[0, 1] for draw in draws]) < 0.55
    assert np.mean([draw.corrected()[0, 1] for draw in draws]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([draw.reliability_L for draw in draws]) == pytest.approx(81 / (81 + q), abs=0.02)


def test_a_direction_lost_in_errors_has_no_corrected_similarity():
    corrected = of_errors(np.array([[0.5, 0.5, 0.0], [9.0, 0.0, 0.0], [9.0, 1.0, 0.0]])).corrected()
    assert np.isnan(corrected[0]).all() and corrected[1, 2] == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("m", [1, 2, 8], ids=lambda m: f"{m} SNPs")
def test_the_main_direction_knows_how_sure_it_is(m):
    rng, q = np.random.default_rng(5), 40
    truth = np.eye(q)[0]
    signs = rng.choice([-1.0, 1.0], (300, m, 1))
    found = [main_direction(10 * sign * truth + rng.standard_normal((m, q))) for sign in signs]
    squared = np.mean([(direction @ truth) ** 2 for direction, _ in found])
    assert np.mean([sure for _, sure in found]) == pytest.approx(squared, abs=0.02)


def test_errors_alone_have_no_main_direction():
    w = np.random.default_rng(6).standard_normal((5, 200)) * 0.9
    assert main_direction(w)[1] == 0.0


@pytest.mark.parametrize(("q", "leads"), [(3, 2), (30, 10)])
def test_chance_cosine_is_exceeded_as_often_as_it_says(q, leads):
    rng, limit = np.random.default_rng(7), chance_cosine(q, leads, 0.05)
    off = np.triu_indices(leads, 1)
    above = np.mean([(np.abs(cosines(rng.standard_normal((leads, q))))[off] > limit).any() for _ in range(4000)])
    assert 0.035 < above < 0.06
    assert chance_cosine(1, leads) == 1.0


# ------------------------------------------------------------------------------------------------------------- trees


def test_support_is_high_for_clear_clades_and_low_for_none():
    clade = np.repeat([0, 1, 2], 4)
    clear = of_errors(planted_directions(clade, 10, 2000.0, 1, within=0.99))
    grown = tree.grow(clear.similarity())
    support = dict(zip(tree.clades(grown), tree.support(clear, grown, 50, 0), strict=True))
    for number in range(3):
        assert support[sum(1 << int(leaf) for leaf in np.flatnonzero(clade == number))] == 1.0
    noise = of_errors(np.random.default_rng(0).standard_normal((12, 10)))
    grown = tree.grow(noise.similarity())
    assert np.mean(tree.support(noise, grown, 50, 0)[:-1]) < 0.5
    np.testing.assert_array_equal(tree.support(noise, grown, 20, 3), tree.support(noise, grown, 20, 3))


@pytest.mark.parametrize(("strength", "least"), [(60, 0.8), (120, 0.95), (300, 1.0), (1000, 1.0)])
def test_clusters_are_the_planted_clades(strength, least):
    clade = np.repeat(np.arange(6), 8)
    found = of_errors(planted_directions(clade, 128, strength, 2, within=0.81))
    grown = tree.grow(found.similarity())
    nodes, asked = tree.by_direction(found, grown, 0.5)
    nodes = np.where(nodes < 0, -1 - np.arange(48), nodes)
    assert adjusted_rand_score(clade, nodes) >= least and asked == 0.5


@pytest.mark.parametrize("strength", [0, 20, 60, 1000])
def test_unrelated_directions_stand_alone(strength):
    """Also weak ones, whose errors make many pairs look alike once the noise is taken out of their cosines."""
    clustered = 0
    for seed in range(10):
        found = of_errors(planted_directions(np.arange(30), 40, strength, seed, within=0.0))
        nodes, _ = tree.by_direction(found, tree.grow(found.similarity()), 0.5)
        clustered += (nodes >= 0).sum() > 0
    assert clustered <= 2


def test_in_few_dimensions_chance_asks_for_more():
    found = of_errors(planted_directions(np.repeat([0, 1], 4), 3, 5000.0, 4))
    _, least = tree.by_direction(found, tree.grow(found.similarity()), 0.5)
    assert least == chance_cosine(3, 8) > 0.99


def test_by_support_takes_the_largest_clades_but_not_all_leaves():
    grown = hierarchy.linkage(squareform(_blocks([2, 2, 2])), "average")
    clades = tree.clades(grown)
    pairs = [clades.index(3 << 2 * i) for i in range(3)]
    support = np.zeros(5)
    support[pairs], support[-1] = (0.95, 0.5, 0.9), 1.0
    assert tree.numbered(grown, tree.by_support(grown, support, 0.9)).tolist().count(0) == 2
    support[3] = 0.9  # the join of two pairs
    nodes = tree.by_support(grown, support, 0.9)
    assert len({int(node) for node in nodes if node == 9}) == 1


def test_newick_is_read_back():
    grown = hierarchy.linkage([1.0, 4.0, 4.0], "average")
    assert tree.newick(grown, ["a", "it's", "c"], np.array([0.75, 1.0])) == "('c':4,('a':1,'it''s':1)0.75:3);"


def _blocks(sizes: list[int]) -> np.ndarray:
    label = np.repeat(range(len(sizes)), sizes)
    distance = np.where(label[:, None] == label, 0.1, 1.0) + 0.01 * np.abs(np.subtract.outer(label, label))
    np.fill_diagonal(distance, 0)
    return distance


# --------------------------------------------------------------------------------------------------------- agreement


def random_tree(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    similarity = np.abs(cosines(np.random.default_rng(seed).standard_normal((n, 5))))
    return tree.grow(similarity), similarity


def test_a_tree_agrees_with_itself():
    grown, similarity = random_tree(12, 0)
    found = agreement.compare((grown, grown), (similarity, similarity), 99, 0)
    values = found.measures.set_index("measure")
    assert values["value"].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert values.loc["cophenetic_r", "p"] == pytest.approx(0.01)
    assert (found.partitions["fowlkes_mallows"] == 1).all() and (found.shared["jaccard"] == 1).all()


def test_unrelated_trees_do_not():
    p, clade_p = [], []
    for seed in range(60):
        (one, a), (other, b) = random_tree(10, 2 * seed), random_tree(10, 2 * seed + 1)
        found = agreement.compare((one, other), (a, b), 39, seed)
        p.append(found.measures.set_index("measure").loc["cophenetic_r", "p"])
        clade_p += found.shared["p"].tolist()
    assert np.mean(np.array(p) <= 0.1) < 0.22 and np.mean(np.array(clade_p) <= 0.1) < 0.15


def test_fowlkes_mallows_is_that_of_scikit_learn():
    (one, _), (other, _) = random_tree(9, 3), random_tree(9, 4)
    levels = [agreement.joined_levels(grown) for grown in (one, other)]
    found = agreement.fowlkes_mallows(*levels, 9, [np.arange(9)])
    for row in found.itertuples():
        cut = [hierarchy.fcluster(grown, row.clusters, "maxclust") for grown in (one, other)]
        assert row.fowlkes_mallows == pytest.approx(fowlkes_mallows_score(*cut))
    assert (found["shuffled_mean"] == found["fowlkes_mallows"]).all()


def test_gamma_counts_pairs():
    rng = np.random.default_rng(5)
    one, other = rng.integers(0, 5, 40), rng.integers(0, 4, 40)
    signs = [np.sign(one[i] - one[j]) * np.sign(other[i] - other[j]) for i, j in itertools.combinations(range(40), 2)]
    assert agreement.goodman_kruskal(one, other) == pytest.approx(sum(signs) / np.abs(signs).sum())
    assert np.isnan(agreement.goodman_kruskal(np.zeros(4, int), np.arange(4)))


def test_a_clade_that_both_trees_have_is_found():
    one = hierarchy.linkage(squareform(_blocks([4, 4, 4])), "average")
    mixed = np.random.default_rng(6).permutation(8)
    other = hierarchy.linkage(squareform(_blocks([4, 4, 4])[np.ix_(*[[*range(4), *(4 + mixed)]] * 2)]), "average")
    rng = np.random.default_rng(7)
    shared = agreement.clade_overlap(one, other, [rng.permutation(12) for _ in range(199)])
    row = shared[(shared["size"] == 4) & (shared["jaccard"] == 1)]
    assert len(row) == 1 and row["p"].item() < 0.05


def test_untangling_keeps_the_trees_and_crosses_less():
    (one, _), (other, _) = random_tree(15, 8), random_tree(15, 9)
    turned = figures.untangled(one, other)
    for before, after in zip((one, other), turned, strict=True):
        assert set(tree.clades(before)) == set(tree.clades(after))

    def crossings(*trees):
        a, b = (np.argsort(hierarchy.leaves_list(grown)) for grown in trees)
        return sum((a[i] - a[j]) * (b[i] - b[j]) < 0 for i, j in itertools.combinations(range(15), 2))

    assert crossings(*turned) < crossings(one, other)
