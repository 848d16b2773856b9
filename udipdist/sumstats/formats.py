"""The tables that other programs read: which columns, under which names, in which order, and what they cannot hold.

fastgwa: GCTA 1.94 `--fastGWA-mlm`; ssf: GWAS-SSF 1.0 (Hayhurst et al. 2022); fuma: what FUMA SNP2GENE takes;
regenie: `PREFIX_TRAIT.regenie` of regenie 4 step 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from hpc import __version__
from udipdist.genome import chromosomes
from udipdist.sumstats import digits

LOG10P = "neg_log_10_p_value"
_GWAS_SSF = {chromosomes.XY: 23, chromosomes.MT: 25}  # what it numbers otherwise than PLINK
_EFFECTS = ("beta", "se")


class Variants:
    """The variants of a block and what is the same for every trait, made when first asked for.

    `columns` are arrays of B values: chrom, position, snp, a1, a2 (text but for position), n, af1.
    """

    def __init__(self, columns: dict[str, np.ndarray]):
        self.n_B = columns["n"]
        self._columns = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
        self._texts: dict[str, pa.Array] = {}

    def __len__(self) -> int:
        return len(self.n_B)

    def typed(self, name: str) -> pa.Array:
        """A column as it is: text, integers, float32."""
        return self._columns[name] if name in self._columns else getattr(self, name)

    def text(self, name: str) -> pa.Array:
        """A column as text."""
        if name not in self._texts:
            self._texts[name] = self.typed(name).cast(digits.TEXT)
        return self._texts[name]

    @cached_property
    def number(self) -> pa.Array:
        """The chromosome as a number, X with its pseudo-autosomal part 23, Y 24, MT 25; other names stay."""
        return self._numbered(_GWAS_SSF)

    @cached_property
    def plink(self) -> pa.Array:
        """The chromosome as PLINK and GCTA number it: X 23, Y 24, XY 25, MT 26; other names stay."""
        return self._numbered({})

    @cached_property
    def regenie(self) -> pa.Array:
        """The chromosome as regenie numbers it: as PLINK, but the pseudo-autosomal part of X is X."""
        return self._numbered({chromosomes.XY: chromosomes.X})

    def _numbered(self, instead: dict[int, int]) -> pa.Array:
        names = self.text("chrom").dictionary_encode()
        codes = [(chromosomes.code(name), name) for name in names.dictionary.to_pylist()]
        numbers = [name if code == chromosomes.OTHER else str(instead.get(code, code)) for code, name in codes]
        return pa.array(numbers, digits.TEXT).take(names.indices)

    @cached_property
    def identifier(self) -> pa.Array:
        """The id with _ for what GWAS-SSF does not allow in one."""
        return pc.replace_substring_regex(self.text("snp"), "[^A-Za-z0-9_]", "_")

    @cached_property
    def rsid(self) -> pa.Array:
        """The id where it is an rs number, else null."""
        snp = self.text("snp")
        return pc.if_else(pc.match_substring_regex(snp, "^rs[0-9]+$"), snp, None)

    @cached_property
    def effect(self) -> pa.Array:
        """The effect allele A1 in capitals."""
        return pc.utf8_upper(self.text("a1"))

    @cached_property
    def other(self) -> pa.Array:
        """The other allele A2 in capitals."""
        return pc.utf8_upper(self.text("a2"))

    @cached_property
    def fuma_B(self) -> np.ndarray:
        """Which of them FUMA takes, bool [B]: those on chromosomes 1 to 22 and X."""
        known = pc.match_substring_regex(self.text("number"), "^([1-9]|1[0-9]|2[0-3])$")
        return np.asarray(known.to_numpy(zero_copy_only=False))

    @cached_property
    def ssf_B(self) -> np.ndarray:
        """Which of them GWAS-SSF can hold, bool [B]: alleles of bases on chromosomes 1 to 25."""
        bases = pc.and_(*(pc.match_substring_regex(self.text(name), "^[ACGT]+$") for name in ("effect", "other")))
        known = pc.match_substring_regex(self.text("number"), "^([1-9]|1[0-9]|2[0-5])$")
        return pc.and_(bases, known).to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Results:
    """One column of results: beta, se (NaN where there is none) and -log10 p, float64 [B], people n [B]; the trait of
    each (text), and the name of the test."""

    beta_B: np.ndarray
    se_B: np.ndarray
    log10p_B: np.ndarray
    n_B: np.ndarray
    trait: str | pa.Array
    test: str
    p_floor: float = 0.0  # the smallest p that is printed

    @property
    def printed_B(self) -> np.ndarray:
        """-log10 of the p that is printed."""
        return np.minimum(self.log10p_B, -np.log10(self.p_floor)) if self.p_floor else self.log10p_B

    @property
    def chisq_B(self) -> np.ndarray:
        """(beta / se)^2."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((self.beta_B.astype(np.float64) / self.se_B) ** 2).astype(np.float32)


