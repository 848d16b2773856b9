"""Loci against the rules written down as plainly as can be, and by hand where the rules have edges."""

import errno
import os
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc.errors import InputError, NoSpace, OutputExists
from hpc.stage import read_manifest
from udipdist.config import LociConfig
from udipdist.loci.verb import loci, preview
from udipdist.sumstats.pvalues import log10p_from_z

COLUMNS = {
    "GenomicRiskLoci.txt": "GenomicLocus uniqID rsID chr pos p start end nSNPs nGWASSNPs nIndSigSNPs IndSigSNPs "
    "nLeadSNPs LeadSNPs",
    "leadSNPs.txt": "No GenomicLocus uniqID rsID chr pos p nIndSigSNPs IndSigSNPs",
    "IndSigSNPs.txt": "No GenomicLocus uniqID rsID chr pos p nSNPs nGWASSNPs",
}
MHC = (29_614_758, 33_170_276)


def read(config: LociConfig, name: str = "GenomicRiskLoci.txt") -> pd.DataFrame:
    table = pd.read_csv(config.out / name, sep="\t", dtype={"p": str})
    assert list(table) == COLUMNS[name].split()
    return table


def run(config: LociConfig) -> pd.DataFrame:
    loci(config)
    return read(config)


# ----------------------------------------------------------------------------------- the rules, as plain as can be


def exact_r2(x, y) -> float:
    pairs = [(int(a), int(b)) for a, b in zip(x, y, strict=True) if a >= 0 and b >= 0]
    n, sx, sy = len(pairs), sum(a for a, _ in pairs), sum(b for _, b in pairs)
    vx, vy = n * sum(a * a for a, _ in pairs) - sx * sx, n * sum(b * b for _, b in pairs) - sy * sy
    cov = n * sum(a * b for a, b in pairs) - sx * sy
    return float(Fraction(cov * cov, vx * vy)) if vx and vy else 0.0


def minor(x) -> float:
    called = [int(a) for a in x if a >= 0]
    frequency = sum(called) / (2 * len(called)) if called else 0.0
    return min(frequency, 1 - frequency)


def plain_loci(reference: dict, gwas: dict, config: LociConfig) -> list[dict]:
    """One chromosome. reference: id -> (position, counts); gwas: id -> (position, -log10 p or NaN)."""
    if config.exclude_mhc:
        reference = {k: v for k, v in reference.items() if not MHC[0] <= v[0] <= MHC[1]}
        gwas = {k: v for k, v in gwas.items() if not MHC[0] <= v[0] <= MHC[1]}
    gwas = {k: v for k, v in gwas.items() if not np.isnan(v[1])}

    def linked(one, other, threshold):
        (x, a), (y, b) = reference[one], reference[other]
        return one == other or (abs(x - y) <= config.window_bp and exact_r2(a, b) >= max(threshold, 0.05))

    candidates = {}
    for snp in sorted(
        (k for k in gwas if gwas[k][1] > -np.log10(config.p)), key=lambda k: (-gwas[k][1], gwas[k][0], k)
    ):
        if any(snp in those for those in candidates.values()) or snp not in reference:
            continue
        if minor(reference[snp][1]) < config.min_maf:
            continue
        candidates[snp] = {
            other
            for other in reference
            if linked(snp, other, config.r2)
            and (other not in gwas or gwas[other][1] > -np.log10(config.p_candidate))
            and minor(reference[other][1]) >= config.min_maf
        }
    left, blocks = list(candidates), []
    while left:
        mine = [snp for snp in candidates if linked(left[0], snp, config.r2_lead)]
        places = [reference[other][0] for snp in mine for other in candidates[snp]]
        blocks.append({"leads": {left[0]}, "independent": set(mine), "start": min(places), "end": max(places)})
        left = [snp for snp in left if snp not in mine]

    def close(one, other):
        apart = max(one["start"], other["start"]) - min(one["end"], other["end"])
        return one is not other and (apart <= 0 or apart < config.merge_bp)

    found = blocks
    while pairs := [(one, other) for one in found for other in found if close(one, other)]:
        one, other = pairs[0]
        found = [locus for locus in found if locus is not one and locus is not other]
        joined = {key: one[key] | other[key] for key in ("leads", "independent")}
        found.append(joined | {"start": min(one["start"], other["start"]), "end": max(one["end"], other["end"])})
    for locus in found:
        members = set().union(*(candidates[snp] for snp in locus["independent"]))
        locus["n_snps"], locus["n_gwas"] = len(members), len(members & set(gwas))
        before: set[str] = set()
        locus["new"] = {}
        for snp, those in candidates.items():  # by ascending p
            if snp in locus["independent"]:
                new = those - before
                locus["new"][snp] = (len(new), len(new & set(gwas)))
            before |= those
    return sorted(found, key=lambda locus: locus["start"])


