"""What columns are called: the ids of people, and the fields of UK Biobank in their many spellings.

A field has an instance (the visit) and an array index: age at the imaging visit is 21003-2.0 in UK Biobank's CSV,
f.21003.2.0 in its R tables, n_21003_2_0 in Stata's, and p21003_i2 on the Research Analysis Platform.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from hpc.errors import InputError, some
from udipdist import delimited

FAMILY = ("fid", "family_id")
PERSON = (
    "iid", "eid", "f.eid", "n_eid", "participant.eid", "participant_id", "subject_id", "subject", "individual_id", "id",
)  # in the order in which they are taken  # fmt: skip
BIDS = "participant_id"  # whose ids begin with sub-

_SPELLINGS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<field>\d+)-(?P<instance>\d+)(?:\.(?P<array>\d+))?",
        r"[fFX]\.?(?P<field>\d+)\.(?P<instance>\d+)\.(?P<array>\d+)",
        r"(?:participant\.)?p(?P<field>\d+)(?:_i(?P<instance>\d+))?(?:_a(?P<array>\d+))?",
        r"(?:n|s|ts|x)_(?P<field>\d+)_(?P<instance>\d+)_(?P<array>\d+)",
        r"\w+_f(?P<field>\d+)_(?P<instance>\d+)_(?P<array>\d+)",
    )
)
BARE = r"\d+-\d+\.\d+|[fFX]\.\d+\.\d+\.\d+|participant\.p\d+\w*"  # spellings that are no plain words


class Field(NamedTuple):
    """A field of UK Biobank at a visit; instance and array index are 0 where a name does not give them."""

    number: int
    instance: int
    array: int


def parse(name: str) -> Field | None:
    """The field that a column is, by its name; None where it is none."""
    for spelling in _SPELLINGS:
        if found := spelling.fullmatch(name.strip()):
            return Field(*(int(found[part] or 0) for part in ("field", "instance", "array")))
    return None


def plain(name: str) -> str:
    """A name without what only marks a header: # of PLINK, and case."""
    return name.strip().lstrip("#\ufeff").strip().lower()


def id_columns(names: Sequence[str]) -> tuple[str | None, str | None]:
    """The columns that name the family and the person, whatever their spelling; None where there is none."""
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(plain(name), name)
    family = next((by_name[name] for name in FAMILY if name in by_name), None)
    return family, next((by_name[name] for name in PERSON if name in by_name), None)


def read_aliases(path: Path | None) -> dict[str, str]:
    """Name -> column or field: those of the package (the paper's covariates), and those of a table with the columns
    name and field on top. Raises InputError."""
    with resources.as_file(resources.files("udipdist.people") / "data" / "ukb_fields.tsv") as shipped:
        aliases = _aliases(shipped)
    return aliases | (_aliases(path) if path is not None else {})


def _aliases(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path}: does not exist; aliases= is a table with the columns name and field")
    table = delimited.read(path)
    place = {plain(name): i for i, name in enumerate(table.form.names)}
    if not {"name", "field"} <= place.keys():
        raise InputError(f"{path}: has the columns {some(table.form.names)}; it must have name and field")
    names, found = (table.columns[place[what]].to_pylist() for what in ("name", "field"))
    return dict(zip(names, found, strict=True))


def find(name: str, columns: Sequence[str], aliases: Mapping[str, str]) -> str | None:
    """The column that is meant by `name`: itself, that of its alias, or another spelling of the same field."""
    for spelled in (name, aliases.get(name)):
        if spelled is None:
            continue
        if spelled in columns:
            return spelled
        field = parse(spelled)
        same = [column for column in columns if field is not None and parse(column) == field]
        if same:
            return same[0]
    return None
