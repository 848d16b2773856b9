"""What the plan of a scan leaves for its parts: OUT/model/planned.json.

It is written last: a plan that has it is whole. Beside it stand the models of the groups of traits. Whoever reads the
plan reads it here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hpc.errors import Incomplete, OutputExists
from hpc.files import publish_json
from udipdist.gwas.outputs import TablePlan

FORMAT_VERSION = 2


class ScanPlan(BaseModel):
    """The plan of a scan of `n_variants` variants, made once.

    `rows` says where the genotypes are and which of their variants are tested (a SourceRecord). `x_runs` are
    [start, stop] of the runs of variants on X, and `sex` has a code (genotypes.sex) for everybody of the .fam where
    there are any. `groups` is the number of models: group-00000, group-00001, ... beside the joint-00000, ... of the
    tables. `people` are rows of the .fam, to which `tables` refer by number. `facts` are those of the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    n_variants: int
    rows: dict[str, Any]
    x_runs: list[list[int]]
    sex: list[int]
    groups: int
    people: list[list[int]]
    tables: list[TablePlan]
    facts: dict[str, Any]

    def save(self, out: Path) -> None:
        """Write the plan of the scan in `out`."""
        publish_json(planned_path(out), self.model_dump())

    @classmethod
    def load(cls, out: Path) -> Self:
        """The plan of the scan in `out`. Raises Incomplete where there is none, OutputExists for one of another format
        or with other contents."""
        path = planned_path(out)
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            version = tree.get("format_version", "missing")
        except FileNotFoundError:
            raise Incomplete(f"{out}: has no plan yet; run gwas-plan with the same arguments first") from None
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
            raise OutputExists(f"{path}: is damaged; {_AFRESH}") from None
        if version != FORMAT_VERSION:
            raise OutputExists(
                f"{path}: its format_version is {version}, and this version of udipdist reads {FORMAT_VERSION}; "
                f"go on with the version of udipdist that made the plan, or {_AFRESH}"
            )
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            keys = ", ".join(dict.fromkeys(str(one["loc"][0]) for one in error.errors()))
            raise OutputExists(f"{path}: is damaged ({keys}); {_AFRESH}") from None


_AFRESH = "run gwas or gwas-plan with overwrite=true to start afresh"


def model_dir(out: Path) -> Path:
    """Where the plan keeps its models."""
    return out / "model"


def joint_dir(out: Path, table: int) -> Path:
    """Where the plan keeps what the joint test of a table needs."""
    return model_dir(out) / f"joint-{table:05d}"


def planned_path(out: Path) -> Path:
    """The file of the plan, written last."""
    return model_dir(out) / "planned.json"


def stamp_of(path: Path) -> str:
    """Changes when the plan is made anew, so that no worker keeps models of an older one."""
    return str(path.stat().st_mtime_ns)
