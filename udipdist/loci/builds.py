"""Genome builds: which one a table is of, what speaks against it, and the way from one to the other.

Positions of GRCh37 and GRCh38 differ by up to megabases and look alike: a mixture gives wrong hits without an error.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.genome import assemblies
from udipdist.loci import big40

BUILDS = ("GRCh37", "GRCh38")
ENOUGH = 3  # SNPs or genes that are known here, before a table is called one of another build

_UCSC = {"GRCh37": "hg19", "GRCh38": "hg38"}
_SPELLING = re.compile(r"(?<![A-Za-z])(?:GRCh|hg|b|build[ _=:-]*)(3[78]|19)(?!\d)", re.IGNORECASE)

LENGTHS = assemblies.LENGTHS_OF


def other(build: str) -> str:
    """The other one."""
    return BUILDS[build == BUILDS[0]]


def chain_name(source: str, target: str) -> str:
    """UCSC's name of the chain file from one build to the other."""
    return f"{_UCSC[source]}To{_UCSC[target].capitalize()}.over.chain.gz"


def stated(lines: Iterable[str]) -> str | None:
    """The build that comments at the head of a file name (GRCh38, hg19, b37 ...); None where they name none or both."""
    found = {"GRCh38" if match[1] == "38" else "GRCh37" for line in lines for match in _SPELLING.finditer(line)}
    return found.pop() if len(found) == 1 else None


def check_lengths(table: pd.DataFrame, build: str, what: str, say: str) -> int:
    """Refuse a table (chrom, end) that reaches beyond a chromosome of `build` and fits the other one; how many rows fit
    neither (simulated genomes do). `what` names the table, `say` is what to type. Raises InputError."""
    beyond = {name: table.end.to_numpy() > _length(table.chrom, name) for name in BUILDS}
    rows = np.flatnonzero(beyond[build])
    if len(rows) and not beyond[other(build)].any():
        chrom, end = table.chrom.iloc[rows[0]], table.end.iloc[rows[0]]
        raise InputError(
            f"{what}: chromosome {assemblies.label(chrom)} has {LENGTHS[build][chrom]:,} base pairs in {build}, and "
            f"position {end:,} is beyond; {other(build)} fits: {say}"
        )
    return len(rows)


def check_snps(table: pd.DataFrame, build: str, what: str, say: str) -> None:
    """Refuse a table (chrom, start, end, lead) whose rsIDs lie where the other build has them, or one base too low.

    The witnesses are the SNPs of BIG40, common ones that brain imaging finds; those without a known place in GRCh38
    speak by being, or not being, where GRCh37 has them. Raises InputError.
    """
    known = table.merge(big40.places(), left_on="lead", right_on="rsid", suffixes=("", "_known"))
    known = known[(known.chrom == known.chrom_known) & (known.position_GRCh37 != known.position_GRCh38)]

    def at(position: pd.Series) -> np.ndarray:
        return ((known.start <= position) & (position <= known.end)).to_numpy()

    first = at(known.position_GRCh37)
    last = at(known.position_GRCh38) | (~first & (known.position_GRCh38 == 0).to_numpy())
    low = ~first & ~at(known.position_GRCh38) & (at(known.position_GRCh37 - 1) | at(known.position_GRCh38 - 1))
    right, wrong = (first, last) if build == BUILDS[0] else (last, first)
    right, wrong, low = (int(np.sum(found)) for found in (right & ~wrong & ~low, wrong & ~right & ~low, low))
    if low >= ENOUGH and low > max(right, wrong):
        raise InputError(
            f"{what}: {low} of {len(known)} known SNPs are one base too low, so its positions count "
            "from 0; add 1 to them, or give BED (chrom, start, end, no header, NAME.bed)"
        )
    if wrong >= ENOUGH and wrong > right:
        raise InputError(
            f"{what}: {wrong} of {len(known)} known SNPs are not where {build} has them ({right} do), so "
            f"it is {other(build)}: {say}"
        )


def _length(chrom: pd.Series, build: str) -> np.ndarray:
    """Length of each row's chromosome; no bound where it is unknown."""
    return chrom.map(LENGTHS[build]).fillna(np.inf).to_numpy()


@dataclass(frozen=True)
class Lift:
    """Positions carried from one build to the other by a chain file, through the library liftover."""

    chain: object

    @classmethod
    def open(cls, path: Path, source: str, target: str) -> Lift:
        """Raises InputError where the file is no chain from `source` to `target`, or the library is missing."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"chain={path}: does not exist; give {chain_name(source, target)} of UCSC")
        _check_chain(path, source, target)
        try:
            from liftover import ChainFile
        except ImportError:
            raise InputError("chain=: needs the library liftover; type: pip install 'udipdist[liftover]'") from None
        return cls(ChainFile(str(path), one_based=True))

    def position(self, chrom: int, position: int) -> int:
        """Where a base is on the same chromosome of the target; 0 where it is on none, or another one."""
        name = f"chr{assemblies.label(chrom)}"
        if name not in self.chain:
            return 0
        return next((int(place[1]) for place in self.chain[name][int(position)] if place[0] == name), 0)

    def intervals(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows (chrom, start, end, ...) whose two ends are found about as far apart (to a factor of 2, and 1 kb).

        Both ends are lifted as single positions; an interval that was turned round is turned back.
        """
        ends = [
            sorted((self.position(row.chrom, row.start), self.position(row.chrom, row.end)))
            for row in table[["chrom", "start", "end"]].itertuples()
        ]
        start, end = np.array(ends, np.int64).reshape(-1, 2).T
        kept = (start > 0) & (end - start <= 2 * (table.end - table.start).to_numpy() + 1000)
        kept &= end - start >= (table.end - table.start).to_numpy() // 2 - 1000
        return table.assign(start=start, end=end)[kept].reset_index(drop=True)


def _check_chain(path: Path, source: str, target: str) -> None:
    """The lengths of the chromosomes in a chain's header say which builds it joins."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="ascii") as file:
            heads = [line.split() for _, line in zip(range(200_000), file, strict=False) if line.startswith("chain ")]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"chain={path}: cannot be read ({error}); give {chain_name(source, target)} of UCSC") from None
    sizes = [(assemblies.code(h[2]), int(h[3]), int(h[8])) for h in heads if len(h) > 8 and h[2] == h[7]]
    sizes = [size for size in sizes if 1 <= size[0] <= assemblies.X]

    def joins(first: str, last: str) -> bool:
        return bool(sizes) and all(t == LENGTHS[first][c] and q == LENGTHS[last][c] for c, t, q in sizes)

    if not joins(source, target):
        way = f"goes from {target} to {source}" if joins(target, source) else f"does not join {source} and {target}"
        raise InputError(f"chain={path}: {way}; give {chain_name(source, target)} of UCSC")
