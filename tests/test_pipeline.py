"""What `run` plans: the stages, their files, and where a user's keys go."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace

import pytest

from hpc.errors import ConfigError, InputError, InUse
from hpc.files import publish_json
from hpc.lock import held
from hpc.stage import manifest_path
from tests.analysis.planted import plant
from udipdist import pipeline
from udipdist.cli import VERBS
from udipdist.config import DemoConfig, RunConfig


def config(**keys) -> RunConfig:
    return RunConfig.parse({"out": "r", "volumes": "v", "genotypes": "g", **keys})


def by_name(**keys) -> dict[str, pipeline.Step]:
    return {step.name: step for step in pipeline.plan(config(**keys))}


def test_one_store_serves_both_where_no_training_scans_are_given():
    steps = by_name()
    assert "ingest train" not in steps
    assert steps["train"].config.store == steps["embed"].config.store == steps["ingest gwas"].out


def test_training_scans_get_a_store_of_their_own():
    steps = by_name(train_volumes="t")
    assert steps["train"].config.store == steps["ingest train"].out != steps["embed"].config.store


def test_without_a_grm_the_test_is_linear_and_a_users_word_wins():
    assert by_name()["gwas"].config.test == "linear"
    assert by_name(sparse_grm="s")["gwas"].config.test == "mixed"
    assert by_name(sparse_grm="s", stages={"gwas": {"test": "linear"}})["gwas"].config.test == "linear"
    assert by_name(stages={"gwas": {"sparse_grm": "s"}})["gwas"].config.test == "mixed"


def test_keys_of_a_stage_reach_it():
    steps = by_name(stages={"train": {"optim": {"lr": 1e-4}}, "loci": {"r2": 0.5}}, launch={"ranks": 4})
    assert steps["train"].config.optim.lr == 1e-4 and steps["train"].ranks == 4
    assert steps["loci"].config.r2 == steps["loci multivariate"].config.r2 == 0.5


def test_the_divisor_of_many_traits_is_not_that_of_the_joint_test():
    steps = by_name(stages={"loci": {"tests": 128}})
    assert (steps["loci"].config.tests, steps["loci multivariate"].config.tests) == (128, None)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"trian": {}}, "stages.trian: unknown stage"),
        ({"gwas": {"formul": "age"}}, "stages.gwas.formul: unknown key; did you mean formula"),
        ({"train": {"optim": {"lr": -1}}}, "stages.train.optim.lr=-1"),
    ],
)
def test_wrong_keys_are_refused_before_anything_runs(stages, message):
    with pytest.raises(ConfigError, match=message):
        pipeline.plan(config(stages=stages))


def test_every_step_is_a_verb():
    verbs = {verb.name for verb in VERBS}
    assert {step.verb for step in by_name(train_volumes="t", interpret=True).values()} <= verbs


def test_looks_into_the_network_are_asked_for_and_fit_it():
    assert not any(name.startswith("interpret") for name in by_name())
    assert by_name()["clusters"].config.maps == () and by_name()["clusters"].config.panel == ()
    named = by_name(interpret=True, stages={"panel": {"genes": "ensembl"}})
    assert named["clusters"].config.maps == (named["interpret snp"].out,)
    assert named["clusters"].config.panel == (named["panel"].out,)
    assert by_name(interpret=True, stages={"snp": {"atlas": "none"}})["clusters"].config.maps == ()
    steps = by_name(interpret=True, stages={"snp": {"controls": 3}})
    assert [name for name in steps if name.startswith("interpret")] == [
        f"interpret {name}" for name in pipeline.INTERPRETATIONS
    ]
    assert steps["interpret snp"].config.controls == 3 and steps["interpret snp"].config.loci == steps["loci"].out
    assert "interpret attention" not in by_name(interpret=True, stages={"train": {"model": {"name": "cnn_ae"}}})


def test_maps_of_lead_snps_are_left_out_where_there_are_no_loci(tmp_path, monkeypatch, caplog):
    loci, done = tmp_path / "loci", []
    publish_json(manifest_path(loci), {"facts": {"n_loci": 0}})
    monkeypatch.setattr(pipeline, "execute", lambda step, *rest: done.append(step.name))
    step = by_name(interpret=True)["interpret snp"]
    with caplog.at_level("INFO"):
        pipeline.execute_all([replace(step, loci=loci)], tmp_path)
    assert not done and "no loci, so there is nothing to show" in caplog.text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"clades": 2, "each": 1}, "2 lead SNPs, and a tree needs 3"),
        ({"q": 1}, "one latent, and a direction needs several"),
        ({}, "no maps of lead SNPs to name clusters by"),
    ],
    ids=["leads", "latents", "maps"],
)
def test_clusters_are_left_out_where_there_is_too_little(tmp_path, monkeypatch, caplog, keys, said):
    study, done = plant(tmp_path, **keys), []
    monkeypatch.setattr(pipeline, "execute", lambda step, *rest: done.append(step.name))
    step = by_name(interpret=True)["clusters"]
    places = {"sumstats": (study.gwas,), "loci": (study.loci,), "maps": (tmp_path / "maps",)}
    with caplog.at_level("INFO"):
        pipeline.execute_all([replace(step, config=step.config.model_copy(update=places))], tmp_path)
        assert not done and said in caplog.text
        (tmp_path / "maps").mkdir()
        pipeline.execute_all([replace(step, config=step.config.model_copy(update=places))], tmp_path)
    assert done == (["clusters"] if not keys else [])


def test_demo_refuses_an_unknown_stage():
    from udipdist.demo import preview

    with pytest.raises(ConfigError, match="stages.trian: unknown stage"):
        preview(DemoConfig.parse({"stages": {"trian": {}}}))


def test_inputs_of_the_association_are_looked_at_before_the_training(tmp_path):
    keys = {"out": tmp_path / "r", "genotypes": tmp_path / "nowhere{chr}"}
    with pytest.raises(InputError, match="none of the files for chr = 1..22, X, XY exists"):
        pipeline.run(config(**keys))
    assert not (tmp_path / "r").exists()


def test_what_stages_import_ahead_is_there():
    """The server passes over modules that it cannot import."""
    assert all(importlib.util.find_spec(name) for name in pipeline.IMPORTS)


KEYS = {
    "run": {"volumes": "v", "genotypes": "g"},
    "compare": {"volumes": "v", "genotypes": "g", "networks": {"A": {"model": {"depth": 2}}, "B": {}}},
    "demo": {},
    "sweep-demo": {},
    "gwas-plan": {"genotypes": "g", "phenotypes": "p", "test": "linear"},
}


@pytest.mark.parametrize("name", KEYS)
def test_two_of_a_verb_on_one_folder_are_refused(tmp_path, name):
    verb = next(verb for verb in VERBS if verb.name == name)
    config = verb.config.parse({"out": str(tmp_path / "out"), **KEYS[name]})
    function = getattr(importlib.import_module(verb.module), verb.function)
    with held(tmp_path / "out", name), pytest.raises(InUse, match=f"out: another {name} is at work on it"):
        function(config)
    assert not list(tmp_path.iterdir())
