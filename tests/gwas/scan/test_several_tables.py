"""Several tables of phenotypes in one pass: each comes out as if it had been tested alone."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from hpc.errors import ConfigError, InputError
from hpc.stage import is_current, read_manifest
from udipdist.config import ExportConfig, GwasConfig, GwasFinishConfig, GwasPartConfig, GwasPlanConfig
from udipdist.gwas import outputs
from udipdist.gwas.scan import fitting, job, plan
from udipdist.gwas.scan.phases import gwas_finish, gwas_part, gwas_plan
from udipdist.gwas.scan.planned import ScanPlan
from udipdist.gwas.scan.verb import gwas, preview
from udipdist.sumstats.export import export
from udipdist.sumstats.store import STORE, Sumstats

NAMES = ["epoch-000", "epoch-001", "epoch-002", "epoch-003"]
MODES = {
    "mixed": {},
    "project": {"adjust": "project", "normalise": "rank"},
    "linear": {"test": "linear"},
    "stateful": {"formula": "c1 + scale(c1):c0"},  # the columns depend on who is analysed
}


@pytest.fixture(scope="module")
def cohort(make_cohort, tmp_path_factory):
    """Families of one to five among 150 people. Traits of the same names in four tables: 000 and 002 of the same
    people, 001 of others with gaps in single traits, 003 of some in another order and of a stranger."""
    cohort = make_cohort(tmp_path_factory.mktemp("sweep"), seed=11, n=150, m=30, h2=np.linspace(0, 0.9, 11))
    rng = np.random.default_rng(3)
    values = cohort.traits.to_numpy()

    def table(name: str, rows, columns) -> pd.DataFrame:
        traits = pd.DataFrame(values[np.ix_(rows, columns)]).add_prefix("z00")
        people = cohort.ids.iloc[rows].reset_index(drop=True).join(traits)
        people.to_parquet(cohort.folder / f"{name}.parquet", index=False)
        return people

    table(NAMES[0], np.arange(10, 150), [0, 4, 8])
    gaps = table(NAMES[1], np.arange(140), [1, 5, 9, 3])
    gaps.loc[rng.choice(140, 9, replace=False), ["z000", "z002"]] = np.nan
    gaps.loc[rng.choice(140, 5, replace=False), "z001"] = np.nan
    gaps.loc[7, ["z000", "z001", "z002", "z003"]] = np.nan
    gaps.to_parquet(cohort.folder / f"{NAMES[1]}.parquet", index=False)
    table(NAMES[2], np.arange(10, 150), [2, 6])
    last = table(NAMES[3], rng.permutation(np.arange(0, 150, 2)), [7, 10])
    last = pd.concat([last, last.iloc[:1].assign(IID="stranger")])
    last.to_parquet(cohort.folder / f"{NAMES[3]}.parquet", index=False)
    return cohort


def paths(cohort) -> list[Path]:
    return [cohort.folder / f"{name}.parquet" for name in NAMES]


@pytest.fixture(scope="module", params=MODES)
def runs(cohort, request) -> tuple[GwasConfig, list[GwasConfig]]:
    """The configurations of one run of all tables and of one run a table, all done."""
    keys = MODES[request.param] | {"variants_per_part": 11}
    together = cohort.config(f"{request.param}", phenotypes=paths(cohort), **keys)
    gwas(together)
    alone = []
    for name, path in zip(NAMES, paths(cohort), strict=True):
        alone.append(cohort.config(f"{request.param}_{name}", phenotypes=path, **keys))
        gwas(alone[-1])
    return together, alone


def test_every_number_is_that_of_the_table_alone(runs):
    together, alone = runs
    for name, config in zip(NAMES, alone, strict=True):
        found, expected = Sumstats.open(together.out / name), Sumstats.open(config.out)
        assert found.traits == expected.traits and found.rows_per_shard == 11
        pd.testing.assert_frame_equal(found.variants, expected.variants)
        stored = zarr.open_group(str(config.out / STORE), mode="r")
        arrays = {key for key, _ in stored.arrays()} - {"trait", "chrom", "snp", "a1", "a2"}
        assert {"beta", "se", "minp_log10p", "minp_trait", "multivariate_log10p", "hwe_log10p"} <= arrays
        for array in arrays:
            values = expected.values(array)
            np.testing.assert_allclose(found.values(array), values, rtol=1e-6, err_msg=f"{name} {array}")
        assert np.isfinite(expected.values("beta")).mean() > 0.8
        assert np.isfinite(found.log10p("multivariate")).any()
        drop = ("created", "n_tested")
        attrs, wanted = ({k: v for k, v in each.attrs.items() if k not in drop} for each in (found, expected))
        assert attrs == wanted


def test_so_are_the_tables_of_people_and_models(runs):
    together, alone = runs
    for name, config in zip(NAMES, alone, strict=True):
        for file in ("samples.tsv", "dropped.tsv"):
            assert (together.out / name / file).read_bytes() == (config.out / file).read_bytes()
        found, expected = (pd.read_csv(c / "null.tsv", sep="\t") for c in (together.out / name, config.out))
        assert list(found) == list(expected) and list(found.trait) == [f"z00{i}" for i in range(len(expected))]
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6, atol=1e-9)
        if config.test == "mixed":
            assert (found.h2_se > 0).all() and set(found.test) == {"mixed"} and found.h2.max() > 0.3
        else:
            assert found[["vg", "h2", "h2_se"]].isna().all(axis=None) and set(found.test) == {"linear"}


def test_and_the_manifests(runs):
    together, alone = runs
    for name, config in zip(NAMES, alone, strict=True):
        folder = together.out / name
        assert is_current("gwas", folder, config)
        found, expected = (read_manifest(place)["facts"] for place in (folder, config.out))
        near = ("weight_error", "weight_rank")  # the weights of all traits of the same people are factorised together
        assert {k: v for k, v in found.items() if k not in near} == {k: v for k, v in expected.items() if k not in near}
    facts = read_manifest(together.out)["facts"]
    assert facts["n_traits"] == 11 and facts["n_samples"] == 149 and facts["tables"] == NAMES
    assert facts["n_dropped"] == 2  # who has no trait at all, and the stranger
    assert not (together.out / "sumstats.zarr").exists() and not (together.out / "model").exists()
    assert facts["groups"] == 1 + 3 + 1  # 000 and 002 share one
    assert facts["n_tested"] == max(read_manifest(together.out / name)["facts"]["n_tested"] for name in NAMES)


def test_tables_of_the_same_people_share_one_model(cohort, monkeypatch):
    fitted, fit = [], fitting.fit_group
    monkeypatch.setattr(plan, "fit_group", lambda *args: fitted.append(args[2].trait_P.tolist()) or fit(*args))
    gwas(cohort.config("shared", phenotypes=paths(cohort)))
    assert fitted[0] == [0, 1, 2, 7, 8]  # 000 and 002


def test_a_folder_of_a_table_is_an_input_like_any_other(cohort, tmp_path):
    config = cohort.config("input", phenotypes=paths(cohort)[:2])
    gwas(config)
    export(ExportConfig(sumstats=config.out / NAMES[1], trait="z002", out=tmp_path / "a.fastGWA.gz"))
    found = pd.read_csv(tmp_path / "a.fastGWA.gz", sep=r"\s+")
    expected = Sumstats.open(config.out / NAMES[1]).beta("z002")
    np.testing.assert_allclose(found.BETA, expected[np.isfinite(expected)], rtol=1e-4)
    with gzip.open(tmp_path / "a.fastGWA.gz", "rt") as file:
        assert file.readline().startswith("CHR")
    with pytest.raises(InputError, match="holds no sumstats.zarr"):
        Sumstats.open(config.out)


def test_an_interrupted_run_goes_on_and_is_told_unfinished(cohort, monkeypatch):
    config = cohort.config("broken", phenotypes=paths(cohort)[1:], variants_per_part=10)
    part = job.Scan.part
    monkeypatch.setattr(job.Scan, "part", lambda self, index: part(self, index) if index < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gwas(config)
    with pytest.raises(InputError, match="is unfinished"):
        Sumstats.open(config.out / NAMES[2])
    monkeypatch.undo()
    gwas(config)
    whole = cohort.config("unbroken", phenotypes=paths(cohort)[1:], variants_per_part=10)
    gwas(whole)
    for name in NAMES[1:]:
        stores = [c.out / name / "sumstats.zarr" for c in (config, whole)]
        shards = [path.relative_to(stores[1]) for path in stores[1].rglob("c/*") if path.is_file()]
        assert len(shards) > 10
        for path in shards:
            assert (stores[0] / path).read_bytes() == (stores[1] / path).read_bytes()


def test_the_phases_of_a_job_array(cohort):
    tree = cohort.config("array", phenotypes=paths(cohort)[:2], variants_per_part=16).tree()
    gwas_plan(GwasPlanConfig.parse(tree))
    for part in ("1", "0"):
        gwas_part(GwasPartConfig.parse(tree | {"part": part}))
    gwas_finish(GwasFinishConfig.parse(tree))
    for name, path in zip(NAMES, paths(cohort)[:2], strict=False):
        assert np.isfinite(Sumstats.open(cohort.folder / "array" / name).beta("z001")).mean() > 0.8
        assert is_current("gwas", cohort.folder / "array" / name, cohort.config(phenotypes=path))


def test_a_mended_list_leaves_no_folder_of_the_old_one(cohort, monkeypatch):
    monkeypatch.setattr(ScanPlan, "save", lambda self, out: 1 / 0)  # killed with the stores made, the plan not yet,
    monkeypatch.setattr(outputs, "withdraw", lambda out: None)  # so that nobody clears away
    with pytest.raises(ZeroDivisionError):
        gwas(cohort.config("mended", phenotypes=paths(cohort)[:2]))
    assert (cohort.folder / "mended" / NAMES[0] / "sumstats.zarr").exists()
    monkeypatch.undo()
    gwas(cohort.config("mended", phenotypes=paths(cohort)[1:3]))
    assert {path.parent.name for path in (cohort.folder / "mended").glob("*/sumstats.zarr")} == set(NAMES[1:3])


def test_tables_are_given_on_the_command_line_in_yaml_or_as_one(cohort, tmp_path):
    words = ["genotypes=g", "test=linear", "out=o"]
    several = GwasConfig.load(None, [*words, "phenotypes=[a.parquet, b.parquet]"])
    assert several.phenotypes == (Path("a.parquet"), Path("b.parquet"))
    (tmp_path / "c.yaml").write_text(several.yaml())
    assert GwasConfig.load(tmp_path / "c.yaml") == several
    assert GwasConfig.load(None, [*words, "phenotypes=a.parquet"]).phenotypes == (Path("a.parquet"),)
    lines = "\n".join(preview(cohort.config("seen", phenotypes=paths(cohort))))
    assert "11 traits" in lines and f"4 traits of {paths(cohort)[1]} -> {cohort.folder / 'seen' / NAMES[1]}" in lines


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/e1.parquet", "b/e2.tsv.gz"], ["e1", "e2"]),
        (["run1/latents.parquet", "run2/latents.parquet"], ["run1", "run2"]),
        (["x/run1/l.parquet", "y/run1/m.parquet", "y/run2/m.parquet"], ["l", "run1-m", "run2-m"]),
        (["a/step 1.parquet", "a/parts.parquet", "a/.pheno"], ["step_1", "parts_", "pheno"]),
        (["a/X.parquet", "b/x.parquet"], ["a", "b"]),  # some disks take X and x for the same folder
        (["a/epoch.1.parquet", "a/epoch.2.parquet"], ["epoch.1", "epoch.2"]),
    ],
)
def test_names_are_unique_and_fit_for_folders(files, expected):
    assert outputs.names([Path(file) for file in files]) == expected


def test_tables_that_cannot_be_told_apart():
    with pytest.raises(InputError, match="a.parquet is listed twice; name each table once"):
        outputs.names([Path("a.parquet"), Path("b.parquet"), Path("a.parquet")])
    alike = [Path("x/run/l.parquet"), Path("y/run/l.parquet")]
    with pytest.raises(
        InputError, match=r"x/run/l.parquet, y/run/l.parquet would .* the same name \(run-l\); rename the files"
    ):
        outputs.names(alike)


# -------------------------------------------------------------------------------------------------- bad input


def test_a_mistake_in_one_table_names_it(cohort, tmp_path):
    good = pd.read_parquet(paths(cohort)[0])

    def refused(message: str, **columns) -> None:
        good.assign(**columns).to_csv(tmp_path / "bad.tsv", sep="\t", index=False, na_rep="NA")
        with pytest.raises(InputError, match=rf"bad\.tsv: {message}"):
            gwas(cohort.config("bad", phenotypes=[paths(cohort)[0], tmp_path / "bad.tsv"]))

    refused(r"z001 is constant \(2.0\)", z001=2.0)
    refused("z001 has no value for any of the 140 people", z001=np.nan)
    refused("has no value of any trait for the 140 people", z000=np.nan, z001=np.nan, z002=np.nan)
    refused(r"trait z002 of F10 I10 \(row 1\) is infinite", z002=np.inf)
    refused("none of its 140 people", IID="x" + good.IID)
    covariate = cohort.covariates.c0.to_numpy()[10:]
    refused("trait z001 is a linear function of the covariates", z001=2 * covariate)
    lines = good.to_csv(sep="\t", index=False).splitlines()
    (tmp_path / "bad.tsv").write_text("\n".join([lines[0].replace("z001", "z000"), *lines[1:]]))
    with pytest.raises(InputError, match=r"bad\.tsv: has two columns called 'z000'"):
        gwas(cohort.config("bad", phenotypes=[paths(cohort)[0], tmp_path / "bad.tsv"]))


def test_tables_without_common_people_are_told_and_tested(cohort, tmp_path, caplog):
    table = pd.read_parquet(paths(cohort)[0])
    half = len(table) // 2
    table.iloc[:half].to_parquet(tmp_path / "women.parquet")
    table.iloc[half:].to_parquet(tmp_path / "men.parquet")
    config = cohort.config("halves", phenotypes=[tmp_path / "women.parquet", tmp_path / "men.parquet"])
    gwas(config)
    assert "have nobody in common among the people analysed" in caplog.text
    alone = cohort.config("men", phenotypes=tmp_path / "men.parquet")
    gwas(alone)
    for name in ("beta", "n", "af1", "multivariate_log10p"):
        found, expected = (Sumstats.open(out).values(name) for out in (config.out / "men", alone.out))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_configurations_that_cannot_be():
    words = ["genotypes=g", "test=linear", "out=o"]
    with pytest.raises(ConfigError, match="phenotypes=\\[\\]: the list is empty"):
        GwasConfig.load(None, [*words, "phenotypes=[]"])
    with pytest.raises(ConfigError, match=r"null_model.variance: names traits of one table"):
        GwasConfig.load(None, [*words, "phenotypes=[a, b]", "null_model.variance=v.tsv"])
