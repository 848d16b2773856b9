"""Where genotypes come from: what any file format must offer, and which format a path has.

A source is people, variants and rows: the genotypes of all people at a variant. Rows have two forms. `packed` are hard
calls, two bits each in the codes of PLINK 1 (see genotypes.codes); `dosages` are expected copies of A1, float32, NaN
where missing. `kind` says which form the files hold. Rows of hard calls give both forms, rows of dosages only dosages.

A new format is one file with a subclass of `GenotypeRows` and one of `GenotypeFormat`. An instance of the latter is
named in _BUILT_IN, or in an entry point of the group `udipdist.genotypes` of any package, or given to `register`.
`genotypes.testing` has the tests that it must pass.

Shapes: M variants, N people, B variants of a block, Q = ceil(N / 4) bytes of a packed row.
"""

from __future__ import annotations

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from hpc.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["hard_calls", "dosages"]
Selection = np.ndarray | str | Path  # ascending numbers of rows, or the .npy file that holds them

GROUP = "udipdist.genotypes"
_BUILT_IN = ("udipdist.genotypes.plink1:PLINK1",)  # asked in this order; the first says what is missing if none has it
_registered: dict[str, GenotypeFormat] = {}


# ----------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class SourceRecord:
    """What another process needs to read the same rows: the class that reads them and its facts, JSON types only.

    `asdict` of it goes into a JSON file, and `SourceRecord(**tree)` comes out again.
    """

    rows: str  # module:class
    facts: dict[str, Any]


class GenotypeRows(ABC):
    """Genotypes of N people, a row a variant. Small and picklable: files are opened when they are read. Threads share
    it. Blocks belong to the caller, who may write to them.

    A subclass for hard calls writes `packed`; one for dosages writes `dosages` and has kind = "dosages".
    """

    kind: Kind = "hard_calls"
    n_people: int
    selection: np.ndarray | None = None  # which rows of the files these are; None: all

    @abstractmethod
    def __len__(self) -> int:
        """M, the number of rows."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The file, or the first of them, as messages name it."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What `of_facts` makes these rows from, in any folder and process: JSON types, absolute paths."""

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Self:
        """The rows with these facts; by default they are the arguments of the class."""
        return cls(**facts)

    @property
    def row_bytes(self) -> int:
        """Q, the bytes of one packed row."""
        return (self.n_people + 3) // 4

    def packed(self, start: int, stop: int) -> np.ndarray:
        """Hard calls of the rows start..stop-1 in the codes of PLINK 1, uint8 [B, Q]; unused bits at the end are 0.

        Raises InputError where the files hold dosages or cannot be read, IndexError for rows that are not there.
        """
        raise _not_packed(self.where)

    def dosages(self, start: int, stop: int) -> np.ndarray:
        """Copies of A1 of the rows start..stop-1, float32 [B, N] in 0..2, NaN where missing. Raises as `packed`."""
        counts_BN = decode(self.packed(start, stop), np.arange(self.n_people))
        dosage_BN = counts_BN.astype(np.float32)
        dosage_BN[counts_BN < 0] = np.nan
        return dosage_BN

    def select(self, selection: Selection) -> GenotypeRows:
        """Only the rows `selection` of the files (whatever was selected before): row i is then selection[i]."""
        return SelectedRows(self, selection)

    def record(self) -> SourceRecord:
        """See `SourceRecord`. Raises ValueError for a class that other processes cannot import, or a selection that is
        not in a file."""
        cls = type(self)
        if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
            raise ValueError(f"{cls.__qualname__}: other processes cannot import it; put it into a module of its own")
        return SourceRecord(f"{cls.__module__}:{cls.__qualname__}", self.facts())


class SelectedRows(GenotypeRows):
    """Some of the rows of others, for formats without a faster way."""

    selection: np.ndarray

    def __init__(self, of: GenotypeRows, selection: Selection):
        self.of, self.kind, self.n_people = of, of.kind, of.n_people
        self.selection = read_selection(selection)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"selection": file_of(self.selection) or self.selection}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["of"], state["selection"])  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self.selection)

    @property
    def where(self) -> str:
        return self.of.where

    def facts(self) -> dict[str, Any]:
        return {"of": asdict(self.of.record()), "selection": recorded(self.selection)}

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Self:
        return cls(open_record(SourceRecord(**facts["of"])), facts["selection"])

    def packed(self, start: int, stop: int) -> np.ndarray:
        return self._gather(self.of.packed, start, stop)

    def dosages(self, start: int, stop: int) -> np.ndarray:
        return self._gather(self.of.dosages, start, stop)

    def select(self, selection: Selection) -> GenotypeRows:
        return self.of.select(selection)

    def _gather(self, read: Callable[[int, int], np.ndarray], start: int, stop: int) -> np.ndarray:
        check_range(start, stop, len(self))
        blocks = [read(low, high) for low, high in runs(self.selection[start:stop])]
        return blocks[0] if len(blocks) == 1 else np.concatenate([read(0, 0), *blocks])


