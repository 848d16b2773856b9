"""A locus in words: its name on figures, and its tooltip.

A locus is a row of a table with lead_snp, lead_position, code, log10p and, where they are known, trait, nearest_gene,
distance_to_gene, hit (1: in the panel), nearest_panel and distance (base pairs to it).
"""

from __future__ import annotations

from typing import Any

from udipdist.genome import assemblies
from udipdist.sumstats.pvalues import p_text


def title(row: Any) -> str:
    """The nearest gene where it is known, otherwise the lead SNP."""
    return str(getattr(row, "nearest_gene", "") or row.lead_snp)


def distance(base_pairs: float) -> str:
    """'12 kb', '1.2 Mb'."""
    return f"{base_pairs / 1e6:,.1f} Mb" if base_pairs >= 1e6 else f"{base_pairs / 1000:,.0f} kb"


def near(row: Any) -> str:
    """How a locus compares with the panel."""
    if row.hit:
        return f"hit: {row.nearest_panel}" + (f", {distance(row.distance)}" if row.distance > 0 else "")
    return f"{distance(row.distance)} to {row.nearest_panel}" if row.nearest_panel else "none on this chromosome"


def lines(row: Any) -> tuple[str, ...]:
    """Lines of the tooltip: name, place, p, trait, panel and nearest gene, as far as they are known."""
    place = f"chr{assemblies.label(row.code)}:{int(row.lead_position):,}"
    told = [title(row), place if title(row) == row.lead_snp else f"{row.lead_snp}, {place}"]
    told.append(f"p = {p_text([row.log10p])[0]}")
    if getattr(row, "trait", ""):
        told.append(f"trait {row.trait}")
    if hasattr(row, "hit"):
        told.append(f"panel: {near(row)}")
    if getattr(row, "nearest_gene", ""):
        away = getattr(row, "distance_to_gene", None)
        far = "" if away is None or away != away else " (inside)" if away == 0 else f" ({distance(abs(away))})"
        told.append(f"nearest gene {row.nearest_gene}{far}")
    return tuple(told)
