"""Summary statistics on disk: `sumstats.zarr`, beta and se of every variant and trait, and how to read p from them.

Shapes: M variants, B of a run of them, G that are asked for one by one, P traits, p of a run of them. The store is a
Zarr v3 group with dimensions `variant` and `trait`, cut along the variants into shards of `rows_per_shard`; a part
writes whole shards, so no two writers share a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from hpc import parts
from hpc.errors import InputError, some
from hpc.files import publish
from hpc.stage import read_manifest
from udipdist.config.analyses import OVER_TRAITS
from udipdist.sumstats.pvalues import log10p_from_t, log10p_from_z

STORE = "sumstats.zarr"
TRAITS_PER_CHUNK = 16  # one trait of many can be read without the others
MOST_TRAITS = np.iinfo(np.int16).max  # that minp_trait can name
COLUMNS = ("chrom", "position", "snp", "a1", "a2")
EFFECTS = ("beta", "se")
EVERY_TRAIT = slice(None)

Variants = pd.DataFrame  # with COLUMNS, in the order of the .bim


@dataclass(frozen=True)
class SumstatsBlock:
    """Results of a run of variants. NaN (minp_trait: -1) where not tested; log10p is -log10 of the p-value.

    `n_M` are the calls, so 1 - n / n_samples are missing; `hwe_log10p_M` is that of the exact test of Hardy-Weinberg
    equilibrium (genotypes.hardy), NaN throughout where it is not given.
    """

    beta_MP: np.ndarray
    se_MP: np.ndarray
    n_M: np.ndarray
    af1_M: np.ndarray
    minp_log10p_M: np.ndarray
    minp_trait_M: np.ndarray
    multivariate_log10p_M: np.ndarray
    hwe_log10p_M: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.hwe_log10p_M is None:
            object.__setattr__(self, "hwe_log10p_M", np.full(len(self.n_M), np.nan, np.float32))


# Of effects no compressor makes much less; this one takes a third of the time of zstd for the same size.
_NUMBERS = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
PER_VARIANT = {  # array: its type, and what it holds where nothing was written
    "n": ("int32", 0),
    "af1": ("float32", np.nan),
    "minp_log10p": ("float32", np.nan),
    "minp_trait": ("int16", -1),
    "multivariate_log10p": ("float32", np.nan),
    "hwe_log10p": ("float32", np.nan),
}


SCORES = ("score_covariance", "score_trace")


@dataclass(frozen=True)
class NullScores:
    """How the scores beta / se^2 of the traits vary under the null: those of a variant with residual variance v have
    covariance v `covariance_PP`, and `trace_P` is what 1 / (v se^2) is on average. float64, on the traits' scale."""

    covariance_PP: np.ndarray
    trace_P: np.ndarray