WHERE = ["both"] * 5 + ["swapped", "other alleles", "reference", "reference", "gwas", "untested"]
N_PEOPLE = 18


def draw_chromosome(rng: np.random.Generator, chrom: int) -> tuple[pd.DataFrame, np.ndarray]:
    """SNPs by position with -log10 p and where they are known, and their counts [M, N]: three groups in LD.

    Positions lie on a grid about the MHC's, so that gaps of exactly 250 kb and SNPs at one place are common.
    """
    m = int(rng.integers(4, 19))
    base = rng.integers(0, 3, (3, N_PEOPLE))
    base[2] = np.where(rng.random(N_PEOPLE) < 0.6, base[1], base[2])
    counts = base[rng.integers(0, 3, m)]
    for x, flips in zip(counts, rng.choice([0, 0, 1, 2, 4, 9], m), strict=True):
        x[rng.choice(N_PEOPLE, flips, replace=False)] = rng.integers(-1, 3, flips)
    table = pd.DataFrame(
        {
            "chrom": [str(chrom)] * m,
            "position": np.sort(MHC[0] + 125_000 * rng.integers(-6, 34, m)),
            "snp": [f"rs{chrom}_{i}" for i in range(m)],
            "a1": ["ACGT"[i % 3] for i in range(m)],
            "a2": ["ACGT"[i % 3 + 1] + "A" * (i // 3) for i in range(m)],
            "level": rng.choice([0.5, 1.0, 1.4, 3.0, 8.0, 9.0, 9.0, 12.0], m),
            "where": rng.choice(WHERE, m),
        }
    )
    return table, counts


def ids(frame: pd.DataFrame) -> list[str]:
    alleles = [sorted(pair) for pair in zip(frame.a1, frame.a2, strict=True)]
    return [f"{c}:{p}:{a}:{b}" for c, p, (a, b) in zip(frame.chrom, frame.position, alleles, strict=True)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    mhc=st.booleans(),
    min_maf=st.sampled_from([0.0, 0.25]),
    merge_bp=st.sampled_from([0, 250_000]),
    r2_lead=st.sampled_from([0.1, 0.01]),
)
def test_loci_follow_the_rules(make_study, seed, mhc, min_maf, merge_bp, r2_lead):
    drawn = [draw_chromosome(np.random.default_rng([seed, chrom]), chrom) for chrom in range(1, 19)]
    table = pd.concat([chromosome for chromosome, _ in drawn], ignore_index=True)
    counts_NM = np.concatenate([counts for _, counts in drawn]).T
    in_reference = table["where"] != "gwas"
    gwas = table[table["where"] != "reference"].reset_index(drop=True)
    swapped = gwas["where"] == "swapped"
    gwas.loc[swapped, ["a1", "a2"]] = gwas.loc[swapped, ["a2", "a1"]].to_numpy()
    gwas.loc[gwas["where"] == "other alleles", "a1"] = "TTT"
    gwas["log10p"] = np.where(gwas["where"] == "untested", np.nan, gwas.level)
    there, counts = table[in_reference], counts_NM[:, in_reference]
    study = make_study(there, counts, gwas, gwas.log10p, rows=100)
    config = study.config(exclude_mhc=mhc, min_maf=min_maf, merge_bp=merge_bp, r2_lead=r2_lead)

    reference = dict(zip(ids(there), zip(there.position, counts.T, strict=True), strict=True))
    tested = dict(zip(ids(gwas), zip(gwas.position, gwas.log10p, strict=True), strict=True))
    expected = []
    for chrom in range(1, 19):
        mine = [{k: v for k, v in known.items() if k.startswith(f"{chrom}:")} for known in (reference, tested)]
        rules = config if chrom == 6 else config.model_copy(update={"exclude_mhc": False})
        expected += plain_loci(*mine, rules)
    got = run(config)
    name = dict(zip(ids(gwas), gwas.snp, strict=True))
    assert len(got) == len(expected) > 20
    single = read(config, "IndSigSNPs.txt")
    news = {k: counts for locus in expected for k, counts in locus["new"].items()}
    assert {row.uniqID: (row.nSNPs, row.nGWASSNPs) for row in single.itertuples()} == news
    for (_, row), locus in zip(got.iterrows(), expected, strict=True):
        assert (row.start, row.end) == (locus["start"], locus["end"])
        assert set(row.LeadSNPs.split(";")) == {name[k] for k in locus["leads"]}
        assert set(row.IndSigSNPs.split(";")) == {name[k] for k in locus["independent"]}
        assert (row.nSNPs, row.nGWASSNPs) == (locus["n_snps"], locus["n_gwas"])
        assert (row.nLeadSNPs, row.nIndSigSNPs) == (len(locus["leads"]), len(locus["independent"]))
        best = min(locus["leads"], key=lambda k: (-tested[k][1], tested[k][0], k))
        assert (row.uniqID, row.pos, float(row.p)) == (best, tested[best][0], pytest.approx(10 ** -tested[best][1]))


# ---------------------------------------------------------------------------------------------------- edges, by hand


def independent_counts(m: int, n: int = 200) -> np.ndarray:
    """Genotypes [n, m] whose r2 with each other is far below 0.1."""
    return np.random.default_rng(8).integers(0, 3, (n, m))


def table_of(positions, chrom="1") -> pd.DataFrame:
    m = len(positions)
    return pd.DataFrame(
        {
            "chrom": [chrom] * m,
            "position": positions,
            "snp": [f"rs{i}" for i in range(m)],
            "a1": ["A"] * m,
            "a2": ["G"] * m,
        }
    )


@pytest.mark.parametrize(("gap", "n_loci"), [(249_999, 1), (250_000, 2), (250_001, 2)])
def test_a_gap_of_exactly_the_merge_distance_does_not_merge(make_study, gap, n_loci):
    snps = table_of([1_000_000, 1_000_000 + gap])
    found = run(make_study(snps, independent_counts(2), snps, [10, 9]).config())
    assert len(found) == n_loci


def test_merging_chains(make_study):
    positions = [1_000_000 + 200_000 * i for i in range(5)]
    snps = table_of([*positions, 5_000_000])
    config = make_study(snps, independent_counts(6), snps, [8, 9, 12, 9, 8, 8]).config()
    found = run(config)
    assert list(found.start) == [1_000_000, 5_000_000] and found.end[0] == 1_800_000
    assert found.rsID[0] == "rs2" and found.LeadSNPs[0] == "rs2;rs1;rs3;rs0;rs4" and found.nLeadSNPs[0] == 5
    leads = read(config, "leadSNPs.txt")
    assert list(leads.No) == [1, 2, 3, 4, 5, 6] and list(leads.GenomicLocus) == [1, 1, 1, 1, 1, 2]
    assert list(leads.pos) == sorted(leads.pos)


def test_a_block_that_reaches_back_joins_all_it_covers(make_study):
    counts = independent_counts(4)
    counts[:, 0] = counts[:, 3]  # rs0 is a candidate of rs3, beyond rs1 and rs2
    snps = table_of([1_000_000, 1_100_000, 1_500_000, 1_900_000])
    found = run(make_study(snps, counts, snps, [3, 8, 8, 9]).config())
    assert len(found) == 1 and (found.start[0], found.end[0]) == (1_000_000, 1_900_000)
    assert found.nLeadSNPs[0] == 3 and found.nSNPs[0] == 4


def test_candidates_need_p_only_where_the_gwas_has_them(make_study):
    counts = np.repeat(independent_counts(1), 4, axis=1)
    snps = table_of([100_000, 200_000, 300_000, 400_000])
    gwas, log10p = snps.iloc[[0, 1, 2]], [9, 1.2, 1.4]  # rs1 has p > 0.05; rs3 is in the reference only
    config = make_study(snps, counts, gwas, log10p).config()
    found = run(config)
    assert (found.start[0], found.end[0], found.nSNPs[0], found.nGWASSNPs[0]) == (100_000, 400_000, 3, 2)
    single = read(config, "IndSigSNPs.txt")
    assert (single.nSNPs[0], single.nGWASSNPs[0], single.uniqID[0]) == (3, 2, "1:100000:A:G")


def test_ld_ends_at_the_window(make_study):
    counts = np.repeat(independent_counts(1), 3, axis=1)
    snps = table_of([1, 1_000_001, 1_000_002])
    found = run(make_study(snps, counts, snps, [9, 2, 2]).config())
    assert (found.start[0], found.end[0], found.nSNPs[0]) == (1, 1_000_001, 2)


def test_ties_are_broken_by_position_then_id(make_study):
    counts = np.repeat(independent_counts(1), 3, axis=1)
    snps = table_of([500, 500, 400]).assign(a2=["T", "G", "C"])
    order = [2, 0, 1]
    found = run(make_study(snps.iloc[order], counts, snps.iloc[order], [9, 9, 9]).config())
    assert found.rsID[0] == "rs2"
    snps = table_of([500, 500]).assign(a2=["T", "G"])
    assert run(make_study(snps, counts[:, :2], snps, [9, 9]).config()).rsID[0] == "rs1"


def test_files_need_not_be_sorted_and_labels_may_differ(make_study):
    counts = independent_counts(6)
    counts[:, 3] = counts[:, 0]
    snps = table_of([9_000_000, 4_000_000, 1_000_000, 9_200_000, 70_000, 80_000])
    snps["chrom"] = ["2", "2", "X", "2", "2", "0"]
    gwas = snps.assign(chrom=["chr2", "02", "23", "2", "2", "0"]).iloc[[5, 3, 2, 0, 1, 4]]
    config = make_study(snps, counts, gwas, [50, 2, 8, 400.5, 7.9, 1], rows=2).config()
    found = run(config)
    assert list(found.uniqID) == ["2:4000000:A:G", "2:9000000:A:G", "23:1000000:A:G"]
    assert list(found.p) == ["1.25893e-08", "3.16228e-401", "1e-08"]
    assert found.end[1] == 9_200_000
    tidy = pd.read_parquet(config.out / "loci.parquet")
    assert list(tidy.chrom) == ["2", "2", "X"] and list(tidy.trait) == ["b", "b", "b"]
    assert list(tidy.log10p) == pytest.approx([7.9, 400.5, 8.0]) and list(tidy.lead_position) == list(found.pos)


def test_thresholds_and_traits(make_study):
    snps = table_of([1_000_000, 3_000_000])
    study = make_study(snps, independent_counts(2), snps, [7.5, 7.61])
    assert len(run(study.config(tests=None, out=study.folder / "a"))) == 1  # two traits: 5e-8 / 2 is 7.602
    assert len(run(study.config(tests=None, trait="multivariate", out=study.folder / "b"))) == 2
    assert len(run(study.config(tests=None, trait="a", p=0.9, out=study.folder / "c"))) == 2  # z = 0.5, p = 0.62
    manifest = read_manifest(study.folder / "b")
    assert manifest["facts"]["n_loci"] == 2
    assert manifest["facts"]["threshold_log10p"] == pytest.approx(-np.log10(5e-8))
    tidy = pd.read_parquet(study.folder / "c" / "loci.parquet")
    assert list(tidy.trait) == ["a", "a"] and tidy.log10p[0] == pytest.approx(float(log10p_from_z(0.5)))


def test_no_loci_are_tables_without_rows(make_study):
    snps = table_of([1_000_000, 3_000_000])
    config = make_study(snps, independent_counts(2), snps, [1, np.nan]).config()
    assert run(config).empty and read(config, "leadSNPs.txt").empty and read(config, "IndSigSNPs.txt").empty
    tidy = pd.read_parquet(config.out / "loci.parquet")
    assert tidy.empty and tidy.start.dtype == np.int64


@pytest.mark.parametrize("name", ["pandas.DataFrame.to_parquet", "hpc.stage.publish_json"])
def test_a_full_disk_is_told_and_the_same_command_goes_on(make_study, monkeypatch, name):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    snps = table_of([1_000_000, 3_000_000])
    config = make_study(snps, independent_counts(2), snps, [9, 1]).config()
    with monkeypatch.context() as patched:
        patched.setattr(name, full)
        with pytest.raises(NoSpace, match=f"{config.out.name}: the disk is full, .* run the same command again"):
            loci(config)
    assert not config.out.exists()
    assert len(run(config)) == 1


def test_bad_inputs(make_study, caplog):
    snps = table_of([1_000_000, 3_000_000])
    study = make_study(snps, independent_counts(2), snps.assign(a1="C"), [9, 9])
    with pytest.raises(InputError, match=r"2 of 2 significant SNPs are not in it by position and alleles: rs0"):
        loci(study.config())
    assert not study.config().out.exists()
    elsewhere = make_study(snps, independent_counts(2), snps.assign(chrom="7"), [9, 9])
    with pytest.raises(InputError, match=r"2 of 2 significant SNPs are not in it.*7:1000000:A:G"):
        loci(elsewhere.config())
    with pytest.raises(InputError, match="no trait 'minpp'; did you mean minp"):
        loci(study.config(trait="minpp"))
    with pytest.raises(InputError, match=r"nothing\.bed: does not exist"):
        loci(study.config(genotypes=study.folder / "nothing"))
    (study.folder / "gwas" / "manifest.json").unlink()
    with pytest.raises(InputError, match="unfinished"):
        loci(study.config())
    study = make_study(snps, independent_counts(2), snps.assign(a1=["A", "T"]), [9, 9])
    assert len(run(study.config())) == 1
    assert "1 of 2 significant SNPs are not in it" in caplog.text and "rs1 (1:3000000:G:T)" in caplog.text
    with pytest.raises(OutputExists, match="overwrite=true"):
        loci(study.config())
    loci(study.config(overwrite=True))


def test_preview_names_the_threshold(make_study):
    snps = table_of([1_000_000, 3_000_000])
    lines = preview(make_study(snps, independent_counts(2), snps, [9, 9]).config(tests=128))
    assert "p < 3.91e-10" in lines[0] and "200 people, 2 variants" in lines[1]
