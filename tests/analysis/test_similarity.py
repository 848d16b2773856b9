"""CKA, canonical correlations and consensus against the slow, obvious versions, and what they must not depend on."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import linalg

from hpc.errors import InputError
from udipdist.analysis import consensus
from udipdist.analysis.similarity import Factored, Latents, Library, compare

RNG = np.random.default_rng(5)
N = 150
HIDDEN = RNG.normal(size=(N, 3))
X = HIDDEN @ RNG.normal(size=(3, 6)) + 0.5 * RNG.normal(size=(N, 6)) + 3.0
Y = HIDDEN @ RNG.normal(size=(3, 4)) + 0.5 * RNG.normal(size=(N, 4)) - 1.0


def measure(x: np.ndarray, y: np.ndarray):
    return compare(Factored.of(x), Factored.of(y))


def rotation(p: int) -> np.ndarray:
    return linalg.qr(RNG.normal(size=(p, p)))[0]


def centred_kernel(x: np.ndarray) -> np.ndarray:
    h = np.eye(N) - 1 / N
    return h @ x @ x.T @ h


def test_cka_is_the_normalised_hsic_of_linear_kernels():
    k, m = centred_kernel(X), centred_kernel(Y)
    expected = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert measure(X, Y).cka == pytest.approx(expected, rel=1e-12)


def test_canonical_correlations_are_those_of_the_generalised_eigenproblem():
    xx, yy, xy = (np.cov(np.hstack([X, Y]).T)[s] for s in (np.s_[:6, :6], np.s_[6:, 6:], np.s_[:6, 6:]))
    rho2 = np.sort(linalg.eigh(xy.T @ linalg.solve(xx, xy), yy, eigvals_only=True))[::-1]  # 4 of them
    found = measure(X, Y)
    assert found.cca_r2 == pytest.approx(rho2.mean(), rel=1e-10)
    assert found.cca_top == pytest.approx(np.sqrt(rho2[0]), rel=1e-10)
    assert found.cca_above_09 == np.sum(np.sqrt(rho2) > 0.9)


def test_a_rotation_changes_the_matching_and_nothing_else():
    turned = measure(X, X @ rotation(6))
    assert turned.cka == pytest.approx(1.0, abs=1e-12)
    assert turned.cca_r2 == pytest.approx(1.0, abs=1e-12)
    assert turned.matched_r < 0.95
    assert measure(X, -X[:, [3, 0, 5, 1, 2, 4]]).matched_r == pytest.approx(1.0, abs=1e-12)  # order and sign


def test_a_linear_map_changes_cka_but_not_the_canonical_correlations():
    mapped = measure(X, X @ RNG.normal(size=(6, 6)) * [100, 1, 1, 1, 1, 0.01])
    assert mapped.cca_r2 == pytest.approx(1.0, abs=1e-9)
    assert mapped.cka < 0.95


def test_the_measures_are_symmetric():
    assert astuple(measure(X, Y))[3:] == pytest.approx(astuple(measure(Y, X))[3:], rel=1e-12)


def test_chance_is_the_mean_over_shuffled_people():
    shuffled = [measure(X, Y[RNG.permutation(N)]) for _ in range(3000)]
    for name in ("cka", "cca_r2"):
        values = np.array([getattr(one, name) for one in shuffled])
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - getattr(measure(X, Y), f"{name}_chance")) < 4 * error


def test_collapsed_and_repeated_latents_are_left_out():
    extra = np.hstack([X, np.full((N, 1), 7.0), X[:, :1], np.full((N, 1), 1e4) + 1e-6 * RNG.normal(size=(N, 1))])
    found = measure(extra, Y)
    assert found.rank_a == 6
    assert found.cca_r2 == pytest.approx(measure(X, Y).cca_r2, rel=1e-9)
    nothing = measure(np.ones((N, 3)), Y)
    assert nothing.rank_a == 0
    assert np.isnan([nothing.cka, nothing.cca_r2, nothing.matched_r]).all()


def write(path: Path, values: np.ndarray, ids: np.ndarray) -> Path:
    table = pd.DataFrame(values, columns=[f"z{k:03d}" for k in range(values.shape[1])])
    table.insert(0, "FID", ids)
    table.insert(1, "IID", ids)
    table.to_parquet(path, index=False)
    return path


def test_files_are_compared_over_the_people_of_both_in_any_order(tmp_path):
    ids, order = np.array([f"P{i}" for i in range(N)]), RNG.permutation(N)[: N - 20]
    a, b = write(tmp_path / "a.parquet", X, ids), write(tmp_path / "b.parquet", Y[order], ids[order])
    found, expected = Library().compare(a, b), measure(X[np.sort(order)], Y[np.sort(order)])
    assert found.n == N - 20
    assert astuple(found) == pytest.approx(astuple(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.drop(columns="IID"), "is not a latents table"),
        (lambda t: pd.concat([t, t.iloc[:1]]), r"has \['P0', 'P0'\] twice"),
        (lambda t: t.assign(z001=[np.inf, *t["z001"][1:]]), "row 0 has a value that is not a number"),
        (lambda t: t.assign(z001="text"), "is not a latents table"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, damage, message):
    path = write(tmp_path / "a.parquet", X, np.array([f"P{i}" for i in range(N)]))
    damage(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(InputError, match=f"a.parquet: {message}"):
        Latents.read(path)


def test_pca_consensus_is_the_pca_of_all_standardised_latents():
    beside = np.hstack([(x - x.mean(0)) / x.std(0) for x in (X, Y)])
    values, vectors = linalg.eigh(beside.T @ beside)
    expected = beside @ vectors[:, ::-1][:, :5] / np.sqrt(values[::-1][:5]) * np.sqrt(N)
    found, _ = consensus.reduce([X, Y], "pca", 5)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)


def test_maxvar_consensus_solves_its_problem():
    """The eigenvectors of the sum of projections, and the least residual of all orthonormal G."""
    found, shared = consensus.reduce([X, Y], "maxvar", 4)
    projections = []
    for x in (X, Y):
        x = x - x.mean(0)
        projections.append(x @ linalg.solve(x.T @ x, x.T))
    values, vectors = linalg.eigh(sum(projections))
    np.testing.assert_allclose(shared, values[::-1][:4] / 2, atol=1e-10)
    np.testing.assert_allclose(np.abs(found.T @ vectors[:, ::-1][:, :4]) / np.sqrt(N), np.eye(4), atol=1e-8)


def test_of_two_tables_maxvar_is_cca():
    """For two tables the shares are (1 + rho) / 2 (Kettenring 1971)."""
    _, shared = consensus.reduce([X, Y], "maxvar", 1)
    assert shared[0] == pytest.approx((1 + measure(X, Y).cca_top) / 2, rel=1e-10)


@pytest.mark.parametrize("method", consensus.METHODS)
def test_consensus_finds_what_replicates_share_under_their_own_rotations(method):
    replicates = [
        np.hstack([HIDDEN, RNG.normal(size=(N, 3))]) @ rotation(6) + 0.1 * RNG.normal(size=(N, 6)) for _ in range(4)
    ]
    found, shared = consensus.reduce(replicates, method, 3)
    assert measure(found, HIDDEN).cca_r2 > 0.95
    assert (shared > 0.9).all()
    np.testing.assert_allclose(found.T @ found / N, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
