"""Chance loci that look like the found ones: their features by hand, what stands for what, and p under the null."""

import json

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from tests.loci.test_panel import write_loci
from udipdist.cohort.writers import BED_MAGIC
from udipdist.config import PanelConfig
from udipdist.genotypes.source import open_hard_calls
from udipdist.loci import matching, proximity
from udipdist.loci.matching import Snps
from udipdist.loci.panel import panel, preview

LENGTHS = {1: 20_000_000}


@pytest.fixture
def write_genotypes(tmp_path):
    """write(dosages [M, N], positions): a .bed on chromosome 1, names rs0, rs1, ...; gives its prefix."""

    def write(dosage_MN: np.ndarray, position_M: np.ndarray) -> str:
        codes = np.array([3, 2, 0])[dosage_MN]  # copies of A1
        codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 4))).reshape(len(codes), -1, 4)
        packed = (codes << np.array([0, 2, 4, 6])).sum(2).astype(np.uint8)
        prefix = tmp_path / "cohort"
        prefix.with_suffix(".bed").write_bytes(BED_MAGIC + packed.tobytes())
        rows = [f"1\trs{i}\t0\t{p}\tA\tG\n" for i, p in enumerate(position_M.tolist())]
        prefix.with_suffix(".bim").write_text("".join(rows))
        people = [f"f{i} i{i} 0 0 0 -9\n" for i in range(dosage_MN.shape[1])]
        prefix.with_suffix(".fam").write_text("".join(people))
        return str(prefix)

    return write


def test_features_by_hand(write_genotypes):
    rng = np.random.default_rng(0)
    a, b = rng.binomial(2, 0.3, 400), rng.binomial(2, 0.5, 400)
    rare = np.zeros(400, int)
    rare[:3] = 1
    #        a, twin of a, b, a again but 300 kb away, rare
    prefix = write_genotypes(
        np.array([a, 2 - a, b, a, rare]), np.array([10**6, 10**6 + 9, 1_100_000, 1_300_000, 2 * 10**6])
    )
    genes = pd.DataFrame({"chrom": [1, 1, 2], "start": [1_240_000, 1_260_000, 1], "end": [1_250_000, 1_290_000, 9]})
    reference = matching.Reference(open_hard_calls(prefix), genes)
    loci = pd.DataFrame(
        {
            "chrom": [1, 1, 1, 1],
            "first": [10**6, 10**6 + 9, 1_100_000, 5],
            "last": [10**6, 10**6 + 9, 1_100_000, 9],
            "lead": ["rs0", "rs1", "rs2", "x"],
        }
    )
    maf_a, maf_b = (min(x.mean() / 2, 1 - x.mean() / 2) for x in (a, b))
    expected = [[maf_a, 1, 1], [maf_a, 1, 1], [maf_b, 0, 2], [np.nan, np.nan, 0]]
    np.testing.assert_allclose(reference.leads(loci).features_KF, expected, rtol=1e-12)
    pool = reference.sample(100, seed=3)
    assert sorted(pool.position_K) == [10**6, 10**6 + 9, 1_100_000, 1_300_000]  # the rare one cannot stand for a lead
    with pytest.raises(InputError, match="no SNP has MAF"):
        matching.Reference(open_hard_calls(write_genotypes(rare[None], np.array([5]))), None).sample(10, seed=0)


def test_the_most_alike_stand_for_a_lead_and_unknown_features_do_not_count(monkeypatch):
    monkeypatch.setattr(matching, "NEAREST", 2)
    features = np.array([[0.1, 0, 9], [0.1, 0, 1], [0.4, 50, 9], [0.4, 50, 1], [0.12, 0, 9]], float)
    pool = Snps(np.ones(5, int), np.arange(5), features)
    leads = Snps(np.ones(3, int), np.arange(3), np.array([[0.1, 0, 9], [0.4, 60, np.nan], [np.nan, np.nan, 1]]))
    like = matching.most_like(leads, pool)
    assert [set(row.tolist()) for row in like] == [{0, 4}, {2, 3}, {1, 3}]


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Places, and how many genes are near: half of the genome is full of them."""
    position = rng.integers(1, LENGTHS[1], n)
    return position, np.where(position < 10**7, rng.poisson(8, n), rng.poisson(1, n)).astype(float)


def test_p_is_calibrated_where_loci_and_panel_lie_near_genes():
    rng = np.random.default_rng(4)
    at = rng.integers(1, 10**7, 60)
    known = pd.DataFrame({"chrom": 1, "start": at, "end": at + 1000})
    position, genes = world(rng, 2000)
    pool = Snps(np.ones(2000, int), position, np.c_[np.zeros((2000, 2)), genes])
    matched, rotated = [], []
    for i in range(200):
        position, genes = world(rng, 400)
        keep = np.flatnonzero(genes > 5)[:40]
        start = position[keep]
        loci = pd.DataFrame({"chrom": 1, "start": start, "end": start + 20_000})
        leads = Snps(np.ones(len(keep), int), start + 10_000, np.c_[np.zeros((len(keep), 2)), genes[keep]])
        matched.append(matching.chance(loci, known, leads, pool, 20_000, LENGTHS).p)
        share = proximity.touched(loci, known, 20_000).mean()
        rotated.append(np.mean(proximity.rotation_shares(loci, known, 20_000, 100, i, LENGTHS) >= share))
    assert np.mean(np.array(matched) <= 0.05) < 0.10 and 0.4 < np.mean(matched) < 0.7
    assert np.mean(np.array(rotated) <= 0.05) > 0.25  # random places are no match for loci near genes


def test_the_panel_says_what_chance_loci_were_matched_on(write_genotypes, tmp_path, caplog):
    rng = np.random.default_rng(1)
    position = np.sort(rng.choice(LENGTHS[1], 300, replace=False)) + 1
    prefix = write_genotypes(rng.binomial(2, 0.3, (300, 80)), position)
    folder = write_loci(tmp_path / "loci", [(1, p - 500, p + 500) for p in position[:20].tolist()])
    table = pd.read_csv(folder / "GenomicRiskLoci.txt", sep="\t")
    table.assign(pos=position[:20]).to_csv(folder / "GenomicRiskLoci.txt", sep="\t", index=False)
    (tmp_path / "known.bed").write_text("".join(f"chr1\t{p - 1}\t{p}\n" for p in position[:20:2].tolist()))
    keys = {"loci": folder, "panel": str(tmp_path / "known.bed"), "flank_bp": 1000, "rotations": 100}
    panel(PanelConfig(out=tmp_path / "a", genotypes=prefix, pool=200, **keys))
    summary = json.loads((tmp_path / "a" / "panel.json").read_text())
    assert (
        summary["matched_p"] < 1e-4
        and summary["matched_share"] < 0.2
        and set(summary["matched_on"]) == {"maf", "partners"}
    )
    assert summary["panels"][0]["matched_p"] == summary["matched_p"]
    lines = preview(PanelConfig(out=tmp_path / "b", genotypes=prefix, **keys))
    assert "MAF and SNPs in LD (genes= would add genes nearby)" in lines[-1]
    panel(PanelConfig(out=tmp_path / "b", **keys))
    assert json.loads((tmp_path / "b" / "panel.json").read_text())["matched_p"] is None
    assert "give genotypes=PREFIX, or pool=0" in caplog.text
