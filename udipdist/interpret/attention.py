"""The verb `interpret attention`: where a trained transformer looks (ViT-UDIP, section 3.3), in tables, maps, pictures.

For every head of every layer, over many subjects: softmax maps and how sparse they are, spotlight tokens and how stable
they are, what W_K' W_Q compares, and whether left and right are alike; back in the space of the volumes as NIfTI.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hpc.errors import ConfigError, InputError, some
from hpc.files import publish
from hpc.stage import Stage, stage
from udipdist.config import AttentionConfig
from udipdist.interpret import attention_pictures as pictures
from udipdist.interpret import attention_tables as tables
from udipdist.interpret.attention_maps import Plan, encoder, look
from udipdist.interpret.network import draw, open_network, to_nifti
from udipdist.interpret.pictures import save
from udipdist.interpret.spotlight import Rule
from udipdist.interpret.symmetry import Pairs, centres, mirrored, partners
from udipdist.training.trained import Opened

log = logging.getLogger(__name__)
_PAIRINGS = 199  # random pairings of tokens whose attention is followed, at most: they cost time for every map
_FAINT = 0.1  # a median correlation below which tokens hardly share a direction


def attention(config: AttentionConfig) -> None:
    """Look at the run's network, and at those of other seeds, and write the folder `out`.

    Raises InputError where the network has no attention or not these layers, or a store does not fit it.
    """
    if len({run.resolve() for run in (config.run_dir, *config.runs)}) <= len(config.runs):
        raise ConfigError(f"runs: {some(config.runs)}: give each run once, and not run_dir itself")
    view = _View.of(config)
    others = {str(run): _View.of(config.model_copy(update={"run_dir": run})) for run in config.runs}
    for run, other in others.items():
        _require_alike(view.opened, other.opened, run)
    inputs = {"run_dir": config.run_dir, "store": config.store}
    inputs |= {f"runs[{i}]": run for i, run in enumerate(config.runs)}
    with stage("attention", config.out, config, inputs, config.overwrite) as current:
        seen = view.look(config)
        named = {str(config.run_dir): seen} | {run: other.look(config) for run, other in others.items()}
        with publish(config.out) as folder:
            layers = _write(seen, named, view.opened, config, folder)
        _note(seen, config, view.opened, current)
    _tell(layers.set_index("layer").loc[config.layer], seen.pairs, config)


def preview(config: AttentionConfig) -> list[str]:
    """What would be looked at."""
    view = _View.of(config)
    heads, tokens = view.heads, view.opened.network.patcher.tokens
    return [
        f"checkpoint: {view.opened.checkpoint}",
        f"layers {some([layer + 1 for layer in view.layers], 24)} of {heads} heads, {tokens:,} tokens",
        f"subjects: {len(view.rows):,} of {len(view.opened.rows):,}",
        f"writes: {config.out}",
    ]


@dataclass(frozen=True, eq=False)
class _View:
    """An open network, checked against what is asked of it, and the rows of the store to look at."""

    opened: Opened
    layers: tuple[int, ...]  # from 0
    heads: int
    rows: np.ndarray

    @classmethod
    def of(cls, config: AttentionConfig) -> _View:
        opened = open_network(config)
        blocks = encoder(opened.network, config.run_dir).blocks
        heads = blocks[0].attention.heads
        layers = sorted(set(config.layers)) or list(range(1, len(blocks) + 1))
        for key, wanted, most in (
            ("layers", layers, len(blocks)),
            ("heads", config.heads, heads),
        ):
            if wanted and max(wanted) > most:
                raise ConfigError(f"{key}={max(wanted)}: the network of {config.run_dir} has {most}; type 1 to {most}")
        if config.layer not in layers:
            raise ConfigError(f"layer={config.layer}: is not looked at; type one of {some(layers, 24)}")
        rows = draw(opened, config.subjects or len(opened.rows), config.seed)
        return cls(opened, tuple(layer - 1 for layer in layers), heads, rows)

    def look(self, config: AttentionConfig) -> tables.Seen:
        """Every subject, once."""
        patcher, rng = self.opened.network.patcher, np.random.default_rng(config.seed)
        affine, tokens = _affine(self.opened), patcher.tokens
        pairs = mirrored(patcher, affine, np.ones(tokens, bool))
        heads = sorted(set(config.heads)) or range(1, self.heads + 1)
        plan = Plan(
            layers=self.layers,
            rule=Rule(config.low, config.high),
            partners_TR=partners(pairs, tokens, min(_PAIRINGS, config.permutations), rng),
            by_layer=config.embedding == "layer",
            drawn=config.layer - 1,
            heads=tuple(head - 1 for head in heads),
            rollout=config.rollout,
        )
        tally = look(self.opened, self.rows, plan, config.batch)
        common_T = tally.seen.sum(axis=0) > 0.5 * tally.subjects
        return tables.Seen(tally, mirrored(patcher, affine, common_T))


def _affine(opened: Opened) -> np.ndarray:
    return opened.store.affine(int(np.argmax(opened.store.valid)))


def _require_alike(opened: Opened, other: Opened, run: str) -> None:
    """Raises InputError where the tokens or the number of layers of two runs are not the same."""
    one, two = opened.network, other.network
    same = torch.equal(one.patcher.index.cpu(), two.patcher.index.cpu()) and one.patcher.patch == two.patcher.patch
    if not same or len(encoder(one).blocks) != len(encoder(two).blocks):
        raise InputError(
            f"runs={run}: its tokens or layers are not those of run_dir, so spotlights cannot be compared; give runs "
            "that differ in their seed only"
        )


def _write(
    seen: tables.Seen, named: dict[str, tables.Seen], opened: Opened, config: AttentionConfig, out: Path
) -> pd.DataFrame:
    """All files of the folder `out`; returns the table of layers."""
    out.mkdir()
    patcher, rng = opened.network.patcher, np.random.default_rng([config.seed, 1])
    heads, layers = tables.heads_table(seen), tables.layers_table(seen, config.permutations, rng)
    singular = tables.singular_table(seen)
    written = {"heads": heads, "layers": layers, "singular": singular}
    written["tokens"] = tables.tokens_table(seen, patcher.coordinates.cpu().numpy(), centres(patcher, _affine(opened)))
    if len(named) > 1:
        written["seeds"] = tables.seeds_table(named)
    for name, table in written.items():
        table.to_csv(out / f"{name}.tsv", sep="\t", index=False, float_format="%.6g", na_rep="NA")
    drawn = seen.tally.plan.layers.index(config.layer - 1)
    kept = [head + 1 for head in seen.tally.plan.heads]
    np.save(out / f"maps_layer{config.layer:02d}.npy", seen.maps_HTT)
    np.save(out / f"correlation_layer{config.layer:02d}.npy", seen.correlation_CC.astype(np.float32))
    save(pictures.maps(seen.maps_HTT, config.layer, kept), out / "maps")
    spotlight_T = seen.spotlight_LHT[drawn].any(axis=0)
    figure = pictures.correlation(seen.correlation_CC, seen.clustering, spotlight_T[seen.common_T])
    save(figure, out / "correlation")
    save(pictures.sparsity(heads), out / "sparsity")
    save(pictures.singular(singular, config.layer), out / "singular")
    _brains(seen, opened, config, out)
    return layers


def _note(seen: tables.Seen, config: AttentionConfig, opened: Opened, current: Stage) -> None:
    """What the manifest tells."""
    plan = seen.tally.plan
    spotlight_T = seen.spotlight_LHT[plan.layers.index(config.layer - 1)].any(axis=0)
    any_T = seen.spotlight_LHT.any(axis=(0, 1))
    current.note(
        subjects=seen.tally.subjects,
        tokens=int(seen.common_T.sum()),
        layers=len(plan.layers),
        heads=seen.spotlight_LHT[..., 0].size,
        spotlight_share=float(spotlight_T.sum() / seen.common_T.sum()),
        spotlight_share_of_any_layer=float(any_T.sum() / seen.common_T.sum()),
        mirror_pairs=len(seen.pairs),
        checkpoint=opened.checkpoint.name,
    )


def _brains(seen: tables.Seen, opened: Opened, config: AttentionConfig, out: Path) -> None:
    """Token maps of every layer as NIfTI, and those of the drawn layer over the template."""
    tally, affine = seen.tally, _affine(opened)
    subjects_T = np.maximum(tally.seen.sum(axis=0), 1)
    for place, layer in enumerate(tally.plan.layers):
        of = {
            "received": (seen.received_LHT[place].mean(axis=0), 1.0, "attention received, mean of heads [fair shares]"),
            "spotlight": (seen.spotlight_LHT[place].sum(axis=0), 1.0, "spotlight tokens [number of heads]"),
            "stability": (tally.times_LT[place] / subjects_T, 0.05, "spotlight in a subject's own maps [share]"),
        }
        for name, (value_T, least, label) in of.items():
            volume = _volume(value_T, opened)
            to_nifti(volume, opened.store, out / f"{name}_layer{layer + 1:02d}.nii.gz")
            if layer == tally.plan.drawn:
                _picture(volume, affine, f"layer {layer + 1}: {label}", least, out / name)
    for head in tally.plan.heads:
        value_T = seen.received_LHT[tally.plan.layers.index(config.layer - 1), head]
        path = out / f"received_layer{config.layer:02d}_head{head + 1:02d}.nii.gz"
        to_nifti(_volume(value_T, opened), opened.store, path)
    if tally.plan.rollout:
        volume = _volume(seen.rollout_T, opened)
        to_nifti(volume, opened.store, out / "rollout.nii.gz")
        _picture(volume, affine, "attention rollout [fair shares]", 1.0, out / "rollout")


def _picture(volume_xyz: np.ndarray, affine: np.ndarray, title: str, least: float, path: Path) -> None:
    save(pictures.over_template(volume_xyz, affine, title, least), path)


def _volume(value_T: np.ndarray, opened: Opened) -> np.ndarray:
    """A number a token -> [x, y, z]: the same in all of its voxels that are in the cohort's mask, 0 elsewhere."""
    patcher = opened.network.patcher
    token_T = torch.as_tensor(np.nan_to_num(value_T), dtype=torch.float32, device=patcher.mask.device)
    filled = patcher.volumes(token_T[None, :, None].expand(1, -1, patcher.voxels))[0]
    return (filled * patcher.mask).cpu().numpy()


def _tell(row: pd.Series, pairs: Pairs, config: AttentionConfig) -> None:
    """What was found, in the log."""
    stable = f"; two halves of the subjects agree with Jaccard {row['halves_jaccard']:.2f}" if row["spotlights"] else ""
    log.info(
        "layer %d: %d of %d tokens are spotlights (%.0f %%)%s",
        config.layer, row["spotlights"], row["tokens"], 100 * row["share"], stable,
    )  # fmt: skip
    if row["median_correlation"] < _FAINT:
        log.warning(
            "the median token's mean correlation with the others is %.2f: tokens hardly share a direction, so there is "
            "no audience to tell spotlights from",
            row["median_correlation"],
        )
    if not len(pairs):
        log.warning(
            "no two tokens mirror each other about x = 0 mm, so symmetry is NA: are the volumes of %s in MNI space?",
            config.store,
        )
