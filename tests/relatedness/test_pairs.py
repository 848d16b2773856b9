"""Relatedness from genotypes: against the definition, plink2, the pedigree; no cut of the work shows in the result."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc import parts
from hpc.errors import InputError, OutputExists
from hpc.stage import read_manifest
from udipdist.config import GrmConfig
from udipdist.genotypes.source import open_genotypes
from udipdist.relatedness import grm, markers, pairs, verb

REAL = Path(__file__).parents[2] / "../shared/data/genotypes"
SIBS = 3  # the first people of a cohort, in families: parents and their children
FAMILY = 2 + SIBS


def cohort(seed: int, n: int, m: int, missing: float = 0.01, drift: float = 0.0, families: int = 10) -> np.ndarray:
    """Copies of A1 [m, n] at unlinked variants (-1 missing): families first, then people alone; two ancestries by turns
    of families where `drift` > 0; and the last person is the first one's twin."""
    rng = np.random.default_rng(seed)
    source_m = rng.uniform(0.15, 0.85, m)
    frequency_2m = np.clip(source_m + drift * rng.standard_normal((2, m)), 0.02, 0.98)
    people: list[np.ndarray] = []
    for family in range(families):
        parents = rng.random((2, 2, m)) < frequency_2m[family % 2]
        passed = [np.where(rng.random((SIBS, m)) < 0.5, *parent) for parent in parents]
        people += [*parents.sum(axis=1), *(passed[0].astype(int) + passed[1])]
    people += [(rng.random((2, m)) < frequency_2m[i % 2]).sum(axis=0) for i in range(n - len(people) - 1)]
    count_mN = np.array([*people, people[0]]).T.astype(np.int8)
    count_mN[rng.random(count_mN.shape) < missing] = -1
    return count_mN


