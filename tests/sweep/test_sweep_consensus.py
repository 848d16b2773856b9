"""The consensus of a sweep's replicates: a table of latents like any other, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError
from hpc.stage import read_manifest
from udipdist.analysis.consensus import METHODS, reduce
from udipdist.analysis.similarity import Latents
from udipdist.sweep import consensus

sys.path.insert(0, str(Path(__file__).parent))
import fake_sweep as fake


@pytest.mark.parametrize("method", METHODS)
def test_the_consensus_of_a_sweep_is_a_table_like_any_other(tmp_path, method):
    out = tmp_path / "out"
    fake.whole(out)
    path = consensus.make(out, "cosine", method)
    table = pd.read_parquet(path)
    assert path == out / "consensus" / "cosine" / "latents.parquet"
    assert list(table) == ["FID", "IID", *(f"z{k:03d}" for k in range(8))]  # 2 replicates of 4 latents
    assert set(table["IID"]) == {f"P{i}" for i in range(fake.PEOPLE)}
    assert (table.dtypes.iloc[2:] == np.float32).all()
    pheno = pd.read_csv(path.with_suffix(".pheno"), sep=" ")
    np.testing.assert_allclose(pheno["z003"], table["z003"], rtol=1e-6)
    # the looks that the objective chooses: cosine-seed1 and cosine-seed2 at epoch 3
    chosen = [Latents.read(out / "trials" / f"cosine-seed{s}" / "epochs" / "0003" / "latents.parquet") for s in (1, 2)]
    expected, _ = reduce([one.values_NP for one in chosen], method)
    np.testing.assert_array_equal(Latents.read(path).values_NP, expected.astype(np.float32))
    facts = read_manifest(path)["facts"]
    assert (facts["replicates"], facts["latents"], facts["subjects"]) == (2, 8, fake.PEOPLE)


def test_a_consensus_is_made_once_and_anew_when_a_replicate_changes(tmp_path):
    out = tmp_path / "out"
    fake.whole(out)
    path = consensus.make(out, "step")
    scores = path.parent / "scores.json"
    scores.write_text("{}")
    before = path.stat().st_mtime_ns
    consensus.make(out, "step")
    assert path.stat().st_mtime_ns == before
    assert scores.exists()
    fake.look(out / "trials" / "step-seed2" / "epochs", 6, [1, 2, 3, 4], seed=99)  # now chosen
    consensus.make(out, "step")
    assert path.stat().st_mtime_ns > before
    assert not scores.exists()  # they were of other phenotypes


def test_a_consensus_of_what_is_not_there_is_refused(tmp_path):
    out = tmp_path / "out"
    fake.whole(out)
    with pytest.raises(ConfigError, match="consensus=cca: is not a method; the methods are pca, maxvar"):
        consensus.make(out, "step", "cca")
    with pytest.raises(ConfigError, match="configuration stepp: has 0 finished replicates"):
        consensus.make(out, "stepp")
