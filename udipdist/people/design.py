"""Covariates as a design matrix: a formula or all columns, categories as dummies, redundant columns dropped by name."""

from __future__ import annotations

import ast
import difflib
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.people import fields

log = logging.getLogger(__name__)

FUNCTIONS = ("I", "C", "log", "log10", "log2", "exp", "center", "scale", "poly")
OF_ALL = ("center", "scale", "poly")  # what they give a person depends on the others
MAX_LEVELS = 200
COLLINEAR = 1e-6  # share of a column's standard deviation that the columns before it leave unexplained
_ARITHMETIC = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.keyword,
)  # fmt: skip


@dataclass(frozen=True)
class Formula:
    """A checked right side of a formula. `text` has plain names; `alias` maps them to the table's column names.

    `slopes` are the columns that enter as they are, not inside a function; `given` is False where all columns count.
    """

    text: str
    alias: dict[str, str]
    columns: tuple[str, ...]
    slopes: tuple[str, ...]
    given: bool

    @classmethod
    def parse(cls, text: str | None, available: list[str], aliases: Mapping[str, str] | None = None) -> Formula:
        """Check `text` against the columns of the table; None stands for all columns, added up.

        Allowed are names of columns (in backticks or Q("...") where they are no plain words), aliases, other spellings
        of a field of UK Biobank (see people.fields), + : * ( ), powers of sums, and arithmetic inside I(), C(), log()
        and the like; nothing else is ever evaluated. Raises InputError.
        """
        alias = {f"_column{i}": name for i, name in enumerate(available)}
        names = {name: key for key, name in alias.items()}
        if text is None:
            return cls(" + ".join(alias) or "1", alias, tuple(available), tuple(available), False)
        meant: dict[str, str] = {}

        def key_of(name: str) -> str:
            column = _known(name, available, text, aliases or {})
            if column != name:
                meant[name] = column
            return names[column]

        plain = _with_plain_names(text, available, key_of)
        _refuse_bare_powers(plain, text)
        used: dict[str, None] = {}
        slopes: dict[str, None] = {}
        for expression in _factors(plain, text):
            for name in _names(expression, text):
                key = name if name in alias else key_of(name)
                if name not in available:
                    plain = re.sub(rf"\b{re.escape(name)}\b", key, plain)
                used[alias[key]] = None
                if expression.strip() == name:
                    slopes[alias[key]] = None
        if meant:
            log.info("formula: %s", ", ".join(f"{name} is {column}" for name, column in meant.items()))
        return cls(plain, alias, tuple(used), tuple(slopes), True)

    @property
    def depends_on_people(self) -> bool:
        """True where the columns of a person depend on who else is analysed."""
        return re.search(rf"\b({'|'.join(OF_ALL)})\s*\(", self.text) is not None

    def evaluate(self, table: pd.DataFrame) -> pd.DataFrame:
        """The columns of the formula for the rows of `table`, float64, without the intercept. Raises InputError."""
        if not self.columns:
            return pd.DataFrame(index=range(len(table)))
        from formulaic import model_matrix
        from formulaic.errors import FormulaicError

        back = {name: key for key, name in self.alias.items() if name in self.columns}
        data = pd.DataFrame({key: table[name].to_numpy() for name, key in back.items()} | {n: table[n] for n in back})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # log(0): reported below, with the person
                matrix = model_matrix(self.text, data, context={}, na_action="ignore", output="pandas")
        except (FormulaicError, TypeError, ValueError) as error:
            raise InputError(f"formula={self.text!r}: {str(error).splitlines()[0]}") from None
        matrix = pd.DataFrame(matrix).drop(columns="Intercept", errors="ignore").astype(np.float64)
        return matrix.rename(columns=self._shown)

    def _shown(self, column: str) -> str:
        return re.sub(r"_column\d+", lambda match: self.alias.get(match.group(), match.group()), column)


@dataclass(frozen=True)
class Design:
    """The covariates of a sample: orthonormal columns `q_NK` spanning the intercept and the `names` that were kept."""

    q_NK: np.ndarray
    names: list[str]
    constant: list[str]
    collinear: list[str]


def encode(table: pd.DataFrame, formula: Formula, where: str) -> pd.DataFrame:
    """Covariate columns of the people in `table` (without missing values). Raises InputError."""
    for name in formula.columns:
        column = table[name]
        text = not pd.api.types.is_numeric_dtype(column)
        if text and column.nunique() > MAX_LEVELS:
            raise InputError(
                f"{where}: text covariate {name} has {column.nunique()} different values, more than {MAX_LEVELS}; "
                "leave it out by formula=, or write it as a number"
            )
        if text and column.nunique() == 1:
            log.warning("covariate %s is %s for everybody", name, column.iloc[0])
    columns = formula.evaluate(table)
    for name in map(str, columns):
        wrong = np.flatnonzero(~np.isfinite(columns[name]))
        if len(wrong):
            person = f"{table.FID.iloc[wrong[0]]} {table.IID.iloc[wrong[0]]}"
            raise InputError(f"{where}: {name} of {person} is {columns[name].iloc[wrong[0]]}; it must be finite")
    return columns


