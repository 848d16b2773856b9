"""From brain MRI volumes and genotypes to genomic risk loci, without labels.

`import udipdist as ud` is the Python interface: a function for every verb (`ud.gwas(...)`), `ud.open_volumes`,
`ud.open_run`, `ud.open_sumstats` and `ud.example`. They stand in udipdist.notebook, which is imported when one of them
is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import udipdist._working_folder  # noqa: F401

# isort: split
from hpc import __version__

INTERFACE = (
    "compare", "demo", "embed", "erase", "example", "export", "grm", "gwas", "gwas_finish", "gwas_part", "gwas_plan",
    "ingest", "inspect", "interpret_attention", "interpret_clusters", "interpret_gallery", "interpret_perturb",
    "interpret_saliency", "loci", "open_run", "open_sumstats", "open_volumes", "panel", "phewas", "plot", "probe",
    "report", "run", "simulate", "sweep", "sweep_demo", "train", "volumes",
)  # fmt: skip
__all__ = ["__version__", *INTERFACE]
_ALSO_MODULES = ("compare", "demo", "gwas", "loci", "report", "sweep", "volumes")


def _function(name: str) -> Any:
    return getattr(importlib.import_module("udipdist.notebook"), name)


class _Verb(ModuleType):
    """A module whose name is that of a verb, too: udipdist.gwas holds modules, and udipdist.gwas(...) runs the verb."""

    def __call__(self, *args: Any, **keys: Any) -> Any:
        return _function(self.__name__.rpartition(".")[2])(*args, **keys)

    @property
    def __signature__(self) -> Any:
        return importlib.import_module("inspect").signature(_function(self.__name__.rpartition(".")[2]))


class _Package(ModuleType):
    """This package. What is imported of it becomes its attribute; a verb's module is made callable then."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ALSO_MODULES and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _ALSO_MODULES:
            return importlib.import_module(f"{self.__name__}.{name}")
        if name in INTERFACE:
            return _function(name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *INTERFACE})


sys.modules[__name__].__class__ = _Package
