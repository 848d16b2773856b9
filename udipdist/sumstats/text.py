"""Summary statistics in text, streamed: places and -log10 p as numbers, ids and alleles as Arrow's text."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from hpc.errors import InputError, some
from udipdist.config.analyses import ALL, MINP
from udipdist.genome import assemblies, chromosomes
from udipdist.sumstats.analyses import LAMBDA_COLUMNS
from udipdist.sumstats.calibration import lambda_of_log10p
from udipdist.sumstats.headers import NULLS, TextLayout, layout_of, open_text
from udipdist.sumstats.pvalues import log10p_from_z

log = logging.getLogger(__name__)

ADDITIVE = "ADD"
LAST_POSITION = 2**31 - 1
_BLOCK_BYTES = 1 << 24
_ROWS_OF_BLANKS = 500_000
_LOSSY = 1e-300  # p below this has fewer digits as a float64, or none
_DECIMAL = re.compile(r"\s*\+?(\d*\.?\d*)(?:[eEdD]([+-]?\d+))?\s*")


class TextStatistics:
    """A table in text: one -log10 p a variant. Rows of other tests than ADD (plink2's covariates) are left out."""

    def __init__(self, path: Path, columns: dict[str, np.ndarray], text: pa.Table, trait_names: list[str]):
        self.path = path
        self.chrom_M, self.position_M, self.log10p_M = (columns[name] for name in ("chrom", "position", "log10p"))
        self._trait_M, self._text = columns.get("trait"), text
        self.name = name_of(path)
        self.traits = trait_names or [self.name]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a whole file, block by block. Raises InputError that names the line."""
        layout = layout_of(path)
        blocks = _Blocks(path, layout)
        for table in _batches(path, layout):
            blocks.add(table)
        return cls(path, *blocks.together())

    def analyses(self, wanted: str | tuple[str, ...]) -> list[str]:
        """A table has one: minp, all and the name of the file mean its p."""
        names = {wanted} if isinstance(wanted, str) else set(wanted)
        if not names <= {MINP, ALL, self.name}:
            raise InputError(f"{self.path}: trait={some(names)}: a table has one column of p; leave trait= out")
        return [MINP if self._trait_M is not None and len(self.traits) > 1 else self.name]

    def n_tests(self, analysis: str) -> int:
        """1; a table of the smallest p over traits does not say how many there were."""
        if analysis == MINP:
            raise InputError(
                f"{self.path}: holds the smallest p over several traits ({some(self.traits[:3])} ...), but not how "
                "many were tested; give tests=N, and p is divided by it"
            )
        return 1

    def significant(self, limits: dict[str, float]) -> dict[str, np.ndarray]:
        """As in memory."""
        return {name: np.flatnonzero(self.log10p_M > limit) for name, limit in limits.items()}

    def log10p(self, analyses: Sequence[str], rows: np.ndarray) -> Callable[[str], np.ndarray]:
        """As in memory."""
        return lambda analysis: self.log10p_M[rows]

    def names(self, rows: np.ndarray) -> pd.DataFrame:
        """snp, a1, a2."""
        taken = self._text.take(pa.array(rows))
        return pd.DataFrame({name: taken[name].to_numpy() for name in ("snp", "a1", "a2")})

    def trait_of(self, analysis: str, rows: np.ndarray) -> list[str]:
        """The file's column `trait` where it has one, else the name of the file."""
        if self._trait_M is None:
            return [self.name] * len(rows)
        return [self.traits[index] if index >= 0 else self.name for index in self._trait_M[rows]]

    def best_of_traits(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each trait in the file."""
        best, whose = np.full(len(self.traits), np.nan), np.full(len(self.traits), -1)
        trait = np.zeros(len(rows), int) if self._trait_M is None else self._trait_M[rows]
        log10p = self.log10p_M[rows]
        order = np.flatnonzero(~np.isnan(log10p) & (trait >= 0))
        order = order[np.argsort(log10p[order], kind="stable")]
        best[trait[order]], whose[trait[order]] = log10p[order], rows[order]  # the last, the largest, stays
        return best, whose

    def lambdas(self, analyses: Sequence[str], n_variants: int) -> pd.DataFrame:
        """Of the median of all p; none for a smallest p, whose median is not that of a test."""
        tested = self.log10p_M[~np.isnan(self.log10p_M)]
        if not len(tested) or MINP in analyses:
            return pd.DataFrame(columns=list(LAMBDA_COLUMNS))
        row = (self.name, lambda_of_log10p(float(np.median(tested))), np.nan, len(tested))
        return pd.DataFrame([row], columns=list(LAMBDA_COLUMNS))


def name_of(path: Path) -> str:
    """The name of a file without .gz and the ending before it."""
    name = path.name
    for ending in (".gz", ".bgz", ".zst"):
        name = name.removesuffix(ending)
    return Path(name).stem or name


class _Blocks:
    """Blocks of a file, as they come."""

    def __init__(self, path: Path, layout: TextLayout):
        self.path, self.columns = path, layout.columns
        self.line = layout.skip + 2
        self.numbers: dict[str, list[np.ndarray]] = {"chrom": [], "position": [], "log10p": []}
        self.text: list[pa.Table] = []
        self.tests: dict[str, int] = {}
        self.traits: dict[str, int] = {}
        self.underflown = 0
        self.gwas_ssf = layout.gwas_ssf
        self.unused: dict[str, tuple[int, int]] = {}  # reason -> rows, and the first line

    def add(self, table: pa.Table) -> None:
        """Take in a block whose columns are text, named as SPELLINGS."""
        self.numbers["chrom"].append(_codes(table["chrom"], self.gwas_ssf))
        self.numbers["position"].append(self._positions(table["position"]))
        self.numbers["log10p"].append(self._log10p(table))
        for name, known in (("test", self.tests), ("trait", self.traits)):
            if name in self.columns:
                self.numbers.setdefault(name, []).append(_numbered(table[name], known))
        alleles = _alleles(table)
        self.text.append(alleles)
        chrom, position, log10p = (self.numbers[name][-1] for name in ("chrom", "position", "log10p"))
        self._note("no position", position < 0)
        self._note("no chromosome", table["chrom"].is_null().to_numpy())
        self._note("a chromosome other than 1..22, X, Y and MT", _unknown(table["chrom"], chrom))
        self._note("no p-value", np.isnan(log10p))
        self._note("twice the same allele", pc.equal(alleles["a1"], alleles["a2"]).to_numpy())
        self.line += len(table)

    def _note(self, reason: str, there: np.ndarray) -> None:
        """Count rows that are not used for a reason, or of no use."""
        rows = np.flatnonzero(there)
        if len(rows):
            count, first = self.unused.get(reason, (0, self.line + int(rows[0])))
            self.unused[reason] = count + len(rows), first

    def together(self) -> tuple[dict[str, np.ndarray], pa.Table, list[str]]:
        """All blocks, without rows of other tests than the additive one."""
        if not self.text:
            raise InputError(f"{self.path}: has a header and no lines below it")
        columns = {name: np.concatenate(self.numbers.pop(name)) for name in list(self.numbers)}
        text = pa.concat_tables(self.text)
        self._tell_unused(len(text))
        placed_M = columns["position"] >= 0
        if not placed_M.all():
            columns = {name: values[placed_M] for name, values in columns.items()}
            text = text.filter(pa.array(placed_M))
        if len(self.tests) > 1:
            if ADDITIVE not in self.tests:
                raise InputError(
                    f"{self.path}: holds several tests a variant ({some(self.tests)}), none of them ADD; leave one"
                )
            keep_M = columns["test"] == self.tests[ADDITIVE]
            columns = {name: values[keep_M] for name, values in columns.items()}
            text = text.filter(pa.array(keep_M))
        if self.underflown:
            log.warning(
                "%s: p of %d variants is 0; it is computed from beta and se, or z, if they are given, else it is "
                "infinitely small", self.path, self.underflown,
            )  # fmt: skip
        if not (columns["chrom"] != assemblies.UNPLACED).any():
            raise InputError(
                f"{self.path}: no line has a chromosome 1..22, X (its column {self.columns['chrom']!r}); write them as "
                "6, chr6 or 23"
            )
        return columns, text, list(self.traits)

    def _tell_unused(self, rows: int) -> None:
        """One line that says how many rows are not used, and why. Raises InputError where none is left."""
        if not self.unused:
            return
        reasons = "; ".join(f"{n:,} {why} (first: line {line})" for why, (n, line) in self.unused.items())
        if any(n == rows for n, _ in self.unused.values()):
            raise InputError(f"{self.path}: none of its {rows:,} rows can be used: {reasons}")
        log.warning("%s: rows that are not used, of %d: %s", self.path, rows, reasons)

    def _positions(self, column: pa.ChunkedArray) -> np.ndarray:
        """Base pairs, -1 where there is none."""
        values = self._to_float("position", column)
        values = np.where(np.isnan(values), -1.0, values)
        missing = column.is_null().to_numpy()
        wrong = np.flatnonzero(~missing & ((values < 0) | (values > LAST_POSITION) | (values != np.rint(values))))
        if len(wrong):
            raise self._bad(wrong[0], "position", column, f"is not a position (0..{LAST_POSITION})")
        return values.astype(np.int32)

    def _log10p(self, table: pa.Table) -> np.ndarray:
        """From -log10 p, row by row from p where that is missing, and where p is 0 from the effect."""
        log10p = np.full(len(table), np.nan)
        if "log10p" in self.columns:
            column = table["log10p"]
            log10p = self._to_float("log10p", column)
            if (wrong := np.flatnonzero(log10p < 0)).size:
                raise self._bad(wrong[0], "log10p", column, "is negative, but -log10 p never is; change its sign")
        if "p" in self.columns:
            log10p = np.where(np.isnan(log10p), self._from_p(table["p"]), log10p)
        zero = np.flatnonzero(np.isposinf(log10p))
        self.underflown += len(zero)
        if len(zero):
            known = log10p_from_z(self._z(table.take(pa.array(zero))))
            log10p[zero] = np.where(np.isfinite(known), known, np.inf)
        return log10p

    def _z(self, table: pa.Table) -> np.ndarray:
        """beta / se, else the column of z or t; NaN without either."""
        z = np.full(len(table), np.nan)
        if "z" in self.columns:
            z = self._to_float("z", table["z"])
        if {"beta", "se"} <= self.columns.keys():
            beta, se = (self._to_float(name, table[name]) for name in ("beta", "se"))
            with np.errstate(divide="ignore", invalid="ignore"):
                z = np.where(np.isfinite(beta / se), beta / se, z)
        return z

    def _from_p(self, column: pa.ChunkedArray) -> np.ndarray:
        values = self._to_float("p", column)
        if (wrong := np.flatnonzero((values < 0) | (values > 1))).size:
            raise self._bad(wrong[0], "p", column, "is not a p-value (0..1)")
        with np.errstate(divide="ignore"):
            log10p = -np.log10(values)
        small = np.flatnonzero(values < _LOSSY)
        for i in small.tolist():
            log10p[i] = _log10p_of(column[i].as_py())
        return np.asarray(log10p)

    def _to_float(self, what: str, column: pa.ChunkedArray) -> np.ndarray:
        try:
            return column.cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            text = column.to_pandas()
            values = pd.to_numeric(text, errors="coerce")
            wrong = np.flatnonzero(values.isna() & text.notna())
            if len(wrong):
                raise self._bad(wrong[0], what, column, "is not a number") from None
            return values.to_numpy(np.float64)

    def _bad(self, row: int, what: str, column: pa.ChunkedArray, why: str) -> InputError:
        return InputError(
            f"{self.path}, line {self.line + row}: {self.columns[what]} {column[int(row)].as_py()!r} {why}"
        )


def _batches(path: Path, layout: TextLayout) -> Iterator[pa.Table]:
    """Blocks of the file: the columns that are known, as text, named as SPELLINGS. Raises InputError."""
    wanted = {name: what for what, name in layout.columns.items()}
    if layout.separator is None:
        yield from _batches_of_blanks(path, layout, wanted)
        return
    try:
        reader = csv.open_csv(
            open_text(path),
            read_options=csv.ReadOptions(
                column_names=layout.header, skip_rows=layout.skip + 1, block_size=_BLOCK_BYTES
            ),
            parse_options=csv.ParseOptions(delimiter=layout.separator),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=list(wanted),
                null_values=NULLS,
                strings_can_be_null=True,
            ),
        )
        for batch in reader:
            if len(batch):
                yield pa.table(batch).rename_columns([wanted[name] for name in batch.schema.names])
    except (pa.ArrowInvalid, OSError) as error:
        if "Empty CSV" in str(error):
            return
        raise InputError(
            f"{path}: cannot be read as a table ({error}); {len(layout.header)} columns are expected"
        ) from None


def _batches_of_blanks(path: Path, layout: TextLayout, wanted: dict[str, str]) -> Iterator[pa.Table]:
    try:
        with open_text(path) as stream:
            for frame in pd.read_csv(
                stream, sep=r"\s+", dtype=str, names=layout.header, skiprows=layout.skip + 1,
                usecols=list(wanted), chunksize=_ROWS_OF_BLANKS, na_values=NULLS, keep_default_na=False,
            ):  # fmt: skip
                columns = {
                    wanted[name]: pa.array(frame[name], pa.string(), from_pandas=True) for name in map(str, frame)
                }
                yield pa.table(columns)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as a table ({error}); {len(layout.header)} columns are expected"
        ) from None


def _codes(column: pa.ChunkedArray, gwas_ssf: bool) -> np.ndarray:
    """Chromosome codes, int8."""
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    known = [
        chromosomes.MT if gwas_ssf and name.strip().removesuffix(".0") == "25" else assemblies.code(name)
        for name in names
    ]
    codes = np.array([*known, assemblies.UNPLACED], np.int8)
    return codes[pc.fill_null(encoded.indices, len(codes) - 1).to_numpy()]


def _unknown(column: pa.ChunkedArray, code: np.ndarray) -> np.ndarray:
    """Where a chromosome is named that is none of ours."""
    return np.asarray((code == assemblies.UNPLACED) & ~column.is_null().to_numpy())


def _numbered(column: pa.ChunkedArray, known: dict[str, int]) -> np.ndarray:
    """The number of each text in `known`, which grows; -1 where there is none. int32."""
    encoded = column.combine_chunks().dictionary_encode()
    numbers = [known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()]
    return np.array([*numbers, -1], np.int32)[pc.fill_null(encoded.indices, len(numbers)).to_numpy()]


def _alleles(table: pa.Table) -> pa.Table:
    """snp, a1, a2: without A2 it is whichever of REF and ALT is not A1, without A1 too they are ALT and REF."""
    has = set(table.schema.names)
    if "a1" not in has:
        a1, a2 = table["alt"], table["ref"]
    elif "a2" in has:
        a1, a2 = table["a1"], table["a2"]
    else:
        a1 = table["a1"]
        a2 = pc.if_else(pc.equal(a1, table["ref"]), table["alt"], table["ref"])
    snp = table["snp"] if "snp" in has else pa.nulls(len(table), pa.string())
    return pa.table({"snp": snp, "a1": pc.fill_null(a1, "0"), "a2": pc.fill_null(a2, "0")})


def _log10p_of(text: str) -> float:
    """-log10 of a number in text of any size, '3.2e-420' too; infinite for 0."""
    match = _DECIMAL.fullmatch(text)
    if match is None or not match[1].strip("."):
        return np.inf
    mantissa = float(match[1])
    return -(np.log10(mantissa) + int(match[2] or 0)) if mantissa > 0 else np.inf
