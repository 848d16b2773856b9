"""The verb `interpret saliency`: which voxels a latent depends on, compared with networks with random weights.

A map that looks the same for a network that has learnt nothing shows the input and not what was learnt (Adebayo et al.
2018, "Sanity checks for saliency maps"). So every map is made again with random weights, and stands beside it; as a
scale for their likeness, the map of one half of the subjects is compared with that of the other half.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hpc import extras
from hpc.files import publish
from hpc.progress import Progress
from hpc.stage import stage
from udipdist.config import SaliencyConfig
from udipdist.figures import brains
from udipdist.interpret.attributions import Attributor, cubes_of
from udipdist.interpret.network import (
    batches,
    choose_latents,
    draw,
    open_network,
    require_latents,
    survey,
    to_nifti,
)
from udipdist.interpret.pictures import save
from udipdist.latents import latent_names
from udipdist.models import base, registry
from udipdist.models.base import Encoder
from udipdist.training.trained import Opened

log = logging.getLogger(__name__)


def saliency(config: SaliencyConfig) -> None:
    """Write maps/METHOD_zKKK.nii.gz (mean over subjects of the size of the attribution), METHOD_zKKK_signed.nii.gz,
    METHOD_zKKK_random.nii.gz, sanity.tsv and a picture for each method.

    Raises InputError where checkpoint and store do not fit, ConfigError for a latent that is not there.
    """
    _require_captum()
    opened = open_network(config)
    require_latents(config.latents, opened.network.latent)
    rows = draw(opened, config.subjects, config.seed, least=2)
    seen = survey(opened, rows, config.batch)
    sd_L = seen.latents_NL.double().cpu().numpy().std(axis=0, ddof=1)
    chosen = choose_latents(config.latents, config.top, sd_L)
    inputs = {"run_dir": config.run_dir, "store": config.store}
    with stage("saliency", config.out, config, inputs, config.overwrite) as made:
        attributor = Attributor(chosen, seen.mean.float(), _cubes(config, opened), config.steps, config.batch)
        kept = _attribute(config, opened, rows, attributor)
        table = _table(config, chosen, kept, sd_L)
        captions = {f"{method}.png": caption(method, config) for method in config.methods}
        with publish(config.out) as folder:
            (folder / "maps").mkdir(parents=True)
            table.to_csv(folder / "sanity.tsv", sep="\t", index=False, float_format="%.6g", na_rep="NA")
            for method in config.methods:
                shown = _write_maps(kept[method], method, chosen, opened, folder / "maps")
                titles = [method.replace("_", " "), "random weights"][: len(shown)]
                figure = brains.heat(shown, titles, latent_names(chosen), opened.store.mask, opened.store.zooms)
                save(figure, folder / method)
        made.note(subjects=len(rows), latents=chosen, methods=config.methods, captions=captions)
    log.info("similarity of each map to that of random weights, and of two halves of the subjects:\n%s", _text(table))


def preview(config: SaliencyConfig) -> list[str]:
    """What would be explained, and how often the network is asked."""
    _require_captum()
    opened = open_network(config)
    cubes = sum(len(torch.unique(grid)) for grid in _cubes(config, opened))
    subjects = min(config.subjects, len(opened.rows))
    n = len(config.latents) or config.top
    passes = {"integrated_gradients": n * config.steps, "gradient_x_input": n, "occlusion": cubes + 1}
    total = sum(passes[method] for method in config.methods) * subjects * (1 + config.random_networks)
    return [
        f"checkpoint: {opened.checkpoint}, {base.count_parameters(opened.network):,} parameters",
        f"subjects: {subjects:,} of {len(opened.rows):,}; latents: {n}; cubes of occlusion: {cubes:,}",
        f"passes of one subject through the network: {total:,}",
        f"writes: {config.out}",
    ]


def _require_captum() -> None:
    extras.require("interpret saliency", "captum", extra="saliency")


def caption(method: str, config: SaliencyConfig) -> str:
    """What the picture of a method shows, in words."""
    how = {
        "integrated_gradients": "gradient along the way from the mean brain, times the difference from it",
        "gradient_x_input": "value times gradient",
        "occlusion": f"change of the latent when a cube of {config.window_mm:g} mm becomes the mean brain's",
    }[method]
    beside = "; beside it the same for a network with random weights, which has learnt nothing" * bool(
        config.random_networks
    )
    return (
        f"{method.replace('_', ' ').capitalize()}: {how}; mean size over the subjects, a row a latent{beside}. Each "
        "brain is scaled to its own 99.5th percentile."
    )


class _Kept:
    """What is kept of the attributions of one method: sums of maps [K, ...], and numbers [K] of each subject."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}  # signed, random; even and odd: the sizes, of every second subject
        self.subjects = {"even": 0, "odd": 0}
        self.likeness: list[np.ndarray] = []
        self.gap: list[np.ndarray] = []

    def add(self, name: str, maps: Tensor) -> None:
        """Add maps [B, K, ...] to a sum."""
        total = maps.double().sum(dim=0)
        self.sums[name] = self.sums[name] + total if name in self.sums else total

    def mean(self, name: str) -> Tensor:
        """A mean map [K, ...] over subjects: signed, random, even, odd, or `size`, over all of them."""
        if name == "size":
            return (self.sums["even"] + self.sums["odd"]) / sum(self.subjects.values())
        return self.sums[name] / (self.subjects.get(name) or sum(self.subjects.values()))


