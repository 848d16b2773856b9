"""Tables of measurements as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same keys under a title."""
    names = list(rows[0])
    cells = [names] + [[_text(row[name]) for name in names] for row in rows]
    wide = [max(len(line[i]) for line in cells) for i in range(len(names))]
    print(f"\n{title}")
    for line in cells:
        first = line[0].ljust(wide[0])
        print("  ".join([first, *(cell.rjust(w) for cell, w in zip(line[1:], wide[1:], strict=True))]).rstrip())
    print(flush=True)


def show_one(title: str, row: Mapping[str, Any]) -> None:
    """Print one row as a column."""
    show(title, [{"": name, " ": value} for name, value in row.items()])


def rounded(value: Any) -> Any:
    """The same with four significant digits, for JSON."""
    if isinstance(value, Mapping):
        return {name: rounded(v) for name, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
