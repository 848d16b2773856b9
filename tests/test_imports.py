"""A verb starts without the libraries that it does not need at once. Modules are counted, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from udipdist.verbs import VERBS

LATE = {
    "captum", "deepspeed", "distributed", "formulaic", "liftover", "msprime", "nilearn", "optuna", "ray", "scipy.stats",
    "sklearn", "tensorboard", "tskit", "xarray",
}  # fmt: skip
NEED_TORCH = ("train", "embed", "interpret attention", "interpret perturb", "interpret saliency", "interpret gallery")
DRAW = (
    "plot", "report", "interpret attention", "interpret perturb", "interpret saliency", "interpret gallery",
    "interpret clusters", "erase", "phewas",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_heavy_libraries_are_imported_late(verb):
    late = LATE | (set() if verb.name in NEED_TORCH else {"torch"}) | (set() if verb.name in DRAW else {"matplotlib"})
    program = f"import sys, {verb.module}\nfound = {late!r} & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
