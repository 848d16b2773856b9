"""Rare variants in traits with heavy tails: left out by default, warned of, and why."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.cohorts import Cohort
from udipdist.gwas.scan.rare import COPIES_PER_KURTOSIS, excess_kurtosis
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats

COPIES = [4, 19, 20, 60]  # of the rarer allele of each variant
N = 400


def inflation(kurtosis: float, copies: float, p: float) -> float:
    """How many times as often as it should a sum of `copies` draws of a gamma distribution has a smaller p: exact."""
    shape = copies * 6 / kurtosis
    z = stats.norm.isf(p / 2) * np.sqrt(shape)
    return float(stats.gamma.sf(shape + z, shape) + stats.gamma.cdf(max(shape - z, 0), shape)) / p


def test_how_far_p_is_off():
    assert inflation(6, 4, 1e-5) == pytest.approx(120, abs=1)  # an exponential trait
    assert inflation(6, 20, 1e-5) == pytest.approx(20, abs=1)
    for kurtosis in (0.5, 1, 3, 6, 24):
        assert 1.5 < inflation(kurtosis, COPIES_PER_KURTOSIS * kurtosis, 1e-5) < 2.2
    drawn = stats.gamma.rvs(1, size=(200_000, 1), random_state=1)
    assert excess_kurtosis(drawn - drawn.mean())[0] == pytest.approx(6, abs=0.5)
    assert abs(excess_kurtosis(np.random.default_rng(1).standard_normal((200_000, 1)))[0]) < 0.05


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    """Variants of COPIES, the last two as A1 in most people; a normal trait and an exponential one."""
    rng = np.random.default_rng(3)
    counts = np.zeros((len(COPIES), N), int)
    for row, copies in zip(counts, COPIES, strict=True):
        row[rng.choice(N, copies, replace=False)] = 1
    counts[2:] = 2 - counts[2:]
    traits = pd.DataFrame({"normal": rng.standard_normal(N), "skewed": rng.exponential(size=N)})
    return Cohort(tmp_path_factory.mktemp("rare"), counts, np.eye(N), pd.DataFrame({"c": np.arange(N)}), traits).write()


@pytest.mark.parametrize(
    ("keys", "tested", "said"),
    [
        ({}, [20, 60], ["min_mac=20: variants with fewer", "2 below min_mac", "1 of 2 traits", "(skewed;"]),
        ({"min_mac": 0}, COPIES, ["(skewed;", "type normalise=rank, or min_mac="]),
        ({"min_mac": 21}, [60], ["3 below min_mac", "(skewed;"]),
        ({"normalise": "rank"}, COPIES, []),
        ({"min_mac": 2000}, [], ["4 below min_mac"]),
    ],
)
def test_who_is_tested_and_what_is_said(cohort, caplog, keys, tested, said):
    config = cohort.config("out", overwrite=True, test="linear", **{"min_mac": None} | keys)
    with caplog.at_level(logging.INFO):
        gwas(config)
    beta_M = Sumstats.open(config.out).beta("normal")
    assert [c for c, beta in zip(COPIES, beta_M, strict=True) if np.isfinite(beta)] == tested
    assert all(words in caplog.text for words in said)
    assert ("heavy tails" in caplog.text) == ("(skewed;" in said)
    assert ("min_mac=20: variants" in caplog.text) == (keys == {})
    assert json.loads((config.out / "manifest.json").read_text())["facts"]["min_mac"] == config.fewest_copies


def test_ranks_with_ties_have_tails_too(cohort, tmp_path, caplog):
    traits = pd.DataFrame({"rare": (np.arange(N) < 8).astype(float)})
    own = Cohort(tmp_path, cohort.counts_MN, np.eye(N), cohort.covariates, traits).write()
    gwas(own.config(test="linear", normalise="rank"))
    assert "1 of 1 traits have heavy tails (rare;" in caplog.text and "type min_mac=" in caplog.text


def test_males_have_one_copy_on_x(tmp_path):
    counts = np.zeros((2, N), int)
    counts[0, :19] = counts[1, :20] = 2  # males: 19 and 20 copies; as many people with two copies would be twice that
    own = Cohort(tmp_path, counts, np.eye(N), pd.DataFrame({"c": np.arange(N)}), pd.DataFrame({"y": np.arange(N) % 7}))
    own.write()
    fam, bim = tmp_path / "c.fam", tmp_path / "c.bim"
    fam.write_text("".join(f"F{i} I{i} 0 0 1 -9\n" for i in range(N)))
    bim.write_text(bim.read_text().replace("1\trs", "X\trs"))
    gwas(own.config(test="linear", min_mac=20))
    assert np.isfinite(Sumstats.open(tmp_path / "out").beta("y")).tolist() == [False, True]
