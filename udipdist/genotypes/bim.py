"""PLINK's .bim and .fam as tables: read fast and in little memory, checked, and looked over for repeated variants."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from hpc.compiled import njit
from hpc.errors import InputError
from udipdist import delimited
from udipdist.genome import chromosomes

log = logging.getLogger(__name__)

COLUMNS = ["chrom", "snp", "cm", "position", "a1", "a2"]
_TEXT = ("snp", "a1", "a2")
_LAST_POSITION = 2**31 - 1
_NO_ALLELE = ["0", "."]  # nobody has been seen with an allele: both may be unknown
_LINES_LOOKED_AT = 1000

Column: TypeAlias = "pd.Series | pa.ChunkedArray"  # of text


def read_bim(prefix: str) -> pd.DataFrame:
    """PREFIX.bim: chrom (categorical text), snp, a1, a2 (text), position (int64), without the centimorgans.

    Raises InputError for lines of another form, positions outside 0..2^31-1, and equal alleles.
    """
    path = f"{prefix}.bim"
    delimiter = _delimiter(path, COLUMNS)
    table = _read_fast(path, delimiter) if delimiter is not None else None
    if table is None:  # blanks of any number between the columns, or a broken line, which is then named
        frame = read_columns(path, COLUMNS).drop(columns="cm")
        frame["position"] = _positions(path, frame["position"])
        frame["chrom"] = frame["chrom"].astype("category")
    else:
        frame = _frame(table)
    _check_positions(path, frame["position"].to_numpy())
    _check_alleles(path, frame)
    return frame


def read_columns(path: str, names: list[str]) -> pd.DataFrame:
    """A headerless table with white space between exactly the columns `names`, as text. Raises InputError."""
    _delimiter(path, names)
    try:
        table = pd.read_csv(
            path,
            sep=r"\s+",
            header=None,
            names=names,
            dtype=str,
            keep_default_na=False,
            quoting=3,
            encoding="utf-8-sig",
        )
    except UnicodeDecodeError:
        raise _no_text(path, names) from None
    except pd.errors.ParserError as error:
        raise InputError(f"{path}: {error}; each line must have {len(names)} columns") from None
    if table.empty:
        raise InputError(f"{path}: is empty; it must hold {len(names)} columns ({', '.join(names)})")
    short = np.flatnonzero(table[names[-1]].isna() | (table[names[-1]] == ""))
    if len(short):
        line = delimited.line_of(Path(path), int(short[0]))
        raise InputError(f"{path}, line {line}: has fewer than {len(names)} columns ({', '.join(names)})")
    return table


def _delimiter(path: str, names: list[str]) -> str | None:
    """What separates the columns in the first lines, tab or one blank; None where it varies. Raises InputError."""
    possible = {"\t", " "}
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(itertools.islice(file, _LINES_LOOKED_AT), start=1):
                words = line.split()
                if len(words) != len(names):
                    raise InputError(f"{path}, line {number}: has {len(words)} columns, not {len(names)}")
                possible = {mark for mark in possible if line.rstrip("\r\n").split(mark) == words}
    except UnicodeDecodeError:
        raise _no_text(path, names) from None
    return next(iter(possible)) if len(possible) == 1 else None


def _read_fast(path: str, delimiter: str) -> pa.Table | None:
    """The table by Arrow's reader; None where a line is not of the usual form."""
    types = {name: pa.large_string() for name in _TEXT}
    types |= {"chrom": pa.dictionary(pa.int32(), pa.string()), "position": pa.int64()}
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=COLUMNS, block_size=1 << 24),
            parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    usual = all(pc.min(pc.binary_length(table[name])).as_py() for name in _TEXT)
    other = " " if delimiter == "\t" else "\t"
    usual = usual and not any(pc.any(pc.match_substring(table[name], other)).as_py() for name in _TEXT)
    names = table["chrom"].unify_dictionaries().chunk(0).dictionary.to_pylist()
    return table if usual and all(name.split() == [name] for name in names) else None