def create(
    path: str | Path,
    variants: Variants,
    traits: list[str],
    rows_per_shard: int,
    attrs: dict[str, Any],
    scores: NullScores | None = None,
) -> None:
    """Make an empty store (atomically; the place must be free) with its variant columns and traits.

    `variants` has the columns chrom, position, snp, a1, a2 (those of a `GenotypeSource`), M rows. `attrs` are the
    group's: test, adjust, n_samples, n_covariates, df (null where the statistic is chi2_1; the residual degrees of
    freedom where it is t: one number, or one a trait), genotypes, groups (of traits that share their people),
    n_effective (people that count in the joint test).
    """
    m, p = len(variants), len(traits)
    text = np.dtypes.StringDType()
    with publish(path) as partial:
        group = zarr.create_group(partial, zarr_format=3, attributes=attrs | {"created": _now()})
        for name in EFFECTS:
            width = min(TRAITS_PER_CHUNK, p)
            group.create_array(
                name,
                shape=(m, p),
                chunks=(rows_per_shard, width),
                shards=(rows_per_shard, -(-p // width) * width),
                dtype="float32",
                fill_value=np.nan,
                compressors=_NUMBERS,
                dimension_names=("variant", "trait"),
            )
        for name, (dtype, fill) in PER_VARIANT.items():
            _column(group, name, m, rows_per_shard, dtype, fill_value=fill)
        _column(group, "trait", p, max(p, 1), text, dimension="trait")[:] = np.array(traits, text)
        _column(group, "position", m, rows_per_shard, "int32")
        for name in ("chrom", "snp", "a1", "a2"):
            _column(group, name, m, rows_per_shard, text)
        if scores is not None:
            _column(group, SCORES[1], p, max(p, 1), "float64", dimension="trait")[:] = scores.trace_P
            group.create_array(
                SCORES[0],
                shape=(p, p),
                chunks=(p, p),
                dtype="float64",
                compressors=[_blosc("shuffle"), Crc32cCodec()],
                dimension_names=("trait", "other_trait"),
            )[:] = scores.covariance_PP
        for start in range(0, m, rows_per_shard):
            rows = slice(start, min(start + rows_per_shard, m))
            for name in COLUMNS:
                values = variants[name].iloc[rows].to_numpy("int32" if name == "position" else object)
                _array(group, name)[rows] = values if name == "position" else values.astype(text)


def write(path: str | Path, start: int, block: SumstatsBlock) -> None:
    """Write the results of the variants `start`, `start` + 1, ... : whole shards, the same bytes each time."""
    group = zarr.open_group(store=str(path), mode="r+")
    n = _array(group, "n")
    m, rows = n.shape[0], n.chunks[0]
    stop = start + len(block.n_M)
    if start % rows or not (stop % rows == 0 or stop == m) or stop > m:
        raise AssertionError(f"variants {start}..{stop} of {m} are not whole shards of {rows} variants")
    for name in (*EFFECTS, *PER_VARIANT):
        values = getattr(block, _field(name))
        array = _array(group, name)
        array[start:stop] = np.asarray(values, dtype=array.dtype)


def _field(name: str) -> str:
    """The field of a SumstatsBlock that holds an array of the store."""
    return name + ("_MP" if name in EFFECTS else "_M")


class Sumstats:
    """Reader of the folder that `gwas` wrote, or of a sumstats.zarr.

    Everything is read when asked for. A read of some variants reads the shards that they are in; one of some traits
    reads the chunks of `traits_per_chunk` traits that they are in. Any read raises InputError where bytes are damaged.
    """

    def __init__(self, path: Path, group: zarr.Group):
        self.path, self._group = path, _Group(path, group)
        self.attrs: dict[str, Any] = dict(group.attrs)
        self.traits: list[str] = [str(name) for name in np.asarray(_array(group, "trait")[:])]
        self.n_variants: int = _array(group, "n").shape[0]
        self.rows_per_shard: int = _array(group, "n").chunks[0]
        self.traits_per_chunk: int = _array(group, "beta").chunks[1]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a finished folder of `gwas` or a sumstats.zarr. Raises InputError if missing, unfinished or other."""
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path}: does not exist; give sumstats= the folder that `udipdist gwas` wrote (its out=)")
        store = path
        if not (path / "zarr.json").exists():
            store = path / STORE
            if not store.exists():
                raise InputError(f"{path}: holds no {STORE}; give sumstats= the folder that `udipdist gwas` wrote")
            if read_manifest(path) is None:
                raise InputError(f"{path}: is unfinished (no manifest.json); to continue, run gwas again")
        wrong = [file for place in (store.parent, store.parent.parent) for file in parts.lost(place, store)]
        if wrong:
            raise InputError(
                f"{store}: {len(wrong)} of its files have changed: {some(wrong)}; copy the folder "
                "again, or run gwas again with overwrite=true"
            )
        try:
            group = zarr.open_group(store=str(store), mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{store}: is not a Zarr group ({error}); run gwas again") from None
        lacks = [name for name in (*EFFECTS, "trait", *COLUMNS, *PER_VARIANT) if name not in group]
        if lacks:
            raise InputError(f"{store}: lacks the arrays {some(lacks)}; give the folder that `udipdist gwas` wrote")
        return cls(path, group)

    @cached_property
    def variants(self) -> Variants:
        """Columns chrom (text) position snp a1 a2 n af1, M rows."""
        return self.variant_rows(0, self.n_variants)

    def variant_rows(self, start: int, stop: int, names: tuple[str, ...] = (*COLUMNS, "n", "af1")) -> Variants:
        """Rows start..stop of `variants`, or of the columns `names` of it, read without the rest."""
        columns = {name: self.values(name, start, stop) for name in names}
        text = {name: pd.array(values, dtype="str") for name, values in columns.items() if values.dtype.kind == "T"}
        return pd.DataFrame(columns | text)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of the shards, in order."""
        for start in range(0, self.n_variants, self.rows_per_shard):
            yield start, min(start + self.rows_per_shard, self.n_variants)

    def spans(self, rows: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of runs of whole shards of about `rows` variants, in order: each read has its price."""
        rows = self.rows_per_shard * max(1, rows // self.rows_per_shard)
        for start in range(0, self.n_variants, rows):
            yield start, min(start + rows, self.n_variants)

    def values(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """An array as it is stored, of the variants `start`..`stop` - 1: one of COLUMNS or PER_VARIANT [B], or of
        EFFECTS float32 [B, P]."""
        return self._group[name][start:stop]

    def values_at(self, name: str, rows_G: np.ndarray) -> np.ndarray:
        """The same of the variants `rows_G` (ascending) [G] or [G, P]; shards without any of them are not read."""
        return self._gather(name, rows_G)

    def effects(
        self, start: int = 0, stop: int | None = None, traits: slice = EVERY_TRAIT
    ) -> tuple[np.ndarray, np.ndarray]:
        """Effects of A1 and their standard errors, float32 [B, p] each, of a run of variants and the traits with the
        indices `traits`; NaN where not tested."""
        beta_Bp, se_Bp = (self._group[name][start:stop, traits] for name in EFFECTS)
        return beta_Bp, se_Bp

    def effects_at(self, rows_G: np.ndarray, traits: slice = EVERY_TRAIT) -> tuple[np.ndarray, np.ndarray]:
        """The same of the variants `rows_G` (ascending), [G, p] each; shards without any of them are not read."""
        beta_Gp, se_Gp = (self._gather(name, rows_G, traits) for name in EFFECTS)
        return beta_Gp, se_Gp

    def block(self, start: int = 0, stop: int | None = None) -> SumstatsBlock:
        """All results of the variants `start`..`stop` - 1, as `write` takes them."""
        return SumstatsBlock(**{_field(name): self.values(name, start, stop) for name in (*EFFECTS, *PER_VARIANT)})

    def trait_index(self, name: str) -> int:
        """The column of a trait. Raises InputError with the nearest name."""
        if name in self.traits:
            return self.traits.index(name)
        close = difflib.get_close_matches(name, [*self.traits, *OVER_TRAITS], n=1)
        hint = f"did you mean {close[0]}?" if close else f"the traits are {some(self.traits)}"
        raise InputError(f"{self.path}: has no trait {name!r}; {hint}")

    def beta(self, trait: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Effects of A1 on a trait, float32 [M]; NaN where not tested."""
        return self._group["beta"][start:stop, self.trait_index(trait)]

    def se(self, trait: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Standard errors of `beta`, float32 [M]."""
        return self._group["se"][start:stop, self.trait_index(trait)]

    def log10p(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """-log10 p of a trait, of the smallest p over traits (`minp`) or of the joint test (`multivariate`).

        float64 [M], finite far beyond 308; NaN where not tested. A trait called minp or multivariate is shadowed.
        """
        if name in OVER_TRAITS:
            return self.values(f"{name}_log10p", start, stop).astype(np.float64)
        beta, se = self.beta(name, start, stop).astype(np.float64), self.se(name, start, stop)
        return self.log10p_from(beta, se, self.trait_index(name))

    def log10p_from(self, beta: np.ndarray, se: np.ndarray, trait: int | np.ndarray) -> np.ndarray:
        """-log10 p, float64, of effects and errors of the traits with the given indices."""
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.asarray(beta, np.float64) / np.asarray(se, np.float64)
        df = self.attrs.get("df")
        if df is None:
            return log10p_from_z(statistic)
        return log10p_from_t(statistic, df if np.ndim(df) == 0 else np.asarray(df, np.float64)[trait])

    def null_scores(self) -> NullScores | None:
        """How the traits' scores vary under the null; None in stores of before version 0.2."""
        if SCORES[0] not in self._group:
            return None
        return NullScores(*(self._group[name][:] for name in SCORES))

    def minp_trait(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Index of the trait with the smallest p, int16 [M]; -1 where none was tested."""
        return self.values("minp_trait", start, stop)

    def hwe_log10p(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """-log10 p of Hardy-Weinberg equilibrium, float32 [M] (X: of females); NaN where nobody is called."""
        return self.values("hwe_log10p", start, stop)

    def _gather(self, name: str, rows_G: np.ndarray, traits: slice | None = None) -> np.ndarray:
        """Values of the variants `rows_G` (ascending); shards without any of them are not read."""
        array, size = self._group[name], self.rows_per_shard
        pieces = []
        for number in np.unique(rows_G // size).tolist():
            start, stop = number * size, min((number + 1) * size, self.n_variants)
            low, high = np.searchsorted(rows_G, [start, stop])
            shard = array[start:stop] if traits is None else array[start:stop, traits]
            pieces.append(shard[rows_G[low:high] - start])
        return np.concatenate(pieces) if pieces else array[0:0] if traits is None else array[0:0, traits]


class _Group:
    """A Zarr group whose arrays say in one sentence that they are damaged."""

    def __init__(self, path: Path, group: zarr.Group):
        self._path, self._group = path, group
        self._arrays: dict[str, _Array] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._group

    def __getitem__(self, name: str) -> _Array:
        if name not in self._arrays:  # opening one takes as long as reading a shard of it
            self._arrays[name] = _Array(self._path, _array(self._group, name))
        return self._arrays[name]


class _Array:
    """A Zarr array; reading raises InputError where bytes are damaged."""

    def __init__(self, path: Path, array: zarr.Array[Any]):
        self._path, self._array = path, array
        self.shape, self.chunks = array.shape, array.chunks

    def __getitem__(self, index: Any) -> np.ndarray:
        try:
            return np.asarray(self._array[index])
        except (ValueError, RuntimeError) as error:  # a checksum, or a compressor that cannot read its bytes
            raise InputError(
                f"{self._path}: the array {self._array.basename} is damaged ({str(error).splitlines()[0]}); copy the "
                "folder again, or run gwas again with overwrite=true"
            ) from None


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise AssertionError(f"{group.store_path}: {name} is a group, not an array")
    return array


def _column(
    group: zarr.Group, name: str, length: int, rows: int, dtype: Any, fill_value: Any = None, dimension: str = "variant"
) -> zarr.Array[Any]:
    compressor = _blosc("noshuffle" if isinstance(dtype, np.dtypes.StringDType) else "shuffle")
    return group.create_array(
        name,
        shape=(length,),
        chunks=(rows,),
        dtype=dtype,
        fill_value=fill_value,
        compressors=[compressor, Crc32cCodec()],  # blosc alone may read a file that is cut off as garbage
        dimension_names=(dimension,),
    )


def _blosc(shuffle: Literal["shuffle", "noshuffle"]) -> BloscCodec:
    return BloscCodec(cname="zstd", clevel=3, shuffle=shuffle)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
