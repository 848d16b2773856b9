"""A format of genotypes that somebody adds: short, without a touch to any other file, and as good as PLINK 1."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.config import GwasConfig
from udipdist.genotypes import source as sources
from udipdist.genotypes.ld import LinkageReader
from udipdist.genotypes.source import FileSet, GenotypeFormat, GenotypeRows, GenotypeSource, check_range, register
from udipdist.genotypes.testing import GenotypeSourceTests


class NpyRows(GenotypeRows):
    """Copies of A1 [M, N] in a .npy: int8 (-1 missing) are hard calls, float32 (NaN missing) dosages."""

    def __init__(self, path: str):
        self.path, self.matrix = path, np.load(path, mmap_mode="r")
        self.n_people = self.matrix.shape[1]
        self.kind = "hard_calls" if self.matrix.dtype == np.int8 else "dosages"

    def __reduce__(self):
        return NpyRows, (self.path,)

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def where(self) -> str:
        return self.path

    def facts(self) -> dict:
        return {"path": str(Path(self.path).absolute())}

    def packed(self, start: int, stop: int) -> np.ndarray:
        if self.kind == "dosages":
            return super().packed(start, stop)
        check_range(start, stop, len(self))
        code_BN = np.array([3, 2, 0, 1], np.uint8)[self.matrix[start:stop]]
        code_BQ4 = np.pad(code_BN, [(0, 0), (0, -self.n_people % 4)]).reshape(len(code_BN), self.row_bytes, 4)
        return (code_BQ4 << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2, dtype=np.uint8)

    def dosages(self, start: int, stop: int) -> np.ndarray:
        check_range(start, stop, len(self))
        return super().dosages(start, stop) if self.kind == "hard_calls" else self.matrix[start:stop].copy()


class Npy(GenotypeFormat):
    """PREFIX.npy, with people and variants in PREFIX.people.parquet and PREFIX.variants.parquet."""

    name = "NumPy"

    def claims(self, pattern: str) -> bool:
        return Path(f"{pattern}.npy").exists()

    def find_sets(self, pattern: str) -> list[FileSet]:
        people, variants = (Path(f"{pattern}.{name}.parquet") for name in ("people", "variants"))
        return [FileSet({"npy": Path(f"{pattern}.npy"), "variants": variants}, {"people": people})]

    def open(self, pattern: str) -> GenotypeSource:
        tables = [pd.read_parquet(f"{pattern}.{name}.parquet") for name in ("people", "variants")]
        return GenotypeSource(NpyRows(f"{pattern}.npy"), *tables)


register(Npy())


def write_npy(prefix: Path, matrix_MN: np.ndarray, plink: GenotypeSource) -> None:
    np.save(f"{prefix}.npy", matrix_MN)
    plink.people.to_parquet(f"{prefix}.people.parquet")
    plink.variants.to_parquet(f"{prefix}.variants.parquet")


def undated(data: bytes) -> bytes:
    return re.sub(rb'"created": "[^"]+"', b"", data)


@pytest.fixture
def cohort(make_cohort, tmp_path):
    return make_cohort(tmp_path / "plink", 5, n=61, m=30)


class TestHardCalls(GenotypeSourceTests):
    @pytest.fixture
    def source(self, cohort, tmp_path) -> GenotypeSource:
        matrix = cohort.counts_MN.astype(np.int8)
        write_npy(tmp_path / "mine", matrix, sources.open_genotypes(cohort.folder / "c"))
        return sources.open_genotypes(tmp_path / "mine")

    @pytest.fixture
    def expected(self, cohort) -> np.ndarray:
        return cohort.counts_MN


class TestDosages(GenotypeSourceTests):
    @pytest.fixture
    def expected(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        return np.where(rng.random((30, 61)) < 0.05, -1, rng.uniform(0, 2, (30, 61))).astype(np.float32)

    @pytest.fixture
    def source(self, cohort, expected, tmp_path) -> GenotypeSource:
        matrix = np.where(expected < 0, np.nan, expected).astype(np.float32)
        write_npy(tmp_path / "mine", matrix, sources.open_genotypes(cohort.folder / "c"))
        return sources.open_genotypes(tmp_path / "mine")


def test_a_format_is_short():
    assert sum(inspect.getsource(cls).count("\n") for cls in (NpyRows, Npy)) < 60


def test_a_gwas_of_another_format_gives_the_same_bytes(cohort, tmp_path, monkeypatch):
    """Without and with a selection of variants; in two folders, so that the store's own words for its input agree."""
    from udipdist.gwas.scan.verb import check, gwas, preview  # torch, which the other processes above do not need

    plink, mine = sources.open_genotypes(cohort.folder / "c"), tmp_path / "npy"
    mine.mkdir()
    write_npy(mine / "c", cohort.counts_MN.astype(np.int8), plink)
    (tmp_path / "ids").write_text("\n".join(plink.variants.snp[[0, 1, 5, 6, 7, 20, 29]]))
    for keys in ({}, {"extract": str(tmp_path / "ids")}):
        stores = []
        for folder in (cohort.folder, mine):
            monkeypatch.chdir(folder)
            tree = cohort.config(variants_per_part=4, block=3, overwrite=True, **keys).tree()
            config = GwasConfig.parse(tree | {"genotypes": "c", "out": "out"})
            check(config)
            assert preview(config)[0].startswith("61 people with genotypes, 30 variants, 3 traits")
            gwas(config)
            files = [path for path in (folder / "out/sumstats.zarr").rglob("*") if path.is_file()]
            stores.append({str(path.relative_to(folder)): undated(path.read_bytes()) for path in files})
        assert stores[0] == stores[1]
        assert len(stores[0]) > 10
    one, other = (LinkageReader(sources.open_genotypes(folder / "c")) for folder in (cohort.folder, mine))
    np.testing.assert_array_equal(one.r2(3, 0, 30), other.r2(3, 0, 30))


