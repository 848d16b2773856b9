"""The verb `interpret perturb`: what a direction of the latents looks like in the brain (PerDI of UDIP).

Subjects are decoded as they are and shifted along the direction; the paired t of every voxel comes from streamed
moments. Nothing here grows with the number of subjects but their latents. Directions are done in groups, each a part:
what is killed goes on with the groups that are not done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor

from hpc import parts
from hpc.errors import ConfigError
from hpc.files import publish
from hpc.progress import Progress
from hpc.stage import Stage, stage
from udipdist.config import PerturbConfig
from udipdist.interpret import atlas as atlases
from udipdist.interpret import directions as along
from udipdist.interpret import montage, snp
from udipdist.interpret.directions import Direction, Population
from udipdist.interpret.moments import PairedMoments
from udipdist.interpret.network import BRAIN_SHARE, choose_latents, decoder, draw, open_network, survey, to_nifti
from udipdist.interpret.pictures import save
from udipdist.models.base import Autoencoder, Network
from udipdist.training.trained import Opened

DIRECTIONS, REGIONS = "directions.tsv", "regions.tsv"
KINDS_OF_MAP = ("mean", "t", "smooth")  # change of the image; its paired t; |t| smoothed
_ROUNDING = 2.0**-23  # of a float32, relative
_FIRST = 3  # regions named in the picture
_RELIABILITY = (
    " Reliability is the share of a SNP's effects on the latents that is not error, (chi2 - q) / chi2 of their joint "
    "test with q latents: how far its map can be trusted."
)
_PERMUTATIONS = 1000  # where nothing is said, and the regions need no more


def perturb(config: PerturbConfig) -> None:
    """Write directions.tsv, regions.tsv, maps/NAME_{mean,t,smooth}.nii.gz and montage_01.png (.pdf), ...

    Raises InputError where network, store, tables, gwas or atlas do not fit, ConfigError for a latent that is not
    there.
    """
    opened = open_network(config)
    asked, atlas = _rehearsed(config, opened)
    seen = look(opened, draw(opened, config.subjects, config.seed), config.batch)
    if config.population is None:
        asked = _directions(config, Population.of(seen.latents_NL.double().cpu().numpy()))
    with stage("perturb", config.out, config, _inputs(config), config.overwrite) as made:
        parts.fix_plan(config.out, config.semantics() | {"inputs": made.inputs}, _counts)
        job = Maps(config.out, config, opened, seen, asked, atlas)
        rows = [row for facts in parts.run(job, "perturb") for row in facts["directions"]]
        _write_tables(config.out, rows)
        _draw(config, opened, seen, rows, made)
        made.note(subjects=len(seen.latents_NL), directions=len(asked), voxels=int(seen.mask.sum()))


def preview(config: PerturbConfig) -> list[str]:
    """What would be decoded, and the memory of the moments."""
    opened = open_network(config)
    asked, atlas = _rehearsed(config, opened)
    subjects = min(config.subjects, len(opened.rows))
    values = int(np.prod(opened.tokens.shape))
    return [
        f"checkpoint: {opened.checkpoint}",
        f"subjects: {subjects:,} of {len(opened.rows):,}",
        f"directions: {len(asked):,}; each decodes {subjects:,} brains",
        *([] if atlas is None else [f"random maps: {_permutations(config, atlas, opened.store.mask):,} a direction"]),
        f"moments: {min(config.at_once, len(asked)) * values * 16 / 1e9:.2f} GB, whatever the subjects",
        f"writes: {config.out}",
    ]


@dataclass(frozen=True, eq=False)
class Seen:
    """The subjects looked at: their latents, their mean brain, and where half of them have brain."""

    latents_NL: Tensor  # float32, on the network's device
    mean: np.ndarray  # [x, y, z]
    mask: np.ndarray  # bool [x, y, z]


def look(opened: Opened, rows: np.ndarray, batch: int) -> Seen:
    """Encode these rows of the store."""
    seen = survey(opened, rows, batch)
    mask = _volume(opened.network, seen.share) >= BRAIN_SHARE
    return Seen(seen.latents_NL, _volume(opened.network, seen.mean) * mask, mask)


@torch.no_grad()
def moments_of(
    network: Autoencoder,
    latents_NL: Tensor,
    asked: Sequence[Direction],
    shift: float = 1.0,
    sides: str = "plus",
    batch: int = 16,
) -> tuple[list[PairedMoments], float]:
    """Moments of the change of the decoded image along each direction, in the network's form, and the size of what
    rounding alone makes of a change.

    plus, minus: shifted by `shift` SD up or down, less as they are; both: up less down. latents float32 [N, L].
    """
    steps = [torch.as_tensor(shift * d.shift_L, dtype=latents_NL.dtype, device=latents_NL.device) for d in asked]
    moments: list[PairedMoments] = []
    squares = 0.0
    with Progress("decode", len(latents_NL) * len(asked), "brains") as progress:
        for start in range(0, len(latents_NL), batch):
            z_BL = latents_NL[start : start + batch]
            as_they_are = network.decode(z_BL)
            squares += float(as_they_are.double().square().mean()) * len(z_BL)
            if not moments:
                moments = [PairedMoments(tuple(as_they_are.shape[1:]), z_BL.device) for _ in asked]
            for step_L, own in zip(steps, moments, strict=True):
                if sides == "both":
                    own.add(network.decode(z_BL + step_L) - network.decode(z_BL - step_L))
                else:
                    own.add(network.decode(z_BL + step_L if sides == "plus" else z_BL - step_L) - as_they_are)
                progress.advance(len(z_BL))
    return moments, _ROUNDING * (squares / len(latents_NL)) ** 0.5


@dataclass
class Maps:
    """The maps of all directions, `at_once` of them in a part. The facts of a part are the rows of its directions."""

    place: Path
    config: PerturbConfig
    opened: Opened
    seen: Seen
    asked: list[Direction]
    atlas: atlases.Atlas | None
    unit: str = field(default="directions")

    @property
    def n_parts(self) -> int:
        """Groups of directions."""
        return -(-len(self.asked) // self.config.at_once)

    def size_of_part(self, index: int) -> int:
        """Directions of a group."""
        return len(self._group(index))

    def files_of_part(self, index: int) -> Iterable[Path]:
        """Its maps."""
        return [map_path(self.place, d.name, kind) for d in self._group(index) for kind in KINDS_OF_MAP]

    def part(self, index: int) -> dict[str, Any]:
        """Decode and write the directions of group `index`."""
        config, group = self.config, self._group(index)
        moments, rounding = moments_of(
            decoder(self.opened, config.run_dir), self.seen.latents_NL, group, config.shift, config.sides, config.batch
        )
        written = [self._write(d, own, rounding) for d, own in zip(group, moments, strict=True)]
        ranked = self._rank([maps for _, maps in written])
        return {"directions": [row | {"regions": own} for (row, _), own in zip(written, ranked, strict=True)]}

    def _group(self, index: int) -> list[Direction]:
        return self.asked[index * self.config.at_once : (index + 1) * self.config.at_once]

    def _write(
        self, direction: Direction, moments: PairedMoments, rounding: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The row of directions.tsv, and the maps by their kind."""
        store, mask, config = self.opened.store, self.seen.mask, self.config
        maps = {
            name: _volume(self.opened.network, values) * mask
            for name, values in (("mean", moments.mean), ("t", moments.t(rounding)))
        }
        maps["smooth"] = smoothed(np.abs(maps["t"]), mask, config.smooth_mm, store.zooms)
        for name, values in maps.items():
            to_nifti(values, store, map_path(self.place, direction.name, name))
        peak = np.unravel_index(int(np.argmax(maps["smooth"])), mask.shape)
        place = store.affine(int(self.opened.rows[0])) @ [*peak, 1]
        row: dict[str, Any] = {"name": direction.name, "kind": direction.kind} | direction.facts
        row |= {"largest_change": float(np.abs(maps["mean"]).max()), "peak_t": float(maps["t"][peak])}
        row |= {f"peak_{axis}": float(mm) for axis, mm in zip("xyz", place, strict=False)}
        return row, maps

    def _rank(self, group: list[dict[str, np.ndarray]]) -> list[list[dict[str, Any]]]:
        """The rows of regions.tsv of each direction of a group."""
        if self.atlas is None:
            return [[] for _ in group]
        config, mask, zooms = self.config, self.seen.mask, self.opened.store.zooms
        ranked = [maps["smooth"] for maps in group]
        if config.rank == "mean":
            ranked = [smoothed(np.abs(maps["mean"]), mask, config.smooth_mm, zooms) for maps in group]
        step = max(1, int(config.smooth_mm / max(zooms)))
        permutations = _permutations(config, self.atlas, mask)
        return atlases.rank(ranked, mask, zooms, self.atlas, permutations, step, config.seed)


