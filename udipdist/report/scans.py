"""The section about the quality of the scans: who looks unusual and why, the spread of each figure, contact sheets."""

from __future__ import annotations

import pandas as pd

from hpc.errors import InputError
from udipdist.report.collect import RunFolder
from udipdist.report.figures import spread
from udipdist.report.section import Album, Picture, Section, Table, Tile, count, number
from udipdist.volumes import quality as rules
from udipdist.volumes import quality_files

MOST = 200  # outliers in the table
STORES = {"ingest train": "training", "ingest gwas": "association"}


def quality(run: RunFolder, album: Album) -> Section | None:
    """Figures of each scan, outliers, suspected flips."""
    section = Section("quality", "Quality of the scans")
    done = [name for name in STORES if run.done(name)]
    if not done:
        return None
    known = {name: found for name in done if (found := run.quality(name)) is not None}
    if not known:
        section.missing = "The volume stores have no quality figures; ingest the scans again with overwrite=true."
        return section
    section.lead = (
        "Scans that do not look like the others. A scan is listed if a figure is far from the median of its "
        f"cohort: {rules.DEVIATIONS:g} robust standard deviations, and a minimum distance; or if its foreground cannot "
        "be that of a brain, or its affine lies elsewhere than most. Nobody was left out "
        "because of it: look at the listed scans, then leave people out by hand if that is right."
    )
    words = STORES if len(done) > 1 else dict.fromkeys(STORES, "training and association")
    panels, counts, listed = [], [], []
    for name, (table, limits) in known.items():
        for modality, group in table.groupby("modality", sort=False):
            title = " ".join(part for part in (words[name], modality) if part)
            counts.append((title, *_counts(group, limits[modality])))
            listed.append(group[group["outlier"] == "yes"].assign(scans=title))
            panels.append((title, group[group["outlier"] != "failed"], limits[modality]))
    outliers = pd.concat(listed)
    section.tiles.append(Tile(count(len(outliers)), "scans that look unusual"))
    columns = ("scans", ">judged", ">not readable", ">unusual", ">left and right swapped?")
    section.add(Table(columns, counts, "The last is reported only if the cohort is asymmetric enough, as brains are."))
    _list(section, outliers, [quality_files.table_path(run.stages[name].path).name for name in known])
    caption = (
        "Each figure over the readable scans. Orange: listed scans, for this figure or another; an "
        "arrow if they are outside the picture. Dashed: the limits; grey: the median."
    )
    drawn = [panel for panel in panels if len(panel[1])]
    if drawn:
        section.add(album.add("scan_figures", spread.spreads(drawn), caption, "Distributions of the quality figures"))
    for name in known:
        section.add(_sheet(run, name, words[name], album))
    return section


def _counts(group: pd.DataFrame, limits: dict) -> tuple[str, str, str, str]:
    failed, unusual = (group["outlier"] == "failed").sum(), (group["outlier"] == "yes").sum()
    flipped = group["reasons"].str.contains(rules.FLIPPED, regex=False).sum()
    return (
        count(int(len(group) - failed)) if limits["limits"] else f"fixed limits only (below {rules.FEWEST} scans)",
        count(int(failed)),
        count(int(unusual)),
        "not known" if limits["flip_limit"] is None else count(int(flipped)),
    )


def _list(section: Section, outliers: pd.DataFrame, tables: list[str]) -> None:
    if not len(outliers):
        section.add("No scan looks unusual.")
        return
    columns = ("scans", "subject", "what", *(f">{name}" for name in rules.FIGURES))
    rows = [
        (row["scans"], row["IID"], rules.brief(row["reasons"]), *(number(row[name]) for name in rules.FIGURES))
        for _, row in outliers.head(MOST).iterrows()
    ]
    caption = f"Scans that look unusual. The limits, and everybody else, are in {' and '.join(tables)}."
    if len(outliers) > MOST:
        caption += f" These are the first {MOST} of {len(outliers):,}."
    section.add(Table(columns, rows, caption))


def _sheet(run: RunFolder, name: str, words: str, album: Album) -> Picture:
    path = quality_files.sheet_path(run.stages[name].path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run ingest again with overwrite=true") from None
    caption = (
        f"Contact sheet of the scans for {words}: unusual ones first, in orange, then a random sample "
        "of the others to compare with. Look for brains that are cut, tilted, doubled or blank."
    )
    return album.add_png(f"contact_sheet_{name.split()[-1]}", data, caption, "Slices of many brains")