def _frame(table: pa.Table) -> pd.DataFrame:
    chrom = table["chrom"].combine_chunks()
    return pd.DataFrame(
        {
            "chrom": pd.Categorical.from_codes(chrom.indices.to_numpy(), chrom.dictionary.to_pylist()),
            "snp": pd.array(table["snp"], dtype="str"),
            "position": table["position"].to_numpy(),
            "a1": pd.array(table["a1"], dtype="str"),
            "a2": pd.array(table["a2"], dtype="str"),
        }
    )


def _positions(path: str, text: pd.Series) -> np.ndarray:
    number = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(number) & (number == np.rint(number))))
    if len(wrong):
        raise _no_position(path, wrong[0], text.iloc[wrong[0]])
    return number.astype(np.int64)


def _check_positions(path: str, position_M: np.ndarray) -> None:
    wrong = np.flatnonzero((position_M < 0) | (position_M > _LAST_POSITION))
    if len(wrong):
        raise _no_position(path, wrong[0], str(position_M[wrong[0]]))


def _no_position(path: str, row: int, text: str) -> InputError:
    return InputError(
        f"{path}, line {row + 1}: {text!r} is not a position (0..{_LAST_POSITION}); "
        "the columns are chromosome, id, centimorgan, position, A1, A2"
    )


def _check_alleles(path: str, frame: pd.DataFrame) -> None:
    a1, a2 = pa.chunked_array(pa.array(frame["a1"])), pa.chunked_array(pa.array(frame["a2"]))
    equal = pc.equal(a1, a2)
    known = pc.invert(pc.is_in(a1, pa.array(_NO_ALLELE, a1.type)))
    wrong = np.flatnonzero(pc.and_(equal, known).to_numpy())
    if len(wrong):
        row = frame.iloc[wrong[0]]
        more = f" (and {len(wrong) - 1:,} other lines)" if len(wrong) > 1 else ""
        raise InputError(
            f"{path}, line {wrong[0] + 1}: A1 and A2 of {row.snp} are both {row.a1!r}{more}; "
            "a variant has two alleles: correct the lines, or leave the variants out (plink --exclude)"
        )


def _no_text(path: str, names: list[str]) -> InputError:
    return InputError(f"{path}: is not text; it must hold {len(names)} columns ({', '.join(names)})")


def look_over(variants: pd.DataFrame, where: str | Path) -> dict[str, int]:
    """Count what is unusual about the variants (chrom snp position a1 a2), and warn of it in one message.

    The association takes variants in any order and as often as they stand there; whoever joins them by position or id
    must know. Keys: out_of_order (position before that of the line above), split_chromosomes (in several runs),
    same_position, same_alleles (position and alleles, in either order), same_id: variants that have an earlier one
    like them; no_id ('.').
    """
    chrom_M, position_M = _chromosome_numbers(variants["chrom"]), variants["position"].to_numpy()
    begins_M = np.r_[True, chrom_M[1:] != chrom_M[:-1]] if len(chrom_M) else np.zeros(0, bool)
    falls = np.flatnonzero((position_M[1:] < position_M[:-1]) & ~begins_M[1:]) + 1
    runs = np.bincount(chrom_M[begins_M])
    place_M = chrom_M * 2**32 + position_M
    rows = _repeated(place_M)
    hash_M = hashes(variants["snp"])
    named = np.sort(hash_M[hash_M != hashes(pa.chunked_array([["."]]))[0]])
    found = {
        "out_of_order": len(falls),
        "split_chromosomes": int((runs > 1).sum()),
        "same_position": len(rows) - len(np.unique(place_M[rows])),
        "same_alleles": _same_alleles(place_M[rows], variants.iloc[rows]),
        "same_id": int((named[1:] == named[:-1]).sum()),
        "no_id": len(hash_M) - len(named),
    }
    _warn(found, falls, variants, where)
    return found


