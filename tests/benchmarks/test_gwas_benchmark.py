"""The benchmark of the association ends with what it promises, and its own data are what they claim. Not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import cohort, growth, memory, once, passes, peers
from benchmarks.clock import Cost, clock, smallest, watch_memory
from hpc import parts
from udipdist.genotypes.source import open_genotypes
from udipdist.gwas.scan import verb as scan
from udipdist.sumstats.store import STORE, Sumstats

ROOT = Path(__file__).parents[2]
N, M, P, FAMILIES = 903, 400, 5, 150


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return folder, cohort.write(folder, N, M, P, FAMILIES, seed=3)


@pytest.fixture(scope="module")
def job(made):
    folder, config = made
    job = scan.plan(cohort.config(folder, config.out, variants_per_part=100))
    parts.run(job, "gwas")
    return job


def test_the_last_line_is_json_with_what_is_promised():
    command = [sys.executable, "-m", "benchmarks.gwas", "--quick", "--people", "400", "--variants", "200"]
    done = subprocess.run([*command, "--families", "60"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["people"] == 400 and row["variants"] == 200 and row["traits"] == 128
    for key in ("floor_ratio", "floor_ratio_cpu", "null_seconds", "peak_gb", "variants_per_s"):
        assert row[key] > 0, key
    assert row["variants_per_s"] == pytest.approx(200 / row["pass_seconds"], rel=0.01)
    assert row["floor_ratio"] == pytest.approx(row["pass_seconds"] / row["floor_seconds"], rel=0.01)
    assert not set(row["peers"]) & set(row["published_elsewhere"])  # what was not measured stands apart
    ours = row["cpu_seconds_per_20k_variants_128_traits"]
    assert ours == pytest.approx(row["pass_cpu_seconds"] * 20_000 / 200, rel=0.01)
    for peer in [*row["peers"].values(), *row["published_elsewhere"].values()]:
        assert peer["over_ours"] == pytest.approx(
            peer["cpu_seconds_per_20k_variants_128_traits"] / ours, rel=0.02, abs=0.06
        )
    assert "NOT measured here" in done.stdout


def test_genotypes_have_the_frequencies_and_families_that_were_asked(tmp_path):
    frequency_M = np.repeat([0.01, 0.3, 0.97], 400)
    cohort.write(tmp_path, 3001, len(frequency_M), 3, 700, frequency_M=frequency_M)
    bed = open_genotypes(tmp_path / "c")
    counts = np.ma.masked_less(bed.counts(0, bed.n_variants), 0)
    found = counts.mean(axis=1) / 2
    for f in (0.01, 0.3, 0.97):
        assert found[frequency_M == f].mean() == pytest.approx(f, rel=0.1)
    share_M = counts.mask.mean(axis=1)
    assert 0.3 < (share_M == 0).mean() < 0.7
    assert 0.002 < share_M[share_M > 0].mean() < 0.01
    grm = np.loadtxt(tmp_path / "c.grm.sp")
    pair = grm[grm[:, 0] > grm[:, 1]].astype(int)
    size = pd.read_csv(tmp_path / "c.fam", sep=" ", header=None)[0].value_counts()
    assert (size > 1).sum() == 700 and size.max() <= 5
    assert len(pair) == (size * (size - 1) // 2).sum()
    x = (counts - counts.mean(axis=1, keepdims=True)).filled(0)[frequency_M == 0.3]
    related = (x[:, pair[:, 0]] * x[:, pair[:, 1]]).mean() / (x**2).mean()
    apart = (x * np.roll(x, 1, axis=1)).mean() / (x**2).mean()
    assert related == pytest.approx(0.5, abs=0.03) and apart == pytest.approx(0, abs=0.03)


def test_most_variants_are_rare_and_components_follow_ancestry(made):
    folder, _ = made
    bed = open_genotypes(folder / "c")
    counts = np.ma.masked_less(bed.counts(0, M), 0)
    f = counts.mean(axis=1) / 2
    assert 0.4 < (np.minimum(f, 1 - f) < 0.03).mean() < 0.75  # log(.03 / .001) / log(.5 / .001) = 0.55
    c_NK = pd.read_parquet(folder / "covar.parquet").iloc[:, 2:].to_numpy()
    assert c_NK.shape == (N, cohort.COVARIATES)
    common = (counts - counts.mean(axis=1, keepdims=True)).filled(0)[np.minimum(f, 1 - f) > 0.05]
    r2 = np.corrcoef(common, c_NK.T)[: len(common), len(common) :] ** 2
    assert r2[:, : cohort.COMPONENTS].mean() > 3 * r2[:, cohort.COMPONENTS :].mean()


def test_a_pass_does_its_parts_again(job):
    store = Sumstats.open(job.place / STORE)
    before = store.beta("y1").copy()
    seen = [parts.marker(job.place, i).stat().st_mtime_ns for i in range(job.n_parts)]
    cost = passes.one_pass(job, indices=[1])
    again = [parts.marker(job.place, i).stat().st_mtime_ns for i in range(job.n_parts)]
    assert [a != b for a, b in zip(again, seen, strict=True)] == [False, True, False, False]
    assert cost.seconds > 0
    np.testing.assert_array_equal(Sumstats.open(job.place / STORE).beta("y1"), before)
    ratio = passes.against_floor(job, N, P, most=2)
    assert ratio.rounds == 2 and ratio.variants == M and ratio.floor.seconds > 0


def test_more_variants_are_more_parts(job):
    rows = growth.by_variants(job)
    assert [row["variants"] for row in rows] == [100, 200, 400]


def test_a_scan_of_its_own_process_tells_its_memory(made, tmp_path):
    _, config = made
    keys = config.model_dump(mode="json") | {"out": str(tmp_path / "out"), "workers": 0, "variants_per_part": 100}
    seen = once.run(tmp_path, keys, cores=1)
    assert seen["variants"] == M and seen["variants_per_s_running"] > 0
    assert 0.05 < seen["without_files_gb"] <= seen["together_gb"] < 5
    assert seen["process_gb"] <= seen["together_gb"]


def test_the_files_of_memory_are_one_file(tmp_path, monkeypatch):
    asked = []
    answer = {
        "together_gb": 1.0, "without_files_gb": 0.5, "process_gb": 1.0, "variants": 1, "pass_seconds": 1.0,
    }  # fmt: skip

    def run(place, keys):
        bed = open_genotypes(keys["genotypes"])
        asked.append((bed.n_variants, keys["workers"]))
        (place / "out").mkdir()
        return answer

    monkeypatch.setattr(once, "run", run)
    row = memory.memory(tmp_path, n=80, per_file=16)
    assert asked == [(32, 0), (32, 2), (320, 0), (320, 2)]
    assert row["peak_gb"] == 1.0 and all(r["within"] for r in row["memory"])


def test_first_variants_are_those_of_the_whole(made, tmp_path):
    folder, _ = made
    peers.first_variants(folder / "c", tmp_path / "few", 7)
    few, whole = open_genotypes(tmp_path / "few"), open_genotypes(folder / "c")
    assert few.n_variants == 7
    np.testing.assert_array_equal(few.counts(0, 7), whole.counts(0, 7))


def test_clocks():
    with clock() as cost, watch_memory(0.01) as memory:
        _ = sum(i * i for i in range(300_000))
    assert cost.cpu > 0 and cost.seconds > 0
    assert 0 < memory.without_files <= memory.together and memory.process <= memory.together
    least = smallest([Cost(1, 4), Cost(2, 3)])
    assert (least.seconds, least.cpu) == (1, 3)
    assert (Cost(4, 9) / Cost(2, 3)).cpu == 3
