"""Keys that were renamed are refused with the name that they have now."""

from __future__ import annotations

import pytest

from hpc.errors import ConfigError
from udipdist.config import GwasConfig, LociConfig

GWAS = ["genotypes=g", "phenotypes=p.parquet", "test=linear", "out=o"]


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        (GwasConfig, [*GWAS, "null.variance=v.tsv"], "null.*: is called null_model now"),
        (LociConfig, ["sumstats=s", "genotypes=g", "out=o", "traits=128"], "traits: is called tests now"),
    ],
    ids=["null", "traits"],
)
def test_renamed_keys(config, words, message):
    with pytest.raises(ConfigError, match=message):
        config.load(None, words)


def test_an_old_file_with_null_is_told_too(tmp_path):
    (tmp_path / "gwas.yaml").write_text("genotypes: g\nphenotypes: p\ntest: linear\nout: o\nnull: {variance: v}\n")
    with pytest.raises(ConfigError, match="null.*: is called null_model now"):
        GwasConfig.load(tmp_path / "gwas.yaml")
