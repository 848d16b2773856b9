"""Loci against the rules of FUMA SNP2GENE written down once more, as plainly as can be, over thousands of chromosomes.

Genotypes and p-values are in memory here; the files are tests/loci's. Several analyses share one search, so what one of
them leaves in memory must not touch another.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc.errors import InputError
from udipdist.config import LociConfig
from udipdist.genotypes.source import GenotypeSource
from udipdist.loci.across_runs import unions
from udipdist.loci.reference import Reference
from udipdist.loci.search import left_out, search

MHC = {"NR": (29_614_758, 33_170_276), "GRCh38": (29_646_981, 33_202_499)}
P, P_CANDIDATE, WINDOW, FLOOR = 1e-8, 0.05, 1_000_000, 0.05
PEOPLE = 14
CHROMOSOMES = ("1", "chr6", "X", "06", "25", "0")


# ------------------------------------------------------------------------------------------ what the program is given


@dataclass
class Given:
    """A study: SNPs (chrom position snp a1 a2) of the GWAS with -log10 p of each analysis, and of the reference with
    counts of A1 [M, N] (-1: missing); sex of the people (1 male, 2 female, 0 unknown)."""

    gwas: pd.DataFrame
    log10p: dict[str, np.ndarray]
    reference: pd.DataFrame
    counts_MN: np.ndarray
    sex_N: np.ndarray


class Rows:
    """Packed rows of a .bed in memory."""

    def __init__(self, counts_MN: np.ndarray):
        m, n = counts_MN.shape
        bits = np.zeros((m, -(-n // 4) * 4), np.uint8)
        bits[:, :n] = np.array([3, 2, 0, 1], np.uint8)[counts_MN]  # of 0, 1, 2 copies, and of -1
        self.packed_rows = bits[:, ::4] | bits[:, 1::4] << 2 | bits[:, 2::4] << 4 | bits[:, 3::4] << 6

    def packed(self, start: int, stop: int) -> np.ndarray:
        return self.packed_rows[start:stop]


class InMemory:
    """Statistics that are in memory; their chromosomes by hand."""

    path, traits = Path("memory"), ["t"]

    def __init__(self, study: Given):
        self.study = study
        self.chrom_M = np.array([code_of(label) for label in study.gwas.chrom], np.int8)
        self.position_M = study.gwas.position.to_numpy(np.int32)

    def analyses(self, wanted):
        return list(self.study.log10p)

    def n_tests(self, analysis):
        return 1

    def significant(self, limits):
        return {name: np.flatnonzero(self.study.log10p[name] > limit) for name, limit in limits.items()}

    def log10p(self, analyses, rows):
        return lambda name: self.study.log10p[name][rows]

    def names(self, rows):
        return self.study.gwas[["snp", "a1", "a2"]].iloc[rows].reset_index(drop=True)

    def trait_of(self, analysis, rows):
        return [analysis] * len(rows)


def code_of(label: str) -> int:
    return {"1": 1, "chr6": 6, "06": 6, "X": 23, "25": 23, "0": 0}[label]


def draw(rng: np.random.Generator, number: int) -> tuple[pd.DataFrame, np.ndarray]:
    """SNPs of a chromosome: some in LD, on a grid of half the merge distance about the MHC, several at one place."""
    m = int(rng.integers(3, 15))
    base = rng.integers(0, 3, (3, PEOPLE))
    base[1] = np.where(rng.random(PEOPLE) < 0.7, base[0], base[1])
    counts = base[rng.integers(0, 3, m)]
    for row, flips in zip(counts, rng.choice([0, 0, 1, 2, 5], m), strict=True):
        row[rng.choice(PEOPLE, flips, replace=False)] = rng.integers(-1, 3, flips)
    corner = rng.choice([MHC["NR"][0], MHC["NR"][1], MHC["GRCh38"][1], 2_000_000])
    alleles = ["A T", "T A", "A C", "G C", "AT A", "a c", "C A"]
    pairs = [alleles[i].split() for i in rng.integers(0, len(alleles), m)]
    table = pd.DataFrame(
        {
            "chrom": [CHROMOSOMES[number]] * m,
            "position": corner + 125_000 * rng.integers(-8, 12, m) + rng.choice([0, 0, 0, 1, -1], m),
            "snp": [f"rs{number}_{i}" for i in range(m)],
            "a1": [a for a, _ in pairs],
            "a2": [b for _, b in pairs],
            "where": rng.choice(["both", "both", "both", "both", "swapped", "reference", "gwas", "elsewhere"], m),
        }
    )
    return table, counts


def draw_study(seed: int) -> Given:
    rng = np.random.default_rng(seed)
    drawn = [draw(rng, number) for number in range(len(CHROMOSOMES))]
    table = pd.concat([chromosome for chromosome, _ in drawn], ignore_index=True)
    counts = np.concatenate([counts for _, counts in drawn])
    order = rng.permutation(len(table)) if rng.random() < 0.3 else np.arange(len(table))
    table, counts = table.iloc[order].reset_index(drop=True), counts[order]
    there = ~table["where"].isin(["gwas"]).to_numpy()
    gwas = table[table["where"] != "reference"].reset_index(drop=True)
    swapped, elsewhere = gwas["where"] == "swapped", gwas["where"] == "elsewhere"
    gwas.loc[swapped, ["a1", "a2"]] = gwas.loc[swapped, ["a2", "a1"]].to_numpy()
    gwas.loc[elsewhere, "a1"] = "TTT"
    levels = [0.5, 1.4, 3.0, 8.0, 8.5, 8.5, 9.0, 9.0, 12.0, 400.0, np.inf, np.nan]
    log10p = {name: rng.choice(levels, len(gwas)) for name in ("one", "two")}
    return Given(gwas, log10p, table[there], counts[there], rng.choice([0, 1, 2], PEOPLE))


# ------------------------------------------------------------------------------------------------ the rules, once more


def plain_name(row) -> str:
    low, high = sorted([row.a1.upper(), row.a2.upper()])
    return f"{code_of(row.chrom)}:{row.position}:{low}:{high}"


def plain_r2(x, y, sex, x_label, y_label) -> float:
    """Correlation of allele counts, squared; on X a man has 0 or 1, and no heterozygous call."""

    def counted(values, label):
        for value, male in zip(values.tolist(), (sex == 1).tolist(), strict=True):
            if label != "X" or not male:
                yield None if value < 0 else value
            else:
                yield {0: 0, 2: 1}.get(value)

    pairs = [(a, b) for a, b in zip(counted(x, x_label), counted(y, y_label), strict=True) if None not in (a, b)]
    n, sx, sy = len(pairs), sum(a for a, _ in pairs), sum(b for _, b in pairs)
    vx, vy = n * sum(a * a for a, _ in pairs) - sx * sx, n * sum(b * b for _, b in pairs) - sy * sy
    return (n * sum(a * b for a, b in pairs) - sx * sy) ** 2 / (vx * vy) if vx and vy else 0.0


def plain_blocks(study: Given, analysis: str, config: LociConfig, chromosome: int) -> list[dict]:
    """Rules 1 to 4 on one chromosome: of each lead SNP its name, independent SNPs and block."""
    mhc = MHC[config.assembly]

    def counts_here(row) -> bool:
        inside = chromosome == 6 and mhc[0] <= row.position <= mhc[1]
        return code_of(row.chrom) == chromosome and not (config.exclude_mhc and inside)

    reference, p = {}, {}
    for row, counts in zip(study.reference.itertuples(), study.counts_MN, strict=True):
        if counts_here(row):
            reference.setdefault(plain_name(row), (row.position, counts, row.chrom))
    for row, value in zip(study.gwas.itertuples(), study.log10p[analysis], strict=True):
        if counts_here(row) and not np.isnan(value):
            p[plain_name(row)] = (row.position, max(value, p.get(plain_name(row), (0, 0.0))[1]))

    def linked(one: str, other: str, least: float) -> bool:
        (a, x, x_label), (b, y, y_label) = reference[one], reference[other]
        if one == other:
            return True
        return abs(a - b) <= WINDOW and plain_r2(x, y, study.sex_N, x_label, y_label) >= max(least, FLOOR) - 1e-12

    independent: dict[str, set[str]] = {}
    for snp in sorted(p, key=lambda name: (-p[name][1], p[name][0], name)):
        if not p[snp][1] > -np.log10(P):
            continue
        if snp not in reference or any(snp in taken for taken in independent.values()):
            continue
        independent[snp] = {
            other
            for other in reference
            if linked(snp, other, config.r2) and (other not in p or p[other][1] > -np.log10(P_CANDIDATE))
        } | {snp}
    leads, left = [], list(independent)
    while left:
        mine = [snp for snp in independent if linked(left[0], snp, config.r2_lead)]
        places = [reference[other][0] for snp in mine for other in independent[snp]]
        leads.append({"leads": {left[0]}, "independent": set(mine), "start": min(places), "end": max(places)})
        left = [snp for snp in left if snp not in mine]
    return leads


def plain_merge(blocks: list[dict], merge_bp: int) -> list[dict]:
    """Rule 5: any two that overlap or are closer are one, until there are none."""
    blocks = list(blocks)
    for _ in range(1000):
        for one, other in itertools.combinations(blocks, 2):
            gap = max(one["start"], other["start"]) - min(one["end"], other["end"])
            if gap <= 0 or gap < merge_bp:
                blocks = [block for block in blocks if block is not one and block is not other]
                sets = {key: one[key] | other[key] for key in ("leads", "independent")}
                ends = {"start": min(one["start"], other["start"]), "end": max(one["end"], other["end"])}
                blocks.append(sets | ends)
                break
        else:
            break
    return sorted(blocks, key=lambda block: block["start"])


def seen(locus) -> dict:
    return {
        "leads": {lead.snp.unique_id for lead in locus.leads},
        "independent": {snp.unique_id for snp in locus.independent},
        "start": locus.start,
        "end": locus.end,
    }


# ------------------------------------------------------------------------------------------------------------- tests


@settings(max_examples=340, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    exclude_mhc=st.booleans(),
    assembly=st.sampled_from(["NR", "GRCh38"]),
    merge_bp=st.sampled_from([0, 1, 250_000, 250_001]),
    r2=st.sampled_from([0.6, 0.3]),
    r2_lead=st.sampled_from([0.1, 0.5, 0.0]),
)
def test_loci_of_two_analyses_follow_the_rules(seed, exclude_mhc, assembly, merge_bp, r2, r2_lead):
    study = draw_study(seed)
    config = LociConfig(
        sumstats="x", genotypes="x", out="x", trait=("one", "two"), p=P, tests=1, p_candidate=P_CANDIDATE, r2=r2,
        r2_lead=r2_lead, window_bp=WINDOW, merge_bp=merge_bp, exclude_mhc=exclude_mhc, assembly=assembly,
    )  # fmt: skip
    variants = study.reference.assign(chrom=study.reference.chrom.astype("category")).reset_index(drop=True)
    samples = pd.DataFrame({"sex": study.sex_N.astype(str)})
    reference = Reference(GenotypeSource(Rows(study.counts_MN), samples, variants), left_out(config), WINDOW, FLOOR)

    blocks = {name: {c: plain_blocks(study, name, config, c) for c in (1, 6, 23)} for name in study.log10p}
    try:
        run = search("x", InMemory(study), reference, config)
    except InputError as error:
        assert "Without LD there are no loci" in str(error)
        assert not any(of_chromosome for each in blocks.values() for of_chromosome in each.values())
        return
    together = {c: [] for c in (1, 6, 23)}
    for one in run.analyses:
        expected = [locus for c in (1, 6, 23) for locus in plain_merge(blocks[one.name][c], merge_bp)]
        assert [seen(locus) for locus in one.loci] == expected
        assert [locus.number for locus in one.loci] == list(range(1, len(expected) + 1))
        for locus in one.loci:
            best = min((snp for lead in locus.leads for snp in lead.independent), key=lambda s: (-s.log10p, s.position))
            assert locus.top.log10p == best.log10p and locus.top.unique_id in seen(locus)["leads"]
        for c, those in blocks[one.name].items():
            together[c] += those
    expected = [locus for c in (1, 6, 23) for locus in plain_merge(together[c], merge_bp)]
    assert [seen(locus) for locus in run.merged] == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 30), st.integers(0, 5)), max_size=14),
)
def test_unions_are_what_touching_intervals_make(drawn):
    chrom, start, end = (np.array([row[i] for row in drawn], int) for i in range(3))
    end = start + end
    number = unions(chrom, start, end)
    for i, j in itertools.combinations(range(len(drawn)), 2):
        if chrom[i] == chrom[j] and start[i] <= end[j] and start[j] <= end[i]:
            assert number[i] == number[j]
    for group in set(number.tolist()):  # none is larger than it must be: every base pair in it is covered
        rows = np.flatnonzero(number == group)
        assert len(set(chrom[rows].tolist())) == 1
        covered = {2 * base + half for i in rows for base in range(start[i], end[i] + 1) for half in (0, 1)}
        points = range(2 * int(start[rows].min()), 2 * int(end[rows].max()) + 1, 2)
        assert all(point in covered for point in points)
    assert sorted(set(number.tolist())) == list(range(1, len(set(number.tolist())) + 1))


@pytest.mark.parametrize(("gap", "count"), [(249_999, 1), (250_000, 2), (250_001, 2)])
def test_blocks_of_two_traits_merge_as_those_of_one(gap, count):
    """Each trait has one SNP; apart by exactly the merge distance they stay two loci."""
    rng = np.random.default_rng(4)
    table = pd.DataFrame(
        {"chrom": ["1", "1"], "position": [1_000_000, 1_000_000 + gap], "snp": ["a", "b"], "a1": "A", "a2": "T"}
    )
    counts = rng.integers(0, 3, (2, 60))
    log10p = {"one": np.array([9.0, 0.1]), "two": np.array([0.1, 10.0])}
    study = Given(table, log10p, table, counts, np.zeros(60, int))
    config = LociConfig(sumstats="x", genotypes="x", out="x", tests=1, r2_lead=0.9)
    reference = Reference(GenotypeSource(Rows(counts), pd.DataFrame({"sex": ["0"] * 60}), table), None, WINDOW, FLOOR)
    merged = search("x", InMemory(study), reference, config).merged
    assert len(merged) == count
    assert merged[0].top.rsid == ("b" if count == 1 else "a")
    assert {locus.top.trait for locus in merged} == ({"two"} if count == 1 else {"one", "two"})
