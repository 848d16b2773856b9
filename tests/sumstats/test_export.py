"""Exported tables read back as what the store holds, p below the smallest float64 included, in every layout."""

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pytest
import yaml
import zarr

from hpc.errors import ConfigError, InputError, OutputExists
from hpc.files import publish_json, safe_names, sha256
from hpc.stage import read_manifest
from udipdist.config import ExportConfig
from udipdist.sumstats import export as module
from udipdist.sumstats import store as stores
from udipdist.sumstats.export import export, preview
from udipdist.sumstats.opening import open_statistics
from udipdist.sumstats.pvalues import log10p_from_t, log10p_from_z
from udipdist.sumstats.store import Sumstats, SumstatsBlock, create, write

M, P, ROWS = 70, 19, 16
TRAITS = [f"z{i:03d}" for i in range(P)]
N, N_OF_Z002 = 100, 80
NOT_TESTED, FAR, NOT_CALLED, ODD_ALLELE, ODD_CHROMOSOME = 12, 3, 5, 20, M - 1
KEPT = np.arange(M) != NOT_TESTED
FUMA = KEPT & (np.arange(M) < M - 2)  # without MT and the scaffold
# In an environment of its own, because it asks for pandas 1.5: pip install -r configs/peers.txt
PLINK2 = shutil.which("plink2")
GWAS_SSF = shutil.which("gwas-ssf") or shutil.which("gwas-ssf", path=str(Path(sys.prefix) / "peers" / "bin"))


