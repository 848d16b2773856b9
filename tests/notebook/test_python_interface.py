"""The Python interface: light to import, the same errors as the command line, every example runs."""

from __future__ import annotations

import doctest
import gc
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import udipdist as ud
from hpc.config import describe
from hpc.errors import ConfigError, InputError, OutputExists
from udipdist import notebook
from udipdist.notebook import functions, outputs
from udipdist.verbs import VERBS

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = [test for module in (functions, outputs) for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return ud.example(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def results(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "gwas"
    return ud.gwas(genotypes=cohort.genotypes, phenotypes=cohort.phenotypes, test="linear", out=out)


def test_import_is_light():
    program = (
        "import sys, udipdist as ud\n"
        "assert 'gwas' in dir(ud)\n"
        "heavy = {'numpy', 'torch', 'pandas', 'pydantic', 'xarray', 'zarr', 'udipdist.notebook'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_every_verb_has_a_function_with_its_keys():
    for verb in VERBS:
        name = verb.name.replace(" ", "_").replace("-", "_")
        assert name in ud.INTERFACE
        assert callable(getattr(ud, name))
        if name in ("gwas", "inspect"):
            continue
        parameters = inspect.signature(getattr(ud, name)).parameters
        assert list(parameters) == list(verb.config.model_fields)
        for doc in describe(verb.config):
            assert f"\n{doc.key} : " in getattr(notebook, name).__doc__
    assert set(ud.INTERFACE) <= set(notebook.__all__)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("udipdist.notebook."))
def test_example_runs(example):
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


def test_what_the_issue_names_has_an_example():
    names = {example.name.rpartition(".")[2] for example in EXAMPLES}
    assert {"gwas", "to_xarray", "trait", "loci", "manhattan", "open_volumes", "open_run", "embed"} <= names


def test_blocks_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    assert (tmp_path / "z000.tsv.gz").exists()
    assert len(space["loci"]) == 1
    assert list(space["latents"].columns) == ["FID", "IID", "z000", "z001", "z002", "z003"]


def test_a_module_and_its_verb_share_a_name():
    module = importlib.import_module("udipdist.gwas.scan.verb")
    assert ud.gwas.scan.verb is module
    assert callable(ud.gwas)
    assert inspect.signature(ud.loci).parameters["r2"].default == 0.6
    with pytest.raises(AttributeError, match="no attribute 'gwass'"):
        _ = ud.gwass


def test_a_table_gives_what_its_file_gives(cohort, results, tmp_path):
    path = tmp_path / "traits.parquet"
    cohort.phenotypes.to_parquet(path)
    other = ud.gwas(genotypes=cohort.genotypes, phenotypes=path, test="linear")
    for trait in ("z000", "minp", "multivariate"):
        pd.testing.assert_frame_equal(results.trait(trait), other.trait(trait))
    by_people = ud.gwas(
        genotypes=cohort.genotypes, phenotypes=cohort.phenotypes.set_index(["FID", "IID"]), test="linear"
    )
    pd.testing.assert_frame_equal(results.trait("z000"), by_people.trait("z000"))


def test_another_table_does_not_replace_that_of_a_finished_output(cohort, results):
    table = results.path.with_name("gwas.phenotypes.parquet")
    before = table.stat().st_mtime_ns
    keys = {"genotypes": cohort.genotypes, "test": "linear", "out": results.path}
    with pytest.raises(OutputExists, match="holds another table"):
        ud.gwas(phenotypes=cohort.phenotypes.drop(columns="z001"), **keys)
    with pytest.raises(OutputExists, match="overwrite=true"):
        ud.gwas(phenotypes=cohort.phenotypes, **keys)
    assert table.stat().st_mtime_ns == before


def test_a_temporary_output_goes_with_its_object(cohort, results):
    loci = results.loci(p=1e-6)
    path = loci.path
    assert path.exists()
    assert results.path.exists()
    del loci
    gc.collect()
    assert not path.exists()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: ud.gwas(genotypes="g", phenotypes="p", tset="linear"), ConfigError, "tset: unknown key; did you"),
        (lambda c: ud.loci(sumstats="s", genotypes=c.phenotypes), ConfigError, "genotypes: is a DataFrame"),
        (lambda c: ud.loci(genotypes="g"), ConfigError, "sumstats: is required"),
        (lambda c: ud.gwas_plan(genotypes="g", phenotypes="p"), ConfigError, "out: is required"),
        (
            lambda c: ud.gwas(genotypes="g", phenotypes=c.phenotypes.drop(columns="FID"), test="linear"),
            ConfigError,
            "the DataFrame lacks the columns FID",
        ),
        (lambda c: ud.gwas(genotypes="g", phenotypes=["a", "b"]), ConfigError, "one table a call"),
        (lambda c: ud.open_run(c.folder), InputError, "not the folder of a training"),
        (lambda c: ud.open_sumstats(c.folder), InputError, "holds no sumstats.zarr"),
    ],
)
def test_mistakes_are_told_as_on_the_command_line(call, error, message, cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call(cohort)
    assert not list(tmp_path.iterdir())


def test_inspect_gives_what_the_command_prints(results):
    assert ud.inspect(results)["state"] == "complete"