def open_record(record: SourceRecord) -> GenotypeRows:
    """The rows of which `record` is the record. Raises ValueError where it names no class of rows."""
    module, _, name = record.rows.partition(":")
    found: Any = importlib.import_module(module)
    cls = functools.reduce(getattr, name.split("."), found)
    if not (isinstance(cls, type) and issubclass(cls, GenotypeRows)):
        raise ValueError(f"{record.rows}: is not a class of genotype rows")
    return cls.of_facts(record.facts)


# --------------------------------------------------------------------------------------------------------- source


@dataclass
class GenotypeSource:
    """Genotypes of N people (`people`: FID IID father mother sex phenotype, all text; sex is 1 for male, 2 for female)
    at M variants (`variants`: chrom snp position a1 a2; chrom is categorical text, as the file has it)."""

    rows: GenotypeRows
    people: pd.DataFrame
    variants: pd.DataFrame

    @property
    def kind(self) -> Kind:
        """The form that the files hold."""
        return self.rows.kind

    @property
    def n_people(self) -> int:
        """N."""
        return len(self.people)

    @property
    def n_variants(self) -> int:
        """M."""
        return len(self.variants)

    def select(self, rows: np.ndarray) -> GenotypeSource:
        """Only the variants `rows` (ascending numbers)."""
        of_files = rows if self.rows.selection is None else self.rows.selection[rows]
        variants = self.variants.iloc[rows].reset_index(drop=True)
        return GenotypeSource(self.rows.select(of_files), self.people, variants)

    def packed(self, start: int, stop: int) -> np.ndarray:
        """Hard calls of the variants start..stop-1, uint8 [B, Q], as `GenotypeRows.packed`."""
        return self.rows.packed(start, stop)

    def dosages(self, start: int, stop: int) -> np.ndarray:
        """Copies of A1 of the variants start..stop-1, float32 [B, N], NaN where missing."""
        return self.rows.dosages(start, stop)

    def counts(self, start: int, stop: int, people: np.ndarray | None = None) -> np.ndarray:
        """Hard calls as copies of A1, int8 [B, n], -1 where missing, of the people at `people` (default all)."""
        index = np.arange(self.n_people) if people is None else people
        return decode(self.packed(start, stop), index)


@dataclass(frozen=True)
class FileSet:
    """The files of one data set, by the ending that labels each: `calls` hold genotypes and variants, `people` the
    people alone (empty where `calls` hold these too)."""

    calls: dict[str, Path]
    people: dict[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Path]:
        """All of them."""
        return self.calls | self.people

    @property
    def with_people(self) -> dict[str, Path]:
        """Those that list the people."""
        return self.people or self.calls


class GenotypeFormat(ABC):
    """How a kind of files is found and opened. A `pattern` is what a person types as genotypes=."""

    name: str

    @abstractmethod
    def claims(self, pattern: str) -> bool:
        """Whether there are files of this format behind the pattern; a look at names only."""

    @abstractmethod
    def find_sets(self, pattern: str) -> list[FileSet]:
        """The data sets behind the pattern, in the order of their variants. Raises InputError for missing files."""

    @abstractmethod
    def open(self, pattern: str) -> GenotypeSource:
        """All sets as one source. Raises InputError for files that are missing or broken."""

    def moved(self, facts: dict[str, Any], pattern: str) -> dict[str, Any]:
        """The facts of rows (`GenotypeRows.facts`) whose files, the same ones, are now behind `pattern`; by default
        their paths stay as they were."""
        return facts

    def read_people(self, pattern: str) -> pd.DataFrame:
        """The people alone, see `GenotypeSource.people`. Raises InputError."""
        return self.open(pattern).people

    def count(self, pattern: str) -> tuple[int, int]:
        """People and variants, as fast as they can be had. Raises InputError."""
        source = self.open(pattern)
        return source.n_people, source.n_variants


