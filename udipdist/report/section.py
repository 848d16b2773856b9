"""What a page is made of: sections with words, tiles, pictures and tables; and the album that keeps the pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from udipdist.figures.style import STYLE, Chart, Mark, save

DOTS_PER_INCH = 200
PIXELS_OF_AN_INCH = 76  # of a screen, where words of 9 points can still be read


@dataclass(frozen=True)
class Picture:
    """A figure on the page. `chart`: drawn on white, so that a dark page may invert it. `marks` tell more where they
    are pointed at. On a narrow page it is not made narrower than `least` pixels, but scrolls."""

    name: str
    source: str  # data: URI
    caption: str
    alt: str
    chart: bool
    marks: tuple[Mark, ...] = ()
    least: int = 0
    folded: str = ""  # where given, the figure is hidden behind this line


@dataclass(frozen=True)
class Bar:
    """A cell with a bar of `share` (0..1) of its width behind the text."""

    text: str
    share: float


@dataclass(frozen=True)
class Table:
    """Rows of text or Bar cells under `columns`; names of columns that start with '>' are set flush right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    folded: str = ""  # where given, the table is hidden behind this line


@dataclass(frozen=True)
class Heading:
    """The title of what follows in a section."""

    text: str


@dataclass(frozen=True)
class Code:
    """Lines of a program, a log or a configuration, as they stand in their file."""

    text: str
    folded: str = ""  # where given, they are hidden behind this line


@dataclass(frozen=True)
class Tile:
    """One number that matters, with what it is."""

    value: str
    label: str


@dataclass
class Section:
    """One part of the page. `lead` says what one sees and how to read it; `missing` why there is nothing to see yet.

    What was never asked for has no section: the function that would make it gives None.
    """

    id: str
    title: str
    lead: str = ""
    missing: str = ""
    tiles: list[Tile] = field(default_factory=list)
    parts: list[Any] = field(default_factory=list)  # Heading, Picture, Table, Code or text, in order

    def add(self, *parts: Any) -> None:
        """Append pictures, tables or paragraphs."""
        self.parts += parts


class Album:
    """Writes each figure into a folder, as PNG and PDF where it is drawn here, and gives it back for the page."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: list[str] = []

    def add(self, name: str, figure: Figure, caption: str, alt: str, chart: bool = True, folded: str = "") -> Picture:
        """Save `figure` as NAME.png and NAME.pdf (points as pixels, words and lines as vectors)."""
        data, marks = png(figure)
        figure.set_layout_engine("none")  # it is laid out already
        save(figure, self.folder / f"{name}.pdf")
        picture = self.add_png(name, data, caption, alt, chart)
        return replace(picture, marks=marks, least=int(PIXELS_OF_AN_INCH * figure.get_figwidth()), folded=folded)

    def add_png(self, name: str, data: bytes, caption: str, alt: str, chart: bool = False) -> Picture:
        """Keep a picture that is drawn already, the bytes of a PNG file."""
        (self.folder / f"{name}.png").write_bytes(data)
        self.names.append(name)
        source = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
        return Picture(name, source, caption, alt, chart)


def png(figure: Figure, dpi: int = DOTS_PER_INCH) -> tuple[bytes, tuple[Mark, ...]]:
    """The figure as the bytes of a PNG file, and where on it its spots lie."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue(), tuple(figure.marks()) if isinstance(figure, Chart) else ()


def count(value: Any) -> str:
    """'12,345', or a dash for what is not known."""
    return "\u2013" if value is None else f"{value:,}"


def number(value: Any, digits: int = 3) -> str:
    """A number to some significant digits, or a dash for None and NaN."""
    if value is None or value != value:
        return "\u2013"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def fixed(value: Any, decimals: int = 3) -> str:
    """A number to some decimals, or a dash for None and NaN."""
    return "\u2013" if value is None or value != value else f"{value:,.{decimals}f}"


def plural(n: int, singular: str, several: str | None = None) -> str:
    """'1 locus', '2 loci'."""
    return f"{n:,} {singular if n == 1 else several or singular + 's'}"
