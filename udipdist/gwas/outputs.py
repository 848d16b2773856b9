"""Where the results of a scan go: one folder for each table of phenotypes, each as if it had been tested alone.

One pass over the genotypes tests the traits of all tables. With one table its folder is OUT itself, with several they
are OUT/NAME. The plan (gwas.scan.planned) has a `TablePlan` of each, in the order of phenotypes=[...].

What does the work of a part fills a `Block`: all P columns, and for each of the T tables what a run of that table alone
would find: smallest p among its own traits, joint test of its own traits (gwas.engine.joint), and calls, frequency and
the test of Hardy-Weinberg equilibrium among its own people.

Shapes: M variants, P traits of all tables, T tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from hpc.errors import InputError, some
from hpc.files import remove
from hpc.stage import read_manifest
from udipdist.sumstats import store as sumstats

COMPRESSED = (".gz", ".bz2", ".zst")
OWN = ("parts", "model")  # folders that a scan makes in OUT


@dataclass(frozen=True)
class TablePlan:
    """What the plan of a scan says of one table.

    `name` is unique among the tables, `folder` relative to OUT ("." for a single table). Its traits are start..stop - 1
    among those of all tables; the tables' ranges follow each other. `people` is the number, in the plan's list, of the
    people with a value for any of its traits. `facts` are those of its manifest.
    """

    name: str
    folder: str
    start: int
    stop: int
    people: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Results of a run of variants for all tables; NaN (minp_trait: -1, n: 0) where not tested.

    `minp_trait_MT` counts from the first trait of its table.
    """

    beta_MP: np.ndarray
    se_MP: np.ndarray
    n_MT: np.ndarray
    af1_MT: np.ndarray
    minp_log10p_MT: np.ndarray
    minp_trait_MT: np.ndarray
    multivariate_log10p_MT: np.ndarray
    hwe_log10p_MT: np.ndarray

    @classmethod
    def empty(cls, m: int, p: int, t: int) -> Self:
        """Nothing tested yet."""
        return cls(
            beta_MP=np.full((m, p), np.nan, np.float32),
            se_MP=np.full((m, p), np.nan, np.float32),
            n_MT=np.zeros((m, t), np.int32),
            af1_MT=np.full((m, t), np.nan, np.float32),
            minp_log10p_MT=np.full((m, t), np.nan, np.float32),
            minp_trait_MT=np.full((m, t), -1, np.int16),
            multivariate_log10p_MT=np.full((m, t), np.nan, np.float32),
            hwe_log10p_MT=np.full((m, t), np.nan, np.float32),
        )

    def of_table(self, t: int, table: TablePlan) -> sumstats.SumstatsBlock:
        """The results of one table, the `t`-th."""
        arrays = {}
        for field in fields(sumstats.SumstatsBlock):
            if field.name.endswith("_MP"):
                arrays[field.name] = getattr(self, field.name)[:, table.start : table.stop]
            else:
                arrays[field.name] = getattr(self, f"{field.name}T")[:, t]
        return sumstats.SumstatsBlock(**arrays)


def write(place: Path, tables: Sequence[TablePlan], start: int, block: Block) -> dict[str, Any]:
    """Write the variants `start`, `start` + 1, ... to the store of every table (whole shards, as `sumstats.write`).

    `tables` is the list of the plan. Returns facts of the part: how many variants are tested for any trait (`tested`).
    """
    for t, table in enumerate(tables):
        sumstats.write(place / table.folder / sumstats.STORE, start, block.of_table(t, table))
    tested_MT = block.minp_trait_MT >= 0
    return {"tested": int(tested_MT.any(axis=1).sum())}


def names(paths: Sequence[Path]) -> list[str]:
    """A short name for each table, unique and fit for a folder: its file name; where all are called alike, that of
    its folder; where some are, both. Raises InputError."""
    twice = [path for path, count in Counter(path.absolute() for path in paths).items() if count > 1]
    if twice:
        raise InputError(f"phenotypes: {some(twice)} is listed twice; name each table once")
    stems = [_safe(_stem(path)) for path in paths]
    folders = [_safe(path.absolute().parent.name) for path in paths]
    number = Counter(stem.casefold() for stem in stems)
    both = [
        f"{folder}-{stem}" if number[stem.casefold()] > 1 else stem for folder, stem in zip(folders, stems, strict=True)
    ]
    for candidates in (stems, folders, both) if len(number) == 1 else (stems, both):
        if len({name.casefold() for name in candidates}) == len(paths):
            return candidates
    number = Counter(name.casefold() for name in both)
    alike = [path for path, name in zip(paths, both, strict=True) if number[name.casefold()] > 1]
    raise InputError(
        f"phenotypes: {some(alike)} would write to folders of the same name ({both[paths.index(alike[0])]}); "
        "rename the files or their folders"
    )


def discard(out: Path) -> None:
    """Remove the empty stores of a plan that was given up, of whatever tables; what is complete is left."""
    remove(out / sumstats.STORE)
    for store in out.glob(f"*/{sumstats.STORE}"):
        if read_manifest(store.parent) is None:
            remove(store.parent)


OF_TABLE = ("null.tsv", "samples.tsv", "dropped.tsv")  # beside the store of each table


def withdraw(out: Path) -> None:
    """Remove what a plan that failed has made, so that no folder looks like results; what else is there is left."""
    discard(out)
    for place in (out, *(path for path in out.iterdir() if path.is_dir() and read_manifest(path) is None)):
        for name in OF_TABLE:
            remove(place / name)
        if place != out and not any(place.iterdir()):
            place.rmdir()
    remove(out / "parts")
    if all(path.name == "plan.json" for path in out.iterdir()):
        remove(out)


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix in COMPRESSED else path.stem


def _safe(name: str) -> str:
    """Letters, digits, - _ and dots inside; no name of a folder that a scan makes itself."""
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or "table"
    return f"{name}_" if name.casefold() in OWN else name
