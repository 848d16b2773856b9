"""What erasing confounders costs: `python -m benchmarks.erasure [--quick]`.

64 latents made of 40 hidden axes and 12 confounders; 8 phenotypes of the hidden axes, half of them correlated with a
confounder. Each method is fitted on one half of the people. In the other half: R2 of the confounder told best, mean R2
of the phenotypes, and the share of the phenotypes' R2 before that stays.

The last line is one JSON object: leace_kept_r2, inlp_kept_r2, residual_kept_r2, leace_confounder_r2.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from benchmarks.tables import rounded, show
from udipdist.analysis.erasure import audit, linear

LATENTS, HIDDEN, CONFOUNDERS, PHENOTYPES = 64, 40, 12, 8


def main() -> None:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer people")
    print(json.dumps(rounded(measure(parser.parse_args().quick))))


def measure(quick: bool) -> dict[str, Any]:
    """Print the table; the numbers of the last line."""
    x_NL, z_NK, y_NY = draw(2000 if quick else 6000)
    fit_N = np.arange(len(x_NL)) % 2 == 0
    erasers: dict[str, linear.Eraser | None] = {
        "as they are": None,
        "residual": linear.residual(x_NL[fit_N], z_NK[fit_N]),
        "LEACE": linear.leace(x_NL[fit_N], z_NK[fit_N]),
        "INLP, as published": linear.inlp(x_NL[fit_N], z_NK[fit_N], 5),
        "INLP, Ravfogel": linear.inlp(x_NL[fit_N], z_NK[fit_N], 5, "ravfogel"),
    }
    held_NL, held_NK, held_NY = x_NL[~fit_N], z_NK[~fit_N], y_NY[~fit_N]
    fold_N = np.arange(len(held_NL)) % 5
    rows = []
    for name, eraser in erasers.items():
        left_NL = held_NL if eraser is None else eraser.apply(held_NL, held_NK)
        rows.append(
            {
                "method": name,
                "dimensions": LATENTS if eraser is None else eraser.dimensions,
                "confounder R2": float(audit.linear_r2(left_NL, held_NK, fold_N).max()),
                "phenotype R2": float(audit.linear_r2(left_NL, held_NY, fold_N).mean()),
                "variance": float(left_NL.var(axis=0).sum() / held_NL.var(axis=0).sum()),
            }
        )
    show(f"{len(x_NL):,} people, half of them to fit; {CONFOUNDERS} confounders, {PHENOTYPES} phenotypes", rows)
    before = rows[0]["phenotype R2"]
    kept = {row["method"]: row["phenotype R2"] / before for row in rows}
    return {
        "leace_kept_r2": kept["LEACE"], "inlp_kept_r2": kept["INLP, as published"],
        "residual_kept_r2": kept["residual"], "leace_confounder_r2": rows[2]["confounder R2"],
    }  # fmt: skip


def draw(people: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents [N, 64], confounders [N, 12], phenotypes [N, 8]."""
    rng = np.random.default_rng(seed)
    z_NK = rng.standard_normal((people, CONFOUNDERS))
    hidden_NH = rng.standard_normal((people, HIDDEN))
    hidden_NH[:, : PHENOTYPES // 2] += 0.5 * z_NK[:, : PHENOTYPES // 2]
    x_NL = hidden_NH * np.geomspace(1, 0.3, HIDDEN) @ rng.standard_normal((HIDDEN, LATENTS))
    x_NL += z_NK @ rng.standard_normal((CONFOUNDERS, LATENTS)) + 0.5 * rng.standard_normal((people, LATENTS))
    return x_NL, z_NK, hidden_NH[:, :PHENOTYPES] + 0.3 * rng.standard_normal((people, PHENOTYPES))


if __name__ == "__main__":
    main()