@pytest.fixture
def gwas(tmp_path: Path) -> Path:
    """A finished gwas folder on all autosomes and X. Variant 12 was not tested, variant 3 has p of about 1e-1000."""
    rng = np.random.default_rng(1)
    chromosomes = [str(1 + i * 22 // (M - 4)) for i in range(M - 4)] + ["chrX", "X", "MT", "Un"]
    variants = pd.DataFrame(
        {
            "chrom": chromosomes,
            "position": np.arange(M) * 1000 + 1,
            "snp": ["rs1:2", *(f"rs{i}" for i in range(1, M))],
            "a1": ["a"] + ["C"] * (M - 1),
            "a2": ["GT"] * M,
        }
    )
    variants.loc[ODD_ALLELE, "a1"] = "<DEL>"
    se = rng.uniform(0.01, 0.1, (M, P)).astype(np.float32)
    beta = (se * rng.normal(size=(M, P))).astype(np.float32)
    beta[FAR, 2] = 68 * se[FAR, 2]
    beta[NOT_TESTED] = se[NOT_TESTED] = np.nan
    log10p = log10p_from_z(beta.astype(float) / se)
    best = np.where(KEPT, np.nan_to_num(log10p).argmax(1), -1)
    minp = np.where(KEPT, np.take_along_axis(log10p, np.maximum(best, 0)[:, None], 1)[:, 0], np.nan)
    n = np.full(M, N)
    n[NOT_CALLED] = 60
    columns = {
        "beta_MP": beta,
        "se_MP": se,
        "n_M": n,
        "af1_M": rng.uniform(0.01, 0.99, M),
        "minp_log10p_M": minp,
        "minp_trait_M": best,
        "multivariate_log10p_M": np.where(KEPT, rng.exponential(100, M), np.nan),
        "hwe_log10p_M": np.zeros(M),
    }
    columns = {name: columns[name] for name in SumstatsBlock.__dataclass_fields__}
    folder = tmp_path / "gwas"
    create(folder / "sumstats.zarr", variants, TRAITS, ROWS, {"df": None, "n_samples": N, "groups": 2})
    for start in range(0, M, ROWS):
        rows = slice(start, start + ROWS)
        write(folder / "sumstats.zarr", start, SumstatsBlock(**{k: v[rows] for k, v in columns.items()}))
    null = pd.DataFrame({"trait": TRAITS, "n": [N_OF_Z002 if name == "z002" else N for name in TRAITS]})
    null.to_csv(folder / "null.tsv", sep="\t", index=False)
    publish_json(folder / "manifest.json", {"id": "gwas-1", "stage": "gwas", "config": {"min_maf": 0.001}})
    return folder


def read(path: Path, sep: str = "\t") -> pd.DataFrame:
    return pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False)


def run(gwas: Path, name: str, **keys) -> pd.DataFrame:
    out = gwas.parent / name
    export(ExportConfig(sumstats=gwas, out=out, **keys))
    return read(out, " " if keys.get("format") == "regenie" else "\t")


def log10(text: str) -> float:
    return float(-mpmath.log10(mpmath.mpf(text)))


def float32(column: pd.Series) -> np.ndarray:
    return column.astype(float).to_numpy(np.float32)


# ------------------------------------------------------------------------------------------------------ layouts


def test_fastgwa(gwas):
    table, store = run(gwas, "z.fastGWA", format="fastgwa", trait="z002"), Sumstats.open(gwas)
    assert list(table) == ["CHR", "SNP", "POS", "A1", "A2", "N", "AF1", "BETA", "SE", "P"]
    assert list(table.SNP) == list(store.variants.snp[KEPT]) and list(table.CHR[-4:]) == ["23", "23", "26", "Un"]
    assert list(table.CHR[:-4]) == list(store.variants.chrom[KEPT][:-4])
    np.testing.assert_array_equal(table.POS.astype(int), store.variants.position[KEPT])
    np.testing.assert_array_equal(float32(table.BETA), store.beta("z002")[KEPT])
    np.testing.assert_array_equal(float32(table.SE), store.se("z002")[KEPT])
    np.testing.assert_array_equal(float32(table.AF1), store.variants.af1[KEPT])
    np.testing.assert_allclose([log10(p) for p in table.P], store.log10p("z002")[KEPT], atol=3e-6)
    assert log10(table.P[FAR]) > 1000 and float(table.P[FAR]) == 0.0
    facts = read_manifest(gwas.parent / "z.fastGWA")["facts"]
    assert facts == {"files": 1, "variants": M - 1, "not_tested": 1, "not_held": 0}


def test_variants_that_were_not_tested_are_kept_on_demand_and_counted(gwas, caplog):
    caplog.set_level("INFO")
    table = run(gwas, "all.fastGWA", trait="z000", untested=True)
    assert len(table) == M and list(table.loc[NOT_TESTED, ["BETA", "SE", "P"]]) == ["NA", "NA", "NA"]
    assert "1 rows of variants that were not tested are kept, as NA" in caplog.text
    run(gwas, "some.fastGWA", trait="z000")
    assert "1 rows of variants that were not tested are left out" in caplog.text
    with pytest.raises(ConfigError, match="cannot hold variants without p; use fastgwa or regenie"):
        run(gwas, "x.txt", format="fuma", untested=True)


def test_minp_has_the_effects_and_people_of_its_trait(gwas):
    table, store = run(gwas, "minp.fastGWA"), Sumstats.open(gwas)
    assert list(table) == ["CHR", "SNP", "POS", "A1", "A2", "N", "AF1", "BETA", "SE", "P"]
    best = store.minp_trait()[KEPT]
    for name in ("beta", "se"):
        values = np.take_along_axis(store.values(name)[KEPT], best[:, None].astype(int), 1)[:, 0]
        np.testing.assert_array_equal(float32(table[name.upper()]), values)
    np.testing.assert_allclose([log10(p) for p in table.P], store.log10p("minp")[KEPT], rtol=1e-6, atol=3e-6)
    expected = np.where(best == 2, N_OF_Z002, N)
    expected[NOT_CALLED] = 60
    assert (best == 2).any() and list(table.N.astype(int)) == list(expected)


def test_the_joint_test_has_no_effects(gwas):
    fuma, store = run(gwas, "joint.txt", format="fuma", trait="multivariate"), Sumstats.open(gwas)
    assert list(fuma) == ["CHR", "BP", "SNP", "A1", "A2", "P", "N", "NEG_LOG10_P"]
    np.testing.assert_allclose(fuma.NEG_LOG10_P.astype(float), store.log10p("multivariate")[FUMA], atol=3e-6)
    table = run(gwas, "joint.fastGWA", trait="multivariate")
    assert set(table.BETA) == {"NA"}
    np.testing.assert_allclose([log10(p) for p in table.P], store.log10p("multivariate")[KEPT], atol=3e-6)
    regenie = run(gwas, "joint.regenie", trait="multivariate", format="regenie")
    assert set(regenie.TEST) == {"JOINT"} and set(regenie.CHISQ) == {"NA"}
    np.testing.assert_allclose(regenie.LOG10P.astype(float), store.log10p("multivariate")[KEPT], atol=1e-10)
    with pytest.raises(InputError, match="no effect sizes, which format=ssf demands"):
        run(gwas, "joint.tsv", trait="multivariate", format="ssf")


def test_regenie(gwas):
    table, store = run(gwas, "x_z002.regenie", format="regenie", trait="z002"), Sumstats.open(gwas)
    header = "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA"
    assert (gwas.parent / "x_z002.regenie").read_text().split("\n")[0] == header
    assert set(table.TEST) == {"ADD"} and set(table.EXTRA) == {"NA"} and set(table.ALLELE0) == {"GT"}
    np.testing.assert_array_equal(float32(table.BETA), store.beta("z002")[KEPT])
    z = store.beta("z002").astype(float) / store.se("z002")
    np.testing.assert_allclose(table.CHISQ.astype(float), z[KEPT] ** 2, rtol=1e-6)
    np.testing.assert_allclose(table.LOG10P.astype(float), store.log10p("z002")[KEPT], atol=1e-10)
    assert list(table.CHROM[-4:]) == ["23", "23", "26", "Un"]
    minp = run(gwas, "minp.regenie", format="regenie")
    assert minp.EXTRA[FAR] == "TRAIT=z002"


def test_gwas_ssf(gwas):
    table, store = run(gwas, "z.tsv", format="ssf", trait="z000"), Sumstats.open(gwas)
    mandatory = "chromosome base_pair_location effect_allele other_allele beta standard_error effect_allele_frequency"
    assert list(table)[:8] == [*mandatory.split(), "p_value"]
    held = KEPT & ~np.isin(np.arange(M), [ODD_ALLELE, ODD_CHROMOSOME])
    assert len(table) == held.sum() == read_manifest(gwas.parent / "z.tsv")["facts"]["variants"]
    assert read_manifest(gwas.parent / "z.tsv")["facts"]["not_held"] == 2
    assert set(table.chromosome) == {*(str(i) for i in range(1, 24)), "25"}
    assert table.effect_allele.str.fullmatch("[ACGT]+").all() and table.other_allele.str.fullmatch("[ACGT]+").all()
    assert table.rsid[0] == "NA" and table.variant_id[0] == "rs1_2" and table.rsid[1:].str.fullmatch("rs[0-9]+").all()
    assert table.variant_id.str.fullmatch("[A-Za-z0-9_]+").all()
    assert table.effect_allele_frequency.astype(float).between(0, 1).all()
    np.testing.assert_array_equal(float32(table.beta), store.beta("z000")[held])
    np.testing.assert_allclose(table.neg_log_10_p_value.astype(float), store.log10p("z000")[held], atol=1e-10)


def test_gwas_ssf_comes_with_its_metadata(gwas):
    run(gwas, "z.tsv.gz", format="ssf", trait="z002", assembly="GRCh37")
    meta = yaml.safe_load((gwas.parent / "z.tsv.gz-meta.yaml").read_text())
    assert meta["data_file_md5sum"] == hashlib.md5((gwas.parent / "z.tsv.gz").read_bytes()).hexdigest()
    assert meta["data_file_name"] == "z.tsv.gz" and meta["genome_assembly"] == "GRCh37"
    assert meta["samples"] == [{"sample_size": N_OF_Z002}] and meta["trait_description"] == ["z002"]
    assert meta["minor_allele_freq_lower_limit"] == 0.001 and meta["file_type"] == "GWAS-SSF v1.0"
    manifest = {"id": "gwas-1", "stage": "gwas", "config": {"min_maf": 0.001}, "facts": {"min_mac": 20}}
    publish_json(gwas / "manifest.json", manifest)
    run(gwas, "again.tsv.gz", format="ssf", trait="z002", assembly="GRCh37")
    meta = yaml.safe_load((gwas.parent / "again.tsv.gz-meta.yaml").read_text())
    assert meta["minor_allele_freq_lower_limit"] == 20 / (2 * N_OF_Z002)


@pytest.mark.skipif(
    GWAS_SSF is None, reason="gwas-ssf (pip install -r configs/peers.txt, elsewhere) is not on the PATH"
)
@pytest.mark.parametrize("name", ["z.tsv", "z.tsv.gz"])
def test_gwas_ssf_is_valid_to_the_catalogs_own_tool(gwas, name):
    def validate(path: Path, *options: str) -> subprocess.CompletedProcess:
        command = [GWAS_SSF, "validate", "--min-rows", "10", *options, str(path)]
        return subprocess.run(command, capture_output=True, text=True)

    run(gwas, name, format="ssf", trait="z002", assembly="GRCh37")
    result = validate(gwas.parent / name, "--infer-from-metadata")
    assert result.returncode == 0 and "Validation status: True" in result.stdout, result.stdout + result.stderr
    command = [GWAS_SSF, "read", "--get-all-metadata", str(gwas.parent / name)]
    meta = subprocess.run(command, capture_output=True, text=True)
    assert "GRCh37" in meta.stdout and "Metadata not updated" not in meta.stdout + meta.stderr
    bad = gwas.parent / "bad.tsv"
    read(gwas.parent / name).assign(effect_allele="<DEL>").to_csv(bad, sep="\t", index=False)
    assert validate(bad).returncode != 0


def test_readers_that_split_at_white_space_see_the_same_columns(gwas):
    """As plink, GCTA --cojo, LDSC and FUMA's own script do."""
    for name, keys in {
        "a.fastGWA": {"trait": "z002"},
        "b.txt.gz": {"format": "fuma"},
        "c.regenie": {"format": "regenie", "trait": "z001", "untested": True},
        "d.fastGWA": {"trait": "multivariate"},
    }.items():
        run(gwas, name, **keys)
        path = gwas.parent / name
        text = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
        assert len({len(line.split()) for line in text.decode().splitlines()}) == 1
        table = pd.read_csv(path, sep=r"\s+")
        p = 10**-table.LOG10P if "LOG10P" in table else table.P
        assert p.dropna().between(0, 1).all() and p.isna().sum() == (1 if "untested" in keys else 0)


@pytest.mark.skipif(PLINK2 is None, reason="plink2 is not installed")
def test_plink2_reads_them(gwas):
    """A score of the effects (ids, alleles, numbers), and the variants with p below a threshold, 1e-1000 included."""
    folder = gwas.parent
    store = Sumstats.open(gwas)
    variants = store.variants.assign(chrom="1", cm=0)  # nobody haploid
    columns = ["chrom", "snp", "cm", "position", "a1", "a2"]
    variants[columns].to_csv(folder / "c.bim", sep="\t", index=False, header=False)
    (folder / "c.fam").write_text("".join(f"F I{i} 0 0 2 -9\n" for i in range(4)))
    rng = np.random.default_rng(2)
    code_MN = rng.choice([0, 2, 3], (M, 4))
    (folder / "c.bed").write_bytes(b"\x6c\x1b\x01" + (code_MN << [0, 2, 4, 6]).sum(1).astype(np.uint8).tobytes())
    score_N = np.nan_to_num(store.beta("z002")) @ np.array([2, 9, 1, 0])[code_MN]

    def plink2(*words: str) -> None:
        command = [PLINK2, "--bfile", str(folder / "c"), "--out", str(folder / "o"), *words]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    for name, keys, where in (
        ("a.fastGWA", {}, "2 4 8"),
        ("a.regenie", {"format": "regenie"}, "3 5 9"),
    ):
        run(gwas, name, trait="z002", **keys)
        plink2("--score", str(folder / name), *where.split(), "header", "no-mean-imputation")
        table = pd.read_csv(folder / "o.sscore", sep="\t")
        np.testing.assert_allclose(table.SCORE1_AVG * table.ALLELE_CT, score_N, rtol=1e-4)
    condition = ["--extract-col-cond", str(folder / "a.fastGWA"), "10", "2", "--extract-col-cond-max", "0.05"]
    plink2(*condition, "--write-snplist")
    found = set((folder / "o.snplist").read_text().split())
    assert found == set(store.variants.snp[store.log10p("z002") >= -np.log10(0.05)]) and f"rs{FAR}" in found


# ------------------------------------------------------------------------------------------- people, many files


def test_people_are_those_of_the_trait(gwas, caplog):
    caplog.set_level("INFO")
    n = run(gwas, "a.tsv", trait="z002").N.astype(int)
    assert n[NOT_CALLED] == 60 and set(n.drop(NOT_CALLED)) == {N_OF_Z002}
    assert "N is the smaller of the genotypes called and the people with the trait" in caplog.text
    n = run(gwas, "b.tsv", trait="z001").N.astype(int)
    assert n[NOT_CALLED] == 60 and set(n.drop(NOT_CALLED)) == {N}
    (gwas / "null.tsv").unlink()
    run(gwas, "c.tsv", trait="z002")
    assert "no null.tsv beside it with their numbers: N and the allele frequency are of all 100" in caplog.text


@pytest.mark.parametrize(("encoding", "suffix"), [("text", ""), (None, ".gz"), ("parquet", ".parquet")])
@pytest.mark.parametrize("form", ["fastgwa", "regenie", "fuma"])
def test_all_traits_in_one_pass_are_the_files_of_each_alone(gwas, encoding, suffix, form, monkeypatch):
    """Also where there are more files than may be open at once, and blocks are cut into pieces."""
    monkeypatch.setattr(module, "FILES_AT_ONCE", 7)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 5)
    many = gwas.parent / "many"
    export(ExportConfig(sumstats=gwas, out=many, trait="all", format=form, encoding=encoding))
    monkeypatch.undo()
    listed = pd.read_csv(many / "files.tsv", sep="\t", dtype=str)
    assert list(listed.trait) == TRAITS and len(list(many.iterdir())) == P + 2
    ending = {"fastgwa": "fastGWA", "regenie": "regenie", "fuma": "txt"}[form]
    for trait, file in zip(listed.trait[::6], listed.file[::6], strict=True):
        assert file == ("many_" if form == "regenie" else "") + f"{trait}.{ending}{suffix}"
        alone = gwas.parent / f"{trait}.tsv{suffix}"
        export(ExportConfig(sumstats=gwas, out=alone, trait=trait, format=form))
        if suffix == ".parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(alone), pd.read_parquet(many / file))
        else:
            texts = [gzip.decompress(p.read_bytes()) if suffix else p.read_bytes() for p in (alone, many / file)]
            assert texts[0] == texts[1] and len(texts[0]) > 1000
    unfit = P * 2 if form == "fuma" else 0  # on MT and a scaffold
    facts = {"files": P, "variants": P * (M - 1) - unfit, "not_tested": P, "not_held": unfit}
    assert read_manifest(many)["facts"] == facts


