"""Erasure against concept-erasure, least squares, and what each method promises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.progress import Progress
from udipdist.analysis.erasure import audit, linear
from udipdist.analysis.erasure.expansion import expand

RNG = np.random.default_rng(3)
N, L, K = 900, 16, 3
Z = RNG.normal(size=(N, K)) * np.array([1, 1e-4, 1e3])
HIDDEN = RNG.normal(size=(N, 8))
X = (HIDDEN @ RNG.normal(size=(8, L))) + (Z / Z.std(0)) @ RNG.normal(size=(K, L)) + 0.3 * RNG.normal(size=(N, L)) + 5


def covariance(x: np.ndarray, z: np.ndarray) -> float:
    """The largest |correlation| of a column of one with one of the other."""
    return float(np.abs(np.corrcoef(x.T, z.T)[: x.shape[1], x.shape[1] :]).max())


@pytest.mark.parametrize("columns", [L, L + 2], ids=["full", "two latents are sums of others"])
def test_leace_is_concept_erasures(columns):
    torch = pytest.importorskip("torch")
    concept_erasure = pytest.importorskip("concept_erasure")
    x = np.hstack([X, X[:, :2] + X[:, 2:4]])[:, :columns]
    unit = (Z - Z.mean(0)) / Z.std(0)
    fitter = concept_erasure.LeaceFitter(
        columns, K, dtype=torch.float64, shrinkage=False, svd_tol=1e-12, affine=True, constrain_cov_trace=False
    )
    theirs = fitter.update(torch.from_numpy(x), torch.from_numpy(unit)).eraser(torch.from_numpy(x)).numpy()
    ours = linear.leace(x, Z).apply(x, Z)
    assert np.abs(ours - theirs).max() / np.abs(x).max() < 1e-12


@pytest.mark.parametrize("fit", [linear.residual, linear.leace], ids=["residual", "leace"])
def test_nothing_linear_is_left(fit):
    eraser = fit(X, Z)
    assert covariance(eraser.apply(X, Z), Z) < 1e-10
    assert covariance(X, Z) > 0.2
    assert np.allclose(eraser.apply(X, Z).mean(0), X.mean(0))


def test_leace_loses_a_dimension_a_confounder_and_residuals_none():
    assert linear.leace(X, Z).dimensions == L - K
    assert linear.leace(X, np.hstack([Z, Z[:, :1] + Z[:, 1:2]])).dimensions == L - K
    assert linear.residual(X, Z).dimensions == L
    assert np.linalg.matrix_rank(linear.leace(X, Z).keep_LL) == L - K


def test_leace_changes_less_than_any_other_projection_that_erases():
    kept = linear.leace(X, Z).apply(X, Z)
    slope = np.linalg.lstsq(Z - Z.mean(0), X - X.mean(0), rcond=None)[0]
    other = (X - X.mean(0)) @ (np.eye(L) - slope.T @ np.linalg.pinv(slope.T))  # the orthogonal one
    assert covariance(other, Z) < 1e-8
    assert ((kept - X) ** 2).sum() < ((other + X.mean(0) - X) ** 2).sum()


def test_leace_needs_no_confounder_of_new_people():
    eraser = linear.leace(X, Z)
    assert np.array_equal(eraser.apply(X[:5], Z[:5]), eraser.apply(X[:5], np.zeros((5, K))))


def test_residuals_do_not_depend_on_units():
    assert np.allclose(linear.residual(X, Z).apply(X, Z), linear.residual(X, Z * 1e6).apply(X, Z * 1e6), atol=1e-9)


@pytest.mark.parametrize("rule", ["published", "ravfogel"])
def test_inlp_removes_more_dimensions_than_leace(rule):
    z = np.column_stack([Z, Z[:, 0] + 0.5 * RNG.normal(size=N) > 0])
    eraser = linear.inlp(X, z, 5, rule)
    assert eraser.dimensions < linear.leace(X, z).dimensions
    assert np.allclose(eraser.keep_LL, eraser.keep_LL @ eraser.keep_LL)
    assert (audit.linear_r2(eraser.apply(X, z), z, np.arange(N) % 3) < 0.05).all()


def test_published_inlp_stops_where_nothing_is_predicted():
    noise = np.random.default_rng(1).normal(size=(20000, 2))
    eraser = linear.inlp(np.random.default_rng(2).normal(size=(20000, 6)), noise, 5)
    assert eraser.dimensions == 6


def test_audit_sees_curves_only_by_trees():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1200, 2))
    x = np.column_stack([z[:, 0] ** 2, z[:, 1], rng.normal(size=1200)])
    fold = np.arange(1200) % 2
    target = np.column_stack([z[:, 0] ** 2 - 1, np.abs(z[:, 1])])
    line = audit.linear_r2(x, target, fold)
    assert line[0] > 0.99 and line[1] < 0.05
    with Progress("trees", 2) as progress:
        assert (audit.boosted_r2(x, target, fold, progress) > 0.8).all()


def test_audit_of_unrelated_latents_is_not_above_zero():
    rng = np.random.default_rng(0)
    assert (audit.linear_r2(rng.normal(size=(500, 20)), rng.normal(size=(500, 40)), np.arange(500) % 5) < 0.05).all()


def test_expansion_makes_curves_linear():
    table = pd.DataFrame({"age": RNG.uniform(40, 80, N), "sex": RNG.integers(0, 2, N).astype(float)})
    more = expand(table, ["square", "interactions", "splines"])
    assert [str(name) for name in more][:4] == ["age", "sex", "age^2", "age:sex"]
    assert not any(str(name).startswith("sex^2") for name in more)
    x = np.column_stack([np.sin(table.age / 10), RNG.normal(size=(N, 4))])
    left = linear.residual(x, more.to_numpy()).apply(x, more.to_numpy())
    assert left[:, 0].std() < 0.1 * x[:, 0].std()
    assert list(expand(table, [])) == ["age", "sex"]
