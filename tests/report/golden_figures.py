"""Small figures of fixed data, kept in tests/golden/figures; `python tests/report/golden_figures.py` draws them."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from udipdist.figures.style import Chart
from udipdist.report.calibration import Calibration, Curve, exact_curve, few_points, lambda_of
from udipdist.report.figures import heatmap, qq, regional
from udipdist.report.figures.manhattan import Scan, manhattan, miami
from udipdist.report.section import png

FOLDER = Path(__file__).parents[1] / "golden" / "figures"
DPI = 60
TRAITS = [f"z{i:03d}" for i in range(12)]


def noise(n: int, seed: int) -> np.ndarray:
    """-log10 of n uniform numbers, the same on every machine (a linear congruential generator)."""
    x, values = seed, np.empty(n)
    for i in range(n):
        x = (1103515245 * x + 12345) % 2**31
        values[i] = -np.log10((x + 0.5) / 2**31)
    return values


def loci(hits: bool = True) -> pd.DataFrame:
    """Four loci on three chromosomes, one of them far up."""
    table = pd.DataFrame(
        {
            "locus": [1, 2, 3, 4], "code": [1, 1, 2, 23], "start": [9.0e6, 30.0e6, 20.0e6, 4.0e6],
            "end": [11.0e6, 31.0e6, 21.0e6, 5.0e6], "lead_position": [10.0e6, 30.5e6, 20.5e6, 4.5e6],
            "lead_snp": ["rs1", "rs2", "rs3", "rs4"], "log10p": [14.0, 9.0, 25.0, 11.0],
            "trait": ["z001", "z002", "z001", "z003"],
        }
    )  # fmt: skip
    if hits:
        table = table.assign(hit=[1, 0, 0, 1], nearest_panel="rs9", distance=0.0, nearest_gene=["APOE", "", "MAPT", ""])
    return table


def scan(seed: int = 1, several: bool = True, threshold: float = 7.3) -> Scan:
    """3,000 variants with a peak at each locus; of several traits, or of one."""
    code = np.repeat([1, 2, 23], [1500, 1000, 500])
    position = np.concatenate(
        [np.linspace(1, 40e6, 1500), np.linspace(1, 30e6, 1000), np.linspace(1, 9e6, 500)]
    ).astype(int)
    y = noise(3000, seed)
    for row in loci().itertuples():
        near = np.abs(position - row.lead_position) / 4e5 + 1e3 * (code != row.code)
        y = np.maximum(y, row.log10p * np.exp(-(near**2)))
    origin = (lambda rows: [TRAITS[1 + i % 3] for i in rows.tolist()]) if several else None
    planted = pd.DataFrame({"code": [1, 2], "pos": [10_000_000, 5_000_000]})
    return Scan(code, position, y, threshold, loci(several), planted, origin)


def region(known: bool = True, genes: bool = True) -> regional.Region:
    """A hill of 200 variants over five genes."""
    position = np.linspace(1_000_000, 2_000_000, 200).astype(int)
    r2 = np.exp(-(((position - 1_500_000) / 2e5) ** 2))
    table = pd.DataFrame({"position": position, "log10p": 12 * r2 + noise(200, 5), "snp": "rs1", "r2": r2})
    table["r2"] = table["r2"].where((table.index % 17 != 0) & known)
    track = pd.DataFrame(
        {
            "start": [1_010_000, 1_050_000, 1_300_000, 1_700_000, 1_995_000],
            "end": [1_040_000, 1_400_000, 1_500_000, 1_710_000, 2_400_000],
            "gene": ["ABC1", "LONGNAME2", "DEF3", "G4", "EDGE5"], "strand": ["+", "-", "+", "-", "+"],
        }
    )  # fmt: skip
    return regional.Region(
        7, 1_000_000, 2_000_000, table, int(table["log10p"].idxmax()), "ABC1, chromosome 7", 7.3,
        (1_300_000, 1_700_000),
        track if genes else None,
    )  # fmt: skip


def strengths() -> heatmap.Strengths:
    """Four loci, twelve traits, one of them not tested."""
    values = noise(48, 9).reshape(4, 12)
    values[:, 2:6] += np.array([[9.0], [0.0], [22.0], [4.0]])
    values[:, 11] = np.nan
    return heatmap.Strengths(values, loci(), TRAITS, 8.0)


def calibration() -> tuple[dict[str, Curve], Calibration]:
    """Twelve traits, two inflated."""
    values = [noise(2000, 20 + i) * (1.3 if i in (3, 7) else 1.0) for i in range(12)]
    curves = tuple(few_points(exact_curve(v)) for v in values)
    lambdas = np.array([lambda_of(v) for v in values])
    pooled = exact_curve(np.concatenate(values))
    return {"all traits": pooled, "joint test": exact_curve(noise(2000, 50))}, Calibration(
        lambdas, pooled, lambdas * np.nan, None, curves
    )


def _qq_traits() -> Chart:
    result = calibration()[1]
    return qq.qq_traits(TRAITS, result.traits, result.lambda_P, width=7.0)


FIGURES = {
    "manhattan": lambda: manhattan(scan(), null=[2], width=7.0),
    "manhattan_one_trait": lambda: manhattan(scan(several=False), width=7.0),
    "miami": lambda: miami(scan(), scan(2, several=False), ("above", "below"), width=7.0),
    "qq": lambda: qq.qq(*calibration()),
    "qq_one": lambda: qq.qq_one("z003", exact_curve(noise(5000, 3)), 1.012),
    "qq_traits": _qq_traits,
    "regional": lambda: regional.regional(region()),
    "regional_bare": lambda: regional.regional(region(known=False, genes=False)),
    "heatmap": lambda: heatmap.heatmap(strengths(), width=7.0),
}


def picture(figure: Chart) -> bytes:
    """A PNG, its letters (of DejaVu, which comes with matplotlib) by their outlines, not by the hints in which versions
    of FreeType differ."""
    with matplotlib.rc_context({"text.hinting": "none"}):
        return png(figure, DPI)[0]


def drawn(figure: Chart) -> np.ndarray:
    """RGB [height, width, 3] as float."""
    return np.asarray(Image.open(io.BytesIO(picture(figure))).convert("RGB"), float)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.png").write_bytes(picture(draw()))
        print(FOLDER / f"{name}.png")
