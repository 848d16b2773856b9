"""Classes of lead SNPs, and lambda on null chromosomes."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2 as chi2_law

from hpc.errors import InputError
from udipdist.cohort.score import cluster_ari, lambda_joint, lambda_null, score


@pytest.fixture
def truth(tmp_path):
    """Chromosome 1: a planted locus at 10.5 Mb and a pleiotropic row of it, a strong window, a weak one; 2 is null."""
    pd.DataFrame(
        {
            "locus": ["L001", "L001", "L002"],
            "chr": [1, 1, 1],
            "pos": [10_500_000, 10_500_000, 10_900_000],
            "snp": "s",
            "factor": ["size", "width", "size"],
            "beta": 1.0,
            "r2": 0.1,
            "role": ["primary", "pleiotropic", "primary"],
        }
    ).to_csv(tmp_path / "loci.tsv", sep="\t", index=False)
    pd.DataFrame(
        {
            "chr": [1, 1, 1, 2],
            "start": [10_000_000, 30_000_000, 50_000_000, 10_000_000],
            "end": [11_000_000, 31_000_000, 51_000_000, 11_000_000],
            "planted": [1, 0, 0, 0],
            "polygenic_r2": [0.01, 0.01, 0.001, 0.0],
            "null": [0, 0, 0, 1],
        }
    ).to_csv(tmp_path / "windows.tsv", sep="\t", index=False)
    (tmp_path / "truth.json").write_text(json.dumps({"people": 1000, "null_chromosomes": ["2"]}))
    return tmp_path


def test_each_lead_falls_into_its_class(truth):
    leads = [
        ("1", 10_510_000),  # planted L001
        ("1", 10_690_000),  # within the flank of both, nearer to L001
        ("1", 10_100_000),  # same window, beyond the flank: polygenic
        ("1", 30_000_000),  # strong window, at its first base
        ("1", 31_000_000),  # one past its end
        ("1", 50_500_000),  # N r^2 = 1: too weak
        ("2", 10_500_000),  # null chromosome, at the place of a locus of another
    ]
    result = score(pd.DataFrame(leads, columns=["chrom", "position"]), truth)
    assert result.planted_found == ["L001"] and result.planted_total == 2
    assert (result.leads, result.planted_leads, result.polygenic) == (7, 2, 2)
    assert (result.strict_false, result.other_false) == (1, 2)


def test_no_leads_and_other_flanks(truth):
    empty = score(pd.DataFrame({"chrom": [], "position": []}), truth)
    assert empty.planted_found == [] and empty.planted_total == 2 and empty.leads == 0
    lead = pd.DataFrame({"chrom": ["1"], "position": [10_950_001]})
    assert score(lead, truth, flank_bp=50_001).planted_found == ["L002"]
    assert score(lead, truth, flank_bp=50_000).planted_found == []


def test_a_folder_without_truth_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"loci.tsv: does not exist; give the truth/ folder"):
        score(pd.DataFrame({"chrom": [], "position": []}), tmp_path)


@dataclass
class Statistics:
    """As much of Sumstats as lambda_null reads."""

    variants: pd.DataFrame
    chi2: np.ndarray

    @property
    def traits(self):
        return [f"t{p}" for p in range(self.chi2.shape[1])]

    def beta(self, trait):
        return np.sqrt(self.chi2[:, int(trait[1:])])

    def se(self, trait):
        return np.ones(len(self.chi2))

    def log10p(self, name):
        assert name == "multivariate"
        return -np.log10(chi2_law.sf(self.chi2[:, 0], 1))


def test_lambda_is_of_null_chromosomes_only():
    rng = np.random.default_rng(0)
    chi2 = rng.chisquare(1, (40_000, 3)) * [1.0, 1.0, 1.3]
    chrom = np.repeat(["1", "21"], 20_000)
    chi2[chrom == "1"] *= 5
    chi2[30_000:30_500] = np.nan  # not tested
    statistics = Statistics(pd.DataFrame({"chrom": chrom}), chi2)
    assert abs(lambda_null(statistics, ["21"]) - 1.1) < 0.03
    assert lambda_null(statistics, ["21", "1"]) > 2
    assert np.isnan(lambda_null(statistics, ["22"]))
    assert abs(lambda_joint(statistics, ["21"]) - 1) < 0.03
    assert lambda_joint(statistics, ["21", "1"]) > 2 and np.isnan(lambda_joint(statistics, ["22"]))


def test_clusters_against_the_planted_factors(truth):
    rows = [("1", 10_500_100, 1), ("1", 10_899_000, 1), ("1", 10_910_000, 2), ("2", 10_500_000, 1), ("1", 1, 2)]
    clusters = pd.DataFrame(rows, columns=["chrom", "position", "cluster"])
    assert cluster_ari(clusters.iloc[:2], truth) == (1.0, 2)  # both move size, and are one cluster
    assert cluster_ari(clusters, truth) == (0.0, 3)  # the other two are near no planted variant
    assert cluster_ari(clusters.iloc[1:], truth, one_factor=True) == (0.0, 2)
    value, leads = cluster_ari(clusters.iloc[[0, 1]], truth, one_factor=True)  # L001 moves width, too
    assert np.isnan(value) and leads == 1
    alone = clusters.assign(cluster=0)
    assert cluster_ari(alone, truth) == (0.0, 3)  # each alone: not one cluster called 0
