"""Figures of an interpretation as files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from udipdist.figures import style

DOTS_PER_INCH = 200


def save(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.pdf."""
    style.save(figure, path.with_name(f"{path.name}.png"), DOTS_PER_INCH, ".png")
    style.save(figure, path.with_name(f"{path.name}.pdf"))
