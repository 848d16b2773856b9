"""Sections about people, scans and the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.figures import brains
from udipdist.report.collect import RunFolder
from udipdist.report.figures import curves
from udipdist.report.section import Album, Section, Table, Tile, count, fixed, number, plural
from udipdist.volumes.store import VolumeStore


def cohort(run: RunFolder, album: Album) -> Section | None:
    """Who and what went in: scans, genotypes, covariates."""
    section = Section("cohort", "Cohort")
    stores = {name: run.volumes(name) for name in ("ingest train", "ingest gwas") if run.done(name)}
    if not stores and not run.done("gwas"):
        if not run.begun("ingest gwas"):
            return None
        section.missing = run.stages["ingest gwas"].why_absent
        return section
    section.lead = "Who and what went in."
    if stores:
        section.lead += (
            " The network learns from the training scans. The association then uses scans and genotypes of the people "
            "tested. So a discovery cannot come from a network that memorised them, as long as the two groups are "
            "different people."
        )
        _volumes(section, run, stores)
    if run.done("gwas"):
        _people(section, run)
    return section


def _volumes(section: Section, run: RunFolder, stores: dict[str, dict[str, VolumeStore]]) -> None:
    names = {"ingest train": "training", "ingest gwas": "association"}
    if len(stores) == 1:
        names = dict.fromkeys(names, "training and association")
    rows = []
    for name, modalities in stores.items():
        for modality, store in modalities.items():
            millimetres = " \u00d7 ".join(f"{zoom:g}" for zoom in store.zooms)
            rows.append(
                (" ".join(part for part in (names[name], modality) if part), count(len(store)),
                 count(int((~store.valid).sum())), " \u00d7 ".join(map(str, store.shape)), millimetres,
                 count(int(store.mask.sum())))
            )  # fmt: skip
        if names[name] != "association":
            scans = sum(int(store.valid.sum()) for store in modalities.values())
            section.tiles.append(Tile(count(scans), f"scans for {names[name]}"))
    columns = ("scans", ">in the list", ">not readable", ">voxels", ">voxel, mm", ">brain voxels of the cohort")
    section.add(Table(columns, rows, "Volumes as stored, in RAS order."))
    failed = [line for name in stores for line in run.stages[name].facts.get("failed", [])]
    if failed:
        section.add(Table(("volume: reason",), [(line,) for line in failed], folded=f"{len(failed)} not readable"))
    overlap = _overlap(list(stores.values()))
    if overlap:
        section.add(f"Warning: {plural(overlap, 'person', 'people')} are in both the training and the tested group.")


def _overlap(stores: list[dict[str, VolumeStore]]) -> int:
    if len(stores) < 2:
        return 0
    firsts = [next(iter(modalities.values())) for modalities in stores]  # every modality has the same people
    people = [set(zip(store.fids, store.subjects, strict=True)) for store in firsts]
    return len(people[0] & people[1])


def _people(section: Section, run: RunFolder) -> None:
    stage = run.stages["gwas"]
    facts, config = stage.facts, stage.manifest["config"]
    test = {"mixed": "exact mixed model", "linear": "linear regression"}.get(config.get("test"), config.get("test"))
    adjust = {
        "gls": "by GLS with each variant",
        "project": "projected out of phenotype and genotype",
        "phenotype": "out of the phenotype only",
    }.get(config.get("adjust"), config.get("adjust"))
    covariates = config.get("formula") or ("all columns of the table" if config.get("covariates") else "none")
    rows = [
        ("people tested", count(facts.get("n_samples"))),
        ("people left out", count(facts.get("n_dropped"))),
        ("people with relatives among the tested", count(facts.get("relatives"))),
        ("largest family", count(facts.get("largest_family"))),
        ("variants", count(run.sumstats.n_variants)),
        ("traits", count(len(run.sumstats.traits))),
        ("covariates", f"{covariates} ({count(facts.get('n_covariates'))} columns when encoded)"),
        ("test", f"{test}; covariates {adjust}"),
        ("traits before the test", {"rank": "ranked to normal scores"}.get(config.get("normalise"), "unchanged")),
    ]
    section.tiles.insert(0, Tile(count(facts.get("n_samples")), "people tested"))
    section.add(Table(("association", ""), rows, "The people, variants and covariates of the association."))
    reasons = run.dropped()
    if len(reasons):
        rows = [(reason, count(int(n))) for reason, n in reasons.items()]
        section.add(Table(("left out because", ">people"), rows))


def training(run: RunFolder, album: Album) -> Section | None:
    """What the network learnt, step by step."""
    section = Section("training", "Training")
    stage = run.stages["train"]
    if not run.begun("train"):
        return None
    if not run.done("train"):
        section.missing = stage.why_absent
        return section
    section.lead = (
        "The autoencoder squeezes a brain through a few numbers and draws it again from them. Loss is the mean squared "
        "error in units of the subject's own standard deviation (1 is as bad as a flat brain); SSIM is structural "
        "similarity, 1 is perfect. A validation curve that turns up while training goes down is overfitting."
    )
    facts, config, metrics = stage.facts, stage.manifest["config"], run.metrics()
    section.tiles = [Tile(fixed(facts.get("ssim")), "validation SSIM")]
    if len(metrics):
        caption = f"Training curves over {count(facts.get('steps'))} optimiser steps, from metrics.jsonl."
        section.add(album.add("training_curves", curves.curves(metrics), caption, "Loss, SSIM, learning rate by step"))
    else:
        section.add("metrics.jsonl has no lines: no step was recorded.")
    section.add(Table(("training", ""), _training_rows(facts, config), folded="how it was trained"))
    return section


def _training_rows(facts: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, str]]:
    model, optim = config.get("model", {}), config.get("optim", {})
    shape = ", ".join(f"{key} {value}" for key, value in model.items() if value is not None)
    return [
        ("subjects to train on / held out", f"{count(facts.get('subjects_train'))} / "
         f"{count(facts.get('subjects_validation'))}"),
        ("network", shape or "\u2013"),
        ("parameters", count(facts.get("parameters"))),
        ("validation loss", number(facts.get("loss"))),
        ("epochs", number(config.get("epochs"))),
        ("global batch, over ranks", f"{number(config.get('global_batch'))}, {number(facts.get('ranks'))}"),
        ("learning rate", number(optim.get("lr"))),
        ("PSNR of the held-out, dB", number(facts.get("psnr"))),
        ("best step", count(facts.get("best_step"))),
        ("seed", number(config.get("seed"))),
    ]  # fmt: skip


def reconstruction(run: RunFolder, album: Album) -> Section | None:
    """Originals beside what the network makes of them."""
    section = Section("reconstructions", "Reconstructions")
    arrays = run.reconstructions() if run.done("train") else None
    if arrays is None:
        return None
    section.lead = (
        "People that the network was not trained on, their reconstructions, and the difference. What is in the middle "
        "picture passed through the bottleneck, so the association can find it; what remains in the right one "
        "did not. Sharp detail is lost first."
    )
    original, made = arrays["original"], np.where(arrays["original"] != 0, arrays["reconstruction"], 0)
    names = [str(name) for name in arrays["subject"]]
    figure = brains.reconstructions(original, made, names, _zooms(run, original.shape[1:]))
    caption = (
        "Rows are subjects; sagittal, coronal and axial slices. Orange: the reconstruction is too bright, purple: too "
        "dark, in standard deviations of the subject's brain voxels (the scale ends at the 99th percentile)."
    )
    section.add(album.add("reconstructions", figure, caption, "Originals, reconstructions, differences", chart=False))
    table = pd.DataFrame({"name": names, "rmse": 0.0, "r": 0.0})
    for i in range(len(names)):
        brain = original[i] != 0
        a, b = original[i][brain].astype(np.float64), made[i][brain].astype(np.float64)
        table.loc[i, "rmse"] = np.sqrt(np.mean((a - b) ** 2)) if len(a) else np.nan
        table.loc[i, "r"] = np.corrcoef(a, b)[0, 1] if len(a) > 1 and a.std() > 0 and b.std() > 0 else np.nan
    rows = [(row.name, fixed(row.rmse), fixed(row.r)) for row in table.itertuples(index=False)]
    section.add(Table(("subject", ">RMSE in SD", ">correlation over the brain"), rows))
    return section


def _zooms(run: RunFolder, shape: tuple[int, ...]) -> tuple[float, ...]:
    """Voxel edges of the store that was trained on; that of the tested people where they are the same."""
    for name in ("ingest train", "ingest gwas"):
        if run.done(name):
            stores = run.volumes(name).values()
            fitting = [store for store in stores if store.shape == tuple(shape)]
            if not fitting:
                raise InputError(
                    f"{run.stages['train'].path / 'reconstructions.npz'}: holds volumes of {tuple(shape)}, the store "
                    f"{run.stages[name].path} volumes of {next(iter(stores)).shape}; train again on that store"
                )
            return fitting[0].zooms
    return (1.0, 1.0, 1.0)
