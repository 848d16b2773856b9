"""Directions of latents: their scale, what goes with a score, the effects of a SNP; and tables that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from hpc.stage import manifest_path
from udipdist.interpret import directions as along
from udipdist.interpret import snp
from udipdist.interpret.directions import Population, of_change, of_latents, of_score
from udipdist.latents import latent_names
from udipdist.sumstats import store as sumstats

L, N = 5, 3000


def latents(seed: int = 0) -> np.ndarray:
    """Correlated, of different sizes."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, L)) @ rng.standard_normal((L, L)) * [0.1, 1, 3, 10, 0.5]


def test_a_latent_is_moved_by_its_own_sd():
    z_NL = latents()
    first, second = of_latents([3, 0], Population.of(z_NL))
    assert (first.name, second.name) == ("z003", "z000")
    np.testing.assert_allclose(first.shift_L, np.eye(L)[3] * z_NL[:, 3].std(ddof=1))


def test_a_change_is_scaled_to_one_sd_of_the_projections_on_it():
    z_NL, change_L = latents(), np.array([1.0, -2, 0.5, 0, 3])
    made = of_change("v", "direction", change_L, Population.of(z_NL))
    unit = change_L / np.linalg.norm(change_L)
    np.testing.assert_allclose(made.shift_L, unit * (z_NL @ unit).std(ddof=1))
    again = of_change("v", "direction", 7 * change_L, Population.of(z_NL))
    np.testing.assert_allclose(again.shift_L, made.shift_L)  # how long it is given does not matter
    alone = of_change("e", "direction", np.eye(L)[2], Population.of(z_NL))
    np.testing.assert_allclose(alone.shift_L, of_latents([2], Population.of(z_NL))[0].shift_L)


def test_what_goes_with_a_score_is_its_regression_of_the_latents():
    z_NL, weights_L = latents(), np.array([0.3, 1.0, 0, -0.1, 2])
    made = of_score("age", weights_L, Population.of(z_NL))
    score = z_NL @ weights_L
    slopes = [np.polyfit(score / score.std(ddof=1), z, 1)[0] for z in z_NL.T]
    np.testing.assert_allclose(made.shift_L, slopes)
    assert abs(np.corrcoef(made.shift_L, weights_L)[0, 1]) < 0.99  # and not the weights


def test_controls_have_the_covariance_of_the_latents():
    people = Population.of(latents())
    draws = np.stack([d.shift_L for d in along.controls(4000, people, seed=1)])
    ordinary = np.random.default_rng(0).multivariate_normal(np.zeros(L), people.covariance_LL, 4000)
    scaled = np.stack([of_change("x", "x", draw, people).shift_L for draw in ordinary])
    np.testing.assert_allclose(np.cov(draws.T), np.cov(scaled.T), atol=0.1 * np.cov(scaled.T).max())
    assert [d.name for d in along.controls(2, people, 1)] == ["control00", "control01"]
    np.testing.assert_array_equal(along.controls(1, people, 1)[0].shift_L, draws[0])


@pytest.mark.parametrize(
    ("name", "file"), [("rs12", "rs12"), ("1:55:A/G", "1_55_A_G"), ("../../etc", "etc"), ("...", "unnamed")]
)
def test_names_are_fit_for_files(name, file):
    assert along.file_name(name) == file


def table(folder: Path, change=lambda t: t) -> Path:
    frame = pd.DataFrame([[1.0, 0, 0, 0, 2], [0, 1, 0, 0, 0]], columns=latent_names(range(L)))
    frame.insert(0, "name", ["age", "sex"])
    change(frame).to_csv(folder / "rows.tsv", sep="\t", index=False)
    return folder / "rows.tsv"


def test_rows_of_a_table(tmp_path):
    (first, weights_L), (second, _) = along.read_rows(table(tmp_path), "probe", L)
    assert (first, second) == ("age", "sex")
    np.testing.assert_array_equal(weights_L, [1, 0, 0, 0, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="z003"), "lacks z003; probe= wants"),
        (lambda t: t.assign(intercept=1), "has other columns: intercept"),
        (lambda t: t.iloc[:0], "has no rows"),
        (lambda t: t.assign(name="age"), "the name age comes twice"),
        (lambda t: t.assign(z001="x"), "row age has a value that is not finite"),
        (lambda t: t.assign(z001=np.inf), "row age has a value that is not finite"),
    ],
)
def test_tables_that_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        along.read_rows(table(tmp_path, change), "probe", L)