def test_fuma_gets_what_it_takes(gwas, caplog):
    """Chromosomes 1 to 23, p that a float64 holds, and -log10 p beside it."""
    caplog.set_level("INFO")
    table, store = run(gwas, "z002.txt", format="fuma", trait="z002"), Sumstats.open(gwas)
    assert list(table) == ["CHR", "BP", "SNP", "A1", "A2", "P", "N", "BETA", "SE", "NEG_LOG10_P"]
    assert table.CHR.astype(int).between(1, 23).all() and (table.CHR == "23").sum() == 2
    expected = store.log10p("z002")[FUMA]
    np.testing.assert_allclose(table.NEG_LOG10_P.astype(float), expected, rtol=1e-6, atol=3e-6)
    assert expected.max() > 900 and table.P.astype(float).min() == 1e-300
    assert "2 rows are left out: FUMA takes chromosomes 1 to 22 and X only" in caplog.text
    assert "p-values below 1e-300 are written as 1e-300" in caplog.text


def test_the_floor_of_printed_p_can_be_chosen(gwas):
    """LDSC's munge_sumstats drops a p that its float64 takes for 0."""
    free, floored = (run(gwas, f"{p}.fastGWA", trait="z002", p_floor=p) for p in (0, 1e-100))
    assert (free.P.astype(float) == 0).sum() == 1 and floored.P.astype(float).min() == 1e-100
    assert list(free.P[free.P.astype(float) > 1e-100]) == list(floored.P[floored.P.astype(float) > 1e-100])