def register(one: GenotypeFormat) -> None:
    """Let this process open the format. Raises ValueError where another one has its name."""
    if type(_registered.setdefault(one.name, one)) is not type(one):
        raise ValueError(f"{one.name}: another format of genotypes is registered under this name; choose another name")


def formats() -> Iterator[GenotypeFormat]:
    """All known formats: those of this package, those registered, those of the entry points."""
    yield from map(_built_in, _BUILT_IN)
    yield from _registered.values()
    yield from (entry.load() for entry in entry_points(group=GROUP))


def format_of(pattern: str | Path) -> GenotypeFormat:
    """The format of the files behind a pattern; PLINK 1, whose messages say what is missing, where there are none."""
    return next((one for one in formats() if one.claims(str(pattern))), None) or _built_in(_BUILT_IN[0])


def _built_in(place: str) -> GenotypeFormat:
    module, _, name = place.partition(":")
    one: GenotypeFormat = getattr(importlib.import_module(module), name)
    return one


def open_genotypes(pattern: str | Path) -> GenotypeSource:
    """The genotypes behind a pattern. Raises InputError for files that are missing or broken."""
    return format_of(pattern).open(str(pattern))


def open_hard_calls(pattern: str | Path) -> GenotypeSource:
    """As `open_genotypes`, for work that needs packed rows: raises InputError where the files hold dosages."""
    source = open_genotypes(pattern)
    if source.kind != "hard_calls":
        raise _not_packed(source.rows.where)
    return source


def find_sets(pattern: str | Path) -> list[FileSet]:
    """See `GenotypeFormat.find_sets`."""
    return format_of(pattern).find_sets(str(pattern))


def read_people(pattern: str | Path) -> pd.DataFrame:
    """See `GenotypeFormat.read_people`."""
    return format_of(pattern).read_people(str(pattern))


def count(pattern: str | Path) -> tuple[int, int]:
    """See `GenotypeFormat.count`."""
    return format_of(pattern).count(str(pattern))


def _not_packed(where: str) -> InputError:
    return InputError(f"{where}: holds dosages, and this needs hard calls; give genotypes as .bed/.bim/.fam")


# ------------------------------------------------------------------------------------------ for those who write rows


def decode(packed: np.ndarray, sample_index: np.ndarray) -> np.ndarray:
    """Copies of A1 from packed rows uint8 [B, Q] for people `sample_index` [n]: int8 [B, n], -1 = missing."""
    from udipdist.genotypes import codes  # numba, which those do not pay who only ask for a format

    index = np.ascontiguousarray(sample_index, dtype=np.int64)
    if len(index) and not 0 <= index.min() <= index.max() < 4 * packed.shape[1]:
        raise IndexError(f"sample_index reaches from {index.min()} to {index.max()}")
    out = np.empty((len(packed), len(index)), np.int8)
    codes.decode_rows(packed, index, out)
    return out


def check_range(start: int, stop: int, n_rows: int) -> None:
    """Raises IndexError where there are no rows start..stop-1."""
    if not 0 <= start <= stop <= n_rows:
        raise IndexError(f"rows {start}..{stop} of {n_rows}")


def runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """(first, last + 1) of each stretch of consecutive numbers in `rows`."""
    if not len(rows):
        return []
    rows = np.asarray(rows)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    first, last = rows[np.r_[0, breaks]], rows[np.r_[breaks - 1, len(rows) - 1]]
    return list(zip(first.tolist(), (last + 1).tolist(), strict=True))


def read_selection(selection: Selection) -> np.ndarray:
    """The numbers of rows themselves, mapped where they are in a file."""
    if isinstance(selection, np.ndarray):
        return selection
    rows: np.ndarray = np.load(selection, mmap_mode="r", allow_pickle=False)
    return rows


def file_of(selection: np.ndarray | None) -> str | None:
    """The .npy file of a selection, or None where it is in memory."""
    name = getattr(selection, "filename", None)
    return None if name is None else str(name)


def recorded(selection: np.ndarray | None) -> str | None:
    """A selection as a fact. Raises ValueError where it is in memory."""
    if selection is not None and file_of(selection) is None:
        raise ValueError("the selected rows are in memory; write them by np.save and select(FILE), then record that")
    return file_of(selection)