def design(columns: pd.DataFrame) -> Design:
    """Orthonormal basis of the intercept and `columns`; constant columns, and those that the columns before them
    explain, are left out and named."""
    n = len(columns)
    q_NK = np.empty((n, len(columns.columns) + 1))
    q_NK[:, 0] = 1 / np.sqrt(n)
    kept: list[str] = []
    constant: list[str] = []
    collinear: list[str] = []
    for name in map(str, columns):
        x_N = columns[name].to_numpy(np.float64)
        centred_N = x_N - x_N.mean()
        size = np.linalg.norm(centred_N)
        if size <= 1e-12 * np.linalg.norm(x_N):
            constant.append(name)
            continue
        rest_N = centred_N / size
        basis_NK = q_NK[:, : len(kept) + 1]
        for _ in range(2):  # twice is enough (Kahan)
            rest_N = rest_N - basis_NK @ (basis_NK.T @ rest_N)
        left = np.linalg.norm(rest_N)
        if left < COLLINEAR or len(kept) + 1 == n:
            collinear.append(name)
            continue
        q_NK[:, len(kept) + 1] = rest_N / left
        kept.append(name)
    return Design(np.ascontiguousarray(q_NK[:, : len(kept) + 1]), kept, constant, collinear)


def warn_dropped(found: Design) -> None:
    """Report covariate columns that have no effect."""
    if found.constant:
        log.warning("constant covariate columns are dropped: %s", some(found.constant, 20))
    if found.collinear:
        log.warning("covariate columns that the ones before them explain are dropped: %s", some(found.collinear, 20))


def _with_plain_names(text: str, available: list[str], key_of: Callable[[str], str]) -> str:
    """The formula with keys for what stands in backticks or Q("..."), and for fields of UK Biobank as they are."""
    bare = sorted((name for name in available if fields.parse(name) and not name.isidentifier()), key=len, reverse=True)
    forms = [r"`(?P<ticks>[^`]*)`", r"\bQ\(\s*(?P<mark>[\"'])(?P<quoted>.*?)(?P=mark)\s*\)"]
    forms += [rf"(?<![\w.-])(?P<bare>{'|'.join(map(re.escape, bare))})(?![\w.-])"] if bare else []

    forms.append(rf"(?<![\w.-])(?P<field>{fields.BARE})(?![\w.-])")

    def replace(match: re.Match[str]) -> str:
        found = match.groupdict()
        field = found.get("field")
        if field is not None and fields.find(field, available, {}) is None:
            return field  # arithmetic, as in I(2020-1.5)
        return key_of(next(found[part] for part in ("ticks", "quoted", "bare", "field") if found.get(part) is not None))

    return re.sub("|".join(forms), replace, text)


def _known(name: str, available: list[str], text: str, aliases: Mapping[str, str]) -> str:
    found = fields.find(name, available, aliases)
    if found is not None:
        return found
    if name in aliases:
        raise InputError(
            f"formula={text!r}: {name} is the alias of {aliases[name]}, which is not a covariate; the columns are "
            f"{some(available, 20)}"
        )
    close = difflib.get_close_matches(name, available, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the columns are {some(available, 20)}"
    raise InputError(f"formula={text!r}: {name} is not a covariate; {hint}")


def _factors(plain: str, text: str) -> list[str]:
    """The factors of a one-sided formula with an intercept, as Python expressions."""
    import formulaic
    from formulaic.errors import FormulaicError

    try:
        parsed = formulaic.Formula(plain)
    except FormulaicError as error:
        raise InputError(f"formula={text!r}: {str(error).splitlines()[0]}") from None
    except SyntaxError:
        raise InputError(f"formula={text!r}: cannot be read; put column names with odd characters in `...`") from None
    if not isinstance(parsed, formulaic.SimpleFormula):
        raise InputError(f"formula={text!r}: must be a right side only, such as 'age + I(age**2) + C(site)'")
    factors = [factor.expr for term in parsed for factor in term.factors]
    if "1" not in factors:
        raise InputError(f"formula={text!r}: leaves out the intercept, which every model here has; remove the 0 or -1")
    return [factor for factor in factors if factor != "1"]


def _names(expression: str, text: str) -> list[str]:
    """The columns in a factor; raises InputError for anything but arithmetic and the allowed functions."""
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        raise InputError(
            f"formula={text!r}: {expression!r} cannot be read; put column names with odd characters in `...`"
        ) from None
    functions = set()
    for node in ast.walk(tree):
        if not isinstance(node, _ARITHMETIC):
            raise InputError(f"formula={text!r}: {expression!r} is not allowed; write arithmetic inside I(...)")
        if isinstance(node, ast.Call):
            if not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
                called = ast.unparse(node.func)
                raise InputError(f"formula={text!r}: {called}() is not allowed, only {some(FUNCTIONS, 20)}")
            functions.add(id(node.func))
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions]


def _refuse_bare_powers(plain: str, text: str) -> None:
    """In formulas `age**2` is the interaction of age with itself, which is age: almost surely not what was meant."""
    outside = plain
    while (shorter := re.sub(r"\([^()]*\)", "", outside)) != outside:
        outside = shorter
    found = re.search(r"\w+\s*(\*\*|\^)\s*\d", outside)
    if found:
        raise InputError(f"formula={text!r}: a power of one column must be written I(age**2), not age**2")