def test_directions_that_are_none_are_refused(tmp_path):
    people = Population.of(latents())
    with pytest.raises(InputError, match="direction zero is zero"):
        of_change("zero", "direction", np.zeros(L), people)
    with pytest.raises(InputError, match="score flat is the same for everybody"):
        of_score("flat", np.zeros(L), people)
    with pytest.raises(InputError, match="give population="):
        Population.of(latents()[:1])
    with pytest.raises(InputError, match="does not exist; give directions="):
        along.read_rows(tmp_path / "no.tsv", "directions", L)
    same = of_latents([1, 1], people)
    with pytest.raises(InputError, match="two directions are called z001"):
        along.require_distinct(same)


def test_a_population_is_a_latents_table_of_the_network(tmp_path):
    frame = pd.DataFrame(latents(), columns=latent_names(range(L)))
    frame.insert(0, "FID", [f"F{i}" for i in range(N)])
    frame.insert(1, "IID", [f"I{i}" for i in range(N)])
    frame.to_parquet(tmp_path / "latents.parquet")
    people = along.read_population(tmp_path / "latents.parquet", L)
    np.testing.assert_allclose(people.covariance_LL, np.cov(latents().T))
    with pytest.raises(InputError, match="not the 6 latents of the network"):
        along.read_population(tmp_path / "latents.parquet", L + 1)


# A gwas of the latents: SNP rsK moves them by EFFECT; the traits are in another order than the latents, with one more.

EFFECT = np.array([0.02, -0.5, 0.0, 4.0, 0.1])
TRAITS = ["height", "z003", "z000", "z001", "z002", "z004"]


def gwas(
    folder: Path, normalise: str = "none", traits: list[str] = TRAITS, joint: float = 3.0
) -> tuple[Path, np.ndarray]:
    """Its folder, and the latents. Variants: rs0, rsK, rsTwice twice, rsUntested; -log10 p of the joint test of all."""
    rng = np.random.default_rng(3)
    counts_N = rng.binomial(2, 0.4, N)
    z_NL = latents() + np.outer(counts_N, EFFECT)
    values = {name: z_NL[:, k] for k, name in enumerate(latent_names(range(L)))} | {"height": rng.standard_normal(N)}
    scale = {name: v.std() if normalise == "rank" else 1.0 for name, v in values.items()}
    beta_P = np.array([np.polyfit(counts_N, values[name] / scale[name], 1)[0] for name in traits])
    ids = ["rs0", "rsK", "rsTwice", "rsTwice", "rsUntested"]
    variants = pd.DataFrame(
        {"chrom": ["1", "2", "3", "4", "5"], "position": [10, 20, 30, 40, 50], "snp": ids, "a1": "A", "a2": "G"}
    )
    m, p = len(ids), len(traits)
    beta_MP = rng.standard_normal((m, p)) * 0.001
    beta_MP[1], beta_MP[4] = beta_P, np.nan
    folder.mkdir()
    sumstats.create(folder / sumstats.STORE, variants, traits, 2, {"df": None, "n_samples": N})
    for start in (0, 2, 4):
        part = beta_MP[start : start + 2]
        ones = np.ones(len(part))
        block = sumstats.SumstatsBlock(part, np.full(part.shape, 0.1), ones * N, ones * 0.4, ones, ones, ones * joint)
        sumstats.write(folder / sumstats.STORE, start, block)
    manifest_path(folder).write_text(json.dumps({"id": "gwas-1", "config": {"normalise": normalise}}))
    return folder, z_NL


@pytest.mark.parametrize("normalise", ["none", "rank"])
def test_the_direction_of_a_snp_is_what_its_allele_adds(tmp_path, normalise):
    folder, z_NL = gwas(tmp_path / "gwas", normalise)
    people = Population.of(z_NL)
    (made,) = snp.of_snps(folder, [snp.Wanted("rsK")], people)
    exact = of_change("rsK", "snp", EFFECT, people)
    assert np.dot(made.shift_L, exact.shift_L) > 0.98 * np.linalg.norm(made.shift_L) * np.linalg.norm(exact.shift_L)
    per_allele = np.linalg.norm(EFFECT) / np.linalg.norm(exact.shift_L)
    assert made.facts["allele_sd"] == pytest.approx(per_allele, rel=0.1)
    assert {"snp": "rsK", "chrom": "2", "position": 20, "a1": "A"}.items() <= made.facts.items()