def test_each_chunk_of_the_store_is_read_once(gwas, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", ROWS)
    reads = []
    getitem = stores._Array.__getitem__

    def count(array, index):
        reads.append((array._array.basename, index))
        return getitem(array, index)

    monkeypatch.setattr(stores._Array, "__getitem__", count)
    export(ExportConfig(sumstats=gwas, out=gwas.parent / "many", trait=["minp", *TRAITS, "multivariate"]))
    shards, chunks = -(-M // ROWS), -(-P // 16)
    assert sum(name == "beta" for name, _ in reads) == shards * chunks
    assert sum(name == "snp" for name, _ in reads) == shards


def test_a_list_may_hold_minp_and_multivariate(gwas):
    out = gwas.parent / "some"
    export(ExportConfig(sumstats=gwas, out=out, trait=["minp", "z003", "multivariate"], encoding="text"))
    names = ["files.tsv", "manifest.json", "minp.fastGWA", "multivariate.fastGWA", "z003.fastGWA"]
    assert sorted(path.name for path in out.iterdir()) == names
    for name in ("minp", "z003"):
        run(gwas, f"{name}.tsv", trait=name)
        assert (gwas.parent / f"{name}.tsv").read_text() == (out / f"{name}.fastGWA").read_text()


def test_ssf_of_several_traits(gwas):
    out = gwas.parent / "ssf"
    export(ExportConfig(sumstats=gwas, out=out, trait=["z000", "z002"], format="ssf"))
    for name in ("z000", "z002"):
        meta = yaml.safe_load((out / f"{name}.tsv.gz-meta.yaml").read_text())
        assert meta["data_file_name"] == f"{name}.tsv.gz"
        assert meta["data_file_md5sum"] == hashlib.md5((out / f"{name}.tsv.gz").read_bytes()).hexdigest()


def test_parquet_holds_numbers_and_p_of_any_size(gwas):
    out = gwas.parent / "z.parquet"
    export(ExportConfig(sumstats=gwas, out=out, trait="z002"))
    table, store = pd.read_parquet(out), Sumstats.open(gwas)
    assert table.BETA.dtype == np.float32 and table.POS.dtype == np.int32
    np.testing.assert_array_equal(table.BETA, store.beta("z002")[KEPT])
    np.testing.assert_array_equal(table.neg_log_10_p_value, store.log10p("z002")[KEPT])
    np.testing.assert_array_equal(table.P, 10.0 ** -store.log10p("z002")[KEPT])


def test_names_of_files_are_safe_and_each_its_own():
    names = ["thickness", "Thickness", "a/b", "a b", "../../etc/passwd", ".hidden", "", "x" * 300, "a_b-2", "CON:1"]
    files = safe_names(names)
    assert len({file.lower() for file in files}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,130}", file) for file in files)
    assert files[0] == "thickness" and files[2] == "a_b" and files[8] == "a_b-2"


def test_p_of_student_t_where_the_store_says_so(gwas):
    attrs = zarr.open_group(str(gwas / "sumstats.zarr"), mode="r+").attrs
    attrs.update({"df": [30 + i for i in range(P)]})
    for name in ("z007", "minp"):
        table, store = run(gwas, f"{name}.regenie", format="regenie", trait=name), Sumstats.open(gwas)
        column = store.minp_trait()[KEPT].astype(int) if name == "minp" else np.full(KEPT.sum(), 7)
        z = np.take_along_axis((store.values("beta") / store.values("se").astype(float))[KEPT], column[:, None], 1)
        expected = log10p_from_t(z[:, 0], 30.0 + column)
        np.testing.assert_allclose(table.LOG10P.astype(float), expected, atol=1e-10)


# ----------------------------------------------------------------------------------------------- files, mistakes


def test_gz_is_the_same_table_and_the_same_bytes_each_time(gwas):
    plain = run(gwas, "a.tsv", format="ssf")
    compressed = run(gwas, "b.tsv.gz", format="ssf")
    pd.testing.assert_frame_equal(plain, compressed)
    assert gzip.decompress((gwas.parent / "b.tsv.gz").read_bytes()) == (gwas.parent / "a.tsv").read_bytes()
    run(gwas, "c.tsv.gz", format="ssf")
    assert sha256(gwas.parent / "b.tsv.gz") == sha256(gwas.parent / "c.tsv.gz")


def test_bad_inputs_leave_no_file(gwas):
    out = gwas.parent / "x.txt"
    with pytest.raises(InputError, match="no trait 'z02'; did you mean z0.2"):
        export(ExportConfig(sumstats=gwas, out=out, trait="z02"))
    with pytest.raises(InputError, match="no trait 'z99'"):
        export(ExportConfig(sumstats=gwas, out=out.with_suffix(""), trait=["z000", "z99"]))
    with pytest.raises(InputError, match="does not exist"):
        export(ExportConfig(sumstats=gwas / "no", out=out))
    for keys, message in (
        ({"trait": "all"}, "several traits are files in a folder"),
        ({"trait": []}, "several traits are files in a folder"),
        ({"trait": [], "out": out.with_suffix("")}, "is empty"),
        ({"out": out.with_suffix("")}, "must be one file; give it a suffix"),
        ({"trait": ["z000", "z000"], "out": out.with_suffix("")}, "names z000 twice"),
        ({"encoding": "gz"}, "says text; one file is encoded as its suffix says"),
        ({"format": "ssf"}, r"ends in \.tsv or \.tsv\.gz"),
        ({"format": "ssf", "out": out.with_suffix(".parquet")}, "GWAS-SSF is text"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(ExportConfig(**({"sumstats": gwas, "out": out} | keys)))
    assert [path.name for path in gwas.parent.iterdir()] == ["gwas"]
    out.write_text("mine")
    with pytest.raises(OutputExists, match="overwrite=true"):
        export(ExportConfig(sumstats=gwas, out=out))
    export(ExportConfig(sumstats=gwas, out=out, overwrite=True))
    assert out.read_text().startswith("CHR\tSNP")


@pytest.mark.parametrize(("snp", "form"), [('rs"1', "fastgwa"), ("rs 1", "regenie")])
def test_a_name_that_could_not_be_read_back_is_told(gwas, snp, form):
    group = zarr.open_group(str(gwas / "sumstats.zarr"), mode="r+")
    group["snp"][30:31] = np.array([snp], np.dtypes.StringDType())
    with pytest.raises(InputError, match=f"(SNP|ID) '{snp}': holds a quotation mark or the separator"):
        run(gwas, "x.tsv", format=form, trait="z000")
    assert [path.name for path in gwas.parent.iterdir()] == ["gwas"]
    export(ExportConfig(sumstats=gwas, out=gwas.parent / "x.parquet", format=form, trait="z000"))
    assert snp in set(pd.read_parquet(gwas.parent / "x.parquet").iloc[:, :3].to_numpy().ravel())


def test_preview_says_what_would_be_written(gwas):
    assert preview(ExportConfig(sumstats=gwas, out=Path("x.tsv")))[0] == f"{M} variants of minp as fastgwa -> x.tsv"
    many = preview(ExportConfig(sumstats=gwas, out=Path("x"), trait="all", format="ssf"))
    assert many[0].startswith(f"{M} variants of {P} traits (z000, z001") and "(gz)" in many[1]


@pytest.mark.parametrize("form", ["fastgwa", "ssf", "fuma", "regenie"])
def test_chromosomes_of_any_spelling_come_back(tmp_path, form):
    """A .bim may spell them as it likes; what is exported is read back as the same chromosomes."""
    spelt = {"01": 1, "chr2": 2, "3.0": 3, "CHR22": 22, "X": 23, "chrX": 23, "23": 23, "XY": 23, "PAR1": 23, "25": 23}
    if form != "fuma":  # which takes no others
        spelt |= {"MT": 26, "26": 26, "chrM": 26, "Y": 24}
    m = len(spelt)
    variants = pd.DataFrame({"chrom": list(spelt), "snp": [f"rs{i}" for i in range(m)], "a1": "A", "a2": "C"})
    variants["position"] = np.arange(1, m + 1)
    one, flat = np.ones((m, 1), np.float32), np.full(m, 0.5, np.float32)
    create(tmp_path / "g" / "sumstats.zarr", variants, ["y"], 100, {"df": None, "n_samples": 9, "groups": 1})
    write(tmp_path / "g" / "sumstats.zarr", 0, SumstatsBlock(one, one, np.full(m, 9), flat, flat, np.zeros(m), flat))
    export(ExportConfig(sumstats=tmp_path / "g" / "sumstats.zarr", out=tmp_path / "y.tsv", trait="y", format=form))
    back = open_statistics(tmp_path / "y.tsv")
    assert back.chrom_M.tolist() == list(spelt.values())