@pytest.fixture
def made(tmp_path, plink_writer):
    """Writes a cohort and returns a function that runs `grm` on it."""

    def write(count_mN: np.ndarray, chromosome: str = "1"):
        n = count_mN.shape[1]
        ids = pd.DataFrame({"FID": [f"F{i}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})
        plink_writer(tmp_path / "c", count_mN, ids, chromosome)

        def run(**keys) -> np.ndarray:
            loose = {"genotypes": tmp_path / "c", "out": tmp_path / "g", "min_maf": 0, "max_missing": 1}
            config = GrmConfig.parse(loose | {"overwrite": True} | keys)
            verb.grm(config)
            return grm.read(str(config.out))[1].toarray()

        return run

    return write


def king(count_mN: np.ndarray) -> np.ndarray:
    """Twice the kinship of KING-robust for all pairs, from the definition."""
    n = count_mN.shape[1]
    out = np.ones((n, n))
    for i in range(n):
        for j in range(i):
            a, b = (count_mN[:, k].astype(float) for k in (i, j))
            both = (a >= 0) & (b >= 0)
            a, b = a[both], b[both]
            fewer = min((a == 1).sum(), (b == 1).sum())
            out[i, j] = out[j, i] = 1 - ((a - b) ** 2).sum() / (2 * fewer) if fewer else -np.inf
    return out


def gcta(count_mN: np.ndarray) -> np.ndarray:
    """GCTA's GRM from the definition."""
    x = np.where(count_mN < 0, np.nan, count_mN.astype(float))
    p = np.nanmean(x, axis=1, keepdims=True) / 2
    z = np.nan_to_num((x - 2 * p) / np.sqrt(2 * p * (1 - p)))
    called = (count_mN >= 0).astype(float)
    return z.T @ z / (called.T @ called)


def cut(dense: np.ndarray, cutoff: float) -> np.ndarray:
    return np.where((dense >= cutoff) | np.eye(len(dense), dtype=bool), dense, 0.0)


@pytest.mark.parametrize("missing", [0.0, 0.01, 0.3])
@pytest.mark.parametrize(("method", "definition"), [("king", king), ("gcta", gcta)])
def test_every_pair_that_reaches_the_cutoff_is_there_and_exact(made, missing, method, definition):
    count_mN = cohort(1, 90, 700, missing)
    count_mN[:, 60] = -1  # never called
    count_mN[:, 61] = np.where(count_mN[:, 61] == 1, 2, count_mN[:, 61])  # never heterozygous
    run = made(count_mN)
    with np.errstate(invalid="ignore"):
        dense = np.nan_to_num(definition(count_mN), nan=0.0)
    dense[60, 60] = 1
    for cutoff in (0.02, 0.3):
        expected = cut(dense, cutoff)
        assert 20 < np.count_nonzero(np.triu(expected, 1)) < 2000
        got = run(method=method, cutoff=cutoff, tile=32)
        np.testing.assert_array_equal(got != 0, expected != 0)
        np.testing.assert_allclose(got, expected, atol=6e-9)


@pytest.mark.parametrize("method", ["king", "gcta"])
def test_tiles_workers_and_kind_of_product_do_not_show(made, tmp_path, monkeypatch, method):
    run = made(cohort(2, 100, 300))
    written = []
    for keys in ({"tile": 1000}, {"tile": 7}, {"tile": 60, "workers": 1 if method == "king" else 0}, {"tile": 33}):
        if keys == {"tile": 33}:
            monkeypatch.setattr(pairs, "fastest", lambda: "float64")
        run(method=method, cutoff=0.05, **keys)
        written.append((tmp_path / "g.grm.sp").read_bytes())
    assert len(set(written)) == 1
    assert not (tmp_path / "g.grm.work").exists()


def _plink2(folder: Path, prefix: Path, *words: str) -> None:
    if shutil.which("plink2") is None:
        pytest.skip("plink2 is not installed")
    command = ["plink2", "--bfile", prefix, *words, "--threads", "1", "--out", folder / "peer"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _pairs(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, sep="\t", dtype={"#FID1": str, "IID1": str, "FID2": str, "IID2": str})
    return table.set_index(["#FID1", "IID1", "FID2", "IID2"]).sort_index()


@pytest.mark.parametrize("name", ["hapmap", "human"])
def test_king_agrees_with_plink2_to_its_printed_digits_on_real_genotypes(tmp_path, name):
    if not (REAL / f"{name}.bed").exists():
        pytest.skip(f"{REAL}/{name}.bed is not there")
    _plink2(tmp_path, REAL / name, "--make-king-table", "--king-table-filter", "0.0442")
    theirs = _pairs(tmp_path / "peer.kin0")
    keys = {"min_maf": 0, "max_missing": 1, "tile": 300, "cutoff": 0.0884}
    verb.grm(GrmConfig.parse({"genotypes": REAL / name, "out": tmp_path / "g"} | keys))
    ours = _pairs(tmp_path / "g.grm.kin0")
    assert list(ours.columns) == list(theirs.columns) and len(theirs) > 1000
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=2e-6, atol=1.1e-6)
    # And their table is read into the GRM that was made from the genotypes.
    verb.grm(GrmConfig.parse({"genotypes": REAL / name, "out": tmp_path / "k", "kinship": tmp_path / "peer.kin0"}))
    one, other = grm.read(str(tmp_path / "g"))[1], grm.read(str(tmp_path / "k"))[1]
    assert one.nnz == other.nnz and abs(one - other).max() < 4e-6


def test_gcta_agrees_with_plink2(made, tmp_path):
    run = made(cohort(3, 60, 400))
    _plink2(tmp_path, tmp_path / "c", "--make-rel", "square")
    theirs = np.loadtxt(tmp_path / "peer.rel")
    np.testing.assert_allclose(run(method="gcta", cutoff=0.1), cut(theirs, 0.1), rtol=6e-6)


def test_king_knows_family_from_ancestry_and_gcta_does_not(made, tmp_path, caplog):
    """Two ancestries: parents and children, sibs and the twins are what KING finds, and GCTA finds hundreds more."""
    n, families = 150, 10
    run = made(cohort(4, n, 6000, drift=0.15, families=families))
    family_N = np.where(np.arange(n) < families * FAMILY, np.arange(n) // FAMILY, np.arange(n))
    related = family_N[:, None] == family_N
    for family in range(families):
        related[family * FAMILY, family * FAMILY + 1] = related[family * FAMILY + 1, family * FAMILY] = False
    related[-1] = related[0]
    related[:, -1] = related[:, 0]
    related[-1, [0, -1]] = True
    got = run(cutoff=0.25)
    np.testing.assert_array_equal(got != 0, related)
    assert got[0, -1] > 0.99
    assert read_manifest(tmp_path / "g.grm.sp")["facts"]["largest_family"] == FAMILY + 1
    assert "the largest group" not in caplog.text
    structured = run(method="gcta", cutoff=0.05)
    assert (structured[~related] != 0).sum() > 1000
    assert "holds 76 of 150 people; that is rarely family, rather ancestry (try method=king)" in caplog.text


def test_a_crowd_at_the_cutoff_is_refused(made, monkeypatch):
    monkeypatch.setattr(pairs, "MOST_RELATIVES", 5)
    run = made(cohort(5, 60, 200, drift=0.3))
    with pytest.raises(InputError, match=r"over 5 a person, so this is ancestry or noise.*method=king"):
        run(method="gcta", cutoff=0.05)


def test_noise_is_told_with_a_cutoff_above_it(made, caplog):
    count_mN = cohort(6, 200, 150, families=1)
    run = made(count_mN)
    run(cutoff=0.0884)
    record = next(r for r in caplog.records if "by chance" in r.getMessage())
    _, n_pairs, _, suggested, _, _ = record.args
    upper = king(count_mN)[np.triu_indices(200, 1)]
    assert n_pairs == "19,900"
    assert (upper >= 0.0884).sum() == pytest.approx(float(record.args[0].replace(",", "")), rel=0.35)
    assert (upper >= suggested).sum() < 40  # 10 relatives, and some 3 by chance


def test_a_family_that_is_too_large_is_refused_and_the_cutoff_told_splits_it(made, tmp_path, monkeypatch):
    run = made(cohort(7, 80, 2000))
    with pytest.raises(InputError, match=r"max_family=4; keep only pairs above") as told:
        run(cutoff=0.05, max_family=4)
    assert not (tmp_path / "g.grm.sp").exists()
    cutoff = float(str(told.value).split("udipdist grm cutoff=")[1].split(")")[0])
    # The pairs that were found serve the larger cutoff: no part is done again.
    monkeypatch.setattr(pairs.Pairs, "part", lambda self, index: pytest.fail("the part is done"))
    got = run(cutoff=cutoff, max_family=4, overwrite=False)
    assert grm.decompose(grm.read(str(tmp_path / "g"))[1], 4).size_F.max() <= 4
    assert np.count_nonzero(got) > 80


def test_unfinished_work_goes_on_and_another_plan_is_refused(made, tmp_path, monkeypatch):
    run = made(cohort(8, 60, 300))
    expected = run(tile=20)
    done = parts.run_part

    def dies(job, index):
        if index == 2:
            raise KeyboardInterrupt
        return done(job, index)

    (tmp_path / "g.grm.sp").unlink()
    monkeypatch.setattr(parts, "run_part", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tile=20, overwrite=False)
    marker = parts.marker(tmp_path / "g.grm.work", 0)
    stamp = marker.stat().st_mtime_ns
    monkeypatch.setattr(parts, "run_part", lambda job, index: (marker.stat().st_mtime_ns == stamp) and done(job, index))
    with pytest.raises(OutputExists, match=r"another plan \(different: cutoff\)"):
        run(tile=20, overwrite=False, cutoff=0.01)
    np.testing.assert_array_equal(run(tile=20, overwrite=False), expected)


def test_outputs_are_not_run_over(made, tmp_path):
    run = made(cohort(9, 40, 200, families=2))
    run()
    with pytest.raises(OutputExists, match="already exists"):
        run(overwrite=False)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputExists, match="is a folder; out= is the prefix"):
        run(out=tmp_path / "folder")
    (tmp_path / "dense.grm.bin").touch()
    with pytest.raises(OutputExists, match=r"is a dense GRM"):
        run(out=tmp_path / "dense")


def test_variants_are_common_called_autosomal_and_spread(tmp_path, plink_writer):
    rng = np.random.default_rng(0)
    m, n = 4000, 60
    count_mN = rng.binomial(2, rng.choice([0.01, 0.1, 0.4], m)[:, None], (m, n)).astype(np.int8)
    count_mN[::3, :20] = -1
    ids = pd.DataFrame({"FID": [f"F{i}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})
    plink_writer(tmp_path / "c", count_mN, ids)
    bim = pd.read_csv(tmp_path / "c.bim", sep="\t", header=None)
    bim[0] = np.repeat(["chr2", "1", "X", "22"], m // 4)
    bim[3] = np.tile(np.sort(rng.choice(50_000_000, m // 4, replace=False)), 4)
    bim.to_csv(tmp_path / "c.bim", sep="\t", header=False, index=False)
    bed = open_genotypes(tmp_path / "c")
    row_m, frequency_m = markers.choose(bed, 300, 0.05, 0.05)
    assert 270 < len(row_m) <= 300
    chosen = count_mN[row_m]
    assert (chosen >= 0).mean(axis=1).min() == 1
    np.testing.assert_allclose(frequency_m, chosen.mean(axis=1) / 2)
    assert np.minimum(frequency_m, 1 - frequency_m).min() >= 0.05
    assert np.minimum(frequency_m, 1 - frequency_m).mean() > 0.3  # of a bin the most heterozygous
    place = bim.iloc[row_m]
    assert list(dict.fromkeys(place[0])) == ["1", "chr2", "22"]
    for _, position in place.groupby(0)[3]:
        gap = np.diff(position)
        assert len(position) > 85 and (gap > 0).all() and gap.max() < 2_500_000
    with pytest.raises(InputError, match="max_variants=2: is too small"):
        markers.choose(bed, 2, 0.05, 0.05)
    every, _ = markers.choose(bed, m, 0.05, 0.05)
    assert len(every) > 1000 and set(every) == set(markers.choose(bed, 2 * m, 0.05, 0.05)[0])


def test_genotypes_of_no_use_are_refused(made):
    with pytest.raises(InputError, match=r"no variant is on chromosomes 1..22 \(the .bim begins with 'X'\)"):
        made(cohort(10, 40, 50, families=2), chromosome="X")()
    with pytest.raises(InputError, match=r"none of the variants looked at.*min_maf=0.05"):
        made(np.zeros((50, 40), np.int8))(min_maf=0.05)