@dataclass(frozen=True)
class Layout:
    """`columns` maps headers to columns, in order. `suffix` is that of one file among several."""

    columns: dict[str, str]
    suffix: str
    separator: str = "\t"
    without_effects: str = "NA"  # "NA", "leave out" the columns, or "refuse"
    holds_untested: bool = False
    fits: Callable[[Variants], np.ndarray] | None = None
    holds: str = ""  # which variants fit, in words
    p_floor: float = 0.0  # the smallest p that its readers take

    def header(self, effects: bool = True) -> list[str]:
        """The names of the columns; without `effects` those of a test that has none."""
        drop = _EFFECTS if not effects and self.without_effects == "leave out" else ()
        return [name for name, column in self.columns.items() if column not in drop]

    def table(
        self, variants: Variants, results: Results, keep_B: np.ndarray, header: list[str], text: bool
    ) -> pa.Table:
        """The rows `keep_B` [B] as a table: of text (null where there is no value), or of numbers."""
        mask = None if keep_B.all() else pa.array(keep_B)
        make = _text if text else _typed
        arrays = [make(self.columns.get(name, name), variants, results) for name in header]
        arrays = [pa.repeat(array, len(variants)) if isinstance(array, pa.Scalar) else array for array in arrays]
        return pa.table([array if mask is None else array.filter(mask) for array in arrays], names=header)


def _text(name: str, variants: Variants, results: Results) -> pa.Array | pa.Scalar:
    if name == "p":
        return digits.p_values(results.printed_B)
    if name == LOG10P:
        return digits.minus_log10(results.log10p_B)
    if name == "n" and results.n_B is variants.n_B:
        return variants.text("n")
    array = _typed(name, variants, results) if name in _OF_RESULTS else variants.text(name)
    return array.cast(digits.TEXT)


def _typed(name: str, variants: Variants, results: Results) -> pa.Array | pa.Scalar:
    return _OF_RESULTS[name](results) if name in _OF_RESULTS else variants.typed(name)


def _trait_of_minp(results: Results) -> pa.Array | pa.Scalar:
    """regenie's column for remarks: where the effect of a smallest p comes from."""
    if isinstance(results.trait, str):
        return pa.scalar("NA", digits.TEXT)
    return pc.binary_join_element_wise(
        pa.scalar("TRAIT", digits.TEXT), results.trait.cast(digits.TEXT), pa.scalar("=", digits.TEXT)
    )


_OF_RESULTS: dict[str, Callable[[Results], pa.Array | pa.Scalar]] = {
    "beta": lambda results: pa.array(results.beta_B, from_pandas=True),
    "se": lambda results: pa.array(results.se_B, from_pandas=True),
    "p": lambda results: pa.array(10.0**-results.printed_B, from_pandas=True),
    LOG10P: lambda results: pa.array(results.log10p_B, from_pandas=True),
    "chisq": lambda results: pa.array(results.chisq_B, from_pandas=True),
    "n": lambda results: pa.array(results.n_B),
    "test": lambda results: pa.scalar(results.test, digits.TEXT),
    "trait": lambda results: pa.scalar(results.trait, digits.TEXT) if isinstance(results.trait, str) else results.trait,
    "extra": _trait_of_minp,
}

LAYOUTS = {
    "fastgwa": Layout(
        columns={
            "CHR": "plink", "SNP": "snp", "POS": "position", "A1": "a1", "A2": "a2", "N": "n", "AF1": "af1",
            "BETA": "beta", "SE": "se", "P": "p",
        },
        suffix=".fastGWA",
        holds_untested=True,
    ),
    "ssf": Layout(
        columns={
            "chromosome": "number", "base_pair_location": "position", "effect_allele": "effect",
            "other_allele": "other", "beta": "beta", "standard_error": "se", "effect_allele_frequency": "af1",
            "p_value": "p", "variant_id": "identifier", "rsid": "rsid", "n": "n", LOG10P: LOG10P, "trait": "trait",
        },
        suffix=".tsv",
        without_effects="refuse",
        fits=lambda variants: variants.ssf_B,
        holds="GWAS-SSF holds chromosomes 1 to 25 and alleles of A, C, G and T only",
    ),
    "fuma": Layout(
        columns={
            "CHR": "number", "BP": "position", "SNP": "snp", "A1": "a1", "A2": "a2", "P": "p", "N": "n",
            "BETA": "beta", "SE": "se", "NEG_LOG10_P": LOG10P,
        },
        suffix=".txt",
        without_effects="leave out",
        fits=lambda variants: variants.fuma_B,
        holds="FUMA takes chromosomes 1 to 22 and X only",
        p_floor=1e-300,
    ),
    "regenie": Layout(
        columns={
            "CHROM": "regenie", "GENPOS": "position", "ID": "snp", "ALLELE0": "a2", "ALLELE1": "a1", "A1FREQ": "af1",
            "N": "n", "TEST": "test", "BETA": "beta", "SE": "se", "CHISQ": "chisq", "LOG10P": LOG10P, "EXTRA": "extra",
        },
        suffix=".regenie",
        separator=" ",
        holds_untested=True,
    ),
}  # fmt: skip


def ssf_meta(name: str, data: Path, facts: dict[str, Any]) -> str:
    """The YAML that goes with the GWAS-SSF file `data`, to be published under `name`; `facts` are added to it."""
    with data.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    entries = {
        "date_metadata_last_modified": datetime.now(UTC).date(),
        **facts,
        "coordinate_system": "1-based",
        "data_file_name": name,
        "file_type": "GWAS-SSF v1.0",
        "data_file_md5sum": md5,
        "analysis_software": f"udipdist {__version__}",
        "is_harmonised": False,
    }
    return yaml.safe_dump(entries, sort_keys=False)
