"""Every look at a convolutional network: what needs no attention works as for a transformer, the rest is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from hpc.checkpoint import Checkpoints
from hpc.comm import Comm
from hpc.errors import InputError
from hpc.world import World
from udipdist.config import AttentionConfig, CnnAeConfig, GalleryConfig, PerturbConfig, SaliencyConfig, TrainConfig
from udipdist.interpret import gallery as gallery_module
from udipdist.interpret import perturb as perturb_module
from udipdist.interpret import saliency as saliency_module
from udipdist.interpret.attention import attention
from udipdist.interpret.gallery import gallery
from udipdist.interpret.network import open_network, survey
from udipdist.interpret.perturb import map_path, perturb
from udipdist.interpret.saliency import saliency
from udipdist.models import base, registry
from udipdist.volumes.store import VolumeStore


@pytest.fixture(scope="module", params=[None, "udip"])
def keys(request, ball_run, tmp_path_factory) -> dict[str, Path]:
    """A convolutional network with random weights that has seen batches, ours and as published."""
    folder, store = tmp_path_factory.mktemp("cnn") / "run", ball_run / "store.zarr"
    config = CnnAeConfig(compat=request.param, patch=4, channels=2, levels=2, latent=5)
    torch.manual_seed(3)
    volumes = VolumeStore.open(store)
    network = registry.build(config, volumes.mask)
    for _ in range(20):
        network(network.prepare(torch.from_numpy(volumes.normalised(np.flatnonzero(volumes.valid)))))
    save = lambda to: save_file(network.state_dict(), to / base.WEIGHTS)  # noqa: E731
    Checkpoints(folder / "checkpoints").save(Comm(World()), 0, save, {})
    (folder / "config.yaml").write_text(TrainConfig(store=store, run_dir=folder, model=config).yaml())
    return {"run_dir": folder, "store": store}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures take most of the time."""
    for module in (gallery_module, perturb_module, saliency_module):
        monkeypatch.setattr(module, "save", lambda figure, path: None)


def test_it_has_no_attention(keys, tmp_path):
    with pytest.raises(InputError, match="its network has no attention to look at; give run_dir= of a model.name=vit"):
        attention(AttentionConfig(**keys, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_saliency_sums_to_its_latents(keys, tmp_path):
    methods = ["integrated_gradients", "gradient_x_input", "occlusion"]
    saliency(SaliencyConfig(**keys, out=tmp_path / "out", latents=[1], subjects=4, steps=48, window_mm=20))
    table = pd.read_csv(tmp_path / "out" / "sanity.tsv", sep="\t")
    assert table["method"].tolist() == methods and table["gap"][0] < 0.2  # kinks are integrated slowly
    for method in methods:
        assert np.ptp(nib.load(tmp_path / "out" / "maps" / f"{method}_z001.nii.gz").get_fdata()) > 0


def test_maps_of_a_latent_are_what_the_decoder_changes(keys, tmp_path):
    config = PerturbConfig(**keys, out=tmp_path / "out", latents=(2,), atlas="none")
    perturb(config)
    opened = open_network(config)
    seen = survey(opened, opened.rows, 8)
    step_L = torch.zeros(5)
    step_L[2] = seen.latents_NL[:, 2].std()
    with torch.no_grad():
        change = opened.network.decode(seen.latents_NL + step_L) - opened.network.decode(seen.latents_NL)
    expected = opened.network.volumes(change).mean(dim=0).numpy()
    found = nib.load(map_path(config.out, "z002", "mean")).get_fdata()
    assert (found != 0).sum() > 100
    np.testing.assert_allclose(found[found != 0], expected[found != 0], rtol=1e-3, atol=1e-5)


def test_the_gallery_draws_it(keys, tmp_path):
    gallery(GalleryConfig(**keys, out=tmp_path / "out", subjects=2, top=2, steps=3))
    walks = pd.read_csv(tmp_path / "out" / "walks.tsv", sep="\t")
    assert (walks["change"] > 0).tolist() == [True, False, True] * 2
