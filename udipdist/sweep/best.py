"""The best trial of a sweep as commands that repeat it without the sweep."""

from __future__ import annotations

from udipdist.sweep.folder import Look, SweepFolder


def look(sweep: SweepFolder) -> Look | None:
    """The look that is worth most, of the full pass where that has been made; None where none has a score."""
    return sweep.best(sweep.trained("full" if "full" in sweep.passes() else None))


def script(sweep: SweepFolder, best: Look) -> str:
    return ""
