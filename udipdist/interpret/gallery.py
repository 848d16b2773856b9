"""The verb `interpret gallery`: what a network makes of brains, and what its latents look like when they are walked.

A walk starts at the mean of the latents over a sample of subjects, and changes one latent (or one principal component)
by some standard deviations of its own; the others stay at their mean.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from hpc.errors import ConfigError
from hpc.files import publish
from hpc.progress import Progress
from hpc.stage import stage
from udipdist.config import GalleryConfig
from udipdist.figures import brains
from udipdist.interpret.network import (
    BRAIN_SHARE,
    batches,
    choose_latents,
    decoder,
    draw,
    open_network,
    require_latents,
    to_nifti,
)
from udipdist.interpret.pictures import save
from udipdist.models import base
from udipdist.models.layers.tokens import foreground
from udipdist.models.losses import psnr, ssim
from udipdist.training.trained import Opened

log = logging.getLogger(__name__)


def gallery(config: GalleryConfig) -> None:
    """Write reconstructions and walks as pictures, subjects.tsv (a row a subject of the sample: rmse, r, ssim, psnr),
    walks.tsv (a row a step), and the change along each walk, last minus first, as changes/NAME.nii.gz.

    Raises InputError where checkpoint and store do not fit, ConfigError for a latent that is not there.
    """
    opened = open_network(config)
    require_latents(config.latents, decoder(opened, config.run_dir).latent)
    rows = draw(opened, config.sample, config.seed, least=2)
    with stage("gallery", config.out, config, _inputs(config), config.overwrite) as made:
        table, latents_NL, mask = _survey(opened, rows, config.batch)
        walks = plan_walks(latents_NL, config)
        volumes = _decode(opened, walks, mask)
        with publish(config.out) as folder:
            (folder / "changes").mkdir(parents=True)
            write = {"sep": "\t", "index": False, "float_format": "%.6g"}
            table.to_csv(folder / "subjects.tsv", **write)
            _steps(walks, volumes, mask).to_csv(folder / "walks.tsv", **write)
            for name, along in zip(walks.names, volumes, strict=True):
                to_nifti(along[-1] - along[0], opened.store, folder / "changes" / f"{name}.nii.gz")
            shown = spread(table["rmse"].to_numpy(), config.subjects)
            original, reconstruction = _reconstruct(opened, rows[shown])
            names = [opened.store.subjects[row] for row in rows[shown]]
            zooms = opened.store.zooms
            save(brains.reconstructions(original, reconstruction, names, zooms), folder / "reconstructions")
            steps = [f"{at:+.3g} SD" if at else "mean" for at in walks.at]
            save(brains.walks(volumes, steps, walks.names, mask, zooms), folder / "walks")
        means = table[["rmse", "r", "ssim", "psnr"]].mean().round(6).to_dict()
        made.note(subjects=len(rows), walks=walks.names, captions=_captions(config, len(rows)), **means)
    log.info("%d subjects: SSIM %.3f, correlation %.3f, RMSE %.3f SD", len(rows), *(means[k] for k in _SAID))


_SAID = ("ssim", "r", "rmse")


def preview(config: GalleryConfig) -> list[str]:
    """What would be shown."""
    opened = open_network(config)
    return [
        f"checkpoint: {opened.checkpoint}, {base.count_parameters(opened.network):,} parameters",
        f"sample: {min(config.sample, len(opened.rows)):,} of {len(opened.rows):,} subjects",
        f"walks: {len(config.latents) or config.top} {config.basis}, {config.steps} steps to {config.reach:g} SD",
        f"writes: {config.out}",
    ]


@dataclass(frozen=True, eq=False)
class Walks:
    """R walks of S steps: latents_RSL, at_S in standard deviations, and sd_R of what is walked along."""

    names: list[str]
    at: np.ndarray
    latents: np.ndarray
    sd: np.ndarray


def plan_walks(latents_NL: np.ndarray, config: GalleryConfig) -> Walks:
    """The latents of each step. A component's sign is such that its largest weight is positive."""
    mean_L, at_S = latents_NL.mean(axis=0), np.linspace(-config.reach, config.reach, config.steps)
    if config.basis == "components":
        _, singular_K, direction_KL = np.linalg.svd(latents_NL - mean_L, full_matrices=False)
        largest_K = np.abs(direction_KL).argmax(axis=1)
        direction_KL *= np.sign(np.take_along_axis(direction_KL, largest_K[:, None], axis=1))
        sd_K, letter = singular_K / np.sqrt(len(latents_NL) - 1), "pc"
    else:
        direction_KL, sd_K, letter = np.eye(latents_NL.shape[1]), latents_NL.std(axis=0, ddof=1), "z"
    chosen = choose_latents(config.latents, config.top, sd_K)
    still = [k for k in chosen if not sd_K[k] > 0]
    if still:
        raise ConfigError(f"latents: {letter}{still[0]:03d} is the same for every subject; leave it out")
    step_RSL = sd_K[chosen, None, None] * at_S[:, None] * direction_KL[chosen][:, None]
    return Walks([f"{letter}{k:03d}" for k in chosen], at_S, mean_L + step_RSL, sd_K[chosen])


