"""The sparse genetic relationship matrix G: GCTA's files, families as connected components, and G = U D U'.

U is block-diagonal, one small block a family, so a rotation by U' costs next to nothing, and everything about
V = Vg G + Ve I is diagonal in the rotated space. Shapes: N people, F families of at least two.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph

from hpc.errors import InputError
from hpc.files import publish
from udipdist import delimited, ids
from udipdist.people.tables import Match, describe_keys, keys, refuse_duplicates

log = logging.getLogger(__name__)
_SAME = 1e-6  # two entries of one pair that differ by less, as text rounds them, agree


@dataclass(frozen=True)
class Families:
    """G of N people, decomposed. `order_N` puts the people without relatives first (`n_single`), then family after
    family; every other array is in that order.

    `d_N` eigenvalues; family f holds rows start_F[f] .. start_F[f] + size_F[f] - 1, and its eigenvectors (columns)
    are the size x size row-major matrix at u[offset_F[f]].
    """

    order_N: np.ndarray
    n_single: int
    start_F: np.ndarray
    size_F: np.ndarray
    offset_F: np.ndarray
    u: np.ndarray
    d_N: np.ndarray

    def matrix(self) -> sparse.csr_array:
        """U as a sparse matrix [N, N]."""
        n = len(self.d_N)
        single = np.arange(self.n_single)
        rows, columns = [single], [single]
        for size in np.unique(self.size_F):
            start = self.start_F[self.size_F == size][:, None, None]
            shape = (len(start), size, size)
            rows.append(np.broadcast_to(start + np.arange(size)[:, None], shape).ravel())
            columns.append(np.broadcast_to(start + np.arange(size), shape).ravel())
        values = np.concatenate([np.ones(self.n_single), self.u])
        return sparse.csr_array((values, (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))

    @classmethod
    def unrelated(cls, n: int) -> Families:
        """G = I."""
        none = np.empty(0, np.int64)
        return cls(np.arange(n), n, none, none, none, np.empty(0), np.ones(n))


def read(prefix: str) -> tuple[pd.DataFrame, sparse.csr_array]:
    """People (FID IID) of PREFIX.grm.id and G [n, n], symmetric, from PREFIX.grm.sp. Raises InputError.

    .grm.sp holds `row column value`, 0-based, one triangle and the diagonal (GCTA --make-bK-sparse).
    """
    people = _people(f"{prefix}.grm.id")
    entries = _columns(f"{prefix}.grm.sp", ["row", "column", "value"], None)
    path, n = f"{prefix}.grm.sp", len(people)
    for name in entries:
        number = pd.to_numeric(entries[name], errors="coerce")
        valid = np.isfinite(number) if name == "value" else number.between(0, n - 1) & (number % 1 == 0)
        if not valid.all():
            line = int(np.flatnonzero(~valid)[0])
            allowed = "a number" if name == "value" else f"a row number 0..{n - 1} of {prefix}.grm.id"
            raise InputError(f"{_line(path, line)}: {name} is {entries[name].iloc[line]}, not {allowed}")
        entries[name] = number
    low = entries[["row", "column"]].min(axis=1).to_numpy(np.int64)
    high = entries[["row", "column"]].max(axis=1).to_numpy(np.int64)
    value = entries.value.to_numpy(np.float64)
    kept = _once(low, high, value, path, n)
    low, high, value = low[kept], high[kept], value[kept]
    on_diagonal = low == high
    absent = np.setdiff1d(np.arange(n), low[on_diagonal])
    if len(absent):
        raise InputError(
            f"{path}: has no diagonal entry for {len(absent)} people (row {absent[0]}); "
            f"add lines such as `{absent[0]} {absent[0]} 1`"
        )
    diagonal_N = np.empty(n)
    diagonal_N[low[on_diagonal]] = value[on_diagonal]
    pairs = ~on_diagonal
    return people, symmetric(low[pairs], high[pairs], value[pairs], diagonal_N)


def _once(low: np.ndarray, high: np.ndarray, value: np.ndarray, path: str, n: int) -> np.ndarray:
    """The first line of each pair: both triangles may be there, where they agree. Raises InputError."""
    _, first, which = np.unique(low * n + high, return_index=True, return_inverse=True)
    apart = np.flatnonzero(np.abs(value - value[first][which]) > _SAME * np.maximum(1.0, np.abs(value)))
    if len(apart):
        line = int(apart[0])
        raise InputError(
            f"{_line(path, line)}: the pair {low[line]} {high[line]} is listed twice, with {value[line]:g} and "
            f"{value[first][which][line]:g}; keep the right one"
        )
    return np.asarray(np.sort(first))


def symmetric(low_L: np.ndarray, high_L: np.ndarray, value_L: np.ndarray, diagonal_N: np.ndarray) -> sparse.csr_array:
    """G [N, N] of its diagonal and L pairs of different people, each pair given once."""
    n = len(diagonal_N)
    everybody = np.arange(n)
    rows = np.concatenate([everybody, low_L, high_L])
    columns = np.concatenate([everybody, high_L, low_L])
    values = np.concatenate([diagonal_N, value_L, value_L])
    return sparse.coo_array((values, (rows, columns)), shape=(n, n)).tocsr()


def write(prefix: str, people: pd.DataFrame, matrix: sparse.csr_array) -> None:
    """Write PREFIX.grm.id and then PREFIX.grm.sp (lower triangle and diagonal, 8 digits), as GCTA does."""
    with publish(f"{prefix}.grm.id") as partial:
        people[["FID", "IID"]].to_csv(partial, sep="\t", header=False, index=False)
    lower = sparse.tril(matrix).tocsr()
    lower.sort_indices()
    entries = lower.tocoo()
    table = pd.DataFrame({"row": entries.row, "column": entries.col, "value": entries.data})
    with publish(f"{prefix}.grm.sp") as partial:
        table.to_csv(partial, sep="\t", header=False, index=False, float_format="%.8g")


def rows_of(prefix: str, people: pd.DataFrame, analysed: pd.DataFrame, match: Match) -> np.ndarray:
    """The rows of the GRM of the analysed people. Raises InputError where some are not in it."""
    refuse_duplicates(people, match, f"{prefix}.grm.id")
    row_of = pd.Series(np.arange(len(people)), index=keys(people, match).to_numpy())
    wanted = keys(analysed, match)
    absent = wanted[~wanted.isin(row_of.index)]
    if len(absent):
        names = ids.mismatch(analysed, people) if 2 * len(absent) > len(wanted) else describe_keys(list(absent))
        raise InputError(
            f"{prefix}.grm.id: lacks {len(absent)} of the {len(wanted)} people analysed ({names}); make the GRM of "
            "everybody with genotypes, or leave these people out of the phenotypes"
        )
    return row_of[wanted].to_numpy()


def decompose(matrix: sparse.csr_array, max_family: int) -> Families:
    """Families of G [N, N] and their eigendecompositions, float64.

    Raises InputError where a family is larger than `max_family`. Negative eigenvalues (G is an estimate, cut at a
    threshold) become 0, with a warning.
    """
    n = matrix.shape[0]
    _, label_N = csgraph.connected_components(matrix, directed=False)
    size_of = np.bincount(label_N, minlength=1)
    if len(size_of) and size_of.max() > max_family:
        refuse_family(matrix, int(size_of.max()), max_family, "sparse_grm")
    order_N = np.lexsort((np.arange(n), label_N, size_of[label_N]))
    n_single = int((size_of[label_N] == 1).sum())
    size_F = np.sort(size_of[size_of > 1])
    start_F = n_single + np.cumsum(size_F) - size_F
    offset_F = np.cumsum(size_F**2) - size_F**2
    ordered = matrix[order_N][:, order_N].tocsr()
    d_N = ordered.diagonal().astype(np.float64)
    u = np.empty(int((size_F**2).sum()))
    for size in np.unique(size_F):
        which = np.flatnonzero(size_F == size)
        batch = max(1, 4_000_000 // int(size) ** 2)
        for some_f in np.array_split(which, -(-len(which) // batch)):
            values, vectors = np.linalg.eigh(_blocks(ordered, start_F[some_f], int(size)))
            for i, f in enumerate(some_f):
                d_N[start_F[f] : start_F[f] + size] = values[i]
                u[offset_F[f] : offset_F[f] + size * size] = vectors[i].ravel()
    negative = d_N < 0
    if negative.any():
        log.warning(
            "the sparse GRM has %d negative eigenvalues (the smallest %.3g), which are set to 0",
            negative.sum(),
            d_N.min(),
        )
    return Families(order_N, n_single, start_F, size_F, offset_F, u, np.maximum(d_N, 0.0))


def _blocks(ordered: sparse.csr_array, start_f: np.ndarray, size: int) -> np.ndarray:
    """Dense diagonal blocks [f, size, size] that begin at the rows `start_f`."""
    dense = np.zeros((len(start_f), size, size))
    for i, start in enumerate(start_f):
        for row in range(size):
            span = slice(ordered.indptr[start + row], ordered.indptr[start + row + 1])
            dense[i, row, ordered.indices[span] - start] = ordered.data[span]
    return dense


def refuse_family(matrix: sparse.csr_array, largest: int, max_family: int, where: str) -> NoReturn:
    """Say how large the largest family of G is, and up to which relatedness pairs must go to split all that are too
    large (InputError)."""
    cutoff = splitting_cutoff(matrix, max_family)
    raise InputError(
        f"{where}: the largest group of relatives has {largest} people, more than "
        f"max_family={max_family}; keep only pairs above {cutoff:.4f} (gcta --make-bK-sparse {cutoff:.4f}, "
        f"or udipdist grm cutoff={cutoff + 1e-4:.4f}), "
        f"or type max_family={largest} if a dense matrix of that size fits into memory"
    )


def splitting_cutoff(matrix: sparse.csr_array, max_family: int) -> float:
    """Up to which relatedness (four decimals) pairs must go so that no family of G has more than `max_family` people;
    0 where none has.

    The maximum spanning tree holds the strongest path between any two members: joining its edges from the strongest
    on, the edge that makes a family too large is the weakest that must go.
    """
    tree = csgraph.minimum_spanning_tree(-abs(matrix)).tocoo()
    parent = np.arange(matrix.shape[0])
    size = np.ones(len(parent), np.int64)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for edge in np.argsort(tree.data, kind="stable"):
        a, b = root(tree.row[edge]), root(tree.col[edge])
        parent[a] = b
        size[b] += size[a]
        if size[b] > max_family:
            return float(np.ceil(-tree.data[edge] * 1e4) / 1e4)
    return 0.0


def _people(path: str) -> pd.DataFrame:
    """FID and IID of a .grm.id, without its header. plink2 writes the IID alone where people have no FID: it is 0 then,
    as in the .fam that plink2 makes of them."""
    people = _columns(path, ["FID", "IID"], str, alone="#IID")
    header = ids.header_rows(people, path)
    if header:
        log.info("%s: %s, and skipped", path, ids.told(header))
    return people.iloc[header:].reset_index(drop=True)


def _columns(path: str, names: list[str], dtype: type | None, alone: str | None = None) -> pd.DataFrame:
    """A table without a header. One whose first line is `alone` has the last of the columns; the others are 0."""
    try:
        table = pd.read_csv(
            path, sep=r"\s+", header=None, dtype=dtype, keep_default_na=False, low_memory=False, encoding="utf-8-sig"
        )
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist; sparse_grm= is the prefix of .grm.sp and .grm.id") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not a table with the columns {', '.join(names)} ({error})") from None
    if alone and table.shape[1] == 1 and table.iat[0, 0] == alone:
        table = pd.DataFrame(dict.fromkeys(names[:-1], "0") | {names[-1]: table[0]}).iloc[1:]
    if table.shape[1] != len(names):
        raise InputError(f"{path}: has {table.shape[1]} columns, not {len(names)} ({', '.join(names)}, no header)")
    table.columns = pd.Index(names)
    return table


def _line(path: str, row: int) -> str:
    """Where a row of a table without a header stands, in words."""
    return f"{path}, line {delimited.line_of(Path(path), row)}"