def test_dosages_are_refused_before_any_work(cohort, tmp_path):
    from udipdist.gwas.scan.verb import check, gwas

    dosages = np.maximum(cohort.counts_MN, 0).astype(np.float32)
    write_npy(tmp_path / "mine", dosages, sources.open_genotypes(cohort.folder / "c"))
    config = cohort.config(genotypes=tmp_path / "mine")
    for verb in (check, gwas):
        with pytest.raises(InputError, match=r"mine\.npy: holds dosages, and this needs hard calls"):
            verb(config)
    assert not (config.out / "null.tsv").exists()


def test_a_format_keeps_its_name():
    class Other(Npy):
        pass

    register(Npy())
    with pytest.raises(ValueError, match="NumPy: another format"):
        register(Other())
    assert [type(one) for one in sources.formats()].count(Npy) == 1


def test_formats_of_other_packages_are_found(monkeypatch, tmp_path):
    class Entry:
        def load(self) -> GenotypeFormat:
            return Elsewhere()

    class Elsewhere(Npy):
        name = "elsewhere"

        def claims(self, pattern: str) -> bool:
            return pattern.endswith(".else")

    monkeypatch.setattr(sources, "entry_points", lambda group: [Entry()] if group == "udipdist.genotypes" else [])
    assert sources.format_of(tmp_path / "x.else").name == "elsewhere"
    assert sources.format_of(tmp_path / "x").name == "PLINK 1"


def test_a_class_that_nobody_else_can_import_has_no_record(cohort, tmp_path):
    class Local(NpyRows):
        pass

    np.save(tmp_path / "x.npy", cohort.counts_MN.astype(np.int8))
    with pytest.raises(ValueError, match="Local: other processes cannot import it"):
        Local(str(tmp_path / "x.npy")).record()
    with pytest.raises(ValueError, match="is not a class of genotype rows"):
        sources.open_record(sources.SourceRecord("pathlib:Path", {}))


def test_the_registry_is_light():
    code = "import sys, udipdist.genotypes.source; print(sorted({'torch', 'pandas', 'numba'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
