"""The networks' configurations: chosen by name, keys that a network lacks refused, and how others join."""

from __future__ import annotations

import importlib
import sys
from typing import ClassVar, Literal

import pydantic
import pytest
from pydantic import Field

from hpc.config import describe
from hpc.errors import ConfigError
from udipdist.config import CnnAeConfig, NetworkConfig, TrainConfig, VitAeConfig, VitUdipConfig, networks

# What a run wrote when all networks had one class: every key, those of the other network at their defaults.
OF_BEFORE = {
    "name": "vit_ae", "size": None, "compat": None, "patch": 4, "width": 128, "depth": 4, "heads": 4, "mlp_ratio": 3.0,
    "decoder_width": None, "decoder_depth": 1, "decoder_heads": None, "latent": 128, "pool": "mean", "variational": 0.0,
    "covariance": 0.0, "masked": 0.0, "dropout": 0.0, "channels": 16, "levels": 4,
}  # fmt: skip
OF_THE_PAPER = {"depth": 12, "heads": 8, "mlp_ratio": 4.0, "decoder_width": 64, "decoder_depth": 12, "decoder_heads": 8}


@pytest.fixture(autouse=True)
def shipped(monkeypatch):
    """Only the networks of this package are known at first, and those that a test adds are forgotten after it."""
    own = {key: cls for key, cls in networks._KNOWN.items() if cls.__module__ == networks.__name__}
    monkeypatch.setattr(networks, "_KNOWN", own)


def model(**keys) -> NetworkConfig:
    return TrainConfig.parse({"store": "s", "run_dir": "r", "model": keys}).model


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"pool": "cls", "depth": 2}, VitAeConfig(patch=4, pool="cls", depth=2)),
        ({"name": "cnn_ae", "channels": 8}, CnnAeConfig(patch=4, channels=8)),
        ({"name": "cnn_ae", "compat": "udip"}, CnnAeConfig(patch=4, compat="udip")),
        ({"compat": "vit_udip", **OF_THE_PAPER}, VitUdipConfig(patch=4)),
    ],
)
def test_the_configuration_of_a_run_of_before_is_read(keys, expected):
    found = model(**{**OF_BEFORE, **keys})
    assert found == expected and type(found) is type(expected)
    assert model(**found.tree()) == found


def test_a_network_is_chosen_by_name_and_published_form():
    assert type(TrainConfig(store="s", run_dir="r").model) is VitAeConfig
    assert type(model(patch=8)) is VitAeConfig and type(model(name="cnn_ae")) is CnnAeConfig
    assert type(model(compat="vit_udip")) is type(model(name="vit_ae", compat="vit_udip")) is VitUdipConfig
    assert TrainConfig(store="s", run_dir="r", model=CnnAeConfig(levels=2)).tree()["model"]["levels"] == 2


def test_a_key_that_a_network_lacks_is_refused_by_its_type():
    for wrong in (lambda: VitAeConfig(channels=16), lambda: CnnAeConfig(width=128), lambda: VitUdipConfig(depth=12)):
        with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
            wrong()


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ({"name": "cnn_ae", "width": 64, "pool": "cls"},
         ["model.name=cnn_ae: has no model.width=64, model.pool=cls; leave it out (this network has patch, compat, "
          "channels, levels, latent, covariance)"]),
        ({"name": "cnn_ae", "width": 64, "levels": 0, "chanels": 3},
         ["model.name=cnn_ae: has no model.width=64; ", "model.levels=0: input should be greater than 0",
          "model.chanels: unknown key; did you mean model.channels?"]),
        ({"compat": "vit_udip", "channels": 8, "width": 64}, ["leave out model.channels=8, model.width=64"]),
        ({"name": "vit"}, ["model.name='vit': input should be 'vit_ae' or 'cnn_ae'"]),
        ({"name": ["vit_ae"]}, ["model.name=['vit_ae']: input should be 'vit_ae' or 'cnn_ae'"]),
        ({"compat": "x"}, ["model.compat='x': input should be 'vit_udip' or 'udip'"]),
    ],
)  # fmt: skip
def test_mistakes_are_told_all_at_once(keys, lines):
    with pytest.raises(ConfigError) as caught:
        model(**keys)
    found = str(caught.value).splitlines()
    assert len(found) == len(lines) and all(line in own for line, own in zip(lines, found, strict=True)), found


def test_mistakes_are_told_where_the_configuration_stands():
    with pytest.raises(ConfigError, match=r"^networks.B.model.name=cnn_ae: has no model.width=64"):
        TrainConfig.parse({"store": "s", "run_dir": "r", "model": {"name": "cnn_ae", "width": 64}}, "networks.B")
    with pytest.raises(ConfigError, match="^model=3: input should be a valid dictionary"):
        TrainConfig.parse({"store": "s", "run_dir": "r", "model": 3})


def test_the_reference_says_whose_a_key_is():
    docs = [doc for doc in describe(TrainConfig) if doc.key.startswith("model.")]
    of = lambda key: [doc.meaning.split(":")[0] for doc in docs if doc.key == f"model.{key}"]  # noqa: E731
    assert of("channels") == ["cnn_ae"] and of("width") == ["vit_ae"] and of("latent") == ["vit_ae, cnn_ae"]
    assert of("dropout") == ["vit_ae, compat=vit_udip"]
    assert {doc.key.removeprefix("model.") for doc in docs} == OF_BEFORE.keys()


def test_a_network_of_an_installed_package_is_found(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text(
        "from typing import ClassVar, Literal\nfrom udipdist.config import NetworkConfig\n"
        "class FarConfig(NetworkConfig):\n    network: ClassVar[str] = 'elsewhere_torch:Far'\n"
        "    name: Literal['far'] = 'far'\n    breadth: int = 3\n"
    )
    (tmp_path / "elsewhere-1.dist-info").mkdir()
    (tmp_path / "elsewhere-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (tmp_path / "elsewhere-1.dist-info" / "entry_points.txt").write_text(
        "[udipdist.networks]\nfar = elsewhere:FarConfig\n"
    )
    with pytest.raises(ConfigError, match="model.name='far': input should be 'vit_ae' or 'cnn_ae'"):
        model(name="far")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    found = model(name="far", breadth=5, channels=16)
    assert type(found).__module__ == "elsewhere" and found.breadth == 5
    with pytest.raises(ConfigError, match=r"model.name=far: has no model.channels=8; .*has patch, breadth\)"):
        model(name="far", channels=8)
    with pytest.raises(ConfigError, match="model.name=vit_ae: has no model.breadth=5"):
        model(breadth=5)
    del sys.modules["elsewhere"]


def test_two_networks_of_one_name_are_refused():
    with pytest.raises(TypeError, match="Second: there is a network of this name already, .*VitAeConfig"):

        class Second(NetworkConfig):
            network: ClassVar[str] = "nowhere:Second"
            name: Literal["vit_ae"] = Field("vit_ae", description="another")
