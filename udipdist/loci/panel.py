"""Found loci against a panel of known ones: recall, our share, novel loci, and what chance would give."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from hpc.files import publish, publish_json
from hpc.stage import stage
from udipdist.config import PanelConfig
from udipdist.loci import big40, fuma, genome

log = logging.getLogger(__name__)

BIG40 = "big40"
_NAMES = {
    "chrom": ("chr", "chrom", "chromosome", "chrid", "chrname", "leadchr"),
    "start": ("start", "chromstart", "startbp", "begin", "from", "bpstart"),
    "end": ("end", "chromend", "endbp", "stop", "to", "bpend"),
    "position": ("pos", "position", "bp", "basepairlocation", "basepair", "chrpos", "bppos", "leadpos", "leadposition"),
    "lead": ("rsid", "snp", "leadsnp", "lead", "leadrsid", "rsids", "name", "locus", "id", "uniqid", "genomiclocus"),
}


def panel(config: PanelConfig) -> None:
    """Write hits.tsv (a row a locus) and panel.json. Raises InputError for tables that cannot be read."""
    inputs = {"loci": config.loci} | ({} if config.panel == BIG40 else {"panel": Path(config.panel)})
    with stage("panel", config.out, config, inputs, config.overwrite) as current:
        loci, known = read_loci(config.loci), read_panel(config.panel)
        nearest, distance = nearest_known(loci, known)
        hit = distance <= config.flank_bp
        lead = known.lead.to_numpy(object)
        hits = pd.DataFrame(
            {
                "locus": loci.locus,
                "chr": [genome.label(chrom) for chrom in loci.chrom],
                "start": loci.start,
                "end": loci.end,
                "hit": hit.astype(int),
                "nearest_panel": [lead[i] if i >= 0 else "" for i in nearest],
                "distance": pd.array(np.where(nearest >= 0, distance, 0), "Int64"),
            }
        )
        hits.loc[nearest < 0, "distance"] = pd.NA
        summary = summarise(loci, known, hit, config)
        with publish(config.out) as partial:
            partial.mkdir()
            hits.to_csv(partial / "hits.tsv", sep="\t", index=False)
            publish_json(partial / "panel.json", summary)
        current.note(**summary)
        log.info(
            "%d of %d loci hit the panel (by chance %s), %d are novel; %s of the panel's %d loci are found",
            summary["n_hits"],
            summary["n_loci"],
            _percent(summary["chance_share"]),
            summary["novel"],
            _percent(summary["recall"]),
            summary["n_panel"],
        )


def preview(config: PanelConfig) -> list[str]:
    """What `panel` would compare."""
    loci, known = read_loci(config.loci), read_panel(config.panel)
    return [f"{len(loci):,} loci against {len(known):,} of {config.panel}, {config.rotations:,} rotations"]


def summarise(loci: pd.DataFrame, known: pd.DataFrame, hit: np.ndarray, config: PanelConfig) -> dict:
    """The numbers of panel.json; shares are null where there is nothing to take a share of."""
    _, back = nearest_known(known, loci)
    shares = chance_shares(loci, known, config.flank_bp, config.rotations, config.seed) if len(loci) else []
    share = float(hit.mean()) if len(loci) else None
    return {
        "recall": float(np.mean(back <= config.flank_bp)),
        "our_share": share,
        "novel": int((~hit).sum()),
        "chance_share": float(np.mean(shares)) if len(shares) else None,
        "chance_p": (1 + int(np.sum(shares >= share - 1e-12))) / (1 + len(shares)) if len(shares) else None,
        "n_panel": len(known),
        "n_loci": len(loci),
        "n_hits": int(hit.sum()),
        "rotations": config.rotations,
    }


def nearest_known(loci: pd.DataFrame, known: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """For each interval of `loci` the row of the nearest one of `known` on its chromosome (-1: none there) and the base
    pairs between them (0 where they intersect, infinity where there is none)."""
    nearest, distance = np.full(len(loci), -1), np.full(len(loci), np.inf)
    starts, ends, chroms = (known[name].to_numpy() for name in ("start", "end", "chrom"))
    for i, locus in enumerate(loci.itertuples()):
        rows = np.flatnonzero(chroms == locus.chrom)
        if len(rows):
            between = np.maximum(0, np.maximum(starts[rows] - locus.end, locus.start - ends[rows]))
            best = int(np.argmin(between))
            nearest[i], distance[i] = rows[best], between[best]
    return nearest, distance


def chance_shares(loci: pd.DataFrame, known: pd.DataFrame, flank_bp: int, rotations: int, seed: int) -> np.ndarray:
    """The share of `loci` that hit the panel after each of `rotations` random rotations along the genome, float64.

    The chromosomes (GRCh37, longer where an interval reaches further) are laid end to end and closed to a circle;
    the panel's flanked intervals keep their distances, so their clustering is kept.
    """
    length = dict(genome.LENGTHS)
    for row in pd.concat([loci, known]).itertuples():
        length[row.chrom] = max(length.get(row.chrom, 0), row.end)
    order = sorted(length)
    offset = dict(zip(order, np.cumsum([0, *(length[c] for c in order)])[:-1].tolist(), strict=True))
    total = sum(length.values())

    base = known.chrom.map(offset).to_numpy()
    first = base + np.maximum(known.start.to_numpy() - flank_bp, 1)
    last = base + np.minimum(known.end.to_numpy() + flank_bp, known.chrom.map(length).to_numpy())
    first, last = _union(np.concatenate([first, first + total]), np.concatenate([last, last + total]))

    base = loci.chrom.map(offset).to_numpy()
    begin, span = base + loci.start.to_numpy(), (loci.end - loci.start).to_numpy()
    shares = np.empty(rotations)
    for i, shift in enumerate(np.random.default_rng(seed).integers(1, total, rotations)):
        start = (begin - 1 + shift) % total + 1  # turning the loci one way is turning the panel the other way
        before = np.searchsorted(first, start + span, side="right") - 1
        shares[i] = np.mean((before >= 0) & (last[before] >= start))
    return shares


def read_loci(folder: Path) -> pd.DataFrame:
    """locus, chrom (code), start, end of GenomicRiskLoci.txt: the folder that `loci` wrote, or one of FUMA itself."""
    path = Path(folder) / fuma.LOCI
    if not path.is_file():
        raise InputError(f"{path}: no such file; give loci= the folder that `udipdist loci` wrote (its out=)")
    table = _read_table(path)
    intervals = _intervals(table, path)
    return intervals.assign(locus=table["GenomicLocus"] if "GenomicLocus" in table else range(1, len(table) + 1))


def read_panel(name: str) -> pd.DataFrame:
    """chrom (code), start, end, lead of `big40` or of a table with a header, in any of the usual spellings."""
    if name == BIG40:
        known = big40.load()
        return known.assign(chrom=genome.codes(known.chrom))
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"panel={name}: is no file; give big40, or a table with the columns chr, start, end (or chr, pos)"
        )
    known = _intervals(_read_table(path), path)
    if known.empty:
        raise InputError(f"{path}: has no rows; give a table with a row a known locus")
    return known


def _read_table(path: Path) -> pd.DataFrame:
    """A table as text, with its separator (tab, comma, semicolon or spaces) taken from the header."""
    try:
        with path.open(encoding="utf-8") as file:
            header = file.readline()
        separator = next((s for s in ("\t", ",", ";") if s in header), r"\s+")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a first row longer than the header
            return pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False
            )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: is not a text table with a header ({str(error).strip()})") from None


def _intervals(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """chrom (code), start, end, lead of a table of text, its columns found by their usual names. Raises InputError."""
    spelling = {"".join(filter(str.isalnum, name.lower())): name for name in table.columns}
    column = {key: next((spelling[n] for n in names if n in spelling), None) for key, names in _NAMES.items()}
    start, end = column["start"] or column["position"], column["end"] or column["position"]
    if column["start"] is None or column["end"] is None:
        start = end = column["position"]
    if column["chrom"] is None or start is None:
        raise InputError(
            f"{path}: lacks the columns chr, start and end (or chr and pos); its columns are {some(table.columns, 20)}"
        )
    chrom = genome.codes(table[column["chrom"]])
    _refuse(table, chrom == genome.UNPLACED, column["chrom"], path, "is no chromosome; write 1..22, X, Y or MT")
    result = {"chrom": chrom}
    for key, name in (("start", start), ("end", end)):
        number = pd.to_numeric(table[name], errors="coerce")
        _refuse(table, ~(number >= 0) | (number % 1 != 0), name, path, "is no position in base pairs; write an integer")
        result[key] = number.astype(np.int64)
    result = pd.DataFrame(result)
    _refuse(table, result.end < result.start, end, path, "lies before the start of its interval")
    lead = table[column["lead"]] if column["lead"] else [f"{c}:{s}" for c, s in zip(chrom, result.start, strict=True)]
    return result.assign(lead=lead)


def _refuse(table: pd.DataFrame, wrong, name: str, path: Path, why: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" ({len(rows):,} such rows)" if len(rows) > 1 else ""
        raise InputError(f"{path}, line {rows[0] + 2}: {name}={table[name].iloc[rows[0]]!r} {why}{more}")


def _union(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint intervals, ascending, that cover the same as the given ones."""
    order = np.argsort(first, kind="stable")
    first, reach = first[order], np.maximum.accumulate(last[order])
    new = np.r_[True, first[1:] > reach[:-1]]
    return first[new], reach[np.r_[new[1:], True]]


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.0%}"
