"""The section about what the network sees: attention, maps of latents and SNPs, saliency, walks through the latents."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from hpc.errors import InputError
from udipdist.report.collect import RunFolder, StageOutput
from udipdist.report.section import Album, Heading, Section, Table, count, number

MOST_PICTURES, MOST_ROWS = 9, 40
_TITLES = {
    "interpret attention": "Where the network looks",
    "interpret perturb": "What directions of the latents look like",
    "interpret snp": "What SNPs look like",
    "interpret saliency": "Which voxels a latent depends on",
    "interpret gallery": "What the network draws",
}
_LEADS = {
    "interpret attention": (
        "Attention is how much each token (a patch of the brain) reads from each other, in multiples of a fair share. "
        "Spotlight tokens differ from the others and are read by many. Attention shows where information can flow, not "
        "what a latent is made of."
    ),
    "interpret perturb": (
        "People are decoded unchanged, and again with latents shifted along a direction. The maps show what changes "
        "in the image. Regions are ranked by how much their change exceeds that of the rest of the brain."
    ),
    "interpret snp": (
        "The effects of a SNP on all latents are a direction. Decoded, it is a map of what goes with the allele. It "
        "shows what the network can draw of the effect, and is not a test in itself."
    ),
    "interpret saliency": (
        "How much each voxel contributes to a latent, beside the same for a network that has learnt nothing. If the "
        "two are as similar as the maps of two halves of the people, the map shows the image, not what was learnt."
    ),
    "interpret gallery": "People from the best reconstructed to the worst, and brains drawn along single latents.",
}
_CAPTIONS = {  # of pictures whose stage says none
    "maps": "Mean softmax maps of the heads of one layer, query by key; colours end at each map's 99.9th percentile.",
    "correlation": "Correlations of the embedded tokens, ordered by average linkage; below, black: spotlight tokens.",
    "sparsity": "How sparse attention is, one square for each head of each layer.",
    "singular": "Singular values of W_K' W_Q of each head: how many directions its comparison uses.",
    "received": "Attention that each token receives (mean of the heads), over the template.",
    "spotlight": "Spotlight tokens over the template: for how many heads.",
    "stability": "The share of the people in whom each token is a spotlight.",
    "rollout": "Attention followed through all layers.",
}
_CHARTS = ("singular", "probes", "phewas")  # drawn on white, without colours that carry numbers
_OPEN = ("sanity.tsv", "truth.tsv", "names.tsv")  # tables that are shown at once
_NAMES = {
    "random_subjects": "like random weights, a subject", "random": "like random weights, mean map",
    "halves": "like the other half", "gap": "gap of integrated gradients, SD",
}  # fmt: skip


def interpretation(run: RunFolder, album: Album) -> Section | None:
    """Pictures and tables of whatever `udipdist interpret` left in the run's folder interpret/."""
    section = Section("interpretation", "What the network sees")
    looks = {name: made for name, made in run.interpretations.items() if name in _TITLES}
    done = {name: made for name, made in looks.items() if made.manifest is not None}
    begun = [made for made in looks.values() if made.state == "unfinished"]
    if not done:
        if not begun:
            return None
        section.missing = begun[0].why_absent
        return section
    section.lead = (
        "Pictures of what a network has learnt are suggestive, not proof. Each is shown beside what you would see "
        "without learning, if that exists."
    )
    for name, made in done.items():
        section.add(Heading(_TITLES[name]), _LEADS[name])
        add_pictures(section, name, made, album)
        for file, table in run.tables_of(name).items():
            section.add(table_of(file, table, made.path))
    section.add(*(made.why_absent for made in begun))
    return section


def add_pictures(section: Section, name: str, made: StageOutput, album: Album) -> None:
    """Add the first pictures of a stage, and keep their PDF."""
    paths, captions = _in_order(made), made.facts.get("captions", {})
    for path in paths[:MOST_PICTURES]:
        caption = captions.get(path.name) or _CAPTIONS.get(path.stem) or path.stem.replace("_", " ")
        own = f"{name.split()[-1]}_{path.stem}"
        section.add(
            album.add_png(
                own, _bytes(path, made), caption, caption.split(":")[0], path.stem in _CHARTS or name in _CHARTS
            )
        )
        drawing = path.with_suffix(".pdf")
        if drawing.exists():
            shutil.copyfile(drawing, album.folder / f"{own}.pdf")
    if len(paths) > MOST_PICTURES:
        section.add(f"These are the first {MOST_PICTURES} of {len(paths)} pictures; all are in {made.path}.")


def _in_order(made: StageOutput) -> list[Path]:
    """Its PNG files, in the order in which the stage tells of them, then those of which this page knows."""
    known = [*made.facts.get("captions", {}), *(f"{stem}.png" for stem in _CAPTIONS)]
    return sorted(made.path.glob("*.png"), key=lambda path: (_place(path.name, known), path.name))


def _place(name: str, names: Iterable[str]) -> int:
    names = list(names)
    return names.index(name) if name in names else len(names)


def _bytes(path: Path, made: StageOutput) -> bytes:
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise InputError(f"{path}: is not a PNG picture; run {made.verb} again with overwrite=true")
    return data


def table_of(file: str, table: pd.DataFrame, folder: Path) -> Table:
    """The first rows of a table; behind a line unless it is one of those that carry the section."""
    numeric = {name: pd.api.types.is_numeric_dtype(table[name]) for name in table.columns}
    columns = [f"{'>' * numeric[name]}{_NAMES.get(name, name.replace('_', ' '))}" for name in table.columns]
    shown = table.head(MOST_ROWS)
    rows = [
        tuple(number(value) if numeric[name] else str(value) for name, value in zip(shown.columns, row, strict=True))
        for row in shown.itertuples(index=False, name=None)
    ]
    caption = f"{folder.name}/{file}"
    if len(table) > MOST_ROWS:
        caption += f", the first {MOST_ROWS} of {count(len(table))} rows"
    return Table(columns, rows, caption, "" if file in _OPEN else f"table: {file.removesuffix('.tsv')}")
