"""The weights' factorisation in a whole run: rank and error are reported, and the tolerance does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from hpc.errors import ConfigError
from hpc.stage import read_manifest
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats

H2 = np.linspace(0, 0.95, 24)


@pytest.fixture(scope="module")
def cohort(make_cohort, tmp_path_factory):
    """24 traits of all heritabilities, 240 people in families whose G has eigenvalues from 0.05 to 3."""
    folder = tmp_path_factory.mktemp("weights")
    cohort = make_cohort(folder, 31, n=240, m=60, h2=H2, missing_calls=0.02)
    cohort.grm_NN = np.where(cohort.grm_NN == 0.5, 0.9, cohort.grm_NN)
    cohort.write()
    table = cohort.traits.var()
    lines = [f"{name} {h2 * table[name]} {(1 - h2) * table[name]}\n" for name, h2 in zip(table.index, H2, strict=True)]
    (folder / "variance").write_text("trait Vg Ve\n" + "".join(lines))
    return cohort


def run(cohort, tolerance: float, **keys) -> tuple[np.ndarray, np.ndarray, dict]:
    """beta / se and se [M, P], and the facts of the manifest."""
    given = {"null_model": {"variance": cohort.folder / "variance"}}
    name = f"tolerance{tolerance}" + "".join(keys)
    config = cohort.config(name, weight_tolerance=tolerance, min_maf=0.01, **(given | keys))
    gwas(config)
    found = Sumstats.open(config.out)
    beta, se = (found.values(part).astype(np.float64) for part in ("beta", "se"))
    return beta / se, se, read_manifest(config.out)["facts"]


@pytest.fixture(scope="module")
def exact(cohort):
    """1 / se^2 of each variant and trait, dense."""
    c_NK = np.column_stack([np.ones(240), cohort.covariates])
    information = np.empty((60, 24))
    x_NM = np.stack([np.where(x < 0, x[x >= 0].mean(), x) for x in cohort.counts_MN], axis=1)
    for p, variance in enumerate(cohort.traits.var()):
        inverse = np.linalg.inv(variance * (H2[p] * cohort.grm_NN + (1 - H2[p]) * np.eye(240)))
        solved = np.linalg.solve(c_NK.T @ inverse @ c_NK, c_NK.T @ inverse @ x_NM)
        information[:, p] = (x_NM * (inverse @ (x_NM - c_NK @ solved))).sum(axis=0)
    return information


def test_a_looser_tolerance_takes_fewer_columns_and_has_a_larger_error(cohort, exact):
    ranks, reported, measured = [], [], []
    for tolerance in (0.3, 1e-2, 1e-4, 1e-6, 1e-9):
        _, se, facts = run(cohort, tolerance)
        assert 0 < facts["weight_error"] <= tolerance
        ranks.append(facts["weight_rank"])
        reported.append(facts["weight_error"])
        measured.append(np.nanmax(abs(se**-2 / exact - 1)))
    assert ranks == sorted(set(ranks)), "each step of the tolerance takes more columns"
    assert reported == sorted(set(reported), reverse=True)
    assert measured[0] > 1e-3 and measured[0] > 10 * measured[1] > 100 * measured[2] > 1e3 * measured[3]
    # the oracle can tell: what is reported bounds what is measured (x10: covariates magnify the weights' error)
    assert all(m <= 10 * r + 5e-7 for m, r in zip(measured, reported, strict=True))
    assert measured[-1] < 5e-7  # se is stored in float32


def test_the_default_reaches_the_promise(cohort, exact):
    config = cohort.config("default", min_maf=0.01, null_model={"variance": cohort.folder / "variance"})
    gwas(config)
    facts = read_manifest(config.out)["facts"]
    assert facts["weight_error"] <= config.weight_tolerance <= 1e-8
    se = Sumstats.open(config.out).values("se").astype(np.float64)
    np.testing.assert_allclose(se**-2, np.where(np.isnan(se), np.nan, exact), rtol=5e-7)


def test_one_heritability_needs_one_column_and_the_constant(cohort):
    lines = [f"{name} {0.4 * v} {0.6 * v}\n" for name, v in cohort.traits.var().items()]
    (cohort.folder / "same").write_text("trait Vg Ve\n" + "".join(lines))
    _, _, facts = run(cohort, 1e-9, null_model={"variance": cohort.folder / "same"})
    assert facts["weight_rank"] <= 2 and facts["weight_error"] < 1e-12


def test_linear_regression_has_nothing_to_factorise(cohort):
    _, _, facts = run(cohort, 1e-9, null_model={}, test="linear")
    assert facts["weight_rank"] == 1 and facts["weight_error"] < 1e-13


@pytest.mark.parametrize("tolerance", [1e-17, 1e-20])
def test_a_tolerance_below_the_rounding_of_float64_is_refused(cohort, tolerance):
    with pytest.raises(ConfigError, match=rf"weight_tolerance={tolerance}: .*reaches .*e-1[3-6].*type a larger one"):
        run(cohort, tolerance)
