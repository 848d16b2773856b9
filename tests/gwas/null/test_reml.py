"""REML against a dense direct optimiser, which knows nothing of rotations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, sparse

from hpc.errors import InputError
from udipdist.gwas.null import reml
from udipdist.relatedness import grm


def dense_likelihood(vg: float, ve: float, y: np.ndarray, c: np.ndarray, g: np.ndarray) -> float:
    """Restricted log-likelihood from its definition: log|V| + log|C'V^-1 C| + y'Py."""
    inverse = np.linalg.inv(vg * g + ve * np.eye(len(y)))
    middle = c.T @ inverse @ c
    p = inverse - inverse @ c @ np.linalg.solve(middle, c.T @ inverse)
    sign, determinant = np.linalg.slogdet(vg * g + ve * np.eye(len(y)))
    return -0.5 * (determinant + np.linalg.slogdet(middle)[1] + y @ p @ y) if sign > 0 else -np.inf


def dense_free(y, c, g) -> tuple[float, float]:
    """Vg and Ve of the free model by a general optimiser over (log total, h)."""
    scale = y.var()

    def loss(x):
        return -dense_likelihood(np.exp(x[0]) * scale * x[1], np.exp(x[0]) * scale * (1 - x[1]), y, c, g)

    best = min(
        (optimize.minimize(loss, [0.0, h], bounds=[(-3, 3), (0, reml.NEAR_ONE)], tol=1e-14) for h in (0.1, 0.5, 0.9)),
        key=lambda found: found.fun,
    )
    total = np.exp(best.x[0]) * scale
    return total * best.x[1], total * (1 - best.x[1])


@pytest.fixture(scope="module")
def case(make_cohort, tmp_path_factory):
    cohort = make_cohort(tmp_path_factory.mktemp("null"), seed=3, n=150, h2=(0.0, 0.3, 0.6, 0.95, 0.5))
    y = cohort.traits.to_numpy()
    c = np.column_stack([np.ones(len(y)), cohort.covariates])
    families = grm.decompose(sparse.csr_array(cohort.grm_NN), 100)
    return y, c, cohort.grm_NN, families


def fit(case, total_variance="free", y=None):
    whole, c, _, families = case
    y = whole if y is None else y
    rotate = families.matrix().T
    order = families.order_N
    q = np.linalg.qr(c)[0]
    return reml.fit(rotate @ y[order], rotate @ q[order], families.d_N, total_variance)


def test_free_reml_is_the_maximum_of_the_dense_likelihood(case):
    y, c, g, _ = case
    found = fit(case)
    for p in range(y.shape[1]):
        vg, ve = dense_free(y[:, p], c, g)
        best = dense_likelihood(vg, ve, y[:, p], c, g)
        assert dense_likelihood(found.vg_P[p], found.ve_P[p], y[:, p], c, g) >= best - 1e-9
        np.testing.assert_allclose(found.h2_P[p], vg / (vg + ve), atol=2e-5)
        np.testing.assert_allclose(found.vg_P[p] + found.ve_P[p], vg + ve, rtol=2e-5)


def test_constrained_reml_is_the_maximum_of_the_dense_likelihood(case):
    y, c, g, _ = case
    y = y - c @ np.linalg.lstsq(c, y, rcond=None)[0]
    found = fit(case, "sample", y)
    for p in range(y.shape[1]):
        total = y[:, p] @ y[:, p] / (len(y) - 1)
        np.testing.assert_allclose(found.vg_P[p] + found.ve_P[p], total, rtol=1e-12)

        def loss(h, p=p, total=total):
            return -dense_likelihood(h * total, (1 - h) * total, y[:, p], c, g)

        best = optimize.minimize_scalar(loss, bounds=(0, 1.2), method="bounded", options={"xatol": 1e-10})
        assert loss(found.h2_P[p]) <= best.fun + 1e-9


def test_standard_errors_are_those_of_the_average_information(case):
    y, c, g, _ = case
    found = fit(case)
    for p in (1, 2):
        inverse = np.linalg.inv(found.vg_P[p] * g + found.ve_P[p] * np.eye(len(y)))
        projection = inverse - inverse @ c @ np.linalg.solve(c.T @ inverse @ c, c.T @ inverse)
        py = projection @ y[:, p]
        derivatives = np.column_stack([g @ py, py])
        covariance = np.linalg.inv(0.5 * derivatives.T @ projection @ derivatives)
        np.testing.assert_allclose([found.vg_se_P[p], found.ve_se_P[p]], np.sqrt(np.diag(covariance)), rtol=1e-8)
        gradient = np.array([found.ve_P[p], -found.vg_P[p]]) / (found.vg_P[p] + found.ve_P[p]) ** 2
        np.testing.assert_allclose(found.h2_se_P[p], np.sqrt(gradient @ covariance @ gradient), rtol=1e-8)


def test_a_trait_gets_the_same_model_alone(case):
    y, *_ = case
    together = fit(case)
    for p in range(y.shape[1]):
        alone = fit(case, y=y[:, p : p + 1])
        np.testing.assert_allclose(alone.vg_P[0], together.vg_P[p], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(alone.ve_P[0], together.ve_P[p], rtol=1e-9)


def test_people_are_taken_in_runs(case, monkeypatch):
    once = fit(case)
    monkeypatch.setattr(reml, "PEOPLE_AT_ONCE", 37)
    found = fit(case)
    np.testing.assert_allclose(found.vg_P, once.vg_P, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.h2_se_P, once.h2_se_P, rtol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "limit", "bounds"),
    [
        (0.4, 2.5, reml.NEAR_ONE, (1e-11, 1e-10, 1e-8)),  # sibs, as GCTA estimates them
        (0.0, 40.0, reml.NEAR_ONE, (1e-10, 1e-8, 1e-6)),  # people who stand there twice, and a very large family
        (0.45, 3.0, 1.6, (1e-11, 1e-10, 1e-8)),
        (1.0, 1.0, reml.NEAR_ONE, (1e-11, 1e-10, 1e-9)),
    ],
)
def test_every_weight_is_a_combination_of_those_of_the_nodes(low, high, limit, bounds):
    """The weights, those of the derivative, and those of the information, relative to the largest."""
    nodes = reml.Nodes.between(low, high, limit)
    assert len(nodes.h_S) < 70
    d = np.unique(np.concatenate([np.linspace(low, high, 2000), low + (high - low) * np.logspace(-7, 0, 500)]))[:, None]
    h = np.concatenate([np.linspace(0, limit, 301), limit * (1 - np.logspace(-6, 0, 50))])
    node_w = 1 / (1 + nodes.h_S * (d - 1))
    for power, factor, bound in ((1, 0, bounds[0]), (2, 1, bounds[1]), (3, 2, bounds[2])):
        exact = d**factor / (1 + h * (d - 1)) ** power
        found = node_w @ nodes.combine(nodes.weights(h, power) * nodes.d_L[:, None] ** factor)
        assert (np.abs(found - exact).max(axis=0) / exact.max(axis=0)).max() < bound


def test_people_who_stand_there_twice():
    """Eigenvalues of 0, where V is nearly singular at the upper end of the search."""
    rng = np.random.default_rng(5)
    grm_NN = np.kron(np.eye(60), np.ones((2, 2)))
    c = np.column_stack([np.ones(120), rng.standard_normal(120)])
    y = np.repeat(rng.standard_normal((60, 3)), 2, axis=0) + np.array([0.001, 0.3, 2]) * rng.standard_normal((120, 3))
    families = grm.decompose(sparse.csr_array(grm_NN), 100)
    found = fit((y, c, grm_NN, families))
    assert found.boundary_P[0] == "upper"
    for p in range(3):
        vg, ve = dense_free(y[:, p], c, grm_NN)
        best = dense_likelihood(vg, ve, y[:, p], c, grm_NN)
        assert dense_likelihood(found.vg_P[p], found.ve_P[p], y[:, p], c, grm_NN) >= best - 1e-7


def test_boundaries_are_recorded(case):
    y, c, _, families = case
    u, order = families.matrix(), families.order_N
    rng = np.random.default_rng(0)
    genetic = np.empty((len(y), 1))
    genetic[order] = u @ (
        np.sqrt(families.d_N)[:, None] * rng.standard_normal((len(y), 1)) * (families.d_N[:, None] > 1)
    )
    anti = np.empty((len(y), 1))
    anti[order] = u @ (rng.standard_normal((len(y), 1)) * (families.d_N[:, None] < 0.9))
    found = fit(case, y=np.hstack([anti, genetic]))
    assert found.boundary_P == ["lower", "upper"]
    assert found.vg_P[0] == 0 and found.h2_P[1] == pytest.approx(reml.NEAR_ONE)
    unrelated = grm.Families.unrelated(len(y))
    flat = reml.fit(y, np.linalg.qr(c)[0], unrelated.d_N)
    assert set(flat.boundary_P) == {"flat"} and (flat.vg_P == 0).all() and np.isnan(flat.h2_se_P).all()


def test_a_small_heritability_is_no_boundary(case):
    """Optima between 0 and half a step of the grid: the largest likelihood on the grid is at 0."""
    y, c, g, families = case
    u, order = families.matrix(), families.order_N
    rng = np.random.default_rng(1)
    parts = rng.standard_normal((2, len(y))) * np.stack([families.d_N < 0.9, families.d_N > 1])
    mixed = np.empty((len(y), 400))
    mixed[order] = u @ (parts.T @ np.stack([np.ones(400), np.linspace(0, 3, 400)]))
    found = fit(case, y=mixed)
    small = np.flatnonzero((found.h2_P > 0) & (found.h2_P < 0.5 / (reml.GRID - 1)))
    assert len(small)
    for p in small:
        assert found.boundary_P[p] == ""
        vg, ve = dense_free(mixed[:, p], c, g)
        best = dense_likelihood(vg, ve, mixed[:, p], c, g)
        assert dense_likelihood(found.vg_P[p], found.ve_P[p], mixed[:, p], c, g) >= best - 1e-9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trait\tVg\tVe\na\t1\t1\n", "has no row for b"),
        ("trait\tVg\na\t1\n", "has no column ve"),
        ("trait\tVg\tVe\na\t1\t1\nb\t-1\t1\n", "Vg and Ve of b are not numbers"),
        ("trait\tVg\tVe\na\t1\t1\nb\tx\t1\n", "Vg and Ve of b are not numbers"),
        ("trait\tVg\tVe\na\t1\t1\nb\t1\t1\nb\t1\t2\n", "several rows for b"),
    ],
)
def test_broken_component_tables_are_refused(tmp_path, text, message):
    (tmp_path / "v.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        reml.read_components(tmp_path / "v.tsv", ["a", "b"])


def test_component_tables(tmp_path):
    (tmp_path / "v.txt").write_text("VE trait Vg other\n2 b 1 x\n4 a 3 y\n")
    vg, ve = reml.read_components(tmp_path / "v.txt", ["a", "b"])
    assert list(vg) == [3, 1] and list(ve) == [4, 2]
