"""What `compare` plans: one store, one association, a training each; and which configurations are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.errors import ConfigError
from udipdist import compare
from udipdist.config import CompareConfig

CONFIGS = Path(__file__).parents[1] / "configs" / "compare"
TWO = {"A": {"model": {"depth": 2}}, "B": {"model": {"name": "cnn_ae"}, "epochs": 3}}


def config(**keys) -> CompareConfig:
    stages = {"train": {"epochs": 7, "model": {"latent": 16}}, "loci": {"tests": 4, "r2": 0.7}, "panel": {"seed": 9}}
    base = {"out": "r", "volumes": "v", "train_volumes": "t", "genotypes": "g", "networks": TWO, "stages": stages}
    return CompareConfig.parse(base | keys)


def test_the_first_network_is_the_run_and_the_others_read_its_stores():
    first, second = compare.networks_of(config())
    assert (first.folder, second.folder) == (Path("r"), Path("r/networks/B"))
    run = compare.run_config(config())
    assert run.stages["train"] == {"epochs": 7, "model": {"latent": 16, "depth": 2}} and not run.report
    steps = {step.name: step for step in compare.steps_of(config(launch={"ranks": 2}), second)}
    assert list(steps) == ["train", "embed", "gwas", "loci", "loci multivariate", "panel"]
    train, embed = steps["train"].config, steps["embed"].config
    assert (train.epochs, train.model.name, train.model.latent) == (3, "cnn_ae", 16) and steps["train"].ranks == 2
    assert train.store == Path("r/ingest/train.zarr") and embed.store == Path("r/ingest/gwas.zarr")
    assert embed.run_dir == train.run_dir and embed.out == steps["gwas"].config.phenotypes[0]
    assert steps["panel"].config.loci == steps["loci"].out and steps["panel"].config.seed == 9
    assert all(second.folder in step.out.parents for step in steps.values())


def test_one_store_serves_both_where_no_training_scans_are_given():
    train, embed, *_ = compare.steps_of(config(train_volumes=None), compare.networks_of(config())[1])
    assert train.config.store == embed.config.store == Path("r/ingest/gwas.zarr")


def test_loci_of_all_are_held_together_under_the_rules_of_each():
    loci, joint = (step.config for step in compare.overlap_steps(config()))
    assert loci.sumstats == joint.sumstats == (Path("r/gwas"), Path("r/networks/B/gwas"))
    assert (loci.trait, loci.tests, loci.r2) == ("minp", 4, 0.7)
    assert (joint.trait, joint.tests, joint.r2) == ("multivariate", None, 0.7)


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({"A": {}}, "needs two networks or more"),
        ({"A": {}, "../B": {}}, "'../B': cannot be the name of a folder"),
        ({"A": {}, "loci": {}}, "'loci': cannot be the name of a folder"),
    ],
)
def test_networks_without_a_place_are_refused(networks, message):
    with pytest.raises(ConfigError, match=message):
        config(networks=networks)


def test_a_wrong_key_names_its_network():
    wrong = config(networks={"A": {}, "B": {"epoch": 3}})
    with pytest.raises(ConfigError, match=r"^networks\.B\.epoch: .*epochs"):
        compare.steps_of(wrong, compare.networks_of(wrong)[1])


def test_the_configuration_that_is_shipped():
    shipped = CompareConfig.load(CONFIGS / "cnn_vs_vit.yaml")
    vit, cnn = compare.networks_of(shipped)
    assert (vit.name, cnn.name) == ("ViT", "CNN")
    assert compare.steps_of(shipped, cnn)[0].config.model.name == "cnn_ae"
    assert compare.steps_of(shipped, vit)[0].config.model.name == "vit_ae"