@pytest.mark.parametrize(
    ("traits", "joint", "expected"),
    [
        (TRAITS[1:], 300.0, 0.9964),  # chi2 1404 of 5 latents
        (TRAITS[1:], 7.30103, 0.8819),  # p = 5e-8: chi2 42.35
        (TRAITS[1:], 0.2, 0.0),  # below its expectation
        (TRAITS[1:], np.nan, np.nan),  # no joint test
        (TRAITS, 300.0, np.nan),  # the joint test is of height too
    ],
)
def test_how_reliable_the_direction_of_a_snp_is(tmp_path, traits, joint, expected):
    folder, z_NL = gwas(tmp_path / "gwas", traits=traits, joint=joint)
    (made,) = snp.of_snps(folder, [snp.Wanted("rsK")], Population.of(z_NL))
    assert made.facts["reliability"] == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_the_reliability_is_the_squared_cosine_with_the_true_direction():
    """In the metric of the errors: b = true effects + errors of variance 1, chi2 = b'b."""
    rng = np.random.default_rng(0)
    q, effect_L = 128, np.r_[10.0, np.zeros(127)]
    b_TL = effect_L + rng.standard_normal((4000, q))
    chi2_T = (b_TL**2).sum(axis=1)
    squared_cosine_T = b_TL[:, 0] ** 2 / chi2_T
    assert np.mean(1 - q / chi2_T) == pytest.approx(squared_cosine_T.mean(), abs=0.01)


def test_units_of_normal_scores_are_undone(tmp_path):
    plain, z_NL = gwas(tmp_path / "plain", "none")
    scores, _ = gwas(tmp_path / "scores", "rank")
    people = Population.of(z_NL)
    (a,), (b,) = (snp.of_snps(folder, [snp.Wanted("rsK")], people) for folder in (plain, scores))
    np.testing.assert_allclose(a.shift_L, b.shift_L, rtol=1e-3, atol=1e-4)


def test_lead_snps_of_a_loci_folder(tmp_path):
    folder, z_NL = gwas(tmp_path / "gwas")
    frame = pd.DataFrame(
        {"locus": [1, 2], "chrom": ["2", "4"], "lead_snp": ["rsK", "rsTwice"], "lead_position": [20, 40]}
    )
    frame.to_parquet(tmp_path / "loci.parquet")
    wanted = snp.lead_snps(tmp_path)
    made = snp.of_snps(folder, wanted, Population.of(z_NL))  # of rsTwice the one in the place of the lead
    assert [d.name for d in made] == ["locus001_rsK", "locus002_rsTwice"]
    assert [d.facts["position"] for d in made] == [20, 40]


def test_snps_that_are_refused(tmp_path):
    folder, z_NL = gwas(tmp_path / "gwas")
    people = Population.of(z_NL)
    for name, message in (
        ("rsNone", "has no variant rsNone"),
        ("rsTwice", r"several variants are called rsTwice \(3:30, 4:40\)"),
        ("rsUntested", "rsUntested has latents for which it was not tested"),
    ):
        with pytest.raises(InputError, match=message):
            snp.of_snps(folder, [snp.Wanted(name)], people)
    other, _ = gwas(tmp_path / "other", traits=TRAITS[:-1])
    with pytest.raises(InputError, match="not the latents z004 of the network"):
        snp.of_snps(other, [snp.Wanted("rsK")], people)
    with pytest.raises(InputError, match="does not say in which units"):
        snp.of_snps(folder / sumstats.STORE, [snp.Wanted("rsK")], people)
    with pytest.raises(InputError, match="give loci= the folder"):
        snp.lead_snps(tmp_path / "nowhere")
    pd.DataFrame({"locus": [], "chrom": [], "lead_snp": [], "lead_position": []}).to_parquet(tmp_path / "loci.parquet")
    with pytest.raises(InputError, match="has 0 loci"):
        snp.lead_snps(tmp_path)