def smoothed(values: np.ndarray, mask: np.ndarray, sd_mm: float, zooms: Sequence[float]) -> np.ndarray:
    """A Gaussian mean over the voxels of the mask, 0 outside: the background does not darken the edge of the brain."""
    if sd_mm == 0:
        return values * mask
    sd = [sd_mm / zoom for zoom in zooms]
    total, weight = (ndimage.gaussian_filter(a.astype(np.float64), sd, mode="constant") for a in (values * mask, mask))
    return np.where(mask, total / np.where(mask, weight, 1.0), 0.0)


def map_path(out: Path, name: str, kind: str) -> Path:
    """Where a map of a direction stands; `kind`: mean, t or smooth."""
    return out / "maps" / f"{name}_{kind}.nii.gz"


def _volume(network: Network, values: Tensor) -> np.ndarray:
    """The network's form without the subject axis -> [x, y, z] float64."""
    return network.volumes(values[None])[0].double().cpu().numpy()


def _counts(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a plan makes it another: of its inputs the content, not the paths."""
    keys = {key: value for key, value in plan.items() if key != "inputs"}
    return {**PerturbConfig.identity_of(keys), "inputs": plan.get("inputs")}


def _inputs(config: PerturbConfig) -> dict[str, Path | None]:
    keys = ("run_dir", "store", "directions", "probe", "sumstats", "loci", "population", "atlas_labels")
    atlas = None if config.atlas in (*atlases.SHIPPED, "none") else Path(config.atlas)
    return {key: getattr(config, key) for key in keys} | {"atlas": atlas}


def _rehearsed(config: PerturbConfig, opened: Opened) -> tuple[list[Direction], atlases.Atlas | None]:
    """The directions, without population= as if the latents had SD 1 and were uncorrelated; and the atlas. So what is
    wrong is told before a brain is read. Raises InputError, ConfigError."""
    count = decoder(opened, config.run_dir).latent
    if config.population is not None:
        people = along.read_population(config.population, count)
    else:
        people = Population(np.eye(count), count)
    return _directions(config, people), _atlas(config, opened)


def _directions(config: PerturbConfig, people: Population) -> list[Direction]:
    """All that are asked for. Raises InputError."""
    count = len(people.sd_L)
    asked: list[Direction] = []
    if config.directions is not None:
        rows = along.read_rows(config.directions, "directions", count)
        asked += [along.of_change(name, "direction", change_L, people) for name, change_L in rows]
    if config.probe is not None:
        rows = along.read_rows(config.probe, "probe", count)
        asked += [along.of_score(name, weights_L, people) for name, weights_L in rows]
    if config.sumstats is not None:
        wanted = [snp.Wanted(name) for name in config.snp]
        wanted += snp.lead_snps(config.loci) if config.loci is not None else []
        asked += snp.of_snps(config.sumstats, wanted, people)
    if config.latents == "all" or (config.latents is None and not asked):
        numbers = list(range(count))
    else:
        numbers = choose_latents(config.latents or (), 0, people.sd_L)
    asked = along.of_latents(numbers, people) + asked + along.controls(config.controls, people, config.seed)
    along.require_distinct(asked)
    return asked


def _atlas(config: PerturbConfig, opened: Opened) -> atlases.Atlas | None:
    if config.atlas == "none":
        return None
    affine = opened.store.affine(int(opened.rows[0]))
    atlas = atlases.load(config.atlas, config.atlas_labels, opened.store.shape, affine)
    atlases.require_brain(atlas, opened.store.mask, config.atlas)
    needed = atlases.enough(atlas, opened.store.mask)
    if config.permutations is not None and config.permutations < needed:
        raise ConfigError(
            f"permutations={config.permutations}: no region of atlas={config.atlas} could have q < {atlases.SURE:g} "
            f"with so few; type permutations={needed} or more, or atlas=none"
        )
    return atlas


def _permutations(config: PerturbConfig, atlas: atlases.Atlas, mask: np.ndarray) -> int:
    """How many random maps a direction is compared with."""
    return config.permutations or max(_PERMUTATIONS, atlases.enough(atlas, mask))


def _write_tables(out: Path, rows: list[dict[str, Any]]) -> None:
    """directions.tsv, a row each, and regions.tsv, a row a direction and region."""
    regions = [{"direction": row["name"]} | region for row in rows for region in row["regions"]]
    tables = {DIRECTIONS: pd.DataFrame([{k: v for k, v in row.items() if k != "regions"} for row in rows])}
    if regions:
        tables[REGIONS] = pd.DataFrame(regions)
    for name, table in tables.items():
        for column in {"locus", "position"} & set(table.columns):
            table[column] = table[column].astype("Int64")
        with publish(out / name) as partial:
            table.to_csv(partial, sep="\t", index=False, float_format="%.6g", na_rep="NA")


def _draw(config: PerturbConfig, opened: Opened, seen: Seen, rows: list[dict[str, Any]], made: Stage) -> None:
    """The montages, so many directions each, and what they show in words."""
    captions = {}
    for page, start in enumerate(range(0, len(rows), montage.ROWS), 1):
        panels, shown = [], rows[start : start + montage.ROWS]
        for row in shown:
            mean, smooth = (
                np.asarray(nib.load(map_path(config.out, row["name"], kind)).dataobj) for kind in ("mean", "smooth")
            )
            sure = [one["region"] for one in row["regions"] if one["q"] < atlases.SURE]
            named = sure[:_FIRST] if row["regions"] else None
            size = smoothed(np.abs(mean), seen.mask, config.smooth_mm, opened.store.zooms)
            through = montage.fullest(size, seen.mask)
            place = (opened.store.affine(int(opened.rows[0])) @ [*through, 1])[:3]
            panels.append(montage.Panel(row["name"], _what(row), named, mean, smooth, through, place))
        save(montage.montage(panels, seen.mean, seen.mask, opened.store.zooms), config.out / f"montage_{page:02d}")
        of_snps = any(row["kind"] == "snp" for row in shown)
        captions[f"montage_{page:02d}.png"] = _caption(config, len(seen.latents_NL), of_snps)
    made.note(captions=captions)


def _what(row: dict[str, Any]) -> list[str]:
    """A direction in a few words; of a SNP also how reliable it is, where that is known."""
    if row["kind"] == "snp":
        known = [] if np.isnan(row["reliability"]) else [f"reliability {row['reliability']:.2f}"]
        return [f"chr{row['chrom']}:{row['position']:,} allele {row['a1']}", *known]
    return [{"latent": "a latent", "control": "random direction"}.get(row["kind"], row["kind"])]


def _caption(config: PerturbConfig, subjects: int, of_snps: bool) -> str:
    how = {
        "plus": f"shifted by +{config.shift:g} SD, less as they are",
        "minus": f"shifted by -{config.shift:g} SD, less as they are",
        "both": f"shifted by +{config.shift:g} SD, less by -{config.shift:g} SD",
    }[config.sides]
    return (
        f"Mean change of the decoded image of {subjects:,} subjects {how} along each direction (left, in SD of a "
        f"brain's voxels), and its paired |t|, smoothed with {config.smooth_mm:g} mm (right), in the three slices in "
        f"which most changes (x, y, z in mm), none along the surface. Named are the {_FIRST} highest of the regions "
        f"with q < {atlases.SURE:g}." + (_RELIABILITY if of_snps else "")
    )