def _attribute(config: SaliencyConfig, opened: Opened, rows: np.ndarray, attributor: Attributor) -> dict[str, _Kept]:
    """Attributions of all subjects by all methods, streamed: memory does not grow with the subjects."""
    strangers = [_stranger(opened, config.seed + i) for i in range(config.random_networks)]
    kept = {method: _Kept() for method in config.methods}
    with Progress("saliency", len(rows) * len(kept), "maps") as progress:
        for part, prepared in batches(opened, rows, config.batch):
            odd = np.searchsorted(rows, part) % 2 == 1
            for method, own in kept.items():
                maps = attributor(method, opened.network, prepared)
                own.add("signed", maps)
                for name, members in (("even", ~odd), ("odd", odd)):
                    own.add(name, maps[torch.from_numpy(members).to(maps.device)].abs())
                    own.subjects[name] += int(members.sum())
                if method == "integrated_gradients":
                    own.gap += list(_gap(maps, opened.network, prepared, attributor))
                likeness = []
                for stranger in strangers:
                    other = attributor(method, stranger, prepared)
                    own.add("random", other.abs() / len(strangers))
                    likeness.append(_likeness(maps, other, prepared != 0))
                if likeness:
                    own.likeness += list(np.mean(likeness, axis=0))
                progress.advance(len(part))
    return kept


def _stranger(opened: Opened, seed: int) -> Encoder:
    """The same network with weights as drawn before training."""
    like = next(opened.network.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = registry.build(opened.recipe.model, opened.store.mask)
    return network.eval().requires_grad_(False).to(like.device)


@torch.no_grad()
def _gap(maps: Tensor, network: Encoder, prepared: Tensor, attributor: Attributor) -> np.ndarray:
    """By how much integrated gradients miss what they must sum to, |sum - difference of the latents|, [B, K]."""
    difference = network.encode(prepared) - network.encode(attributor.reference(prepared))
    sums = maps.double().flatten(2).sum(dim=2)
    return (sums - difference[:, list(attributor.latents)].double()).abs().cpu().numpy()


def _likeness(maps: Tensor, other: Tensor, brain: Tensor) -> np.ndarray:
    """Spearman's correlation of the sizes of two maps over each subject's brain, [B, K]."""
    return np.array(
        [
            [_spearman(a[inside], b[inside]) for a, b in zip(of_one, of_other, strict=True)]
            for of_one, of_other, inside in zip(maps.abs(), other.abs(), brain, strict=True)
        ]
    )


def _spearman(a: Tensor, b: Tensor) -> float:
    """Not a number where one of them is constant."""
    from scipy.stats import rankdata  # scipy.stats takes half a second to import

    x, y = (rankdata(t.cpu().numpy()) for t in (a, b))
    if x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _table(config: SaliencyConfig, chosen: list[int], kept: dict[str, _Kept], sd_L: np.ndarray) -> pd.DataFrame:
    """A row a method and latent. random_subjects: likeness to random weights, the mean over subjects; random: that of
    the mean maps; halves: that of the mean maps of every second subject; gap: error of the quadrature in SD of the
    latent, the mean over subjects."""
    rows = []
    for method, own in kept.items():
        brain = own.mean("size").sum(dim=0) > 0
        for i, k in enumerate(chosen):

            def alike(one: str, other: str, own=own, brain=brain, i=i) -> float:
                return _spearman(own.mean(one)[i][brain], own.mean(other)[i][brain])

            checked = bool(config.random_networks)
            rows.append(
                {
                    "method": method,
                    "latent": latent_names([k])[0],
                    "random_subjects": np.mean([row[i] for row in own.likeness]) if checked else np.nan,
                    "random": alike("size", "random") if checked else np.nan,
                    "halves": alike("even", "odd"),
                    "gap": np.mean([row[i] for row in own.gap]) / sd_L[k] if own.gap and sd_L[k] else np.nan,
                }
            )
    return pd.DataFrame(rows)


def _write_maps(own: _Kept, method: str, chosen: list[int], opened: Opened, folder: Path) -> list[np.ndarray]:
    """Write the maps of one method; returns those shown, [K, x, y, z]: the sizes, and with random weights."""
    volumes = {
        name: opened.network.volumes(own.mean(name).float()).cpu().numpy()
        for name in ("size", "signed", "random")
        if name == "size" or name in own.sums
    }
    for name, volumes_KXYZ in volumes.items():
        for k, volume in zip(chosen, volumes_KXYZ, strict=True):
            ending = "" if name == "size" else f"_{name}"
            to_nifti(volume, opened.store, folder / f"{method}_{latent_names([k])[0]}{ending}.nii.gz")
    return [volumes[name] for name in ("size", "random") if name in volumes]


def _cubes(config: SaliencyConfig, opened: Opened) -> list[Tensor]:
    """None without occlusion."""
    if "occlusion" not in config.methods:
        return []
    edges = [max(1, round(config.window_mm / zoom)) for zoom in opened.store.zooms]
    return cubes_of(opened.network, opened.store.mask, edges, config.shifts)


def _text(table: pd.DataFrame) -> str:
    shown = table.rename(
        columns={"random_subjects": "random, a subject", "random": "random, mean map", "gap": "IG gap"}
    )
    return shown.to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="-")
