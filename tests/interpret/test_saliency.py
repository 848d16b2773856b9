"""Saliency: captum's maps against a network whose attributions are known, and the check against known answers."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from hpc.errors import ConfigError, InputError
from hpc.stage import read_manifest
from udipdist.config import SaliencyConfig
from udipdist.interpret import network as network_module
from udipdist.interpret import saliency as module
from udipdist.interpret.attributions import Attributor, cubes_of
from udipdist.interpret.network import batches, open_network, survey
from udipdist.interpret.saliency import preview, saliency
from udipdist.training.trained import open_trained
from udipdist.volumes.packed import Gather
from udipdist.volumes.store import VolumeStore

METHODS = ("integrated_gradients", "gradient_x_input", "occlusion")


class Linear(nn.Module):
    """latent = weights x voxels, or its square, of volumes 4 x 6 x 5 of which it reads every voxel backwards."""

    def __init__(self, power: int = 1):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(7, 120, generator=generator), requires_grad=False)
        self.power = power

    def encode(self, prepared):
        return (prepared.flatten(1) @ self.weight.T) ** self.power

    def gather(self):
        return Gather((2, 61), np.concatenate([np.arange(120)[::-1], [-1, -1]]).astype(np.int64))


@pytest.fixture
def subjects() -> torch.Tensor:
    """3 subjects [3, 120] with background."""
    values = torch.randn(3, 120, generator=torch.Generator().manual_seed(4))
    return values * (values.abs() > 0.2)


def attributor(subjects: torch.Tensor, cubes=(), steps: int = 16) -> Attributor:
    return Attributor([5, 0], subjects.mean(dim=0), cubes, steps, 3)


def test_gradients_of_a_linear_network_are_its_weights(subjects):
    network, own = Linear(), attributor(subjects)
    reference = own.reference(subjects)
    weight_KV = network.weight[[5, 0]]
    assert (reference[subjects == 0] == 0).all() and (reference != 0).any()
    maps = own("gradient_x_input", network, subjects)
    torch.testing.assert_close(maps, subjects[:, None] * weight_KV)
    maps = own("integrated_gradients", network, subjects)
    torch.testing.assert_close(maps, (subjects - reference)[:, None] * weight_KV, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_of_a_square(subjects):
    """d/dx (wx)^2 along the path from r to x is linear, so its mean is that of the middle."""
    network, own = Linear(power=2), attributor(subjects, steps=3)
    difference, middle = subjects - own.reference(subjects), (subjects + own.reference(subjects)) / 2
    expected = torch.stack([2 * (middle @ w)[:, None] * w * difference for w in network.weight[[5, 0]]], dim=1)
    torch.testing.assert_close(own("integrated_gradients", network, subjects), expected, rtol=1e-4, atol=1e-4)


def test_occlusion_of_a_linear_network_is_the_sum_over_the_cube(subjects):
    network = Linear()
    label = torch.arange(120) // 17
    other = torch.arange(120) % 4
    own = attributor(subjects, cubes=[label, other])
    part = ((subjects - own.reference(subjects))[:, None] * network.weight[[5, 0]]).double()
    expected = torch.zeros_like(part)
    for grid in (label, other):
        for cube in grid.unique():
            expected[..., grid == cube] += part[..., grid == cube].sum(dim=2, keepdim=True) / 2
    torch.testing.assert_close(own("occlusion", network, subjects).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shifts", [1, 2])
def test_cubes(shifts):
    mask = np.zeros((4, 6, 5), bool)
    mask[:, :4] = True
    grids = cubes_of(Linear(), mask, (2, 2, 3), shifts)
    assert len(grids) == shifts**3
    for shift, grid in zip(np.ndindex(shifts, shifts, shifts), grids, strict=True):
        assert grid.shape == (2, 61) and (grid.flatten()[120:] == 0).all()
        volume = grid.flatten()[:120].flip(0).view(4, 6, 5).numpy()
        offset = [s * edge // shifts for s, edge in zip(shift, (2, 2, 3), strict=True)]
        seen = {}
        for place in np.ndindex(4, 6, 5):
            cube = tuple((p + o) // e for p, o, e in zip(place, offset, (2, 2, 3), strict=True))
            assert seen.setdefault(cube, volume[place]) == volume[place]
        with_brain = {n for n in seen.values() if n}
        assert len(with_brain) == sum(n > 0 for n in seen.values())  # no two cubes with brain share a number
        assert (volume[mask] > 0).all() and with_brain == set(range(1, len(with_brain) + 1))


def test_maps_of_a_network_sum_to_its_latents(tiny):
    opened = open_network(SaliencyConfig(**tiny.keys))
    mean = survey(opened, opened.rows, 3).mean.float()
    _, prepared = next(batches(opened, opened.rows, 8))
    gaps = []
    for steps in (2, 64):
        own = Attributor([0, 4], mean, [], steps, 8)
        maps = own("integrated_gradients", opened.network, prepared)
        gaps.append(module._gap(maps, opened.network, prepared, own).max())
    assert gaps[1] < 1e-3 * opened.network.encode(prepared)[:, [0, 4]].std() and gaps[1] < 0.1 * gaps[0]


def test_the_mean_brain_and_the_latents(tiny):
    opened = open_network(SaliencyConfig(**tiny.keys))
    assert [opened.store.subjects[row] for row in opened.rows] == [f"S{i}" for i in range(9) if i != 2]
    found = survey(opened, opened.rows, 3)
    volumes = opened.network.volumes(torch.from_numpy(opened.tokens.normalised(opened.rows))).numpy()
    count = (volumes != 0).sum(axis=0)
    expected = volumes.sum(axis=0) / np.maximum(count, 1)
    np.testing.assert_allclose(opened.network.volumes(found.mean[None])[0], expected, atol=1e-6)
    share = opened.network.volumes(found.share[None])[0]
    np.testing.assert_allclose(share, count / 8, atol=1e-12)
    assert found.latents_NL.shape == (8, 6) and not any(p.requires_grad for p in opened.network.parameters())


def test_the_verb(tiny, caplog):
    config = SaliencyConfig(**tiny.keys, subjects=6, latents=[4, 1], steps=4, window_mm=16, batch=4)
    with caplog.at_level("INFO", logger="udipdist"):
        saliency(config)
    table = pd.read_csv(tiny.out / "sanity.tsv", sep="\t")
    assert list(zip(table["method"], table["latent"], strict=True)) == [
        (m, z) for m in METHODS for z in ("z004", "z001")
    ]
    alike = table[["random_subjects", "random", "halves"]]
    assert np.isfinite(alike).all(axis=None) and (alike.abs() <= 1).all(axis=None)
    assert table["gap"].notna().tolist() == [True, True, False, False, False, False]
    assert "similarity of each map to that of random weights" in caplog.text and "integrated_gradients" in caplog.text
    mask = VolumeStore.open(tiny.store).mask
    for method in METHODS:
        for ending in ("", "_signed", "_random"):
            image = nib.load(tiny.out / "maps" / f"{method}_z001{ending}.nii.gz")
            values = np.asarray(image.dataobj)
            np.testing.assert_array_equal(image.affine, VolumeStore.open(tiny.store).affine(0))
            assert values.shape == mask.shape and values.dtype == np.float32 and values[mask].std() > 0
            assert ending == "_signed" or values.min() >= 0
        assert (tiny.out / f"{method}.png").exists() and (tiny.out / f"{method}.pdf").exists()
    facts = read_manifest(tiny.out)["facts"]
    assert facts["subjects"] == 6 and facts["latents"] == [4, 1]
    assert set(facts["captions"]) == {f"{method}.png" for method in METHODS}


def test_the_batch_changes_nothing_and_the_seed_does(tiny, tmp_path):
    keys = tiny.keys | {"subjects": 5, "top": 2, "methods": ["integrated_gradients"], "steps": 3}
    tables = []
    for i, extra in enumerate(({"batch": 1}, {"batch": 5}, {"seed": 8})):
        saliency(SaliencyConfig(**(keys | {"out": tmp_path / str(i)}), **extra))
        tables.append(pd.read_csv(tmp_path / str(i) / "sanity.tsv", sep="\t"))
    pd.testing.assert_frame_equal(tables[0], tables[1], rtol=1e-3, atol=1e-4)
    assert not np.allclose(tables[0]["random"], tables[2]["random"])


def test_a_network_is_like_itself_and_not_like_a_random_one(tiny, monkeypatch, tmp_path):
    keys = tiny.keys | {"subjects": 4, "top": 1, "methods": ["gradient_x_input", "occlusion"], "window_mm": 16}
    saliency(SaliencyConfig(**keys))
    apart = pd.read_csv(tiny.out / "sanity.tsv", sep="\t")
    monkeypatch.setattr(module, "_stranger", lambda opened, seed: opened.network)
    saliency(SaliencyConfig(**(keys | {"out": tmp_path / "same"})))
    same = pd.read_csv(tmp_path / "same" / "sanity.tsv", sep="\t")
    np.testing.assert_allclose(same[["random_subjects", "random"]], 1, atol=1e-9)
    assert (apart[["random_subjects", "random"]] < 0.9).all(axis=None)


def test_random_networks_are_drawn_by_seed_alone(tiny):
    opened = open_network(SaliencyConfig(**tiny.keys))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (module._stranger(opened, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])
    assert not torch.equal(first["embed.weight"], opened.network.state_dict()["embed.weight"])


def test_without_the_check(tiny):
    saliency(SaliencyConfig(**tiny.keys, subjects=3, top=1, methods=["gradient_x_input"], random_networks=0))
    table = pd.read_csv(tiny.out / "sanity.tsv", sep="\t")
    assert table[["random_subjects", "random"]].isna().all(axis=None) and table["halves"].notna().all()
    assert not list(tiny.out.glob("maps/*_random.nii.gz"))


def test_latents_that_vary_most_come_first(tiny):
    saliency(SaliencyConfig(**tiny.keys, subjects=8, top=3, methods=["gradient_x_input"], random_networks=0))
    opened = open_network(SaliencyConfig(**tiny.keys))
    latents = survey(opened, opened.rows, 8).latents_NL.numpy()
    assert read_manifest(tiny.out)["facts"]["latents"] == np.argsort(-latents.std(axis=0))[:3].tolist()


def test_refusals(tiny, ball_run):
    with pytest.raises(ConfigError, match="latents: the network has no 6, 9; its numbers are 0 to 5"):
        saliency(SaliencyConfig(**tiny.keys, latents=[0, 6, 9]))
    with pytest.raises(ConfigError, match=r"latents=\[2, 2\]: give each number once"):
        saliency(SaliencyConfig(**tiny.keys, latents=[2, 2]))
    with pytest.raises(InputError, match="checkpoint=5: no such checkpoint"):
        saliency(SaliencyConfig.parse(tiny.keys | {"checkpoint": 5}))
    with pytest.raises(InputError, match="config.yaml: is missing"):
        saliency(SaliencyConfig(**(tiny.keys | {"run_dir": ball_run})))
    with pytest.raises(ConfigError, match="seed"):
        SaliencyConfig.parse({key: str(path) for key, path in tiny.keys.items()} | {"seed": -1})
    assert not tiny.out.exists()


def test_what_the_network_lacks_is_told_before_a_brain_is_read(tiny, monkeypatch):
    monkeypatch.setattr(module, "survey", lambda *_: pytest.fail("brains were read"))
    with pytest.raises(ConfigError, match="the network has no 6"):
        saliency(SaliencyConfig(**tiny.keys, latents=[6]))


def test_a_store_with_too_few_readable_subjects(tiny, monkeypatch):
    def only(rows: list[int]):
        opened = open_trained(tiny.run_dir, "last", tiny.store)
        monkeypatch.setattr(network_module, "open_trained", lambda *_: replace(opened, rows=np.array(rows, int)))

    only([4])
    with pytest.raises(InputError, match=r"store.zarr: has 1 readable subject; this needs 2 or more"):
        saliency(SaliencyConfig(**tiny.keys))
    only([])
    with pytest.raises(InputError, match=r"store.zarr: has no readable volume; ingest the scans again"):
        saliency(SaliencyConfig(**tiny.keys))


def test_preview(tiny):
    lines = preview(SaliencyConfig(**tiny.keys, subjects=20, top=2, steps=10, window_mm=16))
    text = "\n".join(lines)
    assert "step-00000007" in text and "subjects: 8 of 8; latents: 2" in text
    cubes = int(text.split("cubes of occlusion: ")[1].split("\n")[0])
    assert f"through the network: {(2 * 10 + 2 + cubes + 1) * 8 * 2:,}" in text and not tiny.out.exists()