def spread(error_N: np.ndarray, n: int) -> np.ndarray:
    """The places of `n` subjects from the smallest error to the largest, evenly over the ranks."""
    order = np.argsort(error_N, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int))]


@torch.no_grad()
def _survey(opened: Opened, rows: np.ndarray, batch: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """How well each subject is reconstructed, over its own brain; the latents [N, L] float64; and where half of the
    subjects have brain, bool [x, y, z]."""
    parts, latents = [], []
    count = np.zeros(opened.store.shape)
    with Progress("gallery", len(rows), "subjects") as progress:
        for part, prepared in batches(opened, rows, batch):
            result, network = opened.network(prepared), opened.network
            original, made = network.volumes(prepared), network.volumes(result.reconstruction)
            brain = foreground(original)
            count += brain.sum(dim=0).cpu().numpy()
            a, b = original.double(), made.double() * brain
            n = brain.sum(dim=(1, 2, 3))
            mean = [(volume.sum(dim=(1, 2, 3)) / n)[:, None, None, None] for volume in (a, b)]
            da, db = (a - mean[0]) * brain, (b - mean[1]) * brain
            r = (da * db).sum(dim=(1, 2, 3)) / ((da**2).sum(dim=(1, 2, 3)) * (db**2).sum(dim=(1, 2, 3))).sqrt()
            figures = {
                "rmse": ((a - b) ** 2).sum(dim=(1, 2, 3)).div(n).sqrt(),
                "r": r, "ssim": ssim(original, made), "psnr": psnr(original, made * brain),
            }  # fmt: skip
            people = {name: [own[row] for row in part] for name, own in _people(opened).items()}
            parts.append(pd.DataFrame(people | {name: value.cpu().numpy() for name, value in figures.items()}))
            latents.append(result.latent.double().cpu().numpy())
            progress.advance(len(part))
    return pd.concat(parts, ignore_index=True), np.concatenate(latents), count >= BRAIN_SHARE * len(rows)


@torch.no_grad()
def _reconstruct(opened: Opened, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Originals and reconstructions [N, x, y, z], inside the brain of each subject."""
    pairs = []
    for _, prepared in batches(opened, rows, 1):
        original = opened.network.volumes(prepared)
        made = opened.network.volumes(opened.network(prepared).reconstruction) * (original != 0)
        pairs.append((original.cpu().numpy(), made.cpu().numpy()))
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


@torch.no_grad()
def _decode(opened: Opened, walks: Walks, mask: np.ndarray) -> np.ndarray:
    """The brains of each walk, float32 [R, S, x, y, z], inside `mask` [x, y, z]."""
    like = next(opened.network.parameters())
    return np.stack(
        [
            (opened.network.volumes(opened.network.decode(torch.from_numpy(own).to(like)))).cpu().numpy() * mask
            for own in walks.latents
        ]
    )


def _steps(walks: Walks, volumes: np.ndarray, mask: np.ndarray) -> pd.DataFrame:
    """A row a step. change: root mean square over the mask's voxels of the difference from the mean latents' brain, in
    SD of a subject's voxels, by straight lines between the steps where none is the mean."""
    rows = []
    for name, sd, own in zip(walks.names, walks.sd, volumes, strict=True):
        inside = own[:, mask].astype(np.float64)
        middle = (inside[(len(inside) - 1) // 2] + inside[len(inside) // 2]) / 2
        change = np.sqrt(((inside - middle) ** 2).mean(axis=1))
        rows += [{"walk": name, "sd": at, "latent_sd": sd, "change": c} for at, c in zip(walks.at, change, strict=True)]
    return pd.DataFrame(rows)


def _captions(config: GalleryConfig, subjects: int) -> dict[str, str]:
    one = {"latents": "latent", "components": "principal component of the latents"}[config.basis]
    return {
        "reconstructions.png": (
            f"From the best reconstructed of {subjects} subjects (top) to the worst: original, reconstruction, and the "
            "difference in standard deviations of the subject's brain voxels."
        ),
        "walks.png": (
            f"The brain that the decoder draws for the mean latents, with one {one} moved from {-config.reach:g} to "
            f"+{config.reach:g} of its standard deviations; a row each. On the right the last minus the first: orange "
            "is brighter, purple darker, on one scale for all rows."
        ),
    }


def _inputs(config: GalleryConfig) -> dict[str, object]:
    return {"run_dir": config.run_dir, "store": config.store}


def _people(opened: Opened) -> dict[str, list[str]]:
    return {"FID": opened.store.fids, "IID": opened.store.subjects}