def _warn(found: dict[str, int], falls: np.ndarray, variants: pd.DataFrame, where: str | Path) -> None:
    count = {name: f"{number:,}" for name, number in found.items()}
    said = []
    if found["out_of_order"]:
        above, here = variants.iloc[falls[0] - 1], variants.iloc[falls[0]]
        said.append(
            f"{count['out_of_order']} are not in order of position "
            f"(first {here.snp}, {here.chrom}:{here.position} after {above.position})"
        )
    if found["split_chromosomes"]:
        said.append(f"{count['split_chromosomes']} chromosomes are in several pieces")
    if found["same_alleles"]:
        said.append(f"{count['same_alleles']} repeat position and alleles of another")
    if found["same_id"]:
        said.append(f"{count['same_id']} repeat the id of another")
    if found["no_id"]:
        said.append(f"{count['no_id']} have no id ('.')")
    if said:
        log.warning(
            "%s: of %s variants %s. All are tested, in the order of the file; lists of ids (extract, exclude, info) "
            "mean every variant with the id, and loci takes one of those that repeat position and alleles. "
            "plink2 --sort-vars --make-pgen, --rm-dup and --set-missing-var-ids fix this",
            where, f"{len(variants):,}", "; ".join(said),
        )  # fmt: skip


def hashes(text: Column) -> np.ndarray:
    """A number for each text, uint64, equal for equal ones: ten million texts of one table and ten million of another
    have any two that agree by chance with probability 5e-6."""
    if isinstance(text, pd.Series):
        text = pa.chunked_array(pa.array(text))
    column = text.cast(pa.large_string())
    pieces = [np.zeros(0, np.uint64)]
    for chunk in filter(len, column.chunks):
        _, offsets, data = chunk.buffers()
        offset_M = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        pieces.append(_hash(offset_M, np.frombuffer(data, np.uint8)))
    return np.concatenate(pieces)


def find(key_M: np.ndarray, sorted_K: np.ndarray) -> np.ndarray:
    """For each key its first place in `sorted_K`, int64 [M]; -1 where it is not there."""
    order_M = np.argsort(key_M)  # keys in order are found many times faster than in any other
    place_M = np.empty(len(key_M), np.int64)
    place_M[order_M] = np.searchsorted(sorted_K, key_M[order_M])
    there_M = place_M < len(sorted_K)
    there_M[there_M] = sorted_K[place_M[there_M]] == key_M[there_M]
    return np.where(there_M, place_M, -1)


@njit(nogil=True, cache=True)
def _hash(offset_M: np.ndarray, byte_X: np.ndarray) -> np.ndarray:
    """FNV-1a of the bytes between neighbouring offsets, its bits mixed once more."""
    out = np.empty(offset_M.shape[0] - 1, np.uint64)
    for i in range(out.shape[0]):
        h = np.uint64(14695981039346656037)
        for j in range(offset_M[i], offset_M[i + 1]):
            h = (h ^ np.uint64(byte_X[j])) * np.uint64(1099511628211)
        out[i] = (h ^ (h >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return out


def _chromosome_numbers(chrom: pd.Series) -> np.ndarray:
    """A number for each chromosome, int64 [M]: its code, or one beyond the codes for each other name."""
    labels = chrom.astype("category").cat
    numbers = [chromosomes.code(name) or chromosomes.MT + 1 + i for i, name in enumerate(labels.categories)]
    return np.array(numbers, np.int64)[labels.codes]


def _repeated(place_M: np.ndarray) -> np.ndarray:
    """Rows whose place another row has too, in order of place."""
    order = np.argsort(place_M, kind="stable")  # next to free where the file is in order
    same = np.diff(place_M[order]) == 0
    return order[np.r_[same, False] | np.r_[False, same]] if len(order) else order


def _same_alleles(place: np.ndarray, variants: pd.DataFrame) -> int:
    pairs = pd.DataFrame(
        {"place": place, "one": variants["a1"].to_numpy(object), "two": variants["a2"].to_numpy(object)}
    )
    turned = (pairs["one"] > pairs["two"]).to_numpy()
    pairs.loc[turned, ["one", "two"]] = pairs.loc[turned, ["two", "one"]].to_numpy()
    return int(pairs.duplicated().sum())
